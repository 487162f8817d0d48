"""What the command line prints: tables and progress. Imports nothing heavy before it is called."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from semi_med.data.splits import Split
    from semi_med.data.validation import CaseVerdict, Findings
    from semi_med.errors import SemiMedError
    from semi_med.inference.batch_files import CaseRow
    from semi_med.inference.dicom import SeriesFound
    from semi_med.metrics.confidence import Ranking
    from semi_med.planning.init import Planned

_ERASE = "\r\033[K"  # what stands on the line of a terminal
_WIDTH = 160  # characters, where there is no terminal
_METRIC_NAMES = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "hd95_mm": "HD95 [mm]",
    "asd_mm": "ASD [mm]",
    "assd_mm": "ASSD [mm]",
    "hd95_voxel": "HD95 [voxels]",
    "asd_voxel": "ASD [voxels]",
    "assd_voxel": "ASSD [voxels]",
}


def counter(what: str) -> Callable[[int, int], None]:
    """A function of (done, all) that keeps one line of a terminal up to date, or writes ten lines to a log."""
    started = time.monotonic()

    def show(done: int, total: int) -> None:
        text = f"{what} {done}/{total}, {_left(started, done, total)} left"
        if sys.stderr.isatty():
            print(f"{_ERASE}{text}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done == total or done * 10 // total > (done - 1) * 10 // total:
            print(text, file=sys.stderr, flush=True)

    return show


def case_line() -> Callable[[CaseRow, int, int], None]:
    """A function of (row, done, all) that writes one line for each predicted case, and its warnings.

    What is so of all pictures is said once. The time left follows from the cases that took some: those that had been
    done before and those that failed take none.
    """
    last, spent, worked, said = time.monotonic(), 0.0, 0, set[str]()

    def show(row: CaseRow, done: int, total: int) -> None:
        nonlocal last, spent, worked
        now = time.monotonic()
        if row["status"] == "done" and not row.get("skipped"):
            spent, worked = spent + now - last, worked + 1
        last = now
        if row["status"] == "done":
            sizes = {name: f"{millilitres:.1f} ml" for name, millilitres in row["volumes_ml"].items()}
            # a picture has no size in mm
            found = ", ".join(f"{name} {sizes.get(name, f'{pixels} pixels')}" for name, pixels in row["voxels"].items())
        else:
            found = f"FAILED: {row['error']}"
        cost = "done before" if row.get("skipped") else f"{row['seconds']:.1f} s"
        left = f", {clock(spent / worked * (total - done))} left" if worked else ""
        text = f"[{done}/{total}] {row['case']}: {found} ({cost}{left})"
        print(f"{_ERASE if sys.stderr.isatty() else ''}{text}", file=sys.stderr, flush=True)
        for warning in row["warnings"]:
            if warning.startswith("PICTURE") and warning in said:
                continue
            said.add(warning)
            print(f"    warning: {warning}", file=sys.stderr, flush=True)

    return show


def window_line() -> Callable[[str, int, int], None] | None:
    """A function of (case, done, all) that keeps the last line of a terminal up to date; a log gets none."""
    if not sys.stderr.isatty():
        return None
    started: dict[str, float] = {}

    def show(case: str, done: int, total: int) -> None:
        clock = started.setdefault(case, time.monotonic())
        text = f"{case}: window {done}/{total}, {_left(clock, done, total)} left"
        print(f"{_ERASE}{text}", end="", file=sys.stderr, flush=True)

    return show


def stopped_line(advice: str) -> str:
    """What Ctrl-C is answered with, in the place of what stands on the line of a terminal."""
    return f"{_ERASE if sys.stderr.isatty() else ''}stopped; {advice}"


def _left(started: float, done: int, total: int) -> str:
    return clock((time.monotonic() - started) / max(done, 1) * (total - done))


def clock(seconds: float) -> str:
    """Seconds as `h:mm:ss`."""
    return str(timedelta(seconds=round(seconds)))


def findings_json(findings: Findings) -> str:
    """What a validation found, for machines."""
    content = {
        "problems": [_problem(problem) for problem in findings.problems],
        "notes": findings.notes,
        "cases": findings.cases,
        "verdicts": [_verdict(verdict) for verdict in findings.verdicts],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _problem(problem: SemiMedError) -> dict[str, Any]:
    where = None if problem.where is None else str(problem.where)
    return {"code": problem.code, "where": where, "problem": problem.problem, "fix": problem.fix}


def _verdict(verdict: CaseVerdict) -> dict[str, Any]:
    return {
        "section": verdict.section or None,
        "case": verdict.case,
        "verdict": verdict.verdict,
        "images": list(verdict.images),
        "label": verdict.label,
        "codes": list(dict.fromkeys(error.code for error in verdict.errors)),
        "warnings": list(verdict.warnings),
        "files": {file: asdict(facts) for file, facts in verdict.facts.items()},
    }


def findings_table(findings: Findings) -> str:
    """What a validation found, for people."""
    from rich.table import Table

    from semi_med.data.overview import overview

    lines = []
    if findings.problems:
        table = Table(show_lines=True)
        for column in ("code", "where", "problem", "next step"):
            table.add_column(column, overflow="fold")  # a path is never cut off
        for problem in findings.problems:
            table.add_row(*(_cell(x) for x in (problem.code, problem.where, problem.problem, problem.fix)))
        lines.append(_text(table))
    lines += [f"note: {note}" for note in findings.notes]
    lines += overview(findings.verdicts)
    read = ", ".join(f"{count} {section}" for section, count in findings.cases.items())
    count = len(findings.problems)
    lines.append(f"{count or 'no'} problem{'' if count == 1 else 's'}; cases read: {read or 'none'}")
    return "\n".join(lines)


def series_json(found: SeriesFound) -> str:
    """The DICOM series of a folder, for machines."""
    content = {
        "series": [asdict(one) for one in found.series],
        "ignored": dict(found.ignored),
        "problems": [{"code": p.code, "problem": p.problem, "fix": p.fix} for p in found.problems],
    }
    return json.dumps(content, indent=2)


def series_table(found: SeriesFound) -> str:
    """The DICOM series of a folder, for people."""
    from rich.table import Table

    table = Table("series", "modality", "slices", "size", "spacing [mm]", "part", "problem", "hash of the UID")
    for one in found.series:
        spacing = " x ".join(f"{step:.3f}" for step in one.spacing) if one.spacing else "-"
        numbers = (one.index, one.modality, one.slices, f"{one.size[0]} x {one.size[1]}", spacing)
        table.add_row(*(_cell(value) for value in (*numbers, one.part, one.problem, one.uid_hash)))
    lines = [_text(table)] if found.series else ["no CT, MR or PET series"]
    if found.ignored:
        lines.append("not read: " + ", ".join(f"{count} {kind}" for kind, count in sorted(found.ignored.items())))
    lines += [f"problem: {problem.code}: {problem}" for problem in found.problems]
    return "\n".join(lines)


def split_table(drawn: Split) -> str:
    """Subjects and cases of each section of a split, and of each stratum."""
    from rich.table import Table

    strata = sorted({name for tally in drawn.strata.values() for name in tally})
    strata = strata if len(strata) > 1 else []
    table = Table("section", "subjects", "cases", *(_cell(name or "-") for name in strata))
    for section, cases in drawn.sections.items():
        numbers = (drawn.subjects[section], len(cases), *(drawn.strata[section].get(name, 0) for name in strata))
        table.add_row(section, *map(str, numbers))
    return _text(table)


def summary_table(summary: Sequence[Mapping[str, Any]]) -> str:
    """Mean, SD and interval of each class and metric over cases."""
    from rich.table import Table

    table = Table("class", "metric", "cases", "mean", "SD", "95 % interval", "undefined")
    pictures = all(row["metric"] != "hd95_mm" for row in summary)
    for row in summary:
        digits = 4 if row["metric"] in ("dice", "jaccard") else 2
        mean, sd, low, high = (_number(row[name], digits) for name in ("mean", "sd", "low", "high"))
        interval = f"{low} to {high}" if low != "-" else "-"
        name = _METRIC_NAMES.get(row["metric"], row["metric"])
        name = _cell(name.replace("voxels", "pixels") if pictures else name)
        table.add_row(_cell(row["class_name"]), name, str(row["cases"]), mean, sd, interval, str(row["n_undefined"]))
    notes = dict.fromkeys(row["note"] for row in summary if row["note"])
    return "\n".join([_text(table), *(f"note: {note}" for note in notes)])


def iou_table(iou: Mapping[str, float]) -> str:
    """IoU of each class over the pixels of all cases together."""
    from rich.table import Table

    table = Table("class", "IoU over all pixels")
    for name, value in iou.items():
        table.add_row(_cell(name), _number(value, 4))
    return _text(table)


def ranking_table(rankings: Sequence[Ranking]) -> str:
    """How a score of confidence goes with Dice."""
    from rich.table import Table

    table = Table(
        *("structure", "cases", "Spearman", "95 % interval", "AURC", "of no order", "of Dice's order"),
        *("expected Dice off by", "score itself off by"),
    )
    for one in rankings:
        numbers = (one.aurc, one.aurc_random, one.aurc_best, one.error, one.error_raw)
        interval = f"{_number(one.low, 2)} to {_number(one.high, 2)}"
        cells = (
            one.structure,
            one.cases,
            _number(one.spearman, 2),
            interval,
            *(_number(value, 4) for value in numbers),
        )
        table.add_row(*(_cell(value) for value in cells))
    return _text(table)


def plan_tables(planned: Planned) -> str:
    """What `semi-med init` found and decided, for people."""
    from rich.table import Table

    from semi_med.planning import words

    facts = Table("the data", "", title=f"Fingerprint of {planned.request.images}", title_justify="left")
    for row in words.fingerprint_rows(planned.found):
        facts.add_row(*map(_cell, row))
    choices = Table("choice", "value", "reason", "otherwise with", title="Plan", title_justify="left")
    for choice in words.plan_rows(planned.plan):
        choices.add_row(*map(_cell, choice))
    notes = [f"note: {note}" for note in planned.found.notes]
    return "\n".join([_text(facts), *notes, "", _text(choices), *words.cost(planned.plan, planned.machine)])


def plan_json(planned: Planned) -> str:
    """The same for machines."""
    return json.dumps(planned.as_json(), indent=2, ensure_ascii=False)


def next_commands(folder: Path, planned: Planned) -> list[str]:
    """What to type after `semi-med init`."""
    bundle = shlex.quote(str(folder))
    task = bundle if "/" in bundle else f"./{bundle}"  # a bare word is the name of a recipe
    # a training takes a GPU by itself
    device = planned.request.device
    lines = ["", "next:", f"  semi-med train {bundle}{f' --set device={device}' if device else ''}"]
    lines.append(f"  semi-med predict {bundle} FOLDER_OF_NEW_SCANS -o masks")
    lines.append("  semi-med evaluate masks FOLDER_OF_THEIR_LABELS -o table.csv")
    if planned.data_list.test:
        method, number = planned.request.method, min(4, planned.data_list.counts()["labeled"])
        lines.append(f"  semi-med compare --task {task} --methods {method} --labeled {number} --seeds 3 -o compare")
    return lines


def breakdown_table(breakdown: Sequence[Mapping[str, Any]]) -> str:
    """Dice and HD95 of classes and regions, by case and by volume, of all cases and of each group."""
    from rich.table import Table

    lines: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for row in breakdown:
        key = (row["unit"], row["group"], row["kind"], row["class_name"], str(row["class"]))
        lines.setdefault(key, {})[row["metric"]] = row
    table = Table("per", "group", "structure", "classes", "n", "Dice", "SD", "95 % interval", "undefined", "HD95")
    for (unit, group, _, name, value), metrics in lines.items():
        dice = metrics["dice"]
        mean, sd, low, high = (_number(dice[key], 4) for key in ("mean", "sd", "low", "high"))
        table.add_row(
            *(_cell(text) for text in (unit, group, name, value, str(dice["cases"]), mean, sd)),
            f"{low} to {high}" if low != "-" else "-",
            str(dice["n_undefined"]),
            _distance(metrics),
        )
    return _text(table)


def _distance(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    for metric, unit in (("hd95_mm", "mm"), ("hd95_voxel", "pixels")):
        if metric in metrics:
            return f"{_number(metrics[metric]['mean'], 2)} {unit}"
    return "-"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value == value else "-"


def _cell(value: Any) -> str:
    from rich.markup import escape

    return escape("" if value is None else str(value))


def _text(table: Table) -> str:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")
