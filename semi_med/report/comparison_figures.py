"""Figures of a comparison: accuracy against the number of labels, and differences with their intervals."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from semi_med.report.comparison_data import Analysis, Entry
from semi_med.report.comparison_style import EDGE, GRID, INK, SOFT, Look, dress, grid_of, legend_above, looks
from semi_med.report.comparison_words import points, span
from semi_med.report.figures import WIDTH, short


def accuracy_figure(found: Analysis) -> Figure | None:
    """Mean Dice of every method against the number of labels: seeds as dots, intervals as bars, ceiling as a band."""
    if not found.counts:
        return None
    styles = looks(found.names, baseline=found.view.baseline)
    shown = {
        method: found.brief[method] for method in found.names if any((method, n) in found.entries for n in found.counts)
    }
    figure, ((axes,),) = grid_of(1, 1, height=4.1)
    ends = [_ceiling_band(axes, found)]
    step = min(0.09, 0.7 / max(len(shown), 1))
    for place, method in enumerate(shown):
        shift = (place - (len(shown) - 1) / 2) * step
        line = [
            (number + shift, found.entries[method, labeled])
            for number, labeled in enumerate(found.counts)
            if (method, labeled) in found.entries
        ]
        ends += [_accuracy_line(axes, line, styles[method], step=step, dashed=method == found.view.baseline)]
    dress(
        axes,
        x=f"Labelled {found.view.unit}s (other training {found.view.thing}s: without labels)",
        y="Mean Dice, points",
    )
    axes.set_xticks(range(len(found.counts)), [str(labeled) for labeled in found.counts])
    axes.set_xlim(-0.5, len(found.counts) - 0.5)
    axes.grid(axis="x", visible=False)
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    axes.set_ylim(low - 0.04 * (high - low + 1), high + 0.1 * (high - low + 1))
    legend_above(figure, shown, styles)
    return figure


def forest_figure(found: Analysis) -> Figure | None:
    """Paired difference of every method to the baseline, one line each, grouped by the number of labels."""
    groups = [
        (labeled, [entry for entry in found.at(labeled) if entry.difference and not math.isnan(entry.difference.mean)])
        for labeled in found.counts
    ]
    groups = [(labeled, entries) for labeled, entries in groups if entries]
    if not groups:
        return None
    styles = looks(found.names, baseline=found.view.baseline)
    lines = sum(len(entries) + 1 for _, entries in groups)
    figure = Figure(figsize=(WIDTH, 0.29 * lines + 0.9), layout="constrained")
    axes = figure.add_subplot()
    aside = blended_transform_factory(axes.transAxes, axes.transData)
    y = 0.0
    for labeled, entries in groups:
        axes.text(
            *(-0.02, y, found.labels(labeled)),
            transform=aside,
            fontsize=9,
            va="center",
            ha="right",
            color=INK,
            weight="bold",
        )
        for entry in sorted(entries, key=lambda entry: -entry.difference.mean):  # type: ignore[union-attr]
            y -= 1
            _forest_line(axes, entry, y, name=found.brief[entry.method], look=styles[entry.method])
        y -= 1.25
    axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
    dress(axes, x=f"Dice points, difference to {short(found.names[found.view.baseline])}")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(y + 0.6, 0.8)
    for x, text, side in ((0.0, "◂ worse", "left"), (1.0, "better ▸", "right")):
        axes.text(x, 1.0, text, transform=axes.transAxes, fontsize=8.5, color=SOFT, ha=side, va="bottom")
    axes.text(1.02, 1.0, "mean (95 % interval)", transform=axes.transAxes, fontsize=8.5, color=SOFT, va="bottom")
    return figure


def _ceiling_band(axes: Axes, found: Analysis) -> tuple[float, float]:
    """Band of the baseline trained on all labels; returns what it spans."""
    ceiling = found.ceiling
    if ceiling is None or ceiling.mean is None or math.isnan(ceiling.mean.mean):
        return math.inf, -math.inf
    mean, low, high = (100 * value for value in (ceiling.mean.mean, ceiling.mean.low, ceiling.mean.high))
    if not math.isnan(low):
        axes.axhspan(low, high, color=GRID, alpha=0.75, linewidth=0)
    axes.axhline(mean, color=INK, linewidth=1.2, linestyle=(0, (1, 1.5)))
    axes.annotate(
        f"all labels, {short(found.names[found.view.baseline])}: {mean:.1f}",
        (0.995, mean),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=INK,
        parse_math=False,
    )
    return mean, mean if math.isnan(high) else high


def _accuracy_line(
    axes: Axes, line: list[tuple[float, Entry]], look: Look, *, step: float, dashed: bool
) -> tuple[float, float]:
    means = [(x, entry.mean) for x, entry in line if entry.mean is not None and not math.isnan(entry.mean.mean)]
    if not means:
        return math.inf, -math.inf
    xs, ys = [x for x, _ in means], [100 * mean.mean for _, mean in means]
    style = (0, (4, 2)) if dashed else "-"
    axes.plot(xs, ys, color=look.colour, linewidth=1.3, alpha=0.75, linestyle=style, zorder=3)
    seen = list(ys)
    for (x, mean), y in zip(means, ys, strict=True):
        if not math.isnan(mean.low):
            low, high = 100 * mean.low, 100 * mean.high
            axes.plot([x, x], [low, high], color=look.colour, linewidth=1.6, alpha=0.55, zorder=2)
            # an interval from few seeds may be very wide: it may leave the axes, the points may not
            seen += [max(low, y - 15), min(high, y + 15)]
        dots = 100 * np.array(list(mean.by_seed.values()))
        axes.plot(np.full(len(dots), x + 0.3 * step), dots, ".", color=look.colour, alpha=0.55, markersize=6, zorder=3)
        seen += dots[np.isfinite(dots)].tolist()
    axes.plot(xs, ys, look.marker, color=look.colour, markersize=look.size, zorder=4, **EDGE)
    return min(seen), max(seen)


def _forest_line(axes: Axes, entry: Entry, y: float, *, name: str, look: Look) -> None:
    found = entry.difference
    assert found is not None
    if not math.isnan(found.low):
        axes.plot([100 * found.low, 100 * found.high], [y, y], color=look.colour, linewidth=1.3, zorder=2)
        given = [100 * found.cases_low, 100 * found.cases_high]
        axes.plot(given, [y, y], color=look.colour, linewidth=5, alpha=0.4, solid_capstyle="butt", zorder=2)
    seeds = 100 * np.array(list(found.by_seed.values()))
    axes.plot(seeds, np.full(len(seeds), y), "|", color=INK, markersize=7, markeredgewidth=0.9, zorder=3)
    mean = 100 * found.mean
    axes.plot([mean], [y], look.marker, color=look.colour, markersize=look.size, zorder=4, **EDGE)
    aside = blended_transform_factory(axes.transAxes, axes.transData)
    axes.text(
        -0.02,
        y,
        short(name, 24),
        transform=aside,
        fontsize=9,
        va="center",
        ha="right",
        color=INK,
        parse_math=False,
    )
    words = f"{points(found.mean, sign=True)}  ({span(found.low, found.high, sign=True)})"
    axes.text(1.02, y, words, transform=aside, fontsize=8.5, va="center", color=INK)
