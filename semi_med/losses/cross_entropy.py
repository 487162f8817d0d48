"""Cross-entropy of each image over the voxels that count."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from semi_med.ops import known


def cross_entropy(
    logits: Tensor, label: Tensor, *, valid: Tensor | None = None, taught: Tensor | None = None
) -> Tensor:
    """Mean over the valid voxels of each image of the cross-entropy, 0 where a voxel is not taught.

    Args:
        logits: `(B, K, *spatial)`, before softmax.
        label: class indices and `IGNORED`, `(B, 1, *spatial)`, any integer type.
        valid: bool `(B, 1, *spatial)`, voxels that are averaged over; None for every known one.
        taught: bool `(B, 1, *spatial)`, voxels that cost something; None for every valid one.

    Returns:
        `(B,)`; 0 where nothing is valid.
    """
    counted = known(label, valid)
    index = label.long().masked_fill(~counted, 0)[:, 0]
    each = functional.cross_entropy(logits.float(), index, reduction="none").unsqueeze(1)
    taught = counted if taught is None else counted & taught
    return (each * taught).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)
