"""One case to rows: overlap, surface distances and volumes of each foreground class.

Definitions are those the field's tables use (medpy):

* Dice = 2 |P and L| / (|P| + |L|), Jaccard = |P and L| / |P or L|;
* the surface of an object is the object minus its erosion with face neighbours (6 in 3-D, 4 in 2-D); what lies outside
  the volume is background, so an object that touches the border has a surface there;
* HD95 is the 95th percentile of the surface distances of both directions pooled in one list, not the larger one of
  two percentiles;
* ASD is the mean distance from the prediction's surface to the label's surface (one direction only);
* ASSD is the mean of the two one-directional ASDs.

A distance exists only where both objects exist. Where one is missing it is NaN and the row's `status` says why; it is
never 0, which would make a failed case look perfect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from semi_med.errors import InputError

Row = dict[str, Any]

OVERLAPS = ("dice", "jaccard")
COUNTS = ("prediction_voxels", "label_voxels", "both_voxels")
DISTANCES = ("hd95_mm", "asd_mm", "assd_mm", "hd95_voxel", "asd_voxel", "assd_voxel")
METRICS = OVERLAPS + DISTANCES
STATUSES = ("ok", "empty prediction", "empty label", "both empty", "missing prediction")


def case_metrics(
    prediction: np.ndarray,
    label: np.ndarray,
    *,
    classes: Mapping[int, str],
    spacing: Sequence[float] | None,
    count_class_0: bool = False,
) -> list[Row]:
    """Measure one prediction against one label, class by class.

    An axis of one voxel (a slice stored as a volume) is left out of the surfaces: otherwise every voxel of the slice
    would be surface. It keeps its thickness in the volumes.

    Args:
        prediction: class indices (i, j) or (i, j, k), integers or booleans.
        label: class indices of the expert, same shape.
        classes: class index to name; 0 is background and gets no row, unless it counts.
        spacing: voxel size in mm along each axis; None where it is not known, as of a picture: all that is in mm or ml
            is NaN then.
        count_class_0: 0 is a class like the others.

    Returns:
        One dict for each class that counts: `class`, `class_name`, `dice`, `jaccard`, `hd95_mm`, `asd_mm`, `assd_mm`,
        the same three in voxels (spacing 1; of a picture pixels), `prediction_ml`, `label_ml` (NaN for 2-D arrays),
        `status`: "ok", "empty prediction", "empty label" or "both empty", and the counts `prediction_voxels`,
        `label_voxels` and `both_voxels`.

    Raises:
        InputError: shapes differ, values are not integers, or the spacing does not fit.
    """
    known = spacing is not None
    spacing = [1.0] * label.ndim if spacing is None else spacing
    _check(prediction, label, spacing)
    measured = {int(value): name for value, name in classes.items() if count_class_0 or int(value) != 0}
    if not measured or min(measured) < 0 or max(measured) == 0:
        raise InputError(f"wanted at least one class above 0, got {dict(classes)}", fix="Name the foreground classes")
    millilitres = math.prod(spacing) / 1000 if label.ndim == 3 and known else math.nan

    kept = [axis for axis, size in enumerate(label.shape) if size > 1] or [0]
    arrays = [array.reshape([label.shape[axis] for axis in kept]) for array in (prediction, label)]
    sizes = np.asarray([spacing[axis] for axis in kept], float) if known else None
    boxes = [_boxes(array, max(measured)) for array in arrays]

    rows = []
    for value, name in sorted(measured.items()):
        objects = _crop(arrays, value, boxes=[box[value] for box in boxes])
        rows.append({"class": value, "class_name": name} | _measure(*objects, spacing=sizes, millilitres=millilitres))
    return rows


def surface(obj: np.ndarray) -> np.ndarray:
    """Return the voxels of a bool object (*spatial) that have a face neighbour outside it or outside the array."""
    return obj & ~ndimage.binary_erosion(obj)


def surface_distances(
    from_surface: np.ndarray, to_surface: np.ndarray, *, spacing: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return the distance of each voxel of one surface to the nearest voxel of another.

    Args:
        from_surface: bool (*spatial).
        to_surface: bool (*spatial), not empty.
        spacing: size of a voxel along each axis; the unit of the result.

    Returns:
        Distances (n,), one for each True of `from_surface`, in array order.
    """
    # The nearest voxel is asked for instead of the distance map: the square roots are then taken on surfaces only.
    nearest = ndimage.distance_transform_edt(
        ~to_surface, sampling=spacing, return_distances=False, return_indices=True
    )[:, from_surface]
    steps = (nearest - np.stack(np.nonzero(from_surface))) * np.asarray(spacing, float)[:, None]
    return np.sqrt((steps**2).sum(axis=0))


def _check(prediction: np.ndarray, label: np.ndarray, spacing: Sequence[float]) -> None:
    if prediction.shape != label.shape:
        raise InputError(
            f"wanted a prediction of the label's shape {label.shape}, got {prediction.shape}",
            fix="Resample the prediction onto the label's grid",
            code="SHAPE",
        )
    if prediction.ndim not in (2, 3):
        raise InputError(f"wanted 2 or 3 axes, got shape {prediction.shape}", fix="Give class indices, not one-hot")
    for name, array in (("prediction", prediction), ("label", label)):
        if array.dtype.kind not in "bui":
            raise InputError(f"wanted class indices as integers, got a {name} of {array.dtype}", fix="Convert it first")
    values = np.asarray(spacing, float)
    if values.shape != (prediction.ndim,) or not np.all(np.isfinite(values)) or np.any(values <= 0):
        raise InputError(
            f"wanted {prediction.ndim} voxel sizes above 0 mm, got {tuple(spacing)}", fix="Check the file's header"
        )


def _boxes(array: np.ndarray, largest: int) -> list[tuple[slice, ...] | None]:
    """Box that holds each class 0..largest, None where one above 0 is absent; found in one pass for all of them."""
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    found = ndimage.find_objects(array, max_label=largest)
    whole = tuple(slice(0, size) for size in array.shape)
    return [whole, *found, *[None] * (largest - len(found))]


def _crop(
    arrays: Sequence[np.ndarray], value: int, *, boxes: Sequence[tuple[slice, ...] | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Both objects as bool arrays on the smallest box that holds both."""
    found = [box for box in boxes if box is not None]
    if not found:
        nothing = np.zeros((1,) * arrays[0].ndim, bool)
        return nothing, nothing
    box = tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*found, strict=True))
    return arrays[0][box] == value, arrays[1][box] == value


def _measure(prediction: np.ndarray, label: np.ndarray, *, spacing: np.ndarray | None, millilitres: float) -> Row:
    n_prediction, n_label = int(prediction.sum()), int(label.sum())
    both = int((prediction & label).sum())
    status = status_of(n_prediction, n_label)
    distances = _distances(prediction, label, spacing=spacing) if status == "ok" else dict.fromkeys(DISTANCES, math.nan)
    return {
        **overlaps(n_prediction, n_label, both),
        **distances,
        "prediction_ml": n_prediction * millilitres,
        "label_ml": n_label * millilitres,
        "status": status,
        **dict(zip(COUNTS, (n_prediction, n_label, both), strict=True)),
    }


def overlaps(prediction: int, label: int, both: int) -> dict[str, float]:
    """Dice and Jaccard of two objects by their numbers of voxels and those they share; NaN if both are empty."""
    either = prediction + label - both
    return {
        "dice": 2 * both / (prediction + label) if either else math.nan,
        "jaccard": both / either if either else math.nan,
    }


def status_of(prediction: int, label: int) -> str:
    """Which of two objects is there, by their numbers of voxels."""
    missing = {(False, True): "empty prediction", (True, False): "empty label", (False, False): "both empty"}
    return missing.get((prediction > 0, label > 0), "ok")


def _distances(prediction: np.ndarray, label: np.ndarray, *, spacing: np.ndarray | None) -> dict[str, float]:
    borders = surface(prediction), surface(label)
    in_voxels = _summary(*borders, spacing=np.ones(label.ndim))
    if spacing is None:
        in_mm: tuple[float, ...] = (math.nan,) * len(in_voxels)
    elif np.all(spacing == spacing[0]):
        in_mm = tuple(float(value * spacing[0]) for value in in_voxels)
    else:
        in_mm = _summary(*borders, spacing=spacing)
    return dict(zip(DISTANCES, (*in_mm, *in_voxels), strict=True))


def _summary(prediction: np.ndarray, label: np.ndarray, *, spacing: np.ndarray) -> tuple[float, float, float]:
    """HD95, ASD and ASSD of two surfaces in the unit of `spacing`."""
    there = surface_distances(prediction, label, spacing=spacing)
    back = surface_distances(label, prediction, spacing=spacing)
    hd95 = np.percentile(np.concatenate([there, back]), 95)
    return float(hd95), float(there.mean()), float((there.mean() + back.mean()) / 2)
