"""Curves of the trainings of a comparison: mean and range over seeds, and what is wrong with pseudo-labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from semi_med.report.comparison_data import Analysis
from semi_med.report.comparison_style import Look, dress, grid_of, legend_above, looks
from semi_med.report.logs import read_log, smooth

Log = Mapping[str, np.ndarray]
Key = tuple[str, int | None]
Logs = Mapping[Key, Mapping[int, Log]]

HEALTH = {
    "pseudo_label_dice": "Pseudo-label Dice",
    "foreground": "Foreground share",
    "agreement": "Agreement, Dice",
    "confident": "Confident share",
    "certain": "Certain share",
}
_POINTS = 160  # of a curve; more than the figure has pixels to show
_SMOOTH = 15  # smoothed over a fifteenth of the training
_WIDEST = 4
# Where a curve counts as unhealthy at the end of the training.
_COLLAPSED, _NO_USE, _ONE_OPINION, _WORSE = 0.2, 0.02, 0.995, 0.05


def read_logs(found: Analysis, file: str) -> dict[Key, dict[int, Log]]:
    """Read `logs/<file>` of all runs that have a readable one: method and number of labels to seed to columns."""
    logs: dict[Key, dict[int, Log]] = {}
    for key, entry in found.entries.items():
        for run in entry.runs:
            log = read_log(Path(run.folder) / "logs" / file)
            if log:
                logs.setdefault(key, {})[run.seed] = log
    return logs


def without_log(found: Analysis, logs: Logs) -> list[str]:
    """Names of the runs whose log is not among those read."""
    return [run.name for run in found.view.runs if run.seed not in logs.get((run.method, run.labeled), {})]


def validation_figure(found: Analysis, logs: Logs) -> Figure | None:
    """Validation Dice over iterations, a panel for each number of labels."""
    return _figure(found, {"mean_dice": "Validation Dice"}, logs, smoothed=False)


def loss_figure(found: Analysis, logs: Logs) -> Figure | None:
    """Training loss over iterations, a panel for each number of labels."""
    return _figure(found, {"loss": "Training loss"}, logs, smoothed=True)


def health_figure(found: Analysis, logs: Logs) -> Figure | None:
    """Health of the pseudo-labels over iterations: a row for each curve, a column for each number of labels."""
    labeled = {key: several for key, several in logs.items() if key[1] is not None}
    return _figure(found, HEALTH, labeled, smoothed=True)


def health_flags(found: Analysis, logs: Logs) -> list[str]:
    """Say in a sentence each what looks wrong with the pseudo-labels at the end of a training."""
    flags = []
    for (method, labeled), several in logs.items():
        for seed, log in several.items():
            where = f"{found.names[method]}, {found.labels(labeled)}, seed {seed}"
            flags += [f"{where}: {sentence}" for sentence in complaints(log)]
    if found.view.thing == "picture":
        flags = [flag.replace("voxels", "pixels").replace("scans", "pictures") for flag in flags]
    return flags


def complaints(log: Log) -> list[str]:
    """Say in a sentence each what looks wrong with the pseudo-labels at the end of one training."""
    found = []
    for column, complain in _RULES.items():
        values = log.get(column)
        finite = values[np.isfinite(values)] if values is not None else np.zeros(0)
        if len(finite) >= 5:
            sentence = complain(smooth(finite, points=20), float(finite[-max(len(finite) // 10, 1) :].mean()))
            found += [sentence] if sentence else []
    return found


def _foreground(curve: np.ndarray, end: float) -> str:
    usual = float(np.median(curve))
    if end > _COLLAPSED * max(usual, 1e-12) and end > 0:
        return ""
    fell = f"the foreground share of the pseudo-labels fell to {100 * end:.2g} %"
    return f"{fell}: the network taught itself to find nothing"


def _confident(curve: np.ndarray, end: float) -> str:
    return (
        f"only {100 * end:.1f} % of the voxels teach at the end: the unlabelled scans do almost nothing"
        if end < _NO_USE
        else ""
    )


def _agreement(curve: np.ndarray, end: float) -> str:
    return f"both opinions agree at {end:.3f}: they have become one and teach nothing new" if end > _ONE_OPINION else ""


def _pseudo_label_dice(curve: np.ndarray, end: float) -> str:
    best = float(curve.max())
    return f"the pseudo-labels got worse in training, from {best:.2f} to {end:.2f} Dice" if end < best - _WORSE else ""


_RULES: dict[str, Callable[[np.ndarray, float], str]] = {
    "foreground": _foreground,
    "confident": _confident,
    "certain": _confident,
    "agreement": _agreement,
    "pseudo_label_dice": _pseudo_label_dice,
}


def _figure(found: Analysis, rows: Mapping[str, str], logs: Logs, *, smoothed: bool) -> Figure | None:
    shown = {
        name: title
        for name, title in rows.items()
        if any(_has(log, name) for many in logs.values() for log in many.values())
    }
    counts: list[int | None] = [labeled for labeled in (*found.counts, None) if any(key[1] == labeled for key in logs)]
    if not shown or not counts:
        return None
    panels = [(name, labeled) for name in shown for labeled in counts]
    columns = len(counts) if len(counts) <= _WIDEST or len(shown) > 1 else _WIDEST
    lines = -(-len(panels) // columns)
    figure, grid = grid_of(lines, columns, height=2.6 if lines == 1 else 2.0)
    styles = looks(found.names, baseline=found.view.baseline)
    cells = [axes for line in grid for axes in line]
    for axes in cells[len(panels) :]:
        axes.set_visible(False)
    drawn: set[str] = set()
    for place, (axes, (name, labeled)) in enumerate(zip(cells, panels, strict=False)):
        for method in found.names:
            several = [log for log in logs.get((method, labeled), {}).values() if _has(log, name)]
            if several:
                drawn.add(method)
                _band(axes, several, name, look=styles[method], smoothed=smoothed)
        top, bottom, left = place < columns or len(shown) == 1, place >= len(panels) - columns, place % columns == 0
        dress(
            axes,
            title=found.labels(labeled) if top else "",
            x="Iteration" if bottom else "",
            y=shown[name] if left else "",
        )
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    _same_range(cells[: len(panels)], columns=columns, one_row=len(shown) == 1)
    if "mean_dice" in shown:
        _late(cells[: len(panels)])
    legend_above(figure, {m: found.brief[m] for m in found.names if m in drawn}, styles)
    return figure


def _band(axes: Axes, logs: Sequence[Log], column: str, *, look: Look, smoothed: bool) -> None:
    """Mean over seeds as a line, their range as a band."""
    at = np.unique(np.concatenate([log["iteration"] for log in logs]))
    at = at[np.unique(np.linspace(0, len(at) - 1, min(len(at), _POINTS)).round().astype(int))]
    curves = np.array([_at(log, column, at, smoothed=smoothed) for log in logs])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an iteration without a value in any seed stays undefined
        mean, low, high = (reduce(curves, axis=0) for reduce in (np.nanmean, np.nanmin, np.nanmax))
    if len(logs) > 1:
        axes.fill_between(at, low, high, color=look.colour, alpha=0.14, linewidth=0)
    every = max(len(at) // 6, 1)
    axes.plot(at, mean, color=look.colour, linewidth=1.5, marker=look.marker, markersize=3.5, markevery=every)


def _at(log: Log, column: str, at: np.ndarray, *, smoothed: bool) -> np.ndarray:
    """Values of a column at given iterations; undefined outside of what the run logged."""
    values = smooth(log[column], points=_SMOOTH) if smoothed else log[column]
    defined = np.isfinite(values)
    return np.interp(at, log["iteration"][defined], values[defined], left=np.nan, right=np.nan)


def _same_range(cells: Sequence[Axes], *, columns: int, one_row: bool) -> None:
    """Panels that show one quantity share the range of the vertical axis."""
    size = len(cells) if one_row else columns
    for start in range(0, len(cells), size):
        row = cells[start : start + size]
        low, high = min(axes.get_ylim()[0] for axes in row), max(axes.get_ylim()[1] for axes in row)
        for axes in row:
            axes.set_ylim(low, high)


def _late(cells: Sequence[Axes]) -> None:
    """Cut the steep start off the vertical axis, so that methods are told apart where they end."""
    curves = [np.asarray(line.get_ydata(), float) for axes in cells for line in axes.lines]
    late = np.concatenate([curve[len(curve) // 4 :] for curve in curves])
    low, high = float(np.nanmin(late)), cells[0].get_ylim()[1]
    for axes in cells:
        axes.set_ylim(low - 0.06 * (high - low), high)


def _has(log: Log, column: str) -> bool:
    return column in log and bool(np.isfinite(log[column]).any())
