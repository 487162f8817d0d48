"""Figures of a report over cases: volumes, and whether confidence tells the poor cases from the good ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semi_med.metrics.confidence import rank_correlation
from semi_med.report.figures import RUN_COLOURS, WIDTH, short
from semi_med.report.verdict import ENOUGH_CASES, number

_INK, _GRID = "#333333", "#E4E4E4"
_MOST_CLASSES = 24
_NAMED = 2  # of the smallest and of the largest volumes
_ROOM = 0.35  # share of the axis that two names take


def volume_figure(
    predicted: Mapping[str, Mapping[str, float]], labels: Mapping[str, Mapping[str, float]]
) -> Figure | None:
    """One line of points for each structure: a point for each case, a cross for the expert's label of a case.

    Args:
        predicted: structure to case to millilitres.
        labels: the same of the labels, as far as there are any.
    """
    shown = {name: values for name, values in predicted.items() if values}
    names = list(shown)[:_MOST_CLASSES]
    if not names:
        return None
    figure = Figure(figsize=(WIDTH, 0.7 + 0.55 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    largest = max(max(shown[name].values()) for name in names)
    for row, name in enumerate(names):
        values = np.array(list(shown[name].values()))
        expert = [labels[name][case] for case in shown[name] if case in labels.get(name, {})]
        if expert:
            axes.scatter(expert, [row - 0.16] * len(expert), marker="x", s=22, color=RUN_COLOURS[1], linewidths=1.1)
        axes.scatter(values, [row + 0.1] * len(values), s=26, color=RUN_COLOURS[0], alpha=0.55, linewidths=0)
        median = float(np.median(values))
        axes.plot([median] * 2, [row - 0.02, row + 0.22], color=_INK, linewidth=1.6)
        _name_ends(axes, shown[name], row, largest=largest)
    axes.scatter([], [], s=26, color=RUN_COLOURS[0], label="prediction")
    if any(labels.get(name) for name in names):
        axes.scatter([], [], marker="x", s=22, color=RUN_COLOURS[1], label="expert's label")
    axes.set_yticks(range(len(names)))
    axes.set_yticklabels([short(name, 24) for name in names], fontsize=9, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.75)
    axes.set_xlim(left=0)
    axes.margins(x=0.06)
    axes.set_xlabel("ml", fontsize=9, color=_INK)
    _dress(axes)
    figure.legend(loc="outside upper right", ncols=2, fontsize=8.5, frameon=False)
    return figure


def _name_ends(axes: Axes, values: Mapping[str, float], row: int, *, largest: float) -> None:
    """Name the case with the smallest and the one with the largest volume; one of them where both names would meet."""
    ordered = sorted(values, key=lambda case: values[case])
    if len(ordered) < 2 * _NAMED:
        return
    ends = [(ordered[0], "left"), (ordered[-1], "right")]
    if values[ordered[-1]] - values[ordered[0]] < _ROOM * largest:
        median = float(np.median(list(values.values())))
        ends = [max(ends, key=lambda end: abs(values[end[0]] - median))]
    for case, side in ends:
        axes.text(values[case], row - 0.28, short(case, 22), ha=side, va="center", fontsize=7, color="#666666")


def confidence_figure(confidence: Mapping[str, float], dice: Mapping[str, float]) -> Figure | None:
    """Confidence against Dice, a point for each case; and mean Dice of the surest share of cases.

    Args:
        confidence: case to its score, larger is surer.
        dice: case to its mean Dice; undefined ones are left out.
    """
    x, y = _both(confidence, dice)
    if len(x) < 3:
        return None
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    points, curve = figure.subplots(1, 2)
    points.scatter(x, y, s=26, color=RUN_COLOURS[0], alpha=0.6, linewidths=0)
    points.set_xlabel("Confidence of the case", fontsize=9, color=_INK)
    points.set_ylabel("Mean Dice", fontsize=9, color=_INK)
    kept = y[np.argsort(-x, kind="stable")]
    number = np.arange(1, len(kept) + 1)
    curve.plot(number / len(kept), np.cumsum(kept) / number, color=RUN_COLOURS[0], linewidth=1.8)
    curve.axhline(float(y.mean()), color="#999999", linewidth=1, linestyle="--")
    curve.set_xlabel("Share of cases kept, the surest first", fontsize=9, color=_INK)
    curve.set_ylabel("Mean Dice of those kept", fontsize=9, color=_INK)
    for axes in (points, curve):
        _dress(axes)
    return figure


def ranking_words(confidence: Mapping[str, float], dice: Mapping[str, float]) -> str:
    """How well confidence ranks the cases by Dice, in a sentence; empty if nobody can say."""
    x, y = _both(confidence, dice)
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return ""
    rho, low, high = rank_correlation(x, y)
    found = (
        f"Rank correlation of confidence and Dice: {number(rho, 2)} (1 would rank every case rightly, 0 is of no use"
    )
    if len(x) < ENOUGH_CASES or not (math.isfinite(low) and math.isfinite(high)):
        return f"{found}; {len(x)} cases cannot tell)."
    found += f"; 95 % interval over {len(x)} cases: {number(low, 2)} to {number(high, 2)})."
    return found if low > 0 else f"{found} That includes no use at all: do not go by it here."


def _both(confidence: Mapping[str, float], dice: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and Dice of the cases that have both."""
    cases = [case for case in confidence if np.isfinite(dice.get(case, np.nan))]
    return np.array([confidence[case] for case in cases]), np.array([dice[case] for case in cases])


def _dress(axes: Axes) -> None:
    axes.tick_params(labelsize=8, colors=_INK, length=3)
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
