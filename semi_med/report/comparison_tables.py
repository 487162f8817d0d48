"""Tables of a comparison as the page shows them: methods, classes, cases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from semi_med.metrics.case import Row
from semi_med.metrics.comparison import TIE_DICE
from semi_med.report.comparison_data import Analysis, Entry
from semi_med.report.comparison_style import Look, looks
from semi_med.report.comparison_words import percent, points, seed_words, span
from semi_med.report.verdict import number

_SHADES = (TIE_DICE, 0.02, 0.05)  # differences at which a cell gets a deeper colour


def method_rows(found: Analysis) -> list[dict[str, Any]]:
    """One line for each method and number of labels, all labels last; methods without a finished run are named."""
    styles = looks({**found.view.method_names, **found.names}, baseline=found.view.baseline)
    lines = []
    for labeled in (*found.counts, *((None,) if any(key[1] is None for key in found.entries) else ())):
        wanted = {**found.view.method_names, **found.names} if labeled is not None else found.names
        known = {entry.method: entry for entry in found.at(labeled)}
        methods = [method for method in wanted if labeled is not None or method in known]
        for place, method in enumerate(methods):
            line = {"labels": found.labels(labeled), "first": place == 0, "look": styles[method], "lines": len(methods)}
            line["brief"] = found.brief[method]
            lines.append(line | _method_line(known.get(method), wanted[method], baseline=found.view.baseline))
    return lines


def class_tables(found: Analysis) -> list[dict[str, Any]]:
    """A table for each number of labels: classes in rows, the baseline's worst first; methods in columns."""
    tables = []
    for labeled in (*found.counts, None):
        entries = found.at(labeled)
        if not entries:
            continue
        cells = [_by_class(entry, distance=found.distance[0]) for entry in entries]
        first = next(
            (cell for cell, e in zip(cells, entries, strict=True) if e.method == found.view.baseline), cells[0]
        )
        order = sorted(
            {key: None for cell in cells for key in cell}, key=lambda key: _undefined_first(_dice(first, key))
        )
        rows = [
            {"class_name": name, "cells": [cell.get((value, name), _NOTHING) for cell in cells]}
            for value, name in order
        ]
        tables.append({"labels": found.labels(labeled), "heads": _heads(found, entries), "rows": rows})
    return tables


def case_tables(found: Analysis) -> list[dict[str, Any]]:
    """A table for each number of labels: cases in rows, the worst over all methods first; methods in columns."""
    tables = []
    for labeled in found.counts:
        entries = [entry for entry in found.at(labeled) if entry.mean is not None]
        if not entries:
            continue
        cases = sorted({row["case"] for entry in entries for run in entry.runs for row in run.table})
        dice = {case: [_value(entry, case) for entry in entries] for case in cases}
        order = sorted(cases, key=lambda case: (not any(map(math.isnan, dice[case])), _average(dice[case])))
        undefined = [_undefined_by_case(entry) for entry in entries]
        rows = [
            {
                "case": case,
                "subject": found.view.subjects.get(case, case),
                "cells": _case_cells(case, entries, dice[case], undefined, baseline=found.view.baseline),
                "apart": points(_range(dice[case])),
                "apart_sort": _sortable(_range(dice[case])),
                "remark": _remarks(case, entries),
            }
            for case in order
        ]
        table = {"labels": found.labels(labeled), "heads": _heads(found, entries), "rows": rows}
        tables.append(table | {"remarks": any(row["remark"] for row in rows)})
    return tables


def _method_line(entry: Entry | None, name: str, *, baseline: str) -> dict[str, Any]:
    line: dict[str, Any] = dict.fromkeys(("mean", "difference", "wins", "share", "minutes"), "–")
    line |= dict.fromkeys(("interval", "difference_interval", "share_interval"), "")
    line |= {"name": name, "word": "no finished run", "note": "", "seeds": "–", "seed_means": "", "by_seed": ""}
    if entry is None:
        return line
    line |= {
        "seeds": f"{len(entry.runs)} run{'s' if len(entry.runs) != 1 else ''}",
        "word": entry.problem or ("baseline" if entry.method == baseline else "–"),
    }
    line |= {"minutes": number(entry.minutes, 1 if entry.minutes < 10 else 0)}
    if entry.mean is not None:
        line |= {"mean": points(entry.mean.mean), "interval": span(entry.mean.low, entry.mean.high)}
        line["seed_means"] = ", ".join(f"seed {seed}: {points(value)}" for seed, value in entry.mean.by_seed.items())
        line["note"] = f"{entry.mean.n_undefined} undefined" if entry.mean.n_undefined else ""
    if entry.difference is not None:
        found = entry.difference
        line |= {
            "difference": points(found.mean, sign=True),
            "difference_interval": span(found.low, found.high, sign=True),
            "wins": f"{found.wins} / {found.ties} / {found.losses}",
            "by_seed": seed_words(found.by_seed),
            "seeds": f"{found.seeds_better} of {found.n_seeds}",
            "word": entry.verdict.word if entry.verdict else "no value in both",
        }
    if entry.share is not None:
        line["share"] = percent(entry.share.share)
        ends = f"{percent(entry.share.low, unit='')} to {percent(entry.share.high)}"
        line["share_interval"] = entry.share.note if math.isnan(entry.share.low) else ends
    return line


def _heads(found: Analysis, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    styles: Mapping[str, Look] = looks(found.names, baseline=found.view.baseline)
    return [{"name": found.brief[entry.method], "look": styles[entry.method]} for entry in entries]


_NOTHING = {"dice": "–", "hd95": "–", "undefined": "", "mean": math.nan}


def _by_class(entry: Entry, *, distance: str) -> dict[tuple[int, str], dict[str, Any]]:
    """Mean Dice and HD95 over seeds and cases of each class, and how many values there are not."""
    rows: dict[tuple[int, str], list[Row]] = {}
    for run in entry.runs:
        for row in run.table:
            rows.setdefault((row["class"], row["class_name"]), []).append(row)
    found = {}
    for key, members in sorted(rows.items()):
        dice, hd95 = ([float(row[metric]) for row in members] for metric in ("dice", distance))
        missing = [sum(map(math.isnan, values)) for values in (dice, hd95)]
        words = [f"{n} {name}" for n, name in zip(missing, ("Dice", "HD95"), strict=True) if n]
        found[key] = {
            "dice": points(_average(dice)),
            "hd95": number(_average(hd95), 1),
            "undefined": f"{' and '.join(words)} of {len(members)} undefined" if words else "",
            "mean": _average(dice),
        }
    return found


def _dice(cells: Mapping[tuple[int, str], Mapping[str, Any]], key: tuple[int, str]) -> float:
    return float(cells.get(key, _NOTHING)["mean"])


def _undefined_first(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _value(entry: Entry, case: str) -> float:
    return math.nan if entry.mean is None else entry.mean.by_case.get(case, math.nan)


def _undefined_by_case(entry: Entry) -> dict[str, int]:
    found: dict[str, int] = {}
    for run in entry.runs:
        for row in run.table:
            found[row["case"]] = found.get(row["case"], 0) + math.isnan(float(row["dice"]))
    return found


def _case_cells(
    case: str, entries: list[Entry], dice: list[float], undefined: list[dict[str, int]], *, baseline: str
) -> list[dict[str, Any]]:
    floor = next((value for entry, value in zip(entries, dice, strict=True) if entry.method == baseline), math.nan)
    cells = []
    for entry, value, missing in zip(entries, dice, undefined, strict=True):
        count = missing.get(case, 0)
        shade = "" if entry.method == baseline else _shade(value - floor)
        words = f"{count} undefined value{'s' if count != 1 else ''} left out" if count else ""
        cells.append({"text": points(value), "shade": shade, "words": words, "sort": _sortable(value)})
    return cells


def _shade(difference: float) -> str:
    if math.isnan(difference):
        return "none"
    level = sum(abs(difference) >= limit for limit in _SHADES)
    return "" if not level else f"{'up' if difference > 0 else 'down'}{level}"


def _remarks(case: str, entries: list[Entry]) -> str:
    """What went wrong in this case, by method, with the seeds it happened in."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for entry in entries:
        for run in entry.runs:
            for row in run.table:
                if row["case"] == case and row["status"] != "ok":
                    found.setdefault((entry.name, row["class_name"], row["status"]), []).append(run.seed)
    return "; ".join(
        f"{name}: {class_name}, {status} (seed {', '.join(map(str, seeds))})"
        for (name, class_name, status), seeds in found.items()
    )


def _average(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _range(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return max(defined) - min(defined) if len(defined) > 1 else math.nan


def _sortable(value: float) -> str:
    return "-1" if math.isnan(value) else f"{value:.6f}"
