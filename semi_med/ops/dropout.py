"""Dropping channels."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_channels(features: Tensor, share: float) -> Tensor:
    """Whole channels of each image set to 0, the others enlarged so that the mean stays (Tompson et al., CVPR 2015).

    Unlike `torch.nn.Dropout2d` it drops whatever mode a network is in.

    Args:
        features: `(B, C, *spatial)`.
        share: chance of each channel to be dropped, in [0, 1).
    """
    if share == 0:
        return features
    kept = torch.rand(features.shape[:2], device=features.device) >= share
    return features * (kept / (1 - share)).to(features.dtype).view(*kept.shape, *[1] * (features.dim() - 2))
