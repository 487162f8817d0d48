"""Pasting one image into another, and the same with their labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_cutmix_regions(
    batch_size: int,
    spatial_shape: Sequence[int],
    *,
    concentration: float = 4.0,
    axes: Sequence[int] = (0, 1),
) -> Tensor:
    """One random box for each image, to be filled from its partner.

    The kept share is drawn as l ~ Beta(c, c); the box has side sqrt(1 - l) of the image along `axes` and the full
    length along the others, at a uniform place inside the image (Yun et al., "CutMix", ICCV 2019).

    Args:
        batch_size: number of boxes.
        spatial_shape: size of the images in voxels.
        concentration: c of the Beta law, above 0.
        axes: spatial axes along which the box is shorter than the image.

    Returns:
        bool `(batch_size, 1, *spatial_shape)` on the CPU, drawn from torch's global generator.
    """
    regions = torch.zeros((batch_size, 1, *spatial_shape), dtype=torch.bool)
    beta = torch.distributions.Beta(concentration, concentration)
    for region in regions:
        side = (1.0 - beta.sample().item()) ** 0.5
        box = [slice(None)] * (len(spatial_shape) + 1)
        for axis in axes:
            size = spatial_shape[axis]
            length = max(1, min(size, round(side * size)))
            start = int(torch.randint(0, size - length + 1, ()).item())
            box[axis + 1 if axis >= 0 else axis] = slice(start, start + length)
        region[tuple(box)] = True
    return regions


def draw_boxes(batch_size: int, spatial_shape: Sequence[int], *, share: float = 2 / 3) -> Tensor:
    """One box of fixed size for each image, at a uniform place inside it.

    Bai et al., "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation", CVPR 2023, arXiv:2305.00673:
    the zero-value region of their mask M, with `share` beta along every axis.

    Args:
        batch_size: number of boxes.
        spatial_shape: size of the images in voxels.
        share: length of the box as a share of the image along each axis, in (0, 1].

    Returns:
        bool `(batch_size, 1, *spatial_shape)` on the CPU, True inside, drawn from torch's global generator.
    """
    regions = torch.zeros((batch_size, 1, *spatial_shape), dtype=torch.bool)
    lengths = [max(1, int(size * share)) for size in spatial_shape]
    for region in regions:
        starts = [
            int(torch.randint(0, size - length + 1, ()).item())
            for size, length in zip(spatial_shape, lengths, strict=True)
        ]
        region[(0, *(slice(start, start + length) for start, length in zip(starts, lengths, strict=True)))] = True
    return regions


def partner(batch: Tensor) -> Tensor:
    """For each image of a batch another one of it: the batch rolled by one. A batch of one is its own partner."""
    return batch.roll(1, dims=0)


def paste(base: Tensor, patch: Tensor, region: Tensor) -> Tensor:
    """`patch` inside the region, `base` outside it.

    Args:
        base: `(B, C, *spatial)`.
        patch: the same shape.
        region: bool `(B, 1, *spatial)`.
    """
    return torch.where(region, patch, base)
