"""Labels that a network makes for scans that nobody labelled."""

from __future__ import annotations

import torch
from torch import Tensor

from semi_med.ops.known import known


def pseudo_label(logits: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Most probable class of each voxel, and whether it is probable enough to count.

    Args:
        logits: `(B, K, *spatial)`, before softmax; at least two classes.
        threshold: a voxel counts where its largest probability is at least this; 0 lets every voxel count.

    Returns:
        label `(B, 1, *spatial)` int64, confident `(B, 1, *spatial)` bool, and the largest probability
        `(B, 1, *spatial)`. None of them carries a gradient.
    """
    with torch.no_grad():
        confidence, label = torch.softmax(logits.float(), dim=1).max(dim=1, keepdim=True)
        return label, confidence >= threshold, confidence


def image_confidence(confidence: Tensor, label: Tensor, *, gate: str = "image") -> Tensor:
    """How sure a network is of its label of each image as a whole.

    Args:
        confidence: the largest probability of each voxel, `(B, 1, *spatial)`.
        label: class indices, `(B, 1, *spatial)`.
        gate: "image", the mean over all voxels; or "foreground", the mean over those that are labelled as foreground.
            Where a structure is small the first says no more than that the background is easy. An image without any
            foreground is as sure as its least confident voxel: nothing may be in doubt where nothing is seen.

    Returns:
        `(B,)`.
    """
    values = confidence.flatten(1)
    if gate == "image":
        return values.mean(1)
    foreground = (label > 0).flatten(1)
    count = foreground.sum(1)
    mean = (values * foreground).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean, values.amin(1))


def entropy(probs: Tensor) -> Tensor:
    """Predictive entropy of each voxel in nats: -sum over classes of p log p, 0 to log K.

    Args:
        probs: `(B, K, *spatial)`, summing to 1 over the classes.

    Returns:
        `(B, 1, *spatial)`.
    """
    return -torch.xlogy(probs, probs).sum(dim=1, keepdim=True)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Dice overlap of the foregrounds of two labellings, a scalar in [0, 1]; 1 where neither has any foreground.

    A voxel is shared where both give it the same class and that class is not the background (0). Voxels that are
    `IGNORED` in either count nowhere.

    Args:
        a: class indices of any shape.
        b: class indices of the same shape.
    """
    counts = known(b, known(a))
    shared = ((a == b) & (a > 0) & counts).sum()
    total = ((a > 0) & counts).sum() + ((b > 0) & counts).sum()
    return torch.where(total > 0, 2.0 * shared / total.clamp(min=1), torch.ones_like(total, dtype=torch.float32))


def class_agreement(probs: Tensor, label: Tensor) -> Tensor:
    """Probability of the true class, the mean over the voxels of each class and then over the classes a label has.

    So a small structure counts as much as the background, where 1 - |p - y| / 2 over all voxels would hardly notice it.

    Args:
        probs: `(B, K, *spatial)`, summing to 1 over the classes.
        label: class indices and `IGNORED`, `(B, 1, *spatial)`.

    Returns:
        `(B,)`, 0 to 1; not a number where nothing is known.
    """
    counted = known(label)
    onehot = torch.zeros_like(probs).scatter_(1, label.long().masked_fill(~counted, 0), counted.to(probs.dtype))
    voxels = onehot.flatten(2).sum(2)
    of_class = (probs * onehot).flatten(2).sum(2) / voxels.clamp(min=1)
    return of_class.sum(1) / (voxels > 0).sum(1)
