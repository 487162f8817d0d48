"""Resampling a batch through a matrix, and which voxels of the result have a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

_NEAR = 1e-6  # of a voxel: nearer to a voxel, or to the middle of two, is on it


def warp(
    maps: Tensor,
    matrix: Tensor,
    *,
    nearest: bool,
    fill: float | Tensor = 0,
    displacement: Tensor | None = None,
    output_shape: Sequence[int] | None = None,
) -> Tensor:
    """Output voxel x takes the input at matrix @ (x + d(x)).

    Places are computed in double precision. Nearest neighbours are copied, never computed; so are the values of an
    image that is only flipped, turned by quarters or moved by whole voxels. A gradient reaches `maps`.

    Args:
        maps: `(B, C, *spatial)`, any type.
        matrix: `(B, n + 1, n + 1)`, see `semi_med.ops.affine`.
        nearest: nearest neighbour (labels; of two equally near ones the one with the larger index) instead of linear.
        fill: what lies outside the input, a number or a tensor that fits `(B, C, *spatial)`; `IGNORED` for a label
            of which nobody knows how it goes on.
        displacement: d, `(B, n, *output)`, in voxels, axes in array order; None for 0.
        output_shape: size of the output in voxels; None for that of the input.

    Returns:
        `(B, C, *output_shape)`; the same type if nearest, else float32.
    """
    shape = tuple(maps.shape[2:] if output_shape is None else output_shape)
    if nearest:
        return _copied(maps, _rows(matrix.to(maps.device), shape, displacement), fill)
    maps = maps.float()
    fill = torch.as_tensor(fill, dtype=torch.float32, device=maps.device)
    fill = fill if fill.dim() else fill.view([1] * maps.dim())
    fill = fill.expand(len(maps), *fill.shape[1:])
    whole = ((matrix - matrix.round()).abs() < _NEAR).flatten(1).all(1)
    if displacement is not None:
        return _interpolated(maps, matrix, fill, shape, displacement)
    parts = []
    for chosen, copied in ((whole, True), (~whole, False)):
        if not bool(chosen.any()):
            continue
        image, through, outside = (values[chosen.to(values.device)] for values in (maps, matrix, fill))
        if copied:
            parts.append(_copied(image, _rows(through.round().to(maps.device), shape, None), outside))
        else:
            parts.append(_interpolated(image, through, outside, shape, None))
    order = (~whole).to(torch.uint8).argsort(stable=True).argsort()
    return torch.cat(parts)[order.to(maps.device)]


def seen(
    matrix: Tensor,
    shape: Sequence[int],
    *,
    output_shape: Sequence[int] | None = None,
    linear: bool = False,
    device: torch.device | str | None = None,
) -> Tensor:
    """Output voxels whose source lies inside the input; the others are invented by the warp.

    Args:
        matrix: `(B, n + 1, n + 1)`, as for `warp`.
        shape: size of the input in voxels.
        output_shape: that of the output; None for the same.
        linear: let a voxel count only where linear interpolation takes nothing from outside, between the centres of
            the outermost voxels, instead of where its nearest neighbour exists.
        device: of the result.

    Returns:
        bool `(B, 1, *output_shape)`.
    """
    inside = torch.ones(len(matrix), 1, *[1] * len(shape), dtype=torch.bool, device=device)
    rows = _rows(matrix.to(device), tuple(shape if output_shape is None else output_shape), None)
    for row, size in zip(rows, shape, strict=True):
        if linear:
            inside = inside & (row >= -_NEAR) & (row <= size - 1 + _NEAR)
        else:
            inside = inside & (row >= -0.5 - _NEAR) & (row < size - 0.5 - _NEAR)
    return inside


def _rows(matrix: Tensor, shape: Sequence[int], displacement: Tensor | None) -> Iterator[Tensor]:
    """For one axis of the input after the other: where each output voxel takes its value, float64 `(B, 1, *shape)`."""
    dimensions = len(shape)
    matrix = matrix.double()
    lines = [
        torch.arange(size, dtype=torch.float64, device=matrix.device).view(-1, *[1] * (dimensions - 1 - axis))
        for axis, size in enumerate(shape)
    ]
    if displacement is not None:
        lines = [line + moved for line, moved in zip(lines, displacement.double().split(1, dim=1), strict=True)]
    for i in range(matrix.shape[1] - 1):
        numbers = matrix[:, i].view(len(matrix), dimensions + 1, *[1] * dimensions).split(1, dim=1)
        row = numbers[-1]
        for number, line in zip(numbers, lines, strict=False):
            row = row + number * line
        yield row.expand(-1, -1, *shape)


def _copied(maps: Tensor, rows: Iterator[Tensor], fill: float | Tensor) -> Tensor:
    """Values of the nearest voxels."""
    inside: Tensor | bool = True
    flat: Tensor | int = 0
    for row, size in zip(rows, maps.shape[2:], strict=True):
        along = (row + (0.5 + _NEAR)).floor_()
        inside = inside & (along >= 0) & (along < size)
        flat = flat * size + along
    assert isinstance(inside, Tensor)
    assert isinstance(flat, Tensor)
    index = flat.masked_fill_(~inside, 0).long().flatten(2).expand(-1, maps.shape[1], -1)
    values = maps.flatten(2).gather(2, index).view(*maps.shape[:2], *inside.shape[2:])
    return torch.where(inside, values, torch.as_tensor(fill, dtype=maps.dtype, device=maps.device))


def _interpolated(
    maps: Tensor, matrix: Tensor, fill: Tensor, shape: Sequence[int], displacement: Tensor | None
) -> Tensor:
    # grid_sample wants normalised coordinates and the last axis first.
    size = torch.tensor(maps.shape[2:], dtype=matrix.dtype, device=matrix.device).view(-1, 1)
    normalised = matrix.clone()
    normalised[:, :-1] *= 2 / size
    normalised[:, :-1, -1:] += 1 / size - 1
    rows = [row.float() for row in _rows(normalised.to(maps.device), shape, displacement)]
    grid = torch.stack([row[:, 0] for row in reversed(rows)], dim=-1)
    out = functional.grid_sample(maps - fill, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return out + fill
