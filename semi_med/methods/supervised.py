"""Labelled scans only: the floor that every semi-supervised method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from semi_med.losses import dice_boundary, dice_ce
from semi_med.methods.base import Batch, Method, require_choice, require_share


@dataclass(kw_only=True, eq=False)
class Supervised(Method):
    """The labelled images alone; the unlabelled ones are not looked at.

    The loss is the supervised term of the method that it is the floor of: `dice_ce` for most of them,
    `dice_boundary` for FixMatchSeg, whose baseline is trained so (Upretee and Khanal, arXiv:2208.00400, section 3).

    Differs from a paper: there is none.
    """

    network: nn.Module
    loss: Literal["dice_ce", "dice_boundary"] = "dice_ce"
    alpha: float = 0.5  # share of CE in dice_ce
    boundary: float = 1.0  # weight of the boundary loss in dice_boundary

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say."""
        require_choice("loss", self.loss, ("dice_ce", "dice_boundary"))
        require_share("alpha", self.alpha)
        if self.boundary < 0:
            raise ValueError(f"boundary is a weight of at least 0, not {self.boundary}")

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """The supervised loss as `loss` and `supervised`."""
        logits, label = self.network(labeled["image"]), labeled["label"]
        if self.loss == "dice_ce":
            loss = dice_ce(logits, label, alpha=self.alpha)
        else:
            loss = dice_boundary(torch.softmax(logits.float(), dim=1), label, boundary=self.boundary).mean()
        return {"loss": loss, "supervised": loss.detach()}
