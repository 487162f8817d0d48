"""One case as slices in three planes: a grey picture with outlines as vectors, small enough for a page of many cases.

Arrays are turned to the nearest RAS axes first. Axial and coronal planes show the patient's right on the left side of
the picture, sagittal planes show anterior on the left, as on a radiologist's screen.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects
from skimage.measure import find_contours

from semi_med.errors import InputError
from semi_med.inference.grids import ras_affine, to_ras
from semi_med.inference.io import Scan, read_image
from semi_med.inference.picture_check import is_picture
from semi_med.metrics.pair import check_same_grid, read_classes
from semi_med.report.overlay import PLANES, Plane
from semi_med.report.review_view import ReviewCase

ONLY_PREDICTION, ONLY_LABEL, OTHER_CLASS = "prediction", "label", "other"
_PICTURE = Plane("Picture", 2, 0, 1, "", "", "", "")  # upright as it is stored, and no patient's sides
_MARGIN = 15.0  # mm around the structures, pixels of a picture
_MOST_PIXELS = 288  # along a side of a panel
_PICTURE_PIXELS = 720  # of a picture, which has one panel instead of nine
_QUALITY = 80  # of JPEG


@dataclass(frozen=True)
class Volumes:
    """A case turned to RAS axes: arrays (i, j, k) towards right, anterior, superior, and voxel sizes in mm.

    Attributes:
        image: (i, j, k), or (i, j, k, 3) in colour; None if no scan was given.
        prediction: class indices.
        label: the expert's; None if there is none.
        uncertainty: None if there is no map.
        spacing: of a picture 1.
        picture: whether it has no sides of a patient.
    """

    image: np.ndarray | None
    prediction: np.ndarray
    label: np.ndarray | None
    uncertainty: np.ndarray | None
    spacing: np.ndarray
    picture: bool = False


@dataclass(frozen=True)
class Shape:
    """Outlines of one class: `path` is the d of an SVG path in half voxels from the upper left corner of the panel."""

    value: int
    path: str


@dataclass(frozen=True)
class Slice:
    """One cut; widths and heights in mm.

    Attributes:
        number: of the slice along the plane's normal, from 1, counted towards right, anterior or superior.
        image: a JPEG as data URI; empty if there is no scan.
        heat: a PNG with transparency as data URI; empty if there is no map of uncertainty.
        prediction: outlines of its classes.
        label: the same of the expert's label.
        difference: what is in which of both, by `ONLY_PREDICTION`, `ONLY_LABEL` and `OTHER_CLASS`.
    """

    number: int
    image: str
    heat: str
    prediction: Sequence[Shape]
    label: Sequence[Shape]
    difference: Mapping[str, str]


@dataclass(frozen=True)
class Panel:
    """Slices of one plane, cut to the surroundings of the structures, and the one that is shown first."""

    plane: Plane
    width: float
    height: float
    scale: tuple[float, float]  # mm of half a voxel, across and down
    total: int
    first: int
    slices: Sequence[Slice] = field(default_factory=tuple)


def load_volumes(case: ReviewCase) -> Volumes:
    """Read the files of a case that has a prediction and turn them to RAS axes.

    Raises:
        InputError: a file cannot be read or lies on another grid.
    """
    if case.prediction is None:
        raise InputError("has no prediction to draw", where=case.name, code="MISSING")
    predicted = read_classes(case.prediction)
    others: dict[str, np.ndarray | None] = {"image": None, "label": None, "uncertainty": None}
    picture = is_picture(case.prediction)
    if case.image is not None:
        scan = read_scan(case.image, series=case.series)
        picture = picture or is_picture(case.image)
        others["image"] = on_grid(scan, predicted, case.image, case.prediction)
    if case.label is not None:
        others["label"] = on_grid(read_classes(case.label), predicted, case.label, case.prediction)
    if case.uncertainty_map is not None:
        heat = read_image(case.uncertainty_map, nonfinite="replace", flat=True)
        others["uncertainty"] = on_grid(heat, predicted, case.uncertainty_map, case.prediction)
    turned, spacing = to_ras(predicted.array, predicted.affine)
    return Volumes(prediction=turned, spacing=np.ones(3) if picture else spacing, picture=picture, **others)


def read_scan(path: Path, *, series: int | None) -> Scan:
    """A scan, of several channels the first, of a picture its colours.

    Args:
        path: the file, or the folder of a DICOM series.
        series: of a DICOM folder with several.

    Raises:
        InputError: it cannot be read.
    """
    dicom = {"series": series}
    if is_picture(path):
        return read_image(path, nonfinite="replace", channels=3)
    scan = read_image(path, nonfinite="replace", channels=_channels(path), flat=True, dicom=dicom)
    return scan if scan.array.ndim == 3 else Scan(scan.array[..., 0], scan.affine, scan.warnings, scan.axes)


def _channels(path: Path) -> int:
    """Length of the fourth axis of a NIfTI file; everything else has one channel."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return 1
    import nibabel

    try:
        shape = nibabel.Nifti1Image.from_filename(path).shape
    except Exception:  # a damaged file: its reader says what is wrong with it
        return 1
    return int(shape[3]) if len(shape) == 4 and shape[2] > 1 else 1


def on_grid(scan: Scan, predicted: Scan, path: Path, prediction: Path) -> np.ndarray:
    """A scan turned to RAS axes, checked to lie on the grid of another one, however each of both is stored.

    Raises:
        InputError: the grids differ.
    """
    turned = to_ras(scan.array, scan.affine)[0]
    grids = [
        Scan(to_ras(one.array, one.affine)[0], ras_affine(one.affine, one.array.shape[:3]))
        for one in (predicted, Scan(scan.array[..., 0], scan.affine) if scan.array.ndim == 4 else scan)
    ]
    check_same_grid(grids[0], grids[1], where=(prediction, path))
    return turned


def draw_panels(volumes: Volumes, *, slices: int = 3) -> list[Panel]:
    """Cut a case: in each plane the slice that shows most, and others evenly over the structures.

    Shown first is the slice with the largest difference between prediction and label; without a label, or without a
    difference, the one with the largest prediction.

    Args:
        volumes: the case.
        slices: of each plane at most.
    """
    shape = volumes.prediction.shape
    planes = [_PICTURE] if volumes.picture else [p for p in PLANES if min(shape[p.across], shape[p.up]) > 1]
    structures = volumes.prediction > 0
    interest = structures
    if volumes.label is not None:
        if (volumes.label != volumes.prediction).any():
            interest = volumes.label != volumes.prediction
        structures = structures | (volumes.label > 0)
    grey = _grey(volumes.image, np.asarray(structures))
    top = _largest(volumes.uncertainty)
    return [_panel(volumes, plane, structures, interest, slices=slices, grey=grey, top=top) for plane in planes]


def _panel(
    volumes: Volumes,
    plane: Plane,
    structures: np.ndarray,
    interest: np.ndarray,
    *,
    slices: int,
    grey: tuple[float, float],
    top: float,
) -> Panel:
    others = (plane.across, plane.up)
    there, shadow = np.asarray(structures.any(axis=others)), np.asarray(structures.any(axis=plane.normal))
    numbers, shown = _places(there, interest.sum(axis=others), most=slices)
    window = _window(shadow, volumes.spacing, plane)
    size = [part.stop - part.start for part in window]  # up, across
    return Panel(
        plane=plane,
        width=float(size[1] * volumes.spacing[plane.across]),
        height=float(size[0] * volumes.spacing[plane.up]),
        scale=(float(volumes.spacing[plane.across]) / 2, float(volumes.spacing[plane.up]) / 2),
        total=structures.shape[plane.normal],
        first=numbers.index(shown),
        slices=[_slice(volumes, plane, number, window, grey=grey, top=top) for number in numbers],
    )


def _places(there: np.ndarray, interest: np.ndarray, *, most: int) -> tuple[list[int], int]:
    """Slices to show, in order, and the one to begin with; the middle one if there is nothing."""
    if not there.any():
        return [len(there) // 2], len(there) // 2
    shown = int(interest.argmax())
    low, high = np.flatnonzero(there)[[0, -1]]
    # not the very first and last slice of a structure, which show little
    spread = np.linspace(low, high, max(most - 1, 0) + 2)[1:-1]
    return sorted({shown, *(round(float(place)) for place in spread)}), shown


def _window(seen: np.ndarray, spacing: np.ndarray, plane: Plane) -> tuple[slice, slice]:
    """What is shown of the structures' shadow along the normal, (up, across): with a margin, not far from square."""
    axes = sorted((plane.across, plane.up))
    sizes = {axis: seen.shape[place] for place, axis in enumerate(axes)}
    if not seen.any():
        return slice(0, sizes[plane.up]), slice(0, sizes[plane.across])
    ends = {axis: np.flatnonzero(seen.any(axis=1 - place))[[0, -1]] for place, axis in enumerate(axes)}
    lengths = {axis: (end[1] - end[0] + 1) * spacing[axis] for axis, end in ends.items()}
    longest = max(lengths.values())
    wanted = longest + 2 * max(_MARGIN, 0.25 * longest)
    found = []
    for axis in (plane.up, plane.across):
        length = min(sizes[axis], round(float(max(wanted, lengths[axis]) / spacing[axis])))
        middle = (ends[axis][0] + ends[axis][1] + 1) / 2
        start = min(max(round(float(middle - length / 2)), 0), sizes[axis] - length)
        found.append(slice(start, start + length))
    return found[0], found[1]


def _slice(
    volumes: Volumes, plane: Plane, number: int, window: tuple[slice, slice], *, grey: tuple[float, float], top: float
) -> Slice:
    def cut(array: np.ndarray) -> np.ndarray:
        """(down, across) as it is seen: the first row is the uppermost, the first column the left one."""
        return np.take(array, number, axis=plane.normal).swapaxes(0, 1)[window][::-1, ::-1]

    most = _PICTURE_PIXELS if volumes.picture else _MOST_PIXELS
    prediction = cut(volumes.prediction)
    label = None if volumes.label is None else cut(volumes.label)
    difference = {}
    if label is not None:
        parts = {
            ONLY_PREDICTION: (prediction > 0) & (label == 0),
            ONLY_LABEL: (prediction == 0) & (label > 0),
            OTHER_CLASS: (prediction > 0) & (label > 0) & (prediction != label),
        }
        difference = {name: outline(part) for name, part in parts.items() if part.any()}
    return Slice(
        number=number + 1,
        image="" if volumes.image is None else _jpeg(cut(volumes.image), grey, most=most),
        heat="" if volumes.uncertainty is None else _heat(cut(volumes.uncertainty), top, most=most),
        prediction=_shapes(prediction),
        label=[] if label is None else _shapes(label),
        difference=difference,
    )


def _shapes(cut: np.ndarray) -> list[Shape]:
    return [Shape(int(value), outline(cut == value)) for value in np.unique(cut[cut > 0])]


def outline(region: np.ndarray) -> str:
    """Outlines of a bool array (down, across) as the d of an SVG path, in half voxels from the upper left corner.

    Lines run halfway between voxel centres and cut the corners of voxels; holes are outlines of their own, for the fill
    rule evenodd.
    """
    parts = []
    for line in find_contours(np.pad(region, 1).astype(float), 0.5):
        # a frame of one voxel was added, and a voxel's centre lies half a voxel inside
        points = np.rint(2 * (line - 0.5)).astype(int)[:, ::-1]
        corners = _corners(points.tolist())
        steps = "".join(f"{x - x0} {y - y0} " for (x0, y0), (x, y) in pairwise(corners))
        parts.append(f"M{corners[0][0]} {corners[0][1]}l{steps.strip()}z")
    return "".join(parts)


def _corners(points: list[list[int]]) -> list[list[int]]:
    """A closed line without the points that lie straight between their neighbours, and without its end."""
    kept = [points[0]]
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            kept.append(here)
    return kept


def _grey(image: np.ndarray | None, structures: np.ndarray) -> tuple[float, float]:
    """Window of grey values, one for all slices of a case: from the box round the structures, else the whole scan."""
    if image is None:
        return 0.0, 1.0
    if image.ndim == 4:  # colours
        return 0.0, max(255.0, float(image.max()))
    box = find_objects(structures.astype(np.uint8))
    inside = image[box[0]] if box else image
    step = max(1, round((inside.size / 2e6) ** (1 / 3)))
    low, high = np.percentile(inside[::step, ::step, ::step], [0.5, 99.5])
    return float(low), float(high) if high > low else float(low) + 1.0


def _largest(uncertainty: np.ndarray | None) -> float:
    return 1.0 if uncertainty is None else max(float(uncertainty.max()), 1e-6)


def _jpeg(cut: np.ndarray, grey: tuple[float, float], *, most: int) -> str:
    from PIL import Image

    low, high = grey
    values = (np.clip((cut - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(values))
    picture.thumbnail((most, most), Image.Resampling.BILINEAR)
    return _uri(picture, "JPEG", quality=_QUALITY)


def _heat(cut: np.ndarray, top: float, *, most: int) -> str:
    """From nothing to opaque yellow, by the square: what is fairly certain leaves the scan to be seen."""
    from PIL import Image

    share = np.clip(cut / top, 0, 1)
    red_to_yellow = np.stack([np.full_like(share, 255), 255 * share, np.zeros_like(share), 230 * share**2], axis=-1)
    picture = Image.fromarray(red_to_yellow.astype(np.uint8), "RGBA")
    picture.thumbnail((most, most), Image.Resampling.BILINEAR)
    return _uri(picture, "PNG", optimize=True)


def _uri(picture: object, kind: str, **options: object) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)  # type: ignore[attr-defined]
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
