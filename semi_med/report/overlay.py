"""One case as a reader of scans wants to see it: three planes, contours of the expert and of each run.

Arrays are turned to the nearest RAS axes first. Axial and coronal planes show the patient's right on the left side of
the picture, sagittal planes show anterior on the left, as on a radiologist's screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from semi_med.errors import InputError
from semi_med.inference import grids
from semi_med.inference.io import Scan, read_image, read_label
from semi_med.metrics.pair import check_same_grid
from semi_med.report.figures import WIDTH, short
from semi_med.report.views import CaseView

LABEL_COLOUR = "#56E0FF"
PREDICTION_COLOURS = ("#FFA600", "#FF6FB5", "#F0E442", "#7CFFB2")
_MOST_RUNS = len(PREDICTION_COLOURS)
_MARGIN = 12.0  # mm around the structure
_BARS = (1, 2, 5, 10, 20, 50, 100)  # mm


@dataclass(frozen=True)
class Plane:
    """A way to cut an RAS volume: normal axis, axis to the left and axis upwards, and the letters at the four sides."""

    name: str
    normal: int
    across: int
    up: int
    left: str
    right: str
    top: str
    bottom: str


PLANES = (
    Plane("Axial", 2, 0, 1, "R", "L", "A", "P"),
    Plane("Coronal", 1, 0, 2, "R", "L", "S", "I"),
    Plane("Sagittal", 0, 1, 2, "A", "P", "S", "I"),
)


@dataclass(frozen=True)
class Drawing:
    """One case turned to RAS axes: arrays (i, j, k) towards right, anterior, superior, and voxel sizes in mm."""

    image: np.ndarray
    label: np.ndarray
    predictions: dict[str, np.ndarray]
    spacing: np.ndarray
    centre: tuple[int, int, int]


def load_drawing(case: CaseView, *, runs: Sequence[str]) -> Drawing:
    """Read the files of a case and turn them to RAS axes.

    Args:
        case: its image, label and predictions must lie on one grid.
        runs: names of the runs to draw, in order; those without a prediction of this case are left out.

    Raises:
        InputError: a file cannot be read or lies on another grid.
    """
    expert = read_label(case.label)
    scans = {"": _first_channel(read_image(case.image, nonfinite="replace"))}
    scans |= {name: read_label(case.predictions[name]) for name in list(runs)[:_MOST_RUNS] if name in case.predictions}
    paths = {"": case.image, **case.predictions}
    for name, scan in scans.items():
        check_same_grid(scan, expert, where=(Path(paths[name]), Path(case.label)))
    if expert.array.ndim != 3:
        raise InputError(f"wanted 3 axes to draw, got shape {expert.array.shape}", where=case.label, code="SHAPE")

    label, spacing = to_ras(expert)
    turned = {name: to_ras(scan)[0] for name, scan in scans.items()}
    image = turned.pop("")
    return Drawing(image, label, turned, spacing, centre_of(label, list(turned.values())))


def to_ras(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Swap and flip axes so that i, j, k run towards right, anterior, superior; return the array and its spacing."""
    return grids.to_ras(scan.array, scan.affine)


def centre_of(label: np.ndarray, predictions: Sequence[np.ndarray]) -> tuple[int, int, int]:
    """Voxel nearest the label's centre of mass; of the predictions' where it is empty; else the middle."""
    for found in (label > 0, np.any([array > 0 for array in predictions], axis=0) if len(predictions) else None):
        if found is not None and found.any():
            i, j, k = (round(float(axis.mean())) for axis in np.nonzero(found))
            return i, j, k
    i, j, k = (size // 2 for size in label.shape)
    return i, j, k


def overlay_figure(drawing: Drawing, *, captions: Mapping[str, str], colours: Mapping[str, str]) -> Figure:
    """Draw three orthogonal planes through the label's centre; one row for each run.

    Args:
        drawing: the case.
        captions: run to the words at the left of its row.
        colours: run to the colour of its contour.

    Returns:
        A dark figure, physically proportioned, all panels on one scale.
    """
    planes = [plane for plane in PLANES if min(drawing.label.shape[axis] for axis in (plane.across, plane.up)) > 1]
    runs: list[str | None] = list(drawing.predictions) or [None]
    side = WIDTH / 3.1
    figure = Figure(
        figsize=(side * max(len(planes), 2) + 0.4, side * len(runs) + 0.65),
        layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.05, wspace=0.01, hspace=0.02),
    )
    grid = figure.subplots(len(runs), len(planes), squeeze=False)
    window, grey = _window(drawing), _grey(drawing)
    for row, name in zip(grid, runs, strict=True):
        for axes, plane in zip(row, planes, strict=True):
            _draw(axes, drawing, plane, window=window, grey=grey)
            # The label's line is the broader one, so that a perfect prediction on top of it does not hide it.
            _contour(axes, drawing.label, plane, drawing=drawing, colour=LABEL_COLOUR, width=2.8)
            if name is not None:
                _contour(axes, drawing.predictions[name], plane, drawing=drawing, colour=colours[name], width=1.2)
        if name is not None:
            row[0].set_ylabel(captions.get(name, name), color="white", fontsize=9, parse_math=False)
    for axes, plane in zip(grid[0], planes, strict=True):
        axes.set_title(plane.name, color="white", fontsize=9)
    _scale_bar(grid[-1, -1], window[1])
    _legend(figure, [name for name in runs if name is not None], colours)
    return figure


def _first_channel(scan: Scan) -> Scan:
    return scan if scan.array.ndim <= 3 else Scan(scan.array[..., 0], scan.affine, scan.warnings)


def _grey(drawing: Drawing) -> tuple[float, float]:
    """Window of grey values from the planes that are shown."""
    shown = np.concatenate([_cut(drawing.image, plane, drawing.centre).ravel() for plane in PLANES])
    low, high = np.percentile(shown, [1, 99.5])
    return float(low), float(max(high, low + 1e-6))


def _window(drawing: Drawing) -> tuple[np.ndarray, float]:
    """Middle (mm, RAS axes from the first voxel) and side (mm) of the cube that all panels show."""
    found = np.any([drawing.label > 0, *(array > 0 for array in drawing.predictions.values())], axis=0)
    size = (np.array(found.shape) - 1) * drawing.spacing
    if not found.any():
        return size / 2, float(size.max())
    ends = [np.flatnonzero(found.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    low, high = (np.array([end[which] for end in ends]) * drawing.spacing for which in (0, 1))
    margin = max(_MARGIN, 0.15 * float((high - low).max()))
    side = min(float((high - low).max()) + 2 * margin, float(size.max()))
    middle = (low + high) / 2
    inside = np.clip(middle, side / 2, size - side / 2)
    return np.where(size > side, inside, size / 2), side


def _cut(array: np.ndarray, plane: Plane, centre: Sequence[int]) -> np.ndarray:
    """The plane through `centre` as (up, across)."""
    return np.take(array, centre[plane.normal], axis=plane.normal).T


def _draw(
    axes: Axes, drawing: Drawing, plane: Plane, *, window: tuple[np.ndarray, float], grey: tuple[float, float]
) -> None:
    dx, dy = drawing.spacing[plane.across], drawing.spacing[plane.up]
    cut = _cut(drawing.image, plane, drawing.centre)
    rows, columns = cut.shape
    extent = (-0.5 * dx, (columns - 0.5) * dx, -0.5 * dy, (rows - 0.5) * dy)
    axes.set_facecolor("black")
    axes.imshow(
        cut,
        cmap="gray",
        vmin=grey[0],
        vmax=grey[1],
        origin="lower",
        extent=extent,
        interpolation="bilinear",
        aspect="equal",
    )
    middle, side = window
    x, y, half = middle[plane.across], middle[plane.up], side / 2
    axes.set_xlim(x + half, x - half)  # the axis runs to the left: right, or anterior, is at the left side
    axes.set_ylim(y - half, y + half)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    for letter, where in (
        (plane.left, (0.03, 0.5)),
        (plane.right, (0.97, 0.5)),
        (plane.top, (0.5, 0.965)),
        (plane.bottom, (0.5, 0.035)),
    ):
        text = axes.text(*where, letter, transform=axes.transAxes, ha="center", va="center", color="white", fontsize=8)
        text.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _contour(axes: Axes, array: np.ndarray, plane: Plane, *, drawing: Drawing, colour: str, width: float) -> None:
    """Outline of each class; a frame of background closes it at the border of the volume."""
    cut = np.pad(_cut(array, plane, drawing.centre), 1)
    x = np.arange(-1, cut.shape[1] - 1) * drawing.spacing[plane.across]
    y = np.arange(-1, cut.shape[0] - 1) * drawing.spacing[plane.up]
    for value in np.unique(cut[cut > 0]):
        axes.contour(x, y, cut == value, levels=[0.5], colors=[colour], linewidths=width)


def _scale_bar(axes: Axes, side: float) -> None:
    length = max([bar for bar in _BARS if bar <= side / 4], default=_BARS[0])
    share = length / side
    axes.plot([0.95 - share, 0.95], [0.09, 0.09], transform=axes.transAxes, color="white", linewidth=2)
    text = axes.text(
        0.95 - share / 2,
        0.105,
        f"{length} mm",
        transform=axes.transAxes,
        ha="center",
        va="bottom",
        color="white",
        fontsize=7.5,
    )
    text.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _legend(figure: Figure, runs: Sequence[str], colours: Mapping[str, str]) -> None:
    names = ["Expert's label", *(f"Prediction: {short(run)}" for run in runs)]
    lines = [Line2D([], [], color=colour, linewidth=2) for colour in (LABEL_COLOUR, *(colours[run] for run in runs))]
    legend = figure.legend(
        lines,
        names,
        loc="outside lower center",
        ncols=min(len(names), 4),
        fontsize=8.5,
        frameon=False,
        labelcolor="white",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
