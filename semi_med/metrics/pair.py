"""One prediction and its label: read, checked to lie on one grid and to use the same numbers, and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from semi_med.errors import InputError
from semi_med.inference.io import Scan, read_label
from semi_med.inference.picture_check import is_picture
from semi_med.metrics.case import Row, case_metrics
from semi_med.metrics.known import without_ignored
from semi_med.metrics.regions import Region, region_metrics

_TOLERANCE = 0.1  # voxels: below what resampling by nearest neighbour could move


def measure_pair(
    prediction: Path,
    label: Path,
    *,
    classes: Mapping[int, str],
    regions: Sequence[Region] = (),
    closed: bool = False,
    ignored: int | None = None,
) -> tuple[list[Row], list[Row]]:
    """Rows of the classes and of the regions of one case, as from `case_metrics` and `region_metrics`.

    Args:
        prediction: a file of class indices.
        label: the expert's.
        classes: class index to name of what is measured; 0 among them is measured like the others.
        regions: unions of classes to measure too.
        closed: any other value in the prediction is an error.
        ignored: value of the label where nothing is known; None if it holds none.

    Raises:
        InputError: a file cannot be read, they do not lie on one grid, or they use other numbers.
    """
    predicted, expert = read_classes(prediction), read_classes(label)
    check_same_grid(predicted, expert, where=(prediction, label))
    unknown = sorted(set(values_in(predicted.array)) - {0, *classes}) if closed else []
    if unknown:
        raise InputError(
            f"wanted the values of the labels (0, {', '.join(map(str, classes))}), but the prediction also has "
            f"{', '.join(map(str, unknown[:5]))}",
            where=prediction,
            fix="Check that both use the same numbers for the classes, or name the classes to measure",
            code="CLASSES",
        )
    if is_picture(label):
        _check_numbers(expert.array, {*classes, ignored}, label)
    arrays = [*without_ignored(predicted.array, expert.array, ignored=ignored)]
    if expert.axes == 2:  # no thickness, so no volume
        arrays = [array[:, :, 0] for array in arrays]
    spacing = None if is_picture(label) else [float(size) for size in expert.spacing[: arrays[1].ndim]]
    rows = case_metrics(*arrays, classes=classes, spacing=spacing, count_class_0=0 in classes)
    return rows, region_metrics(*arrays, regions=regions, spacing=spacing)


def read_classes(path: Path) -> Scan:
    """A label; a file of two axes is one slice."""
    scan = read_label(path, flat=True)
    if scan.axes == 4:
        raise InputError(
            f"a slice or a volume is wanted, this is a sequence of {scan.array.shape[2]} frames",
            where=path,
            fix="Measure its frames as files of their own: `semi-med convert FILE OUTPUT --label --volume K`.",
            code="NDIM",
        )
    return scan


def _check_numbers(array: np.ndarray, known: set[int | None], label: Path) -> None:
    """Refuse a drawing in black and white whose white is no class: it would count as an empty label."""
    values = set(values_in(array)) - {0}
    if values == {255} and 255 not in known:
        numbers = sorted(number for number in known if number is not None)
        raise InputError(
            f"class numbers 0, {', '.join(map(str, numbers))} are wanted, this picture has 0 and 255",
            where=label,
            fix=f"`semi-med convert {label.name} OUTPUT --label --map-labels 255=1`, or prepare the data set",
            code="CLASSES",
        )


def values_in(array: np.ndarray) -> list[int]:
    """The different values of a label, in order."""
    # Counting is several times faster than sorting; slab by slab, because it takes eight bytes a voxel.
    if array.dtype.itemsize > 2:
        return np.unique(array).tolist()
    found: set[int] = set()
    for slab in array:
        found.update(np.flatnonzero(np.bincount(slab.ravel())).tolist())
    return sorted(found)


def check_same_grid(prediction: Scan, label: Scan, *, where: tuple[Path, Path]) -> None:
    """Raise unless both arrays have one shape and no corner of the volume lies more than 0.1 voxel apart.

    A picture has no place in space: where one of both is a picture, only the shapes are compared.

    Args:
        prediction: with its affine, voxel to RAS mm.
        label: the same.
        where: both files, for the error.

    Raises:
        InputError: names both files and what differs.
    """
    names = f"{where[0]} and {where[1].name}"
    fix = "Resample the prediction onto the label's grid (nearest neighbour)"
    shape = label.array.shape
    if prediction.array.shape != shape or len(shape) > 3:
        raise InputError(
            f"wanted one shape of at most 3 axes, got {prediction.array.shape} and {shape}",
            where=names,
            fix=fix,
            code="SHAPE",
        )
    if any(is_picture(path) for path in where):
        return
    ends = [(0, size - 1) for size in shape] + [(0,)] * (3 - len(shape))
    corners = np.array([(*corner, 1) for corner in product(*ends)], float).T
    apart = np.abs(np.linalg.solve(label.affine, prediction.affine @ corners) - corners).max()
    if not apart <= _TOLERANCE:
        raise InputError(
            f"the grids lie up to {apart:.2g} voxels apart (affines differ)", where=names, fix=fix, code="GEOMETRY"
        )
