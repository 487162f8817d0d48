"""A case in three planes and in 3D, on one HTML page that holds the scan, the masks and niivue."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from semi_med.errors import InputError
from semi_med.files import write_atomically
from semi_med.inference.grids import ras_affine, to_ras
from semi_med.inference.io import Scan, read_image
from semi_med.inference.picture_check import is_picture
from semi_med.metrics.pair import read_classes
from semi_med.report.overlay import LABEL_COLOUR, PREDICTION_COLOURS
from semi_med.report.panels import on_grid, read_scan
from semi_med.report.review import class_colour, class_names
from semi_med.report.review_tables import ranked
from semi_med.report.review_view import ReviewCase, ReviewView
from semi_med.runtime import versions

NIIVUE = "0.69.0"
MOST_VOXELS = 2**24  # of a scan on the page; 16.8 million
_WINDOW = (0.1, 99.9)  # percentiles of a scan that 8 bits are spread over
_DIFFERENCES = (
    ("only in the prediction", PREDICTION_COLOURS[0]),
    ("only in the label", LABEL_COLOUR),
    ("another structure", PREDICTION_COLOURS[1]),
)


@dataclass(frozen=True)
class Layer:
    """One volume of the page.

    Attributes:
        name: shown.
        nifti: a whole file.
        opacity: to begin with.
        labels: name and colour of the values 0, 1, ...; empty for intensities.
        shown: grey values from and to, of intensities.
        colours: name of niivue's colours, of intensities.
    """

    name: str
    nifti: bytes
    opacity: float
    labels: Sequence[tuple[str, str]] = ()
    shown: tuple[float, float] = (0.0, 1.0)
    colours: str = "gray"


def write_viewer(
    path: str | Path,
    case: ReviewCase,
    *,
    classes: Mapping[int, str] | None = None,
    most_voxels: int = MOST_VOXELS,
) -> Path:
    """Write the page of one case.

    Args:
        path: of the page; replaced whole.
        case: with a scan, a prediction, or both; whatever else it has is shown too.
        classes: number in the masks to name.
        most_voxels: larger scans are thinned out, and the page says so.

    Returns:
        The path written.

    Raises:
        InputError: nothing is to be shown, a file cannot be read, is a picture or lies on another grid.
        ResourceError: the disk is full.
    """
    volumes = make_volumes(case, classes or {}, most_voxels=most_voxels)
    library = resources.files("semi_med.report").joinpath("vendor", "niivue.umd.js").read_bytes()
    environment = Environment(loader=PackageLoader("semi_med", "report"), autoescape=True, undefined=StrictUndefined)
    script = environment.get_template("viewer.js.j2").render()
    page = environment.get_template("viewer.html").render(
        title=case.name,
        shape=" x ".join(map(str, volumes.shape)),
        step=volumes.step,
        warnings=list(case.warnings),
        layers=[
            {"name": one.name, "data": _packed(one.nifti), "opacity": one.opacity, "labels": one.labels}
            for one in volumes.layers
        ],
        facts=json.dumps(
            {"layers": [_facts(one) for one in volumes.layers], "start": volumes.start, "width": volumes.size / 400}
        ),
        library=_packed(library),
        niivue=NIIVUE,
        versions=list(versions().items()),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        script=script,
        hashes=[_hash(script.encode("utf-8")), _hash(library)],
    )
    write_atomically(path, page)
    return Path(path)


def write_viewers(
    folder: Path, view: ReviewView, *, most: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[dict[str, Path], list[str]]:
    """Write pages of the worst cases of a report.

    Args:
        folder: that they go to.
        view: of the report.
        most: pages at most.
        progress: told how many are done.

    Returns:
        The page of each case, and a sentence for each case that cannot be shown.
    """
    written: dict[str, Path] = {}
    problems = []
    chosen = [case for case in ranked(view) if case.prediction is not None][: max(most, 0)]
    for done, case in enumerate(chosen, start=1):
        path = folder / f"{done:03d}_{re.sub('[^A-Za-z0-9_.-]', '_', case.name)}.html"
        try:
            written[case.name] = write_viewer(path, case, classes=class_names(view))
        except InputError as error:
            problems.append(f"{case.name} cannot be shown in 3D: {error.problem}")
        progress(done, len(chosen))
    return written, problems


def _facts(layer: Layer) -> dict[str, Any]:
    """What the page's script has to know of a layer."""
    return {
        "name": layer.name,
        "opacity": layer.opacity,
        "labels": [name for name, _ in layer.labels],
        "rgb": [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for _, colour in layer.labels],
        "shown": layer.shown,
        "colours": layer.colours,
    }


def _packed(data: bytes) -> str:
    """Compressed, as text; without a time stamp, the same data give the same text."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def _hash(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")


@dataclass(frozen=True)
class Volumes:
    """The volumes of a case in RAS order on one grid.

    Attributes:
        layers: the scan first.
        shape: of the scan, before it was thinned out.
        step: of how many voxels along each axis one is kept.
        start: where to look first, in RAS mm: the middle of the slices with most difference, else of the prediction.
        size: length of the longest side in mm.
    """

    layers: Sequence[Layer]
    shape: tuple[int, ...]
    step: tuple[int, ...]
    start: tuple[float, ...]
    size: float


def make_volumes(case: ReviewCase, classes: Mapping[int, str], *, most_voxels: int) -> Volumes:
    """Read the files of a case.

    Raises:
        InputError: as `write_viewer`.
    """
    grid, where = _grid_of(case)
    array = to_ras(grid.array, grid.affine)[0]
    step = steps(array.shape[:3], grid.spacing_ras, most=most_voxels)
    affine = ras_affine(grid.affine, grid.array.shape[:3]) @ np.diag([*step, 1.0])
    thinned = tuple(slice(None, None, one) for one in step)

    def kept(scan: Scan, path: Path) -> np.ndarray:
        return on_grid(scan, grid, path, where)[thinned]

    layers = []
    if case.image is not None:
        layers.append(_scan_layer(array[thinned], affine))
    prediction, label = (
        None if path is None else kept(read_classes(path), path) for path in (case.prediction, case.label)
    )
    values = sorted({int(v) for found in (prediction, label) if found is not None for v in np.unique(found) if v})
    names = [("", "#000000"), *((classes.get(value, f"class {value}"), class_colour(value)) for value in values)]
    for name, found, opacity in (("Prediction", prediction, 0.6), ("Label", label, 0.0)):
        if found is not None:
            numbers = np.searchsorted([0, *values], found).astype(np.uint8)
            layers.append(Layer(name, _nifti(numbers, affine), opacity, names))
    if prediction is not None and label is not None:
        layers.append(_difference_layer(prediction, label, affine))
    if case.uncertainty_map is not None:
        heat = read_image(case.uncertainty_map, nonfinite="replace", flat=True)
        layers.append(_heat_layer(kept(heat, case.uncertainty_map), affine))
    start = _start(prediction, label, array[thinned].shape)
    return Volumes(
        layers=layers,
        shape=array.shape[:3],
        step=step,
        start=tuple(float(value) for value in (affine @ [*start, 1])[:3]),
        size=float(max(np.multiply(array.shape[:3], grid.spacing_ras))),
    )


def _start(prediction: np.ndarray | None, label: np.ndarray | None, shape: Sequence[int]) -> list[int]:
    """Voxel whose three slices show most difference, else most of a structure; the middle if there is nothing."""
    for found in (
        prediction != label if prediction is not None and label is not None else None,
        prediction > 0 if prediction is not None else None,
        label > 0 if label is not None else None,
    ):
        if found is not None and found.any():
            return [int(found.sum(axis=tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3)]
    return [size // 2 for size in shape[:3]]


@dataclass(frozen=True)
class _Grid(Scan):
    """The scan that the others lie on."""

    @property
    def spacing_ras(self) -> tuple[float, ...]:
        """Millimetres towards right, anterior and superior."""
        return tuple(float(size) for size in to_ras(self.array, self.affine)[1])


def _grid_of(case: ReviewCase) -> tuple[_Grid, Path]:
    path = case.image or case.prediction or case.label
    if path is None:
        raise InputError("has neither a scan nor a mask to show", where=case.name, code="MISSING")
    if is_picture(path):
        raise InputError("a volume is wanted, this is a picture", where=path, fix="Look at it as it is.", code="NDIM")
    scan = read_scan(path, series=case.series) if path == case.image else read_classes(path)
    return _Grid(scan.array, scan.affine, scan.warnings, scan.axes), path


def steps(shape: Sequence[int], spacing: Sequence[float], *, most: int) -> tuple[int, ...]:
    """Of how many voxels along each axis one is kept, so that at most so many remain; finer axes are thinned first."""
    found = [1] * len(shape)

    def left() -> int:
        return int(np.prod([-(-size // step) for size, step in zip(shape, found, strict=True)]))

    while left() > most:
        thinnest = min(range(len(shape)), key=lambda axis: (spacing[axis] * found[axis], -shape[axis]))
        found[thinnest] += 1
    return tuple(found)


def _scan_layer(image: np.ndarray, affine: np.ndarray) -> Layer:
    """Intensities in 8 bits; slope and intercept give them back."""
    low, high = (float(value) for value in np.percentile(image, _WINDOW))
    high = high if high > low else low + 1
    slope = (high - low) / 255
    stored = np.rint((np.clip(image, low, high) - low) / slope).astype(np.uint8)
    shown = [float(value) for value in np.percentile(image, [2, 99.5])]
    return Layer("Scan", _nifti(stored, affine, slope=slope, intercept=low), 1.0, shown=(shown[0], max(shown)))


def _difference_layer(prediction: np.ndarray, label: np.ndarray, affine: np.ndarray) -> Layer:
    found = np.zeros(label.shape, np.uint8)
    found[(prediction > 0) & (label == 0)] = 1
    found[(prediction == 0) & (label > 0)] = 2
    found[(prediction > 0) & (label > 0) & (prediction != label)] = 3
    return Layer("Difference", _nifti(found, affine), 0.0, [("", "#000000"), *_DIFFERENCES])


def _heat_layer(heat: np.ndarray, affine: np.ndarray) -> Layer:
    top = max(float(heat.max()), 1e-6)
    stored = np.rint(np.clip(heat / top, 0, 1) * 255).astype(np.uint8)
    return Layer("Uncertainty", _nifti(stored, affine, slope=top / 255), 0.0, shown=(top / 10, top), colours="hot")


def _nifti(array: np.ndarray, affine: np.ndarray, *, slope: float = 1.0, intercept: float = 0.0) -> bytes:
    """An uncompressed NIfTI file of 8 bits with a slope, in mm."""
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(array.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header.set_slope_inter(slope, intercept)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return bytes(header.binaryblock) + bytes(4) + array.tobytes(order="F")
