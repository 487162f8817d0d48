"""Boxes of voxels: which part of a scan is kept, and where it lies then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def box_of(region: np.ndarray) -> tuple[tuple[int, int], ...]:
    """For each axis the first voxel of a region and the one after its last. The region is not empty."""
    box = []
    for axis in range(region.ndim):
        found = np.flatnonzero(region.any(axis=tuple(other for other in range(region.ndim) if other != axis)))
        box.append((int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def crop_interval(low: int, high: int, size: int, *, least: int, margin: int) -> tuple[int, int]:
    """First voxel and the one after the last of a crop along one axis.

    Args:
        low: first voxel of the label.
        high: the voxel after the label's last.
        size: voxels of the scan along this axis.
        least: what the label's extent is enlarged to, half at each side.
        margin: voxels added at each side after that.
    """
    lack = max(least - (high - low), 0)
    low, high = max(low - lack // 2 - margin, 0), min(high + lack - lack // 2 + margin, size)
    # at a border the margin is lost, but never the least extent
    low = max(0, min(low, size - least))
    return low, min(size, max(high, low + least))


def moved(affine: np.ndarray, start: Sequence[float]) -> np.ndarray:
    """The affine of a crop whose first voxel was at the index `start`; 4x4, voxel to RAS mm."""
    there = affine.copy()
    there[:3, 3] = (affine @ [*start, 1])[:3]
    return there
