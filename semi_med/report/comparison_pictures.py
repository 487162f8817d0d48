"""Pictures of the test cases in which methods differ most: one slice, a panel for each method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from semi_med.errors import InputError, SemiMedError
from semi_med.inference.io import Scan, read_image, read_label
from semi_med.inference.picture_check import is_picture
from semi_med.metrics.case import surface
from semi_med.metrics.pair import check_same_grid
from semi_med.metrics.table import case_means
from semi_med.report.comparison_data import Analysis, Entry
from semi_med.report.comparison_style import INK, Look, looks
from semi_med.report.comparison_words import points
from semi_med.report.figures import WIDTH, data_uri, short
from semi_med.report.overlay import LABEL_COLOUR, PLANES, PREDICTION_COLOURS, Plane, to_ras

_MOST = 6
_MARGIN = 10.0  # mm around the structure, pixels of a picture
_LINE, _THIN = 1.3, 0.03  # points; share of the picture below which a structure would vanish under broad outlines
_PICTURE = Plane("Picture", 2, 0, 1, "", "", "", "")  # upright as it is stored, and no patient's sides
_PREDICTION = PREDICTION_COLOURS[0]

_Dice = Mapping[str, Mapping[int, Mapping[str, float]]]  # method, seed, case


@dataclass(frozen=True)
class Choice:
    """A case to draw: why, at which number of labels, and the seed whose predictions are drawn."""

    case: str
    labeled: int
    seed: int
    reason: str


@dataclass(frozen=True)
class Slices:
    """One slice of a case, arrays (up, across), and the size of a pixel in mm (across, up).

    The image of a picture in colour is (up, across, 3).
    """

    plane: Plane
    image: np.ndarray
    label: np.ndarray
    predictions: Mapping[str, np.ndarray]
    spacing: tuple[float, float]


def choose_pictures(found: Analysis, *, most: int = _MOST) -> list[Choice]:
    """Choose at each number of labels where methods differ most, and where the best method does worst.

    The case is chosen by Dice averaged over seeds. Drawn is the seed, of those that all methods have, in which that
    case shows it most.
    """
    chosen: list[Choice] = []
    for labeled in found.counts:
        entries = [entry for entry in found.at(labeled) if entry.mean is not None]
        seeds = set.intersection(*({run.seed for run in entry.runs} for entry in entries)) if entries else set()
        if not seeds or len(entries) < 2:
            continue
        dice = {entry.method: {seed: case_means(entry.tables[seed]) for seed in sorted(seeds)} for entry in entries}
        here = [*_most_apart(entries, dice, labeled=labeled), *_worst_of_best(found, dice, labeled=labeled)]
        if len(here) == 2 and here[0].case == here[1].case:
            here = [replace(here[0], reason=f"{here[0].reason}; {here[1].reason}")]
        chosen += here
    return chosen[: max(most, 0)]


def draw_pictures(found: Analysis) -> list[dict[str, str]]:
    """Draw the chosen cases; a file that cannot be read becomes a sentence."""
    styles = looks(found.names, baseline=found.view.baseline)
    drawn = []
    for choice in choose_pictures(found):
        entries = [entry for entry in found.at(choice.labeled) if entry.mean is not None]
        dice = {entry.method: _dice(entry, choice) for entry in entries}
        line = {"case": choice.case, "labels": found.labels(choice.labeled), "reason": choice.reason}
        line |= {"seed": str(choice.seed), "picture": "", "problem": "", "slice": ""}
        line["words"] = ", ".join(f"{found.brief[entry.method]} {points(dice[entry.method])}" for entry in entries)
        try:
            slices = load_slices(found, choice)
            titles = {
                entry.method: f"{short(found.brief[entry.method], 26)}  {points(dice[entry.method])}"
                for entry in entries
            }
            figure = slice_figure(slices, titles=titles, styles=styles)
            line |= {"picture": data_uri(figure, dpi=125), "slice": _slice_words(slices.plane)}
        except SemiMedError as error:
            line["problem"] = f"{error.problem} ({Path(error.where).name})" if error.where else error.problem
        drawn.append(line)
    return drawn


def load_slices(found: Analysis, choice: Choice) -> Slices:
    """Read a case and cut it where the methods disagree on the largest area, in any of the three planes.

    Raises:
        InputError: a file is not given, cannot be read, has not three axes, or lies on another grid.
    """
    paths = {
        name: files.get(choice.case) for name, files in (("image", found.view.images), ("label", found.view.labels))
    }
    wanting = [name for name, path in paths.items() if path is None]
    if wanting:
        raise InputError(f"no file of the {' and the '.join(wanting)} is given", where=choice.case, code="MISSING")
    drawn_from_picture = is_picture(Path(str(paths["image"])))
    expert = read_label(Path(str(paths["label"])))
    if expert.array.ndim != 3:
        raise InputError(f"wanted 3 axes to draw, got shape {expert.array.shape}", where=paths["label"], code="SHAPE")
    image = read_image(Path(str(paths["image"])), nonfinite="replace", channels=3 if drawn_from_picture else 1)
    first = image if image.array.ndim == 3 else Scan(image.array[..., 0], image.affine, image.warnings)
    check_same_grid(first, expert, where=(Path(str(paths["image"])), Path(str(paths["label"]))))
    predictions = {}
    for entry in found.at(choice.labeled):
        path = next((run.predictions.get(choice.case) for run in entry.runs if run.seed == choice.seed), None)
        if path is not None:
            scan = read_label(path)
            check_same_grid(scan, expert, where=(Path(path), Path(str(paths["label"]))))
            predictions[entry.method] = to_ras(scan)[0]
    label, spacing = to_ras(expert)
    shown = image if drawn_from_picture else first
    found_slices = _cut(to_ras(shown)[0], label, predictions, spacing)
    return replace(found_slices, plane=_PICTURE) if drawn_from_picture else found_slices


def slice_figure(slices: Slices, *, titles: Mapping[str, str], styles: Mapping[str, Look]) -> Figure:
    """Draw one panel for each method that has a prediction: its outline over the expert's."""
    methods = [method for method in titles if method in slices.predictions]
    columns = min(max(len(methods), 2), 4 if len(methods) in (4, 7, 8) or len(methods) > 8 else 3)
    rows = max(-(-len(methods) // columns), 1)
    side = WIDTH / columns
    window = _window(slices)
    height = side * (window[3] - window[2]) / (window[1] - window[0])
    figure = Figure(figsize=(WIDTH, (height + 0.25) * rows + 0.35), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(methods) :]:
        axes.set_visible(False)
    for axes, method in zip(grid.flat, methods, strict=False):
        _draw(axes, slices, method, window=window)
        axes.set_title(f"     {titles[method]}", loc="left", fontsize=9, color=INK, parse_math=False)
        above = axes.transAxes + ScaledTranslation(7 / 72, 9.5 / 72, figure.dpi_scale_trans)
        look = styles[method]
        axes.plot([0], [1], look.marker, color=look.colour, markersize=6, transform=above, clip_on=False)
    lines = [Line2D([], [], color=LABEL_COLOUR, linewidth=3), Line2D([], [], color=_PREDICTION, linewidth=1.6)]
    figure.legend(lines, ["expert", "method"], loc="outside lower left", ncols=2, fontsize=8.5, frameon=False)
    return figure


def _most_apart(entries: Sequence[Entry], dice: _Dice, *, labeled: int) -> list[Choice]:
    """Case with the largest span of Dice over methods."""
    by_case = [entry.mean.by_case for entry in entries if entry.mean is not None]
    apart = {case: _span([values.get(case, math.nan) for values in by_case]) for case in sorted(set().union(*by_case))}
    case = max(apart, key=lambda case: apart[case], default=None)
    if case is None:
        return []
    seeds = next(iter(dice.values()))
    spans = {seed: _span([means[seed].get(case, math.nan) for means in dice.values()]) for seed in seeds}
    return [Choice(case, labeled, max(spans, key=lambda seed: spans[seed]), "methods differ most")]


def _worst_of_best(found: Analysis, dice: _Dice, *, labeled: int) -> list[Choice]:
    """Case in which the best method loses most, or gains least, against the baseline."""
    best, baseline = found.best(labeled), found.view.baseline
    if best is None or best.difference is None:
        return []
    case, value = min(best.difference.by_case.items(), key=lambda item: item[1])
    gains = {
        seed: means.get(case, math.nan) - dice[baseline][seed].get(case, math.nan)
        for seed, means in dice[best.method].items()
    }
    seed = min(gains, key=lambda seed: math.inf if math.isnan(gains[seed]) else gains[seed])
    words = "loses most" if value < 0 else "gains least"
    return [Choice(case, labeled, seed, f"{best.name} {words} against {found.names[baseline]}")]


def _slice_words(plane: Plane) -> str:
    return plane.name if plane is _PICTURE else f"{plane.name} slice"


def _span(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return max(defined) - min(defined) if len(defined) > 1 else -1.0


def _dice(entry: Entry, choice: Choice) -> float:
    table = entry.tables.get(choice.seed)
    return case_means(table).get(choice.case, math.nan) if table else math.nan


def _cut(image: np.ndarray, label: np.ndarray, predictions: Mapping[str, np.ndarray], spacing: np.ndarray) -> Slices:
    opinions = list(predictions.values()) or [label]
    apart = np.any([array != opinions[0] for array in opinions[1:]] or [np.zeros(label.shape, bool)], axis=0)
    if not apart.any():
        apart = label > 0
    planes = [plane for plane in PLANES if min(label.shape[plane.across], label.shape[plane.up]) > 1]
    if not planes:
        raise InputError(f"wanted a scan of at least two axes to draw, got shape {label.shape}", code="SHAPE")
    areas = {
        plane: apart.sum(axis=(plane.across, plane.up)) * spacing[plane.across] * spacing[plane.up] for plane in planes
    }
    plane = max(planes, key=lambda plane: areas[plane].max())
    at = int(areas[plane].argmax())

    def slice_of(array: np.ndarray) -> np.ndarray:
        return np.take(array, at, axis=plane.normal).swapaxes(0, 1)

    cuts = {method: slice_of(array) for method, array in predictions.items()}
    return Slices(plane, slice_of(image), slice_of(label), cuts, (spacing[plane.across], spacing[plane.up]))


def _window(slices: Slices) -> tuple[float, float, float, float]:
    """What is shown, in mm: left, right, bottom, top of the structure with a margin, not far from square."""
    found = np.any([slices.label > 0, *(array > 0 for array in slices.predictions.values())], axis=0)
    size = (np.array(found.shape)[::-1] - 0.5) * slices.spacing
    if not found.any():
        return -0.5 * slices.spacing[0], size[0], -0.5 * slices.spacing[1], size[1]
    ends = [
        np.flatnonzero(found.any(axis=axis))[[0, -1]] * step for axis, step in zip((0, 1), slices.spacing, strict=True)
    ]
    middle = np.array([end.mean() for end in ends])
    half = np.array([np.ptp(end) / 2 for end in ends])
    half += max(_MARGIN, 0.2 * float(half.max()))
    half = np.maximum(half, half.max() / 1.3)
    left, bottom = np.maximum(middle - half, -0.5 * np.array(slices.spacing))
    right, top = np.minimum(middle + half, size)
    return float(left), float(right), float(bottom), float(top)


def _width(label: np.ndarray) -> float:
    """About how many pixels across the structures of a slice are: twice the area over the length of the border."""
    return 2 * float((label > 0).sum()) / max(float(surface(label > 0).sum()), 1.0)


def _draw(axes: Axes, slices: Slices, method: str, *, window: tuple[float, float, float, float]) -> None:
    dx, dy = slices.spacing
    rows, columns = slices.image.shape[:2]
    low, high = np.percentile(slices.image, [1, 99.5])
    colours = slices.image.ndim == 3
    axes.imshow(
        np.clip(slices.image / max(float(slices.image.max()), 1e-6), 0, 1) if colours else slices.image,
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        origin="lower",
        extent=(-0.5 * dx, (columns - 0.5) * dx, -0.5 * dy, (rows - 0.5) * dy),
        interpolation="bilinear",
        aspect="equal",
    )
    left, right, bottom, top = window
    broad = _LINE if _width(slices.label) * dx > _THIN * (right - left) else _LINE / 2
    opinions = ((slices.label, LABEL_COLOUR, 2 * broad), (slices.predictions[method], _PREDICTION, broad))
    for array, colour, width in opinions:
        framed = np.pad(array, 1)  # a frame of background closes an outline at the border of the scan
        x, y = (np.arange(-1, size - 1) * step for size, step in zip(framed.shape[::-1], slices.spacing, strict=True))
        for value in np.unique(framed[framed > 0]):
            axes.contour(x, y, framed == value, levels=[0.5], colors=[colour], linewidths=width)
    axes.set_xlim(right, left)  # the axis runs to the left, as on a radiologist's screen
    axes.set_ylim(bottom, top)
    axes.set_xticks([])
    axes.set_yticks([])
    for place, letter in (((0.03, 0.5), slices.plane.left), ((0.5, 0.96), slices.plane.top)):
        axes.text(*place, letter, transform=axes.transAxes, color="white", fontsize=8, ha="center", va="center")
