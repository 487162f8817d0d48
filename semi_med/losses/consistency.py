"""How far two predictions of one image are apart."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_difference(probs: Tensor, target: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean over the valid voxels and the classes of (p - q)^2, a scalar; 0 where nothing is valid.

    Args:
        probs: `(B, K, *spatial)`, after softmax.
        target: the same shape, probabilities of the teacher; gets no gradient.
        valid: bool `(B, 1, *spatial)`; None counts every voxel.
    """
    squared = (probs.float() - target.detach().float()).square().mean(dim=1, keepdim=True)
    if valid is None:
        return squared.mean()
    weight = valid.to(squared.dtype)
    return (squared * weight).sum() / torch.clamp(weight.sum(), min=1.0)
