"""Smoothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def gaussian_blur(image: Tensor, sigma: Tensor, *, padding: str = "replicate") -> Tensor:
    """Separable Gaussian blur, out to three times the largest sigma.

    Args:
        image: `(B, C, *spatial)`.
        sigma: `(B,)`, standard deviation for each image, in voxels; 0 leaves it as it is.
        padding: what lies beyond the edge, a mode of `torch.nn.functional.pad`.

    Returns:
        The same shape.
    """
    dimensions = image.dim() - 2
    radius = max(1, int(3 * float(sigma.max()) + 0.5))
    place = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (place / sigma.clamp(min=1e-3).view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(image.device)
    batch, channels = image.shape[:2]
    kernel = kernel.repeat_interleave(channels, dim=0)
    folded = image.reshape(1, batch * channels, *image.shape[2:])
    convolve = functional.conv2d if dimensions == 2 else functional.conv3d
    for axis in range(dimensions):
        shape = [batch * channels, 1] + [1] * dimensions
        shape[2 + axis] = 2 * radius + 1
        pad = [0] * (2 * dimensions)
        pad[2 * (dimensions - 1 - axis)] = pad[2 * (dimensions - 1 - axis) + 1] = radius
        padded = functional.pad(folded, pad, mode=padding)
        folded = convolve(padded, kernel.view(shape), groups=batch * channels)
    return folded.reshape(image.shape)
