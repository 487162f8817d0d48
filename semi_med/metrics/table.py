"""Rows of cases to numbers one can quote: mean, SD, median and an interval over cases; two runs compared by case.

The case is the unit of every statistic. An undefined value is left out of the mean and counted beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semi_med.errors import InputError
from semi_med.metrics.case import METRICS, OVERLAPS, Row

OVERALL = "all classes"
ALL_REGIONS = "all regions"
_IDENTITY = ("class", "class_name", "metric", "cases", "n", "n_undefined")
SUMMARY_COLUMNS = (*_IDENTITY, "mean", "sd", "median", "low", "high", "note")
FEW_CASES = 10
_RESAMPLES = 5000


@dataclass(frozen=True)
class Interval:
    """A 95 % interval (or another confidence) of a mean over cases; NaN where there is none, and `note` says why."""

    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class PairedDifference:
    """Run a minus run b, case by case.

    `wins` counts the cases where a is better (higher Dice, lower distance). `n` is the number of cases with a value in
    both runs, `n_undefined` the number of (case, class) values left out because one run has none. `mean_a` and
    `mean_b` are taken over what is compared, so that their difference is `mean`.
    """

    metric: str
    n: int
    n_undefined: int
    mean: float
    mean_a: float
    mean_b: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    note: str
    by_case: Mapping[str, float]


def higher_is_better(metric: str) -> bool:
    """Say which way a metric points: overlaps up, distances down."""
    return metric in OVERLAPS


def bootstrap_interval(values: Sequence[float] | np.ndarray, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interval of the mean over cases by resampling cases (BCa, fixed seed).

    BCa (Efron 1987, Journal of the American Statistical Association 82) corrects for the skew that Dice values have.

    Args:
        values: one finite number for each case.
        confidence: coverage wanted.
        seed: of the resampling; the same values and seed give the same interval.

    Returns:
        The interval. No interval (NaN) for fewer than two cases; of width zero, with a note, for equal values; a
        warning in `note` below ten cases, where such intervals are too narrow.
    """
    data = np.asarray(values, float)
    if not np.all(np.isfinite(data)):
        raise InputError("wanted finite values, got NaN or infinity", fix="Leave undefined values out and count them")
    if len(data) < 2:
        return Interval(math.nan, math.nan, f"no interval: {len(data)} case{'s' if len(data) != 1 else ''}")
    few = f"only {len(data)} cases: the interval tends to be too narrow" if len(data) < FEW_CASES else ""
    if np.ptp(data) <= 1e-12 * np.abs(data).max():
        return Interval(float(data[0]), float(data[0]), "; ".join(filter(None, ["all values are equal", few])))

    from scipy import stats  # half a second of import that commands which never summarise need not pay

    found = stats.bootstrap(
        (data,),
        np.mean,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=500,
        method="BCa",
        confidence_level=confidence,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high), few)


def summarize(
    rows: Sequence[Row],
    *,
    metrics: Sequence[str] = METRICS,
    overall: str = OVERALL,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Row]:
    """Summarise rows of cases for each class, and over all classes if there are several.

    The value of a case over all classes is the mean of its defined classes.

    Args:
        rows: what `case_metrics` gives, each with a `case`.
        metrics: columns to summarise.
        overall: name of the mean over classes.
        confidence: of the interval.
        seed: of the bootstrap.

    Returns:
        One dict for each class and metric with the keys of `SUMMARY_COLUMNS`: `cases` looked at, `n` with a value,
        `n_undefined` values left out (over all classes: (case, class) values), `mean`, `sd` (n - 1), `median`,
        `low`, `high` and a `note` on the interval.
    """
    by_class = _by_class(rows)
    summary = []
    for (value, name), members in by_class.items():
        for metric in metrics:
            cells = {row["case"]: [float(row[metric])] for row in members}
            summary.append(_summary_row(value, name, metric, cells, confidence=confidence, seed=seed))
    if len(by_class) > 1:
        for metric in metrics:
            cells = {case: [cell for _, cell in found] for case, found in _cells(rows, metric).items()}
            summary.append(_summary_row("all", overall, metric, cells, confidence=confidence, seed=seed))
    return summary


def metrics_in(rows: Sequence[Row]) -> tuple[str, ...]:
    """The metrics that rows can have: without those in mm, if none of them knows the size of its voxels."""
    found = [row for row in rows if row["status"] == "ok"]
    in_mm = not found or any(not math.isnan(row["hd95_mm"]) for row in found)
    return METRICS if in_mm else tuple(metric for metric in METRICS if not metric.endswith("_mm"))


def case_means(rows: Sequence[Row], metric: str = "dice") -> dict[str, float]:
    """Return the mean over defined classes for each case, NaN where none is defined."""
    return {case: _mean([cell for _, cell in found]) for case, found in _cells(rows, metric).items()}


def paired_difference(
    a: Sequence[Row], b: Sequence[Row], *, metric: str = "dice", confidence: float = 0.95, seed: int = 0
) -> PairedDifference:
    """Compare two runs on the same cases: the mean of a - b with its interval over cases.

    Within a case the difference is taken class by class, where both runs have a value, then averaged over classes.

    Raises:
        InputError: the runs do not have the same cases and classes, or one has a case twice.
    """
    cells_a, cells_b = (
        {(case, value): cell for case, found in _cells(rows, metric).items() for value, cell in found}
        for rows in (a, b)
    )
    if cells_a.keys() != cells_b.keys():
        different = sorted({f"{case} (class {value})" for case, value in cells_a.keys() ^ cells_b.keys()})
        shown = ", ".join(different[:5]) + (f" and {len(different) - 5} more" if len(different) > 5 else "")
        raise InputError(
            f"wanted two runs measured on the same cases and classes, but only one run has {shown}",
            fix="Evaluate both runs on the same labels",
            code="CASES",
        )
    by_case: dict[str, list[tuple[float, float]]] = {}
    for (case, value), cell in cells_a.items():
        defined = not math.isnan(cell) and not math.isnan(cells_b[case, value])
        by_case.setdefault(case, []).extend([(cell, cells_b[case, value])] if defined else [])
    pairs = {case: np.mean(cells, axis=0) for case, cells in by_case.items() if cells}
    differences = {case: float(a_mean - b_mean) for case, (a_mean, b_mean) in pairs.items()}

    mean_a, mean_b = np.mean(list(pairs.values()), axis=0) if pairs else (math.nan, math.nan)
    better = np.array(list(differences.values())) * (1 if higher_is_better(metric) else -1)
    interval = bootstrap_interval(list(differences.values()), confidence=confidence, seed=seed)
    return PairedDifference(
        metric=metric,
        n=len(differences),
        n_undefined=len(cells_a) - sum(len(cells) for cells in by_case.values()),
        mean=float(mean_a - mean_b),
        mean_a=float(mean_a),
        mean_b=float(mean_b),
        low=interval.low,
        high=interval.high,
        wins=int((better > 1e-9).sum()),
        ties=int((np.abs(better) <= 1e-9).sum()),
        losses=int((better < -1e-9).sum()),
        note=interval.note,
        by_case=differences,
    )


def _by_class(rows: Sequence[Row]) -> dict[tuple[int, str], list[Row]]:
    found: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["class"], row["class_name"]), []).append(row)
    return dict(sorted(found.items()))


def _cells(rows: Sequence[Row], metric: str) -> dict[str, list[tuple[int, float]]]:
    """Case to its (class, value) pairs."""
    if metric not in METRICS:
        raise InputError(f"wanted one of {', '.join(METRICS)}, got {metric!r}", fix="Choose a metric of the table")
    found: dict[str, list[tuple[int, float]]] = {}
    seen = set()
    for row in rows:
        key = (row["case"], row["class"])
        if key in seen:
            raise InputError(
                f"wanted each case once, but class {key[1]} of it comes twice",
                where=key[0],
                fix="Remove one",
                code="CASES",
            )
        seen.add(key)
        found.setdefault(row["case"], []).append((row["class"], float(row[metric])))
    return found


def _mean(cells: Sequence[float]) -> float:
    defined = [cell for cell in cells if not math.isnan(cell)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _summary_row(
    value: int | str, name: str, metric: str, cells: Mapping[str, Sequence[float]], *, confidence: float, seed: int
) -> Row:
    means = [_mean(found) for found in cells.values()]
    defined = np.array([mean for mean in means if not math.isnan(mean)])
    interval = bootstrap_interval(defined, confidence=confidence, seed=seed)
    return {
        "class": value,
        "class_name": name,
        "metric": metric,
        "cases": len(cells),
        "n": len(defined),
        "n_undefined": sum(math.isnan(cell) for found in cells.values() for cell in found),
        "mean": float(defined.mean()) if len(defined) else math.nan,
        "sd": float(defined.std(ddof=1)) if len(defined) > 1 else math.nan,
        "median": float(np.median(defined)) if len(defined) else math.nan,
        "low": interval.low,
        "high": interval.high,
        "note": interval.note,
    }
