"""Curves and bars as PNG inside the page. Drawn without a display and without global state."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from semi_med.report.logs import HEALTH, SCHEDULES, loss_columns, smooth

Log = Mapping[str, np.ndarray]

# Okabe and Ito's colours: told apart with any common colour vision.
RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
TERM_COLOURS = ("#222222", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
WIDTH = 8.6  # inches
_INK, _GRID = "#333333", "#E4E4E4"
_NAMED_BARS = 45


def data_uri(figure: Figure, *, dpi: int = 150, facecolor: str = "white") -> str:
    """Return the figure as `data:image/png;base64,...`."""
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, facecolor=facecolor, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def short(name: str, length: int = 36) -> str:
    """Cut a name to what fits a legend."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def colour_of(number: int, colours: Sequence[str] = RUN_COLOURS) -> str:
    """Colour of the n-th run; they repeat beyond the palette."""
    return colours[number % len(colours)]


def loss_figure(logs: Mapping[str, Log]) -> Figure | None:
    """Terms of the loss over iterations, one panel for each run."""
    shown = {name: log for name, log in logs.items() if loss_columns(dict(log))}
    if not shown:
        return None
    panels = list(_panels(len(shown), height=3.1))
    for axes, (name, log) in zip(panels, shown.items(), strict=True):
        for number, term in enumerate(loss_columns(dict(log))):
            colour = colour_of(number, TERM_COLOURS)
            axes.plot(log["iteration"], log[term], color=colour, alpha=0.18, linewidth=0.7)
            axes.plot(
                log["iteration"], smooth(log[term]), color=colour, linewidth=2.0 if term == "loss" else 1.3, label=term
            )
        _dress(axes, short(name), "Loss")
        axes.set_ylim(*_range(np.concatenate([log[term] for term in loss_columns(dict(log))])))
        _legend(axes)
    return panels[0].figure  # type: ignore[return-value]


def terms_figure(log: Log) -> Figure | None:
    """Each term of the loss of one run in a panel of its own, since they differ in size."""
    terms = [term for term in loss_columns(dict(log)) if _has(log, term)]
    if not terms:
        return None
    panels = list(_panels(len(terms), height=2.2))
    for axes, term in zip(panels, terms, strict=True):
        axes.plot(log["iteration"], log[term], color=RUN_COLOURS[0], alpha=0.25, linewidth=0.7)
        axes.plot(log["iteration"], smooth(log[term]), color=RUN_COLOURS[0], linewidth=1.6)
        _dress(axes, term, "")
        axes.set_ylim(*_range(log[term]))
    return panels[0].figure  # type: ignore[return-value]


def validation_figure(logs: Mapping[str, Log]) -> Figure | None:
    """Dice on the validation cases over iterations, one panel for the mean and, with several classes, for each."""
    columns = ["mean_dice", *_class_columns(logs)]
    shown = [column for column in columns if any(_has(log, column) for log in logs.values())][:6]
    if not shown:
        return None
    panels = list(_panels(len(shown), height=3.1, widest=2))
    for axes, column in zip(panels, shown, strict=True):
        _plot_runs(axes, logs, column, raw=True)
        title = "Mean over classes" if column == "mean_dice" else f"Class {column.removeprefix('dice_')}"
        _dress(axes, title if len(shown) > 1 else "Validation", "Dice")
        axes.set_ylim(0, 1)
    _legend(panels[0], place="lower right")
    return panels[0].figure  # type: ignore[return-value]


def health_figure(logs: Mapping[str, Log]) -> Figure | None:
    """What the pseudo-labels look like over iterations: confident share, foreground share, agreement."""
    shown = [column for column in HEALTH if any(_has(log, column) for log in logs.values())]
    if not shown:
        return None
    panels = list(_panels(len(shown), height=2.7))
    for axes, column in zip(panels, shown, strict=True):
        _plot_runs(axes, logs, column, raw=False)
        _dress(axes, HEALTH[column], "Share")
        if column == "foreground":
            axes.set_ylim(bottom=0)
        else:
            axes.set_ylim(0, 1.02)
    with_lines = next(axes for axes in panels if axes.lines)
    _legend(with_lines)
    return panels[0].figure  # type: ignore[return-value]


def schedule_figure(logs: Mapping[str, Log]) -> Figure | None:
    """What is set anew at each iteration: the learning rate, the weight of the unlabelled scans."""
    shown = [column for column in SCHEDULES if any(_has(log, column) for log in logs.values())]
    if not shown:
        return None
    panels = list(_panels(len(shown), height=2.2))
    for axes, column in zip(panels, shown, strict=True):
        _plot_runs(axes, logs, column, raw=True)
        _dress(axes, column.replace("_", " ").capitalize(), "")
        axes.set_ylim(0, None)
        axes.margins(y=0.1)
    if len(logs) > 1:
        _legend(panels[0])
    return panels[0].figure  # type: ignore[return-value]


def difference_figure(by_case: Mapping[str, float], *, better: str, worse: str) -> Figure | None:
    """One bar for each case, sorted: Dice of the judged run minus Dice of the baseline."""
    if not by_case:
        return None
    cases = sorted(by_case, key=lambda case: by_case[case])
    values = np.array([by_case[case] for case in cases])
    named = len(cases) <= _NAMED_BARS
    figure = Figure(figsize=(WIDTH, 3.3 if named else 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(range(len(cases)), values, color=np.where(values >= 0, RUN_COLOURS[0], RUN_COLOURS[1]), width=0.75)
    axes.axhline(0, color=_INK, linewidth=0.8)
    _dress(axes, "Difference by case, sorted", "Dice difference")
    axes.set_xlabel("")
    axes.set_xlim(-0.7, len(cases) - 0.3)
    axes.margins(y=0.12)
    axes.grid(axis="x", visible=False)
    if named:
        axes.set_xticks(range(len(cases)))
        axes.set_xticklabels([short(case, 16) for case in cases], rotation=60, ha="right", fontsize=7, parse_math=False)
    else:
        axes.set_xlabel(f"{len(cases)} cases")
        axes.set_xticks([])
    # Sorted upwards, the bars leave the upper left and the lower right corner free.
    if values[-1] > 0:
        _corner_text(axes, f"▲ {short(better)} better", RUN_COLOURS[0], top=True)
    if values[0] < 0:
        _corner_text(axes, f"▼ {short(worse)} better", RUN_COLOURS[1], top=False)
    return figure


def _corner_text(axes: Axes, text: str, colour: str, *, top: bool) -> None:
    x, y = (0.01, 0.97) if top else (0.99, 0.03)
    axes.text(
        x,
        y,
        text,
        transform=axes.transAxes,
        ha="left" if top else "right",
        va="top" if top else "bottom",
        color=colour,
        fontsize=8.5,
        parse_math=False,
    )


def _panels(count: int, *, height: float, widest: int = 3) -> list[Axes]:
    columns = min(count, widest)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    return list(grid.flat[:count])


def _plot_runs(axes: Axes, logs: Mapping[str, Log], column: str, *, raw: bool) -> None:
    for number, (name, log) in enumerate(logs.items()):
        if not _has(log, column):
            continue
        colour = colour_of(number)
        if not raw:
            axes.plot(log["iteration"], log[column], color=colour, alpha=0.18, linewidth=0.7)
        values = log[column] if raw else smooth(log[column])
        marker = "o" if len(values) <= 40 and raw else None
        axes.plot(log["iteration"], values, color=colour, linewidth=1.6, marker=marker, markersize=3, label=short(name))


def _dress(axes: Axes, title: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=_INK, parse_math=False)
    axes.set_ylabel(y, fontsize=9, color=_INK)
    axes.set_xlabel("Iteration", fontsize=9, color=_INK)
    axes.tick_params(labelsize=8, colors=_INK, length=3)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")


def _legend(axes: Axes, *, place: Literal["best", "lower right"] = "best") -> None:
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    legend = axes.legend(handles, labels, loc=place, fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
    for text in legend.get_texts():
        text.set_parse_math(False)


def _class_columns(logs: Mapping[str, Log]) -> list[str]:
    names = {name for log in logs.values() for name in log if name.startswith("dice_")}
    found = sorted(names, key=lambda name: (len(name), name))
    return found if len(found) > 1 else []


def _has(log: Log, column: str) -> bool:
    return column in log and bool(np.isfinite(log[column]).any())


def _range(values: np.ndarray) -> tuple[float, float]:
    """Limits that one early peak does not stretch."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = min(0.0, float(finite.min())), float(np.percentile(finite, 99.5))
    return low, max(high * 1.08, low + 1e-6)
