"""Another voxel size: the part of a scan that is kept, and nothing else, is interpolated.

A voxel x of the new grid lies at x / zoom of the old one on each axis: the centres of the first voxels coincide, as
ITK's and dipy's resampling have it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

_REACH = 16  # voxels; what lies further away changes a cubic B-spline by less than 1e-8 of itself

Box = Sequence[tuple[int, int]]


def resample_image(image: np.ndarray, box: Box, *, zoom: Sequence[float], order: int) -> np.ndarray:
    """A box of the image on the new grid.

    Args:
        image: (i, j, k).
        box: for each axis of the new grid the first voxel and the one after the last.
        zoom: new voxels for one old voxel on each axis.
        order: 1 is linear, 3 a cubic B-spline, with the scan mirrored at its borders as ITK has it.

    Returns:
        float32 of the box's shape.
    """
    first = [low / factor for (low, _), factor in zip(box, zoom, strict=True)]
    last = [(high - 1) / factor for (_, high), factor in zip(box, zoom, strict=True)]
    part = [
        (max(math.floor(a) - _REACH, 0), min(math.ceil(b) + _REACH + 1, size))
        for a, b, size in zip(first, last, image.shape, strict=True)
    ]
    block = image[tuple(slice(low, high) for low, high in part)]
    return ndimage.affine_transform(
        block,
        [1 / factor for factor in zoom],
        offset=[a - low for a, (low, _) in zip(first, part, strict=True)],
        output_shape=tuple(high - low for low, high in box),
        output=np.float32,
        order=order,
        mode="mirror",
    )


def resample_label(label: np.ndarray, shape: Sequence[int], *, zoom: Sequence[float]) -> np.ndarray:
    """The whole label on the new grid of this shape, by nearest neighbour; between two the later one is taken."""
    places = [
        np.minimum(np.floor(np.arange(size) / factor + 0.5).astype(int), old - 1)
        for size, factor, old in zip(shape, zoom, label.shape, strict=True)
    ]
    return label[np.ix_(*places)]
