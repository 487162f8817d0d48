"""One HTML file that answers a question about runs: verdict, tables, curves, worst cases, settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from semi_med.errors import InputError, SemiMedError
from semi_med.files import write_atomically
from semi_med.metrics.case import Row
from semi_med.metrics.table import OVERALL, case_means, paired_difference, summarize
from semi_med.report import figures
from semi_med.report.logs import read_log
from semi_med.report.overlay import PREDICTION_COLOURS, load_drawing, overlay_figure
from semi_med.report.records import flattened
from semi_med.report.verdict import Verdict, interval, judge, number, signed
from semi_med.report.views import CaseView, RunView
from semi_med.runtime import versions


def write_run_report(
    path: Path,
    *,
    title: str,
    runs: Sequence[RunView],
    cases: Sequence[CaseView],
    notes: Sequence[str] = (),
    most_overlays: int = 4,
) -> Path:
    """Write the report of one or more runs as one self-contained HTML file.

    Args:
        path: of the page; replaced whole.
        title: heading of the page.
        runs: the first is judged against the second, its baseline (usually: trained on labelled scans only); more
            runs are listed with their difference to the same baseline.
        cases: those that may be drawn; the worst, the median, the best and the one on which the first two runs
            differ most are chosen by the Dice of the first run.
        notes: sentences shown below the verdict, for example warnings.
        most_overlays: number of cases drawn at most.

    Returns:
        The path written.

    Raises:
        InputError: no run, two runs of one name, a run without a row, or the file cannot be written. A log or a scan
            that cannot be read is named on the page instead.
    """
    _check(runs, path)
    baseline = runs[1] if len(runs) > 1 else None
    verdict = judge(runs[0], baseline)
    environment = Environment(loader=PackageLoader("semi_med", "report"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("run_report.html").render(
        title=title,
        verdict=verdict,
        ruler=_ruler(verdict),
        notes=list(notes),
        summary=_summary_rows(runs, baseline),
        several_classes=_several_classes(runs),
        bars=_difference_bars(runs, verdict),
        curves=_curves(runs),
        run_names=[run.name for run in runs],
        letters=_letters(runs),
        cases=_case_rows(runs),
        overlays=_overlays(runs, cases, most=most_overlays),
        settings=_settings(runs),
        versions=list(versions().items()),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_atomically(path, page)
    return Path(path)


def choose_cases(runs: Sequence[RunView], cases: Sequence[CaseView], *, most: int = 4) -> list[tuple[str, CaseView]]:
    """Choose what to draw: worst, median, best and most different, with the reason; each case once.

    An undefined Dice (a case that failed altogether) counts as the worst there is.
    """
    means = case_means(runs[0].table)
    views = {view.case: view for view in cases if view.case in means}
    ranked = sorted(views, key=lambda case: (not math.isnan(means[case]), means[case], case))
    if not ranked:
        return []
    wanted = [("Worst", ranked[0]), ("Median", ranked[(len(ranked) - 1) // 2]), ("Best", ranked[-1])]
    if len(runs) > 1:
        other = case_means(runs[1].table)
        apart = {case: abs(means[case] - other.get(case, math.nan)) for case in ranked}
        furthest = max(ranked, key=lambda case: -1.0 if math.isnan(apart[case]) else apart[case])
        wanted.insert(1, ("Largest difference between the first two runs", furthest))
    reasons: dict[str, str] = {}
    for reason, case in sorted(wanted, key=lambda item: item[0].startswith("Largest")):
        reasons[case] = f"{reasons[case]}; {reason.lower()}" if case in reasons else reason
    order = [case for case in ranked if case in reasons]
    return [(reasons[case], views[case]) for case in order[: max(most, 0)]]


def _check(runs: Sequence[RunView], path: Path) -> None:
    names = [run.name for run in runs]
    if not runs or len(set(names)) != len(names):
        raise InputError(f"wanted one or more runs of different names, got {names}", where=path, fix="Rename them")
    for run in runs:
        if not run.table:
            raise InputError("has no row of metrics", where=run.name, fix="Evaluate it first")


def _letters(runs: Sequence[RunView]) -> list[str]:
    """Short names for column heads: A, B, ... Z, then R27 and so on."""
    return [chr(ord("A") + place) if place < 26 else f"R{place + 1}" for place in range(len(runs))]


def _several_classes(runs: Sequence[RunView]) -> bool:
    return len({row["class"] for run in runs for row in run.table}) > 1


def _summary_rows(runs: Sequence[RunView], baseline: RunView | None) -> list[dict[str, Any]]:
    found = []
    for number_, run in enumerate(runs):
        lines: dict[str, dict[str, Row]] = {}
        for line in summarize(run.table):
            lines.setdefault(line["class_name"], {})[line["metric"]] = line
        ordered = sorted(lines, key=lambda name: name != OVERALL)
        for place, name in enumerate(ordered):
            dice, hd95, asd = (lines[name][metric] for metric in ("dice", "hd95_mm", "asd_mm"))
            found.append(
                {
                    "run": run.name if place == 0 else "",
                    "letter": _letters(runs)[number_],
                    "first": place == 0,
                    "colour": figures.colour_of(number_),
                    "class_name": name,
                    "dice": number(dice["mean"]),
                    "sd": number(dice["sd"]),
                    "interval": interval(dice["low"], dice["high"]),
                    "note": dice["note"],
                    "median": number(dice["median"]),
                    "hd95": number(hd95["mean"], 1),
                    "asd": number(asd["mean"], 2),
                    "cases": dice["cases"],
                    "undefined": f"{dice['n_undefined']} / {hd95['n_undefined']}",
                    "failed": bool(dice["n_undefined"] or hd95["n_undefined"]),
                    "difference": _difference_to(run, baseline) if place == 0 else ("", ""),
                    "minutes": number(run.minutes, 1 if run.minutes < 100 else 0) if place == 0 else "",
                }
            )
    return found


def _difference_to(run: RunView, baseline: RunView | None) -> tuple[str, str]:
    """Difference of Dice to the baseline, and its interval."""
    if baseline is None:
        return "–", ""
    if run is baseline:
        return "baseline", ""
    try:
        found = paired_difference(run.table, baseline.table)
    except InputError:
        return "other cases", ""
    return signed(found.mean), interval(found.low, found.high, sign=True)


def _ruler(verdict: Verdict) -> dict[str, float] | None:
    """Places (0 to 100) of zero, mean and interval on the line below the verdict."""
    found = verdict.difference
    if found is None or not (math.isfinite(found.low) and math.isfinite(found.high)):
        return None
    reach = max(abs(found.low), abs(found.high), abs(found.mean), 1e-3) * 1.25
    return {name: 50 + 50 * getattr(found, name) / reach for name in ("low", "mean", "high")}


def _difference_bars(runs: Sequence[RunView], verdict: Verdict) -> str | None:
    if verdict.difference is None:
        return None
    return _uri(
        figures.difference_figure(verdict.difference.by_case, better=runs[0].name, worse=runs[1].name),
    )


def _curves(runs: Sequence[RunView]) -> dict[str, Any]:
    train, validation = (
        {run.name: read_log(Path(run.folder) / "logs" / file) for run in runs}
        for file in ("train.csv", "validation.csv")
    )
    missing = [
        f"{run.name}: {file}"
        for file, logs in (("train.csv", train), ("validation.csv", validation))
        for run in runs
        if not logs[run.name]
    ]
    return {
        "loss": _uri(figures.loss_figure(train)),
        "validation": _uri(figures.validation_figure(validation)),
        "health": _uri(figures.health_figure(train)),
        "missing": missing,
    }


def _case_rows(runs: Sequence[RunView]) -> list[dict[str, Any]]:
    """One line for each case and class, the worst of the first run on top."""
    tables = [{(row["case"], row["class"]): row for row in run.table} for run in runs]
    keys = list(dict.fromkeys(key for table in tables for key in table))

    def badness(key: tuple[str, int]) -> tuple[bool, float, str, int]:
        dice = float(tables[0][key]["dice"]) if key in tables[0] else math.nan
        return (not math.isnan(dice), dice if not math.isnan(dice) else 0.0, *key)

    lines = []
    for key in sorted(keys, key=badness):
        found = [table.get(key) for table in tables]
        known = next(row for row in found if row is not None)
        dice = [float(row["dice"]) if row else math.nan for row in found]
        statuses = [
            f"{letter}: {row['status'] if row else 'not measured'}"
            for letter, row in zip(_letters(runs), found, strict=True)
            if row is None or row["status"] != "ok"
        ]
        lines.append(
            {
                "case": key[0],
                "class_name": known["class_name"],
                "dice": [number(value) for value in dice],
                "difference": signed(dice[0] - dice[1]) if len(dice) > 1 else "",
                "hd95": [number(float(row["hd95_mm"]), 1) if row else "–" for row in found],
                "prediction_ml": [number(float(row["prediction_ml"]), 1) if row else "–" for row in found],
                "label_ml": number(float(known["label_ml"]), 1),
                "status": "; ".join(statuses) or "ok",
            }
        )
    return lines


def _overlays(runs: Sequence[RunView], cases: Sequence[CaseView], *, most: int) -> list[dict[str, str]]:
    means = {run.name: case_means(run.table) for run in runs}
    colours = {run.name: figures.colour_of(place, PREDICTION_COLOURS) for place, run in enumerate(runs)}
    found = []
    for reason, view in choose_cases(runs, cases, most=most):
        dice = {name: number(values.get(view.case, math.nan)) for name, values in means.items()}
        picture, problem = None, ""
        try:
            drawing = load_drawing(view, runs=[run.name for run in runs])
            captions = {
                name: f"{figures.short(name, 34)}\nDice {dice[name]}" + ("" if array.any() else " (empty prediction)")
                for name, array in drawing.predictions.items()
            }
            picture = figures.data_uri(
                overlay_figure(drawing, captions=captions, colours=colours), dpi=135, facecolor="#101010"
            )
        except SemiMedError as error:
            problem = str(error)
        words = ", ".join(f"{name} Dice {value}" for name, value in dice.items())
        found.append({"case": view.case, "reason": reason, "picture": picture or "", "problem": problem, "dice": words})
    return found


def _settings(runs: Sequence[RunView]) -> list[dict[str, Any]]:
    flat = [dict(flattened(run.settings)) for run in runs]
    names = list(dict.fromkeys(name for settings in flat for name in settings))
    lines = []
    for name in names:
        values = [settings.get(name, "–") for settings in flat]
        lines.append({"name": name, "settings": values, "differs": len(set(values)) > 1})
    return lines


def _uri(figure: Figure | None) -> str | None:
    return None if figure is None else figures.data_uri(figure)
