"""Two methods compared over run seeds and subjects: the paired difference, its interval, and the share of a gap.

A run seed and a subject are both drawn by chance: another seed draws other labelled subjects and other weights to start
from, another study holds out other subjects. An interval that is to speak about both resamples both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from semi_med.errors import InputError
from semi_med.metrics.case import OVERLAPS
from semi_med.metrics.crossed import NOWHERE, Span, crossed_intervals, mean_of, ratio_interval
from semi_med.metrics.method_pairs import PairedRuns, Runs, pair_runs
from semi_med.metrics.table import higher_is_better

TIE_DICE = 0.005  # half a Dice point, less than two drawings of one scan by one expert differ
TIE_DISTANCE = 0.1  # mm or voxels
SMALLEST_GAP = 0.01  # a share of less than one Dice point would be a share of noise
FEW_SUBJECTS = 10


@dataclass(frozen=True)
class MethodMean:
    """What one method reaches: the mean over seeds and test cases.

    `low` to `high` speaks about other seeds and other subjects; with one seed about other subjects only.
    `n_undefined` counts the (seed, case, class) values that do not exist and were left out.
    """

    metric: str
    n_seeds: int
    n_cases: int
    n_subjects: int
    n_undefined: int
    mean: float
    low: float
    high: float
    by_seed: Mapping[int, float]
    by_case: Mapping[str, float]


@dataclass(frozen=True)
class MethodDifference:
    """Method a minus method b, paired by seed and case.

    Attributes:
        metric: what was compared.
        confidence: of both intervals.
        n_seeds: seeds that both methods have.
        n_cases: test cases with a value in both methods for at least one seed.
        n_subjects: subjects these cases belong to; the scans of one subject count as one unit.
        n_undefined: (seed, case, class) values left out because one of both does not exist.
        mean: mean difference over seeds and cases.
        mean_a: mean of a over what is compared, so that `mean` is `mean_a - mean_b`.
        mean_b: mean of b over what is compared.
        low: lower end of the interval over seeds and subjects; with one seed over subjects only.
        high: its upper end.
        cases_low: lower end of the interval over subjects, given these runs.
        cases_high: its upper end.
        wins: test cases in which a is better, by the difference averaged over seeds.
        ties: test cases in which both differ by less than `tie_below(metric)`.
        losses: test cases in which b is better.
        seeds_better: seeds in which a is better on average.
        by_seed: seed to mean difference.
        by_case: case to the difference averaged over seeds.
        left_out: seeds that only one of both methods has.
        note: what limits the interval; empty if nothing does.
    """

    metric: str
    confidence: float
    n_seeds: int
    n_cases: int
    n_subjects: int
    n_undefined: int
    mean: float
    mean_a: float
    mean_b: float
    low: float
    high: float
    cases_low: float
    cases_high: float
    wins: int
    ties: int
    losses: int
    seeds_better: int
    by_seed: Mapping[int, float]
    by_case: Mapping[str, float]
    left_out: tuple[int, ...]
    note: str


@dataclass(frozen=True)
class GapShare:
    """Share of the way from a floor to a ceiling that a method goes: (method - floor) / (ceiling - floor).

    `share` is NaN where it would mean nothing, and `note` says why. `gap` is ceiling - floor.
    """

    share: float
    low: float
    high: float
    gap: float
    note: str = ""


def tie_below(metric: str) -> float:
    """Return the difference below which a test case counts as a tie."""
    return TIE_DICE if metric in OVERLAPS else TIE_DISTANCE


def method_mean(
    runs: Runs,
    *,
    subjects: Mapping[str, str] | None = None,
    metric: str = "dice",
    confidence: float = 0.95,
    seed: int = 0,
) -> MethodMean:
    """Average the runs of one method; arguments and errors as for `compare_methods`."""
    paired = pair_runs([runs], subjects=subjects, metric=metric)
    values = paired.values[0]
    interval, _ = crossed_intervals(values, subjects=paired.units, confidence=confidence, seed=seed)
    by_case = paired.by_case(values)
    return MethodMean(
        metric=metric,
        n_seeds=len(paired.seeds),
        n_cases=len(by_case),
        n_subjects=paired.n_subjects,
        n_undefined=paired.n_undefined,
        mean=mean_of(values),
        low=interval.low,
        high=interval.high,
        by_seed=paired.by_seed(values),
        by_case=by_case,
    )


def compare_methods(
    a: Runs,
    b: Runs,
    *,
    subjects: Mapping[str, str] | None = None,
    metric: str = "dice",
    confidence: float = 0.95,
    seed: int = 0,
) -> MethodDifference:
    """Compare two methods on the same seeds and test cases.

    Within a case the difference is taken class by class, where both runs have a value, then averaged over classes.

    Args:
        a: run seed to the rows of that run, as from `evaluate`.
        b: the same for the other method. A seed that only one method has is left out, and named.
        subjects: test case to subject; None: every case is a subject of its own.
        metric: a column of the rows.
        confidence: coverage wanted.
        seed: of the resampling; the same numbers and seed give the same intervals.

    Raises:
        InputError: no seed in common, runs on different cases or classes, a case twice, or a case without subject.
    """
    paired = pair_runs([a, b], subjects=subjects, metric=metric)
    difference = paired.values[0] - paired.values[1]
    whole, given = crossed_intervals(difference, subjects=paired.units, confidence=confidence, seed=seed)
    by_seed, by_case = paired.by_seed(difference), paired.by_case(difference)
    sign = 1 if higher_is_better(metric) else -1
    better = sign * np.array(list(by_case.values()))
    tie = tie_below(metric)
    return MethodDifference(
        metric=metric,
        confidence=confidence,
        n_seeds=len(paired.seeds),
        n_cases=len(by_case),
        n_subjects=paired.n_subjects,
        n_undefined=paired.n_undefined,
        mean=mean_of(difference),
        mean_a=mean_of(paired.values[0]),
        mean_b=mean_of(paired.values[1]),
        low=whole.low,
        high=whole.high,
        cases_low=given.low,
        cases_high=given.high,
        wins=int((better >= tie).sum()),
        ties=int((np.abs(better) < tie).sum()),
        losses=int((better <= -tie).sum()),
        seeds_better=sum(sign * value > 0 for value in by_seed.values()),
        by_seed=by_seed,
        by_case=by_case,
        left_out=paired.left_out,
        note=_note(paired, difference),
    )


def share_of_gap(
    method: Runs,
    floor: Runs,
    ceiling: Runs,
    *,
    subjects: Mapping[str, str] | None = None,
    metric: str = "dice",
    confidence: float = 0.95,
    seed: int = 0,
) -> GapShare:
    """Say how much of the gap between a floor and a ceiling a method closes.

    The three are paired by seed and case. Both parts of the ratio are taken from the same resamples.

    Args:
        method: run seed to the rows of that run.
        floor: the same, usually supervised on the few labels.
        ceiling: the same, usually supervised on all labels.
        subjects: test case to subject; None: every case is a subject of its own.
        metric: an overlap.
        confidence: coverage wanted.
        seed: of the resampling.

    Raises:
        InputError: the metric is a distance, or as `compare_methods`.
    """
    if metric not in OVERLAPS:
        raise InputError(f"wanted one of {', '.join(OVERLAPS)}, got {metric!r}", fix="Choose an overlap")
    paired = pair_runs([method, floor, ceiling], subjects=subjects, metric=metric)
    gained, gap = paired.values[0] - paired.values[1], paired.values[2] - paired.values[1]
    mean_gap = mean_of(gap)
    sure, _ = crossed_intervals(gap, subjects=paired.units, confidence=confidence, seed=seed)
    reason = _no_share(mean_gap, sure)
    if reason:
        return GapShare(math.nan, *NOWHERE, mean_gap, reason)
    found = ratio_interval(gained, gap, subjects=paired.units, confidence=confidence, seed=seed)
    note = _note(paired, gained) if found != NOWHERE else "no interval: the gap is too uncertain"
    return GapShare(mean_of(gained) / mean_gap, *found, mean_gap, note)


def _no_share(gap: float, interval: Span) -> str:
    if math.isnan(gap):
        return "no share: no case has a value in all three"
    if gap < SMALLEST_GAP:
        return f"no share: the gap is {gap * 100:.1f} Dice points, too small to divide"
    if not interval.low > 0:
        return "no share: the interval of the gap includes zero"
    return ""


def _note(paired: PairedRuns, difference: np.ndarray) -> str:
    seeds, subjects = len(paired.seeds), paired.n_subjects
    if not subjects:
        return "no case has a value in both"
    parts = []
    if subjects == 1:
        parts.append("no interval: one subject")
    elif np.nanmax(np.abs(difference)) == 0:
        parts.append("all values are equal")
    elif subjects < FEW_SUBJECTS:
        parts.append(f"only {subjects} subjects: the interval is rough")
    if seeds == 1:
        parts.append("one seed: the interval says nothing about other seeds")
    elif seeds == 2:
        parts.append("two seeds: the interval can be too narrow")
    if paired.left_out:
        parts.append(f"without seed {', '.join(map(str, paired.left_out))}, which not every method has")
    return "; ".join(parts)
