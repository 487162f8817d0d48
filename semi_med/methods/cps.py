"""Cross pseudo supervision: two networks, each learns the other's labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from semi_med.losses import dice_ce
from semi_med.methods.base import Batch, Method, health, require_choice, require_share, teaching
from semi_med.ops import gaussian_ramp, pseudo_label


@dataclass(kw_only=True, eq=False)
class CPS(Method):
    """Two networks that start apart; the most probable class of one is the label of the other.

    Chen et al., "Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision", CVPR 2021, arXiv:2106.01226:

        loss = L_sup(1) + L_sup(2) + w(t) * (L(p_1, y_2) + L(p_2, y_1)),   y = argmax p, without gradient

    Differs from the paper: labels are made on the weak view by the networks in evaluation mode (in the paper by the
    very pass that learns), so that a recipe can change the student's view alone; Dice is added to cross-entropy; the
    weight is ramped up; only the unlabelled crops are cross-supervised. Without CutMix, as in the paper's equations.
    """

    network: nn.Module
    peer: nn.Module
    alpha: float = 0.5  # share of CE in L_sup
    alpha_unsupervised: float = 0.5  # share of CE in the cross term
    weight: float = 1.0  # w at the end of the ramp
    ramp_iterations: int = 6000
    teacher_mode: Literal["eval", "train"] = "eval"
    health_confidence: float = 0.9  # only counted for the curve "confident"

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say."""
        if self.network is self.peer:
            raise ValueError("network and peer are one and the same: build the peer anew, equal twins never disagree")
        require_share("alpha", self.alpha)
        require_share("alpha_unsupervised", self.alpha_unsupervised)
        require_choice("teacher_mode", self.teacher_mode, ("eval", "train"))

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """Terms of one iteration; `cross_1` is learnt by `network` from `peer`, `cross_2` by `peer` from `network`."""
        count = len(labeled["image"])
        label_1, confidence_1 = self._label(self.network, unlabeled["weak"])
        label_2, confidence_2 = self._label(self.peer, unlabeled["weak"])

        images = torch.cat([labeled["image"], unlabeled["image"]])
        logits_1, logits_2 = self.network(images), self.peer(images)

        supervised_1 = dice_ce(logits_1[:count], labeled["label"], alpha=self.alpha)
        supervised_2 = dice_ce(logits_2[:count], labeled["label"], alpha=self.alpha)
        cross_1 = dice_ce(logits_1[count:], label_2, alpha=self.alpha_unsupervised)
        cross_2 = dice_ce(logits_2[count:], label_1, alpha=self.alpha_unsupervised)

        ramp = self.weight * gaussian_ramp(iteration, self.ramp_iterations)
        return {
            "loss": supervised_1 + supervised_2 + ramp * (cross_1 + cross_2),
            "supervised": supervised_1 + supervised_2,
            "cross_1": cross_1,
            "cross_2": cross_2,
            "unsupervised_weight": torch.tensor(ramp),
            **health(
                unlabeled,
                label_1,
                confident=torch.cat([confidence_1, confidence_2]) >= self.health_confidence,
                other=label_2,
            ),
        }

    def _label(self, teacher: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
        with teaching(teacher, self.teacher_mode):
            label, _, confidence = pseudo_label(teacher(image))
        return label, confidence
