"""The numbers of a comparison as CSV: every value, and one line for each method and number of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semi_med.metrics.files import TABLE_COLUMNS, write_csv
from semi_med.report.comparison_data import Analysis, Entry

VALUE_COLUMNS = ("method", "labeled", "seed", "case", "subject", *TABLE_COLUMNS[1:])
_DIFFERENCE = ("mean", "low", "high", "cases_low", "cases_high", "wins", "ties", "losses", "seeds_better")
SUMMARY_COLUMNS = (
    *("method", "name", "labeled", "seeds", "cases", "subjects", "undefined"),
    *("mean_dice", "mean_low", "mean_high", "mean_by_seed"),
    *(f"difference_{name}" for name in _DIFFERENCE[:5]),
    *("difference_by_seed", *_DIFFERENCE[5:]),
    *("share_of_gap", "share_low", "share_high", "share_note", "verdict", "sentence", "cautions", "minutes"),
)
ALL = "all"


def write_values(path: Path, found: Analysis) -> Path:
    """Write one row for each run, case and class; `labeled` is a number or "all"."""
    rows = [
        {
            **row,
            "method": run.method,
            "labeled": ALL if run.labeled is None else run.labeled,
            "seed": run.seed,
            "subject": found.view.subjects.get(row["case"], ""),
        }
        for entry in _ordered(found)
        for run in entry.runs
        for row in run.table
    ]
    return write_csv(path, rows, columns=VALUE_COLUMNS)


def write_summary(path: Path, found: Analysis) -> Path:
    """Write one row for each method and number of labels; Dice as a share of 1, `nan` where there is no value."""
    return write_csv(path, [_summary(entry) for entry in _ordered(found)], columns=SUMMARY_COLUMNS)


def _ordered(found: Analysis) -> list[Entry]:
    return [entry for labeled in (*found.counts, None) for entry in found.at(labeled)]


def _summary(entry: Entry) -> dict[str, Any]:
    mean, difference, share, verdict = entry.mean, entry.difference, entry.share, entry.verdict
    line: dict[str, Any] = {
        "method": entry.method,
        "name": entry.name,
        "labeled": ALL if entry.labeled is None else entry.labeled,
        "seeds": len(entry.runs),
        "cases": mean.n_cases if mean else 0,
        "subjects": mean.n_subjects if mean else 0,
        "undefined": mean.n_undefined if mean else 0,
        "mean_dice": mean.mean if mean else math.nan,
        "mean_low": mean.low if mean else math.nan,
        "mean_high": mean.high if mean else math.nan,
        "mean_by_seed": _by_seed(mean.by_seed) if mean else "",
        "difference_by_seed": _by_seed(difference.by_seed) if difference else "",
        "share_of_gap": share.share if share else math.nan,
        "share_low": share.low if share else math.nan,
        "share_high": share.high if share else math.nan,
        "share_note": share.note if share else "",
        "verdict": verdict.word if verdict else entry.problem,
        "sentence": verdict.sentence if verdict else "",
        "cautions": " ".join(verdict.cautions) if verdict else "",
        "minutes": entry.minutes,
    }
    for place, name in enumerate(_DIFFERENCE):
        column = f"difference_{name}" if place < 5 else name
        line[column] = getattr(difference, name) if difference else math.nan if place < 5 else ""
    return line


def _by_seed(values: Mapping[int, float]) -> str:
    return " ".join(f"{seed}:{value:.6g}" for seed, value in values.items())
