"""Intervals of a mean over runs and subjects, both drawn by chance, each run measured on every subject.

`docs/statistics.md` says how they are made and how often they hold the truth (`benchmarks/coverage.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

_RESAMPLES = 5000
_BEYOND = 1e9  # stands for a ratio that has no bound


class Span(NamedTuple):
    """Both ends of an interval; NaN where there is none."""

    low: float
    high: float


NOWHERE = Span(math.nan, math.nan)


def crossed_intervals(
    values: np.ndarray, *, subjects: Sequence[int] | np.ndarray | None = None, confidence: float = 0.95, seed: int = 0
) -> tuple[Span, Span]:
    """Intervals of a mean over runs and cases.

    Args:
        values: one number for each run and case (runs, cases), for example differences; NaN where undefined.
        subjects: a number for the subject of each case (cases,); None: every case is a subject of its own.
        confidence: coverage wanted.
        seed: of the resampling; the same numbers and seed give the same intervals.

    Returns:
        The interval over runs and subjects, and the interval over subjects given these runs. Both are the same for a
        single run, and NaN for fewer than two subjects.
    """
    runs, units = _effects(values, subjects)
    if len(units) < 2:
        return NOWHERE, NOWHERE
    mean = mean_of(values)
    given = _interval([units], mean, confidence=confidence, seed=seed)
    return (given if len(runs) < 2 else _interval([runs, units], mean, confidence=confidence, seed=seed)), given


def ratio_interval(
    above: np.ndarray,
    below: np.ndarray,
    *,
    subjects: Sequence[int] | np.ndarray | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Span:
    """Interval over runs and subjects of mean(above) / mean(below), both (runs, cases), from the same resamples.

    A resample in which the lower mean is not above zero counts as beyond any bound, on the side of the upper mean.
    No interval (NaN) where this reaches one of its ends, or for fewer than two subjects.
    """
    means = mean_of(above), mean_of(below)
    share = means[0] / means[1]
    effects = [_effects(values, subjects) for values in (above, below)]
    if len(effects[0][1]) < 2:
        return NOWHERE
    # the error of a ratio is, for small errors, that of (above - share x below) / below
    stretch = _stretch([(up - share * down) / means[1] for up, down in zip(*effects, strict=True)], confidence)
    scaled = [[_inflated(effect) * stretch for effect in group if len(effect) > 1] for group in effects]

    def ratio(*drawn: np.ndarray, axis: int) -> np.ndarray:
        up, down = (
            mean + sum(effect[places].mean(axis=axis) for effect, places in zip(group, drawn, strict=True))
            for mean, group in zip(means, scaled, strict=True)
        )
        return np.where(down > 0, up / np.where(down > 0, down, 1.0), np.sign(up) * _BEYOND)

    found = _resample([np.arange(len(effect)) for effect in scaled[0]], ratio, confidence=confidence, seed=seed)
    return found if max(map(abs, found)) < _BEYOND / 2 else NOWHERE


def mean_of(values: np.ndarray) -> float:
    """Return the mean of the defined values, NaN if there is none."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else math.nan


def _effects(values: np.ndarray, subjects: Sequence[int] | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """What each run (runs,) and each subject (subjects,) adds to the mean.

    With one case for each subject and nothing undefined these are the deviations of the run means and of the subject
    means. Otherwise the mean is a ratio of sums, and the effects are its linear part (delta method): a subject with two
    scans weighs twice, an undefined value nothing.
    """
    defined = np.isfinite(values)
    units = np.arange(values.shape[1]) if subjects is None else np.asarray(subjects)
    named = np.unique(units[defined.any(axis=0)])
    if not len(named):
        return np.zeros(len(values)), np.zeros(0)
    member = (units[:, None] == named[None, :]).astype(float)
    sums, counts = np.where(defined, values, 0.0) @ member, defined.astype(float) @ member
    influence = (sums - counts * (sums.sum() / counts.sum())) / counts.mean()
    return influence.mean(axis=1), influence.mean(axis=0)


def _interval(effects: Sequence[np.ndarray], mean: float, *, confidence: float, seed: int) -> Span:
    """Interval of `mean`, by resampling each group of effects with replacement on its own."""
    if max(float(np.abs(effect).max()) for effect in effects) < 1e-12:
        return Span(mean, mean)
    stretch = _stretch(effects, confidence)

    def total(*drawn: np.ndarray, axis: int) -> np.ndarray:
        return sum((sample.mean(axis=axis) for sample in drawn), start=np.asarray(mean))

    return _resample([_inflated(effect) * stretch for effect in effects], total, confidence=confidence, seed=seed)


def _inflated(effect: np.ndarray) -> np.ndarray:
    """Resampling n deviations has a variance that is too small by (n - 1) / n; this puts it right."""
    return effect * math.sqrt(len(effect) / (len(effect) - 1))


def _stretch(effects: Sequence[np.ndarray], confidence: float) -> float:
    """Quantile of Student's t over that of the normal distribution.

    The degrees of freedom are Satterthwaite's (Biometrics Bulletin 1946) for a sum of variances that are each estimated
    from few numbers: with 3 seeds that differ much they are near 2; with seeds that differ little, near the number of
    subjects.
    """
    from scipy import stats  # half a second of import that commands which never compare need not pay

    several = [effect for effect in effects if len(effect) > 1]
    variances = np.array([effect.var(ddof=1) / len(effect) for effect in several])
    if not variances.sum():
        return 1.0
    shares = variances / variances.sum()
    freedom = 1 / sum(share**2 / (len(effect) - 1) for share, effect in zip(shares, several, strict=True))
    tail = (1 + confidence) / 2
    return float(stats.t.ppf(tail, freedom) / stats.norm.ppf(tail))


def _resample(
    samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], *, confidence: float, seed: int
) -> Span:
    from scipy import stats

    found = stats.bootstrap(
        tuple(samples),
        statistic,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=500,
        method="percentile",
        confidence_level=confidence,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Span(float(found.low), float(found.high))
