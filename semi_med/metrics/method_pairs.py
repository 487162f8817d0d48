"""Runs of several methods brought on the same seeds, test cases and classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from semi_med.errors import InputError
from semi_med.metrics.case import METRICS, OVERLAPS, Row
from semi_med.metrics.crossed import mean_of

Runs = Mapping[int, Sequence[Row]]


class PairedRuns(NamedTuple):
    """Methods side by side.

    Attributes:
        values: (methods, seeds, cases), each averaged over the classes that all methods have a value for; NaN where
            there is no such class.
        seeds: those that all methods have.
        cases: test cases, in order of `values`.
        units: number of the subject of each case (cases,).
        n_undefined: (seed, case, class) values left out because at least one method has none. An overlap has none
            where label and prediction are empty; beside a method that found something there it counts as 1, as that
            one's counts as 0, so that a class that is invented is not overlooked.
        left_out: seeds that only some methods have.
    """

    values: np.ndarray
    seeds: tuple[int, ...]
    cases: tuple[str, ...]
    units: np.ndarray
    n_undefined: int
    left_out: tuple[int, ...]

    @property
    def n_subjects(self) -> int:
        """Number of subjects with a value."""
        return len(np.unique(self.units[np.isfinite(self.values[0]).any(axis=0)]))

    def by_seed(self, values: np.ndarray) -> dict[int, float]:
        """Mean over cases for each seed, of values (seeds, cases)."""
        return {seed: mean_of(row) for seed, row in zip(self.seeds, values, strict=True)}

    def by_case(self, values: np.ndarray) -> dict[str, float]:
        """Mean over seeds for each case that has a value, of values (seeds, cases)."""
        found = {case: mean_of(column) for case, column in zip(self.cases, values.T, strict=True)}
        return {case: mean for case, mean in found.items() if not math.isnan(mean)}


def pair_runs(methods: Sequence[Runs], *, subjects: Mapping[str, str] | None, metric: str) -> PairedRuns:
    """Pair methods by seed and case, class by class.

    Args:
        methods: for each method, run seed to the rows of that run.
        subjects: test case to subject; None: every case is a subject of its own.
        metric: a column of the rows.

    Raises:
        InputError: no seed in common, runs on different cases or classes, a case twice, or a case without subject.
    """
    seeds = tuple(sorted(set.intersection(*(set(runs) for runs in methods))))
    if not seeds:
        raise InputError(
            "wanted runs of the same seeds, but the methods have none in common",
            fix="Run all methods with the same seeds",
            code="SEEDS",
        )
    tables = [[_values(runs[seed], metric) for seed in seeds] for runs in methods]
    keys = _same_keys([table for runs in tables for table in runs])
    cases, classes = tuple(dict.fromkeys(case for case, _ in keys)), sorted({value for _, value in keys})
    cells = np.array(
        [
            [[[table.get((case, value), math.nan) for value in classes] for case in cases] for table in runs]
            for runs in tables
        ]
    )
    if metric in OVERLAPS:
        empty = [[_both_empty(runs[seed]) for seed in seeds] for runs in methods]
        right = np.array([[[[(c, v) in table for v in classes] for c in cases] for table in runs] for runs in empty])
        cells = np.where(right & np.isfinite(cells).any(axis=0), 1.0, cells)
    defined = np.isfinite(cells).all(axis=0)
    counts = defined.sum(axis=-1)
    sums = np.where(defined, cells, 0.0).sum(axis=-1)
    return PairedRuns(
        values=np.where(counts > 0, sums / np.maximum(counts, 1), math.nan),
        seeds=seeds,
        cases=cases,
        units=_units(cases, subjects),
        n_undefined=len(seeds) * len(keys) - int(defined.sum()),
        left_out=tuple(sorted({seed for runs in methods for seed in runs} - set(seeds))),
    )


def _values(rows: Sequence[Row], metric: str) -> dict[tuple[str, int], float]:
    if metric not in METRICS:
        raise InputError(f"wanted one of {', '.join(METRICS)}, got {metric!r}", fix="Choose a metric of the table")
    found: dict[tuple[str, int], float] = {}
    for row in rows:
        key = (row["case"], row["class"])
        if key in found:
            problem = f"wanted each case once, but class {key[1]} of it comes twice"
            raise InputError(problem, where=key[0], fix="Remove one", code="CASES")
        found[key] = float(row[metric])
    return found


def _both_empty(rows: Sequence[Row]) -> set[tuple[str, int]]:
    """Case and class of the values that are undefined because there was nothing to find and nothing was found."""
    return {(row["case"], row["class"]) for row in rows if row.get("status") == "both empty"}


def _same_keys(tables: Sequence[Mapping[tuple[str, int], float]]) -> list[tuple[str, int]]:
    keys = set(tables[0])
    different = sorted({key for table in tables for key in keys ^ set(table)})
    if different:
        shown = ", ".join(f"{case} (class {value})" for case, value in different[:5])
        more = f" and {len(different) - 5} more" if len(different) > 5 else ""
        raise InputError(
            f"wanted runs measured on the same cases and classes, but only some runs have {shown}{more}",
            fix="Evaluate all runs on the same labels",
            code="CASES",
        )
    if not keys:
        raise InputError("wanted runs with rows of metrics, got none", fix="Evaluate them first", code="CASES")
    return sorted(keys)


def _units(cases: Sequence[str], subjects: Mapping[str, str] | None) -> np.ndarray:
    """Number of the subject of each case."""
    if subjects is None:
        return np.arange(len(cases))
    without = [case for case in cases if case not in subjects]
    if without:
        raise InputError("has no subject", where=", ".join(without[:5]), fix="Name the subject of every test case")
    numbers = {name: place for place, name in enumerate(dict.fromkeys(subjects[case] for case in cases))}
    return np.array([numbers[subjects[case]] for case in cases])
