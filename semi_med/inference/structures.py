"""What is measured of each structure of a segmentation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Structure:
    """One class of one case.

    Attributes:
        voxels: of a picture, pixels.
        millilitres: NaN for what has no volume in space.
        components: connected across faces, edges and corners.
        touches_border: whether it reaches the first or last voxel of an axis, so that a part may be missing.
        mean_intensity: of the first channel of the scan as it was read; NaN where there is no voxel.
        confidence: from 0 to 1, see `semi_med.inference.summary.Summary`; NaN if it is not known.
    """

    voxels: int
    millilitres: float
    components: int
    touches_border: bool
    mean_intensity: float
    confidence: float


def measure(
    label: np.ndarray,
    image: np.ndarray,
    *,
    values: Mapping[str, int],
    millilitres: float,
    confidence: Mapping[str, float],
) -> dict[str, Structure]:
    """The structures of a segmentation.

    Args:
        label: (i, j, k) class numbers.
        image: (i, j, k) intensities.
        values: the number of every structure, by name.
        millilitres: of one voxel, NaN without a volume in space.
        confidence: by name.
    """
    boxes = ndimage.find_objects(label)
    found = {}
    for name, value in values.items():
        box = boxes[value - 1] if 0 < value <= len(boxes) else None
        known = confidence.get(name, math.nan)
        if box is None:
            found[name] = Structure(0, 0 * millilitres, 0, False, math.nan, known)
            continue
        inside = label[box] == value
        voxels = int(np.count_nonzero(inside))
        found[name] = Structure(
            voxels=voxels,
            millilitres=voxels * millilitres,
            components=int(ndimage.label(inside, np.ones((3, 3, 3), bool))[1]),
            touches_border=_touches(box, label.shape),
            mean_intensity=float(np.mean(image[box], dtype=np.float64, where=inside)),
            confidence=known,
        )
    return found


def _touches(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Whether a box reaches an end of an axis; of one slice, that axis does not count."""
    ends = zip(box, shape, strict=True)
    return any(side.start == 0 or side.stop == length for side, length in ends if length > 1)
