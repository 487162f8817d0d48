"""The boundary loss: what is predicted far outside the outline of a class costs much, far inside it gains much."""

from __future__ import annotations

import torch
from torch import Tensor

from semi_med.ops import known, signed_distance


def boundary_loss(probs: Tensor, distance: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean over the foreground classes and valid voxels of p * phi, for each image.

    Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019, arXiv:1812.07032, equation 5. It can
    be below 0: the least it can be is reached by the label itself. Nothing valid costs 0.

    Args:
        probs: `(B, K, *spatial)`, after softmax.
        distance: phi, the same shape: `signed_distance` of the label, in any unit.
        valid: bool `(B, 1, *spatial)`; None counts every voxel.

    Returns:
        `(B,)`.
    """
    terms = (probs.float() * distance)[:, 1:]
    if valid is None:
        return terms.flatten(1).mean(1)
    number = valid.flatten(1).sum(1).clamp(min=1) * terms.shape[1]
    return (terms * valid).flatten(1).sum(1) / number


def soft_dice(probs: Tensor, label: Tensor) -> Tensor:
    """1 - Dice, the mean over the foreground classes, for each image.

    (2 sum p g + e) / (sum p^2 + sum g + e) with sums over the voxels of one image and e = 1e-5: a class that is absent
    costs 0 where nothing is predicted of it. Voxels whose label is `IGNORED` are in no sum.

    Args:
        probs: `(B, K, *spatial)`, after softmax.
        label: class indices and `IGNORED`, `(B, 1, *spatial)`, any integer type.

    Returns:
        `(B,)`.
    """
    counted = known(label)
    weight = counted.to(torch.float32)
    probs = probs.float() * weight
    onehot = torch.zeros_like(probs).scatter_(1, label.long().masked_fill(~counted, 0), weight)
    axes = tuple(range(2, probs.dim()))
    shared = (probs * onehot).sum(axes)[:, 1:]
    total = (probs.square().sum(axes) + onehot.sum(axes))[:, 1:]
    smooth = 1e-5
    return (1.0 - (2.0 * shared + smooth) / (total + smooth)).mean(1)


def dice_boundary(probs: Tensor, label: Tensor, *, boundary: float = 1.0) -> Tensor:
    """Soft Dice and boundary loss of each image: DL + boundary * BL.

    Distances are in units of the longest side of the image, so that both terms are numbers around one.
    Voxels whose label is `IGNORED` are left out of both.

    Args:
        probs: `(B, K, *spatial)`, after softmax.
        label: class indices and `IGNORED`, `(B, 1, *spatial)`, any integer type.
        boundary: weight of the boundary loss; 0 leaves it, and the distances, out.

    Returns:
        `(B,)`.
    """
    loss = soft_dice(probs, label)
    if boundary == 0:
        return loss
    distance = signed_distance(label, probs.shape[1]) / max(label.shape[2:])
    return loss + boundary * boundary_loss(probs, distance, valid=known(label))
