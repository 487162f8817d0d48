"""Does a score of confidence know which segmentations are bad? Ranks, risk by coverage, and what Dice to expect."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from semi_med.errors import InputError
from semi_med.metrics.case import Row

MEAN = "mean over classes"
CURVE_COLUMNS = ("structure", "coverage", "cases", "risk", "random", "best")
_FEWEST = 3  # cases
_RESAMPLED = 2000


@dataclass(frozen=True)
class Ranking:
    """How a score goes with the true Dice of one structure, over cases.

    Risk is 1 - Dice. At a coverage of 0.8 the fifth of the cases with the lowest score is left out (to be looked at by
    a person), and the risk is the mean of the others. AURC is the mean risk over all coverages.

    Attributes:
        structure: name of the class, or `MEAN`.
        cases: that have both.
        undefined: that lack a score or a Dice.
        spearman: rank correlation; NaN where either does not vary.
        low: 95 % bootstrap interval (percentile) over cases.
        high: its other end.
        aurc: of the score.
        aurc_random: of no order at all, the mean risk.
        aurc_best: of the order of the true Dice.
        mean_score: over cases.
        mean_dice: over cases; a score that is Dice itself would have the same mean.
        slope: of the straight line that gives the expected Dice of a score.
        offset: of that line.
        error: mean absolute error of the expected Dice of a case, with lines fitted to the other cases.
        error_raw: the same of the score itself, taken for Dice.
        curve: one row for each coverage, from all cases to one.
    """

    structure: str
    cases: int
    undefined: int
    spearman: float
    low: float
    high: float
    aurc: float
    aurc_random: float
    aurc_best: float
    mean_score: float
    mean_dice: float
    slope: float
    offset: float
    error: float
    error_raw: float
    curve: tuple[Row, ...]


def read_scores(path: Path) -> dict[tuple[str, str], float]:
    """Confidence by case and class from the `volumes.csv` of a prediction.

    Raises:
        InputError: code TABLE.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            return {(row["case"], row["class"]): float(row["confidence"]) for row in csv.DictReader(stream)}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"a table with the columns case, class and confidence is wanted ({type(error).__name__})",
            where=path,
            fix="Give the volumes.csv that semi-med predict wrote.",
            code="TABLE",
        ) from error


def rank_structures(scores: Mapping[tuple[str, str], float], rows: Sequence[Row]) -> list[Ranking]:
    """Rankings of every class, and of the means over classes if there are several.

    Args:
        scores: by case and class name.
        rows: of an evaluation. A class without a name of its own, `class 2`, is the second of the scores' classes.

    Raises:
        InputError: code SCORES, if scores and rows do not belong together, or there are fewer than three cases.
    """
    named = list(dict.fromkeys(name for _, name in scores))
    dice: dict[str, dict[str, float]] = {}
    for row in rows:
        name = row["class_name"]
        if name not in named and name == f"class {row['class']}" and row["class"] <= len(named):
            name = named[row["class"] - 1]
        dice.setdefault(name, {})[row["case"]] = row["dice"]
    found = [
        _ranking(name, {case: (scores.get((case, name), math.nan), value) for case, value in of_class.items()})
        for name, of_class in dice.items()
        if name in named
    ]
    if not found:
        raise InputError(
            f"the scores are of {', '.join(named) or 'nothing'}, the labels of {', '.join(dice)}",
            where="--scores",
            fix="Give the volumes.csv of these predictions.",
            code="SCORES",
        )
    if len(found) > 1:
        cases = {case: None for of_class in dice.values() for case in of_class}
        pairs = {}
        for case in cases:
            both = [(scores.get((case, name), math.nan), dice[name].get(case, math.nan)) for name in dice]
            pairs[case] = (_mean([one for one, _ in both]), _mean([one for _, one in both]))
        found.append(_ranking(MEAN, pairs))
    return found


def expected_dice(calibration: Mapping[str, Mapping[str, float]], structure: str, score: float) -> float:
    """The Dice that cases with this score had on labelled data, from 0 to 1; NaN for what was not calibrated."""
    line = calibration.get(structure)
    if line is None or math.isnan(score):
        return math.nan
    return min(max(line["offset"] + line["slope"] * score, 0.0), 1.0)


def read_calibration(path: Path) -> dict[str, dict[str, float]]:
    """The lines of a `<table>_confidence.json`, by structure.

    Raises:
        InputError: code CALIBRATION.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        lines = {
            one["structure"]: {"slope": float(one["slope"]), "offset": float(one["offset"])}
            for one in content["structures"]
            if one["slope"] is not None and one["offset"] is not None
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"a calibration is wanted, this cannot be read as one ({type(error).__name__})",
            where=path,
            fix="Give the <table>_confidence.json that semi-med evaluate --scores wrote.",
            code="CALIBRATION",
        ) from error
    return lines


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _ranking(structure: str, pairs: Mapping[str, tuple[float, float]]) -> Ranking:
    known = [pair for pair in pairs.values() if not any(map(math.isnan, pair))]
    if len(known) < _FEWEST:
        raise InputError(
            f"{_FEWEST} cases or more with a score and a Dice are wanted, {structure} has {len(known)}",
            where="--scores",
            fix="Measure more labelled cases.",
            code="SCORES",
        )
    score, dice = np.array(known).T
    spearman, low, high = rank_correlation(score, dice)
    curve = _curve(structure, score, dice)
    slope, offset = _line(score, dice)
    return Ranking(
        structure=structure,
        cases=len(known),
        undefined=len(pairs) - len(known),
        spearman=spearman,
        low=low,
        high=high,
        aurc=float(np.mean([row["risk"] for row in curve])),
        aurc_random=float(1 - dice.mean()),
        aurc_best=float(np.mean([row["best"] for row in curve])),
        mean_score=float(score.mean()),
        mean_dice=float(dice.mean()),
        slope=slope,
        offset=offset,
        error=_held_out_error(score, dice),
        error_raw=float(np.abs(score - dice).mean()),
        curve=curve,
    )


def rank_correlation(score: np.ndarray, dice: np.ndarray) -> tuple[float, float, float]:
    """The rank correlation and its interval."""
    if np.ptp(score) == 0 or np.ptp(dice) == 0:
        return math.nan, math.nan, math.nan
    draw = np.random.default_rng(0)
    resampled = []
    for _ in range(_RESAMPLED):
        chosen = draw.integers(0, len(score), len(score))
        if np.ptp(score[chosen]) > 0 and np.ptp(dice[chosen]) > 0:
            resampled.append(_correlation(score[chosen], dice[chosen]))
    low, high = np.percentile(resampled, [2.5, 97.5])
    return _correlation(score, dice), float(low), float(high)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(stats.rankdata(one), stats.rankdata(other))[0, 1])


def _curve(structure: str, score: np.ndarray, dice: np.ndarray) -> tuple[Row, ...]:
    """Risk by coverage; cases of one score count as if in all orders, by the mean of their risks."""
    risk = 1 - dice
    levelled = np.empty_like(risk)
    for value in np.unique(score):
        levelled[score == value] = risk[score == value].mean()
    count = np.arange(1, len(risk) + 1)
    by_score = np.cumsum(levelled[np.argsort(-score, kind="stable")]) / count
    best = np.cumsum(np.sort(risk)) / count
    return tuple(
        {
            "structure": structure,
            "coverage": kept / len(risk),
            "cases": int(kept),
            "risk": float(by_score[kept - 1]),
            "random": float(risk.mean()),
            "best": float(best[kept - 1]),
        }
        for kept in count[::-1]
    )


def _line(score: np.ndarray, dice: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the least squares line; a slope below 0 would turn the order round, and becomes 0."""
    spread = score - score.mean()
    slope = max(float((spread * (dice - dice.mean())).sum() / (spread**2).sum()), 0.0) if spread.any() else 0.0
    return slope, float(dice.mean() - slope * score.mean())


def _held_out_error(score: np.ndarray, dice: np.ndarray) -> float:
    errors = []
    for case in range(len(score)):
        others = np.arange(len(score)) != case
        slope, offset = _line(score[others], dice[others])
        errors.append(abs(float(np.clip(offset + slope * score[case], 0, 1)) - dice[case]))
    return float(np.mean(errors))


def as_content(found: Sequence[Ranking]) -> dict[str, Any]:
    """For JSON, without the curves."""
    kept = [name for name in Ranking.__dataclass_fields__ if name != "curve"]
    return {
        "schema": 1,
        "definitions": {
            "risk": "1 - Dice",
            "coverage": "share of the cases that are kept, those with the highest score",
            "aurc": "mean risk over all coverages; lower is better",
            "expected Dice": "offset + slope x score, between 0 and 1",
            "error": "mean absolute error of the expected Dice, each case by a line fitted to the others",
        },
        "structures": [{name: getattr(one, name) for name in kept} for one in found],
    }
