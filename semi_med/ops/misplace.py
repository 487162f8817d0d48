"""Masks that are wrong in a known way: an expert's, at another place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semi_med.ops import affine
from semi_med.ops.warps import warp


def draw_misplacements(
    batch_size: int,
    shape: Sequence[int],
    *,
    degrees: float = 30.0,
    shift: float = 0.15,
    scale: float = 1.5,
) -> Tensor:
    """A turn, a shift and a magnification for each image, `(batch_size, n + 1, n + 1)`, from torch's global generator.

    All of them are multiplied by a strength that each image draws in [0, 1], so that some masks are almost right.

    Args:
        batch_size: number of images.
        shape: their size in voxels.
        degrees: largest turn, in every plane.
        shift: largest shift, as a share of each axis.
        scale: largest magnification; the smallest is 1 / scale.
    """
    n, strength = len(shape), torch.rand(batch_size, 1)

    def drawn(count: int) -> Tensor:
        return strength * (torch.rand(batch_size, count) * 2 - 1)

    matrix = affine.magnification((scale ** drawn(1)).expand(-1, n), shape)
    for plane in [(a, b) for a in range(n) for b in range(a + 1, n)]:
        matrix = affine.compose(matrix, affine.rotation(degrees * drawn(1)[:, 0], plane, shape))
    return affine.compose(matrix, affine.translation(shift * torch.tensor(list(shape)) * drawn(n)))


def misplaced(label: Tensor, matrix: Tensor) -> Tensor:
    """The label moved through a matrix; what comes in from outside is background.

    Args:
        label: class indices, `(B, 1, *spatial)`.
        matrix: as `draw_misplacements` gives it.
    """
    return warp(label, matrix, nearest=True)


def lent(label: Tensor) -> Tensor:
    """Each image's mask, and where it is empty that of the next image of the batch that has one.

    Args:
        label: class indices, `(B, 1, *spatial)`. If all are empty they come back as they are.
    """
    found = (label > 0).flatten(1).any(1)
    if not bool(found.any()):
        return label
    count, order = len(label), torch.arange(len(label), device=label.device)
    ahead = (order[None] - order[:, None]) % count  # how far image j stands behind image i
    return label[ahead.masked_fill(~found[None], count).argmin(1)]
