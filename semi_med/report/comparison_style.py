"""How methods look on the page of a comparison: colour, mark, axes; vector figures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from semi_med.report.figures import RUN_COLOURS, WIDTH, short

BASELINE_COLOUR = "#4A4A4A"
INK, GRID, SOFT = "#22272e", "#E4E7EB", "#5b6470"
# Every method has a shape beside its colour: figures stay readable in grey and with any colour vision.
_MARKS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"), ("*", "★"), ("X", "✖"))

_SIZES = {"o": 7.0, "s": 6.5, "D": 6.5, "*": 11.0}
EDGE: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.7}  # keeps marks apart that overlap


@dataclass(frozen=True)
class Look:
    """Colour and shape of one method: `marker` in figures, `sign` in text."""

    colour: str
    marker: str
    sign: str

    @property
    def size(self) -> float:
        """Of the marker in points, so that all shapes cover about the same area."""
        return _SIZES.get(self.marker, 8.0)


def looks(methods: Iterable[str], *, baseline: str) -> dict[str, Look]:
    """Give every method its look: the baseline is grey, the others get colours in order."""
    ordered = [baseline, *(method for method in methods if method != baseline)]
    colours = (BASELINE_COLOUR, *(RUN_COLOURS[place % len(RUN_COLOURS)] for place in range(len(ordered) - 1)))
    return {
        method: Look(colour, *_MARKS[place % len(_MARKS)])
        for place, (method, colour) in enumerate(zip(ordered, colours, strict=True))
    }


def svg_uri(figure: Figure) -> str:
    """Return the figure as `data:image/svg+xml;base64,...`; the same figure gives the same text."""
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "semi_med", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def grid_of(rows: int, columns: int, *, height: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure of the page's width with axes (rows, columns), each row `height` inches."""
    figure = Figure(figsize=(WIDTH, height * rows + 0.45), layout="constrained")
    return figure, [list(row) for row in figure.subplots(rows, columns, squeeze=False)]


def dress(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Title at the left, quiet spines, grid behind the data."""
    axes.set_title(title, loc="left", fontsize=10, color=INK, parse_math=False)
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9aa3ad")


def legend_above(figure: Figure, names: Mapping[str, str], styles: Mapping[str, Look], *, lines: bool = True) -> None:
    """One legend for the whole figure, above all axes."""
    handles: Sequence[Line2D] = [
        Line2D([], [], color=styles[method].colour, marker=styles[method].marker, markersize=5, linewidth=1.6 * lines)
        for method in names
    ]
    shown = [short(name, 28) for name in names.values()]
    legend = figure.legend(
        handles,
        shown,
        loc="outside upper left",
        ncols=_columns(shown),
        fontsize=8.5,
        frameon=False,
        handlelength=2.0 if lines else 0.8,
        columnspacing=1.4,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _columns(names: Sequence[str]) -> int:
    """As many columns of a legend as fit the page, which is filled column by column."""
    inches = [0.6 + 0.068 * len(name) for name in names]  # of one entry at this size of letters
    for columns in range(min(len(names), 8), 1, -1):
        lines = -(-len(names) // columns)
        if sum(max(inches[place : place + lines]) for place in range(0, len(names), lines)) <= WIDTH:
            return columns
    return 1
