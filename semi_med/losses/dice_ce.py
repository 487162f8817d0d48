"""Cross-entropy and soft Dice over the voxels that count."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from semi_med.ops import known


def dice_ce(logits: Tensor, label: Tensor, *, alpha: float = 0.5, valid: Tensor | None = None) -> Tensor:
    r"""alpha * CE + (1 - alpha) * Dice, a scalar.

    CE is the mean over valid voxels. Dice is the mean over the foreground classes of
    1 - (2 sum p g + e) / (sum p^2 + sum g + e), the sums taken over the valid voxels of the whole batch, as in the
    benchmark code of the field. A class that is absent costs 0 where nothing is predicted of it and almost 1 as soon
    as anything is (e is 1e-5); nothing valid costs 0. Voxels whose label is `IGNORED` are not valid.

    Args:
        logits: `(B, K, *spatial)`, before softmax, K >= 2.
        label: class indices and `IGNORED`, `(B, 1, *spatial)`, any integer type.
        alpha: share of the cross-entropy, in [0, 1].
        valid: bool `(B, 1, *spatial)`; None counts every known voxel. Weighs terms, never the logits.
    """
    logits, counted = logits.float(), known(label, valid)
    index, weight = label.long().masked_fill(~counted, 0), counted.to(logits.dtype)
    cross_entropy = functional.cross_entropy(logits, index[:, 0], reduction="none").unsqueeze(1)
    probs = torch.softmax(logits, dim=1)
    onehot = torch.zeros_like(probs).scatter_(1, index, weight)
    mean_ce = (cross_entropy * weight).sum() / weight.sum().clamp(min=1.0)
    probs = probs * weight
    axes = (0, *range(2, logits.dim()))
    shared = (probs * onehot).sum(axes)[1:]
    total = (probs.square().sum(axes) + onehot.sum(axes))[1:]
    smooth = 1e-5
    dice = (1.0 - (2.0 * shared + smooth) / (total + smooth)).mean()
    return alpha * mean_ce + (1.0 - alpha) * dice
