"""Labels and predictions as maps of classes, for MONAI's metrics."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from semi_med.ops import known


class KnownOnehotd:
    """The label as one map a class; voxels that are `IGNORED` in it are of no class there and in the prediction.

    Args:
        classes: K, with the background.
        pred: key of the prediction, maps (K, *spatial) of 0 and 1.
        label: key of the label, class indices and `IGNORED` (1, *spatial).
    """

    def __init__(self, classes: int, *, pred: str = "pred", label: str = "label") -> None:
        self.classes, self.pred, self.label = classes, pred, label

    def __call__(self, item: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with both of them changed; a value that is neither a class nor `IGNORED` is an error."""
        pred, label = item[self.pred], torch.as_tensor(item[self.label])
        seen = known(label)
        maps = torch.zeros((self.classes, *label.shape[1:]), dtype=torch.float32, device=label.device)
        maps.scatter_(0, label.long().masked_fill(~seen, 0), seen.to(torch.float32))
        return {**item, self.pred: _kept(pred, seen), self.label: maps}


def _kept(pred: Tensor, seen: Tensor) -> Tensor:
    return torch.where(seen.to(pred.device), pred, torch.zeros_like(pred))
