"""What the command line prints: tables and progress. Imports nothing heavy before it is called."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from semi_med.data.validation import Findings
    from semi_med.inference.batch_files import CaseRow

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
            print(f"\r\033[K{text}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done == total or done * 10 // total > (done - 1) * 10 // total:
            print(text, file=sys.stderr, flush=True)

    return show


def case_line() -> Callable[[CaseRow, int, int], None]:
    """A function of (row, done, all) that writes one line for each predicted case."""
    started = time.monotonic()

    def show(row: CaseRow, done: int, total: int) -> None:
        if row["status"] == "done":
            found = ", ".join(f"{name} {millilitres:.1f} ml" for name, millilitres in row["volumes_ml"].items())
        else:
            found = f"FAILED: {row['error']}"
        left = _left(started, done, total)
        text = f"[{done}/{total}] {row['case']}: {found} ({row['seconds']:.1f} s, {left} left)"
        print(text, file=sys.stderr, flush=True)
        for warning in row["warnings"]:
            print(f"    warning: {warning}", file=sys.stderr, flush=True)

    return show


def _left(started: float, done: int, total: int) -> str:
    return clock((time.monotonic() - started) / max(done, 1) * (total - done))


def clock(seconds: float) -> str:
    """Seconds as `h:mm:ss`."""
    return str(timedelta(seconds=round(seconds)))


def findings_json(findings: Findings) -> str:
    """What a validation found, for machines."""
    content = {
        "problems": [
            {"code": p.code, "where": None if p.where is None else str(p.where), "problem": p.problem, "fix": p.fix}
            for p in findings.problems
        ],
        "notes": findings.notes,
        "cases": findings.cases,
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def findings_table(findings: Findings) -> str:
    """What a validation found, for people."""
    from rich.table import Table

    lines = []
    if findings.problems:
        table = Table(show_lines=True)
        for column in ("code", "where", "problem", "next step"):
            table.add_column(column, overflow="fold")  # a path is never cut off
        for problem in findings.problems:
            table.add_row(*(_cell(x) for x in (problem.code, problem.where, problem.problem, problem.fix)))
        lines.append(_text(table))
    lines += [f"note: {note}" for note in findings.notes]
    read = ", ".join(f"{count} {section}" for section, count in findings.cases.items())
    count = len(findings.problems)
    lines.append(f"{count or 'no'} problem{'' if count == 1 else 's'}; cases read: {read or 'none'}")
    return "\n".join(lines)


def summary_table(summary: Sequence[Mapping[str, Any]]) -> str:
    """Mean, SD and interval of each class and metric over cases."""
    from rich.table import Table

    table = Table("class", "metric", "cases", "mean", "SD", "95 % interval", "undefined")
    for row in summary:
        digits = 4 if row["metric"] in ("dice", "jaccard") else 2
        mean, sd, low, high = (_number(row[name], digits) for name in ("mean", "sd", "low", "high"))
        interval = f"{low} to {high}" if low != "-" else "-"
        name = _cell(_METRIC_NAMES.get(row["metric"], row["metric"]))
        table.add_row(_cell(row["class_name"]), name, str(row["cases"]), mean, sd, interval, str(row["n_undefined"]))
    notes = dict.fromkeys(row["note"] for row in summary if row["note"])
    return "\n".join([_text(table), *(f"note: {note}" for note in notes)])


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
