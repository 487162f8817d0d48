"""Affine maps between voxel grids as homogeneous matrices, float64 `(B, n + 1, n + 1)`, in 2D and 3D alike.

A matrix takes a voxel of the output, counted from 0, to the place in the input whose value it gets: `warp` pulls. With
`first` from the middle grid to the input and `second` from the output to the middle one, `compose(first, second)`
does first the one and then the other in a single resampling. So for two views of one image, `weak` and `strong`,
`compose(inverse(strong), weak)` brings what was made of the strong view to the frame of the weak one (T1 T2^-1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

KIND = torch.float64


def identity(batch_size: int, dimensions: int) -> Tensor:
    """Nothing moves."""
    return torch.eye(dimensions + 1, dtype=KIND).repeat(batch_size, 1, 1)


def about_centre(linear: Tensor, shape: Sequence[int], output_shape: Sequence[int] | None = None) -> Tensor:
    """A linear map about the centres of the two grids.

    Args:
        linear: `(B, n, n)`, from the output to the input, in voxels, axes in array order.
        shape: size of the input in voxels.
        output_shape: that of the output; None for the same.
    """
    output_shape = shape if output_shape is None else output_shape
    there, here = ((torch.tensor(list(size), dtype=KIND) - 1) / 2 for size in (shape, output_shape))
    matrix = identity(len(linear), len(shape))
    matrix[:, :-1, :-1] = linear
    matrix[:, :-1, -1] = there - linear.to(KIND) @ here
    return matrix


def translation(offset: Tensor) -> Tensor:
    """What is in the image moves by `offset`, `(B, n)`, in voxels."""
    matrix = identity(*offset.shape)
    matrix[:, :-1, -1] = -offset.to(KIND)
    return matrix


def crop(start: Tensor) -> Tensor:
    """The output is a window of the input that begins at voxel `start`, `(B, n)`."""
    return translation(-start)


def flip(axes: Tensor, shape: Sequence[int]) -> Tensor:
    """Mirrored along the axes that are True in `axes`, `(B, n)`: voxel i becomes voxel size - 1 - i."""
    return about_centre(torch.diag_embed(1 - 2 * axes.to(KIND)), shape)


def quarter_turn(quarters: Tensor, plane: tuple[int, int], shape: Sequence[int]) -> Tensor:
    """Turned by quarters, whole numbers `(B,)`, from the first axis of the plane towards the second, as `rot90` does.

    Raises:
        ValueError: the axes have different sizes, and some images are turned by an odd number of quarters, others not.
    """
    a, b = plane
    odd = quarters % 2 == 1
    output_shape = list(shape)
    if shape[a] != shape[b] and bool(odd.any()):
        if not bool(odd.all()):
            raise ValueError(f"plane {plane} of size {tuple(shape)} cannot be turned by a quarter in some images only")
        output_shape[a], output_shape[b] = shape[b], shape[a]
    cosine, sine = (torch.tensor(row, dtype=KIND)[quarters % 4] for row in ([1, 0, -1, 0], [0, 1, 0, -1]))
    return about_centre(_turn(cosine, sine, plane, len(shape)), shape, output_shape)


def rotation(degrees: Tensor, plane: tuple[int, int], shape: Sequence[int]) -> Tensor:
    """Turned by `degrees`, `(B,)`, about the centre, from the first axis of the plane towards the second."""
    angle = torch.deg2rad(degrees.to(KIND))
    return about_centre(_turn(angle.cos(), angle.sin(), plane, len(shape)), shape)


def _turn(cosine: Tensor, sine: Tensor, plane: tuple[int, int], dimensions: int) -> Tensor:
    a, b = plane
    linear = torch.eye(dimensions, dtype=KIND).repeat(len(cosine), 1, 1)
    linear[:, a, a] = linear[:, b, b] = cosine
    linear[:, a, b], linear[:, b, a] = sine, -sine
    return linear


def shear(degrees: Tensor, axes: tuple[int, int], shape: Sequence[int]) -> Tensor:
    """Moved along the first of two axes by tan(degrees) voxels for each voxel along the second, from the centre."""
    linear = torch.eye(len(shape), dtype=KIND).repeat(len(degrees), 1, 1)
    linear[:, axes[0], axes[1]] = -torch.deg2rad(degrees.to(KIND)).tan()
    return about_centre(linear, shape)


def magnification(factor: Tensor, shape: Sequence[int]) -> Tensor:
    """Larger by `factor`, `(B, n)`, along each axis, about the centre."""
    return about_centre(torch.diag_embed(1 / factor.to(KIND)), shape)


def compose(*matrices: Tensor) -> Tensor:
    """One matrix that does all of them, the first one first."""
    product = matrices[0]
    for matrix in matrices[1:]:
        product = product @ matrix
    return product


def inverse(matrix: Tensor) -> Tensor:
    """What undoes it."""
    return torch.linalg.inv(matrix)
