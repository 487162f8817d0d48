"""The tables of a report: cases worst first, classes, and each case's structures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from semi_med.inference.picture_check import is_picture
from semi_med.metrics.case import Row
from semi_med.metrics.table import case_means, summarize
from semi_med.report.review_view import ReviewCase, ReviewView
from semi_med.report.verdict import interval, number

_COLUMNS = {
    "millilitres": "ml",
    "voxels": "Voxels",
    "components": "Parts",
    "touches_border": "At the border",
    "mean_intensity": "Mean intensity",
    "confidence": "Confidence",
    "expected_dice": "Expected Dice",
}


def ranked(view: ReviewView) -> list[ReviewCase]:
    """The cases, worst first.

    Those that failed come first; then those with the lowest mean Dice, an undefined one counting as the lowest; where
    no Dice is known those with the lowest confidence, then those with warnings. Ties keep the order of the record.
    """
    dice = case_means(view.table)

    def badness(case: ReviewCase) -> tuple[bool, float, float, int]:
        value = dice.get(case.name, math.nan)
        known = -1.0 if case.name in dice and math.isnan(value) else 2.0 if math.isnan(value) else value
        sure = 2.0 if case.confidence is None else case.confidence
        return (case.prediction is not None, known, sure, -len(case.warnings))

    return sorted(view.cases, key=badness)


def case_rows(view: ReviewView, cases: Sequence[ReviewCase]) -> list[dict[str, Any]]:
    """One line for each case, in the given order; numbers as text, and as they are for sorting."""
    dice, hd95, pixels = (case_means(view.table, metric) for metric in ("dice", "hd95_mm", "hd95_voxel"))
    distances = hd95 if any(not math.isnan(value) for value in hd95.values()) else pixels
    lowest = {row["case"]: row for row in sorted(view.table, key=lambda row: _nan_first(row["dice"]), reverse=True)}
    lines = []
    for case in cases:
        worst = lowest.get(case.name)
        lines.append(
            {
                "name": case.name,
                "dice": _cell(dice.get(case.name)),
                "worst": "" if worst is None else f"{worst['class_name']} {number(float(worst['dice']))}",
                "distance": _cell(distances.get(case.name), 1),
                "volume": _cell(_total(case), 1),
                "confidence": _cell(case.confidence),
                "status": _status(case, view.table),
                "warnings": len(case.warnings),
                "failed": case.prediction is None,
            }
        )
    return lines


def _nan_first(value: float) -> float:
    return -1.0 if math.isnan(value) else float(value)


def _cell(value: float | None, digits: int = 3) -> dict[str, Any]:
    known = value is not None and not math.isnan(value)
    return {"text": number(float(value), digits) if known else "–", "sort": float(value) if known else -1}  # type: ignore[arg-type]


def _total(case: ReviewCase) -> float | None:
    """Millilitres of all structures; None where nobody says, or in pictures."""
    found = [float(row["millilitres"]) for row in case.volumes.values() if _is_number(row.get("millilitres"))]
    return math.fsum(found) if found else None


def _is_number(text: str | None) -> bool:
    try:
        return math.isfinite(float(text or ""))
    except ValueError:
        return False


def _status(case: ReviewCase, table: Sequence[Row]) -> str:
    """What is wrong, in a few words; empty if nothing is."""
    if case.prediction is None:
        return f"failed: {case.error}" if case.error else "failed"
    if case.error:
        return f"incomplete: {case.error}"
    rows = [row for row in table if row["case"] == case.name and row["status"] != "ok"]
    found = [f"{row['class_name']}: {row['status']}" for row in rows]
    codes = dict.fromkeys(warning.split(":", 1)[0] for warning in case.warnings)
    return "; ".join([*found, *codes])


def class_rows(table: Sequence[Row], *, pictures: bool = False) -> list[dict[str, str]]:
    """One line for each class, and their mean if there are several."""
    lines: dict[str, dict[str, Row]] = {}
    for line in summarize(table):
        lines.setdefault(line["class_name"], {})[line["metric"]] = line
    found = []
    for name, metrics in lines.items():
        dice, hd95, asd = metrics["dice"], metrics["hd95_mm"], metrics["asd_mm"]
        unit = "mm"
        if not hd95["n"] and metrics["hd95_voxel"]["n"]:
            hd95, asd, unit = metrics["hd95_voxel"], metrics["asd_voxel"], "voxels"
        found.append(
            {
                "name": name,
                "dice": number(dice["mean"]),
                "interval": interval(dice["low"], dice["high"]),
                "sd": number(dice["sd"]),
                "median": number(dice["median"]),
                "hd95": number(hd95["mean"], 1),
                "asd": number(asd["mean"], 2),
                "unit": unit if unit == "mm" or not pictures else "pixels",
                "cases": str(dice["cases"]),
                "undefined": f"{dice['n_undefined']} / {hd95['n_undefined']}",
            }
        )
    return found


def structure_table(case: ReviewCase, table: Sequence[Row]) -> dict[str, Any]:
    """What is known about each structure of a case: columns of the table of volumes, and what was measured.

    A column that holds nothing is left out, such as the millilitres of a picture.
    """
    named = dict.fromkeys(column for row in case.volumes.values() for column in row)
    columns = [c for c in named if any(row.get(c, "") not in ("", "nan") for row in case.volumes.values())]
    measured = [row for row in table if row["case"] == case.name]
    names = list(dict.fromkeys([*case.volumes, *(row["class_name"] for row in measured)]))
    by_name = {row["class_name"]: row for row in measured}
    picture = case.prediction is not None and is_picture(case.prediction)
    heads = [_COLUMNS.get(column, column.replace("_", " ")) for column in columns]
    heads = ["Pixels" if picture and head == "Voxels" else head for head in heads]
    in_ml = any(not math.isnan(float(row["label_ml"])) for row in measured)
    heads += (["Label, ml"] if in_ml else []) + (["Dice", "HD95"] if measured else [])
    lines = []
    for name in names:
        cells = [_rounded(case.volumes.get(name, {}).get(column, "")) for column in columns]
        lines.append({"name": name, "cells": cells + (_measured(by_name.get(name), in_ml=in_ml) if measured else [])})
    return {"heads": heads, "lines": lines}


def _measured(row: Row | None, *, in_ml: bool) -> list[str]:
    if row is None:
        return ["–"] * (3 if in_ml else 2)
    mm, voxels = float(row["hd95_mm"]), float(row["hd95_voxel"])
    distance = f"{number(mm, 1)} mm" if not math.isnan(mm) else "–" if math.isnan(voxels) else f"{number(voxels, 1)} px"
    label = [number(float(row["label_ml"]), 1)] if in_ml else []
    return [*label, number(float(row["dice"])), distance]


def _rounded(text: str) -> str:
    if not _is_number(text):
        return "–" if text in ("", "nan") else text
    value = float(text)
    return str(int(value)) if value == int(value) and "." not in text else number(value, 2)


def volumes_of(cases: Sequence[ReviewCase]) -> dict[str, dict[str, float]]:
    """Structure to case to millilitres, of what has any."""
    found: dict[str, dict[str, float]] = {}
    for case in cases:
        for name, row in case.volumes.items():
            if _is_number(row.get("millilitres")):
                found.setdefault(name, {})[case.name] = float(row["millilitres"])
    return found


def labels_of(table: Sequence[Row]) -> Mapping[str, Mapping[str, float]]:
    """Structure to case to millilitres of the expert's label."""
    found: dict[str, dict[str, float]] = {}
    for row in table:
        if not math.isnan(float(row["label_ml"])):
            found.setdefault(row["class_name"], {})[row["case"]] = float(row["label_ml"])
    return found
