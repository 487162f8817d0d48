"""Shifted crops and COM: how the dynamic pseudo-label is put together, voxel by voxel.

Both the fixed crop and its shifted crops are cut out of one *context*: the fixed crop with a margin around it. All
positions are voxels of that one array, so the two can never disagree about where a voxel lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

SHIFT_DIRECTIONS: dict[str, dict[int, list[tuple[int, ...]]]] = {
    "corners": {
        2: [(1, 1), (1, -1), (-1, 1), (-1, -1)],
        3: [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)],
    },
    "faces": {
        2: [(1, 0), (-1, 0), (0, 1), (0, -1)],
        3: [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)],
    },
}
"""The four shifted crops c_d1 .. c_d4: towards four corners (in 3D those of a tetrahedron) or four faces."""


def draw_offsets(
    margin: Tensor,
    max_shift: Sequence[int],
    *,
    index: int,
    pattern: Literal["corners", "faces"] = "corners",
) -> Tensor:
    """How far the shifted crop number `index` lies from the fixed crop, for each image of a batch.

    Along each axis the distance is uniform in [1, max_shift], then clamped to the free margin on that side of the
    scan; no margin means no shift along that axis.

    Args:
        margin: int `(B, n, 2)`: free voxels before and after the fixed crop along each of the n axes.
        max_shift: largest shift along each axis, in voxels, at least 0.
        index: 0 to 3, which of the four directions.
        pattern: a key of `SHIFT_DIRECTIONS`.

    Returns:
        int64 `(B, n)` on the CPU: start of the shifted crop minus start of the fixed crop, in voxels.
    """
    batch_size, dimensions, _ = margin.shape
    direction = torch.tensor(SHIFT_DIRECTIONS[pattern][dimensions][index])
    bound = torch.as_tensor(list(max_shift))
    if bound.numel() != dimensions or bool((bound < 0).any()):
        raise ValueError(f"max_shift must be {dimensions} numbers of at least 0, not {list(max_shift)}")
    distance = 1 + (torch.rand(batch_size, dimensions) * bound).long()
    distance = torch.minimum(distance, bound)
    free = torch.where(direction > 0, margin[..., 1], margin[..., 0])
    return direction * torch.minimum(distance, free)


def crop_at(context: Tensor, start: Tensor, size: Sequence[int]) -> Tensor:
    """One crop from each image of a batch.

    Args:
        context: `(B, C, *spatial)`.
        start: int `(B, n)`, first voxel of each crop in the context.
        size: crop size in voxels.

    Returns:
        `(B, C, *size)`, a copy.

    Raises:
        ValueError: a crop does not lie inside the context.
    """
    spatial = torch.tensor(context.shape[2:])
    if bool((start < 0).any()) or bool((start + torch.tensor(list(size)) > spatial).any()):
        raise ValueError(f"a crop of {list(size)} at {start.tolist()} leaves the context of {spatial.tolist()}")
    crops = []
    for image, first in zip(context, start.tolist(), strict=True):
        window = tuple(slice(f, f + s) for f, s in zip(first, size, strict=True))
        crops.append(image[(slice(None), *window)])
    return torch.stack(crops)


def com(fixed: Tensor, temporary: Tensor, offset: Tensor) -> Tensor:
    """COM(.): the dynamic pseudo-label.

    Voxels of the fixed crop that the shifted crop also covers take the value that was predicted there, the others
    keep the fixed crop's own (arXiv:2405.07256, figure 2d): dynamic[v] = temporary[v - d] where v - d lies inside
    the shifted crop, fixed[v] elsewhere.

    Args:
        fixed: `(B, C, *spatial)`, prediction on the fixed crop (label, probabilities or a bool map).
        temporary: the same shape, prediction on the shifted crop.
        offset: int `(B, n)`, d: start of the shifted crop minus start of the fixed crop, in voxels.

    Returns:
        A tensor like `fixed`. An offset at least as large as the crop leaves `fixed` unchanged.
    """
    if fixed.shape != temporary.shape:
        raise ValueError(f"fixed {tuple(fixed.shape)} and temporary {tuple(temporary.shape)} must have one shape")
    dynamic = fixed.clone()
    size = fixed.shape[2:]
    for image, source, shift in zip(dynamic, temporary, offset.tolist(), strict=True):
        into = tuple(slice(max(0, d), max(0, s + min(0, d))) for d, s in zip(shift, size, strict=True))
        out_of = tuple(slice(max(0, -d), max(0, s + min(0, -d))) for d, s in zip(shift, size, strict=True))
        image[(slice(None), *into)] = source[(slice(None), *out_of)]
    return dynamic
