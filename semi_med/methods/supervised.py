"""Labelled scans only: the floor that every semi-supervised method has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from semi_med.losses import dice_ce
from semi_med.methods.base import Batch, Method


@dataclass(kw_only=True, eq=False)
class Supervised(Method):
    """Cross-entropy and Dice on the labelled images; the unlabelled ones are not looked at.

    Differs from a paper: there is none. The loss is the supervised term of the other methods.
    """

    network: nn.Module
    alpha: float = 0.5

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """The supervised loss as `loss` and `supervised`."""
        loss = dice_ce(self.network(labeled["image"]), labeled["label"], alpha=self.alpha)
        return {"loss": loss, "supervised": loss.detach()}
