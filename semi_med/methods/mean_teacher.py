"""Mean teacher: the student's predictions are kept near those of its own moving average."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from semi_med.losses import dice_ce, squared_difference
from semi_med.methods.base import Batch, Method, health, require_choice, require_share, teaching
from semi_med.ops import early_decay, ema_copy, ema_update, gaussian_ramp, pseudo_label


@dataclass(kw_only=True, eq=False)
class MeanTeacher(Method):
    """The teacher is the moving average of the student; on unlabelled crops the student must predict what it does.

    Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv:1703.01780, per voxel:

        loss = L_sup + w(t) * mean over voxels and classes of (p_student - p_teacher)^2
        teacher <- decay * teacher + (1 - decay) * student, after each update

    Differs from the paper: L_sup is alpha CE + (1 - alpha) Dice; the consistency is on the unlabelled crops alone, as
    in UA-MT and its descendants; noise is added to the teacher's image only, where the student may have intensity
    changes of its own. `teacher_mode="train"` lets dropout act in the teacher too, as in the paper.
    """

    network: nn.Module  # the student
    teacher: nn.Module = field(init=False)
    alpha: float = 0.5  # share of CE in L_sup
    weight: float = 0.1  # w at the end of the ramp
    ramp_iterations: int = 6000
    decay: float = 0.99
    noise: float = 0.1  # SD of what is added to the teacher's image, in SDs of the image
    noise_limit: float = 0.2
    teacher_mode: Literal["eval", "train"] = "train"
    buffers: Literal["average", "copy", "own"] = "average"  # of batch norm in the teacher
    health_confidence: float = 0.9  # only counted for the curve "confident"

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say, then copy the student."""
        require_share("alpha", self.alpha)
        require_share("decay", self.decay)
        if self.noise < 0 or self.noise_limit < 0:
            raise ValueError(f"noise and noise_limit are at least 0, not {self.noise} and {self.noise_limit}")
        require_choice("teacher_mode", self.teacher_mode, ("eval", "train"))
        require_choice("buffers", self.buffers, ("average", "copy", "own"))
        self.teacher = ema_copy(self.network)

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """Terms of one iteration."""
        count = len(labeled["image"])
        target = self._predict(unlabeled["weak"])
        certain = self._certain(unlabeled["weak"], iteration)

        logits = self.network(torch.cat([labeled["image"], unlabeled["image"]]))
        probs = torch.softmax(logits[count:].float(), dim=1)

        supervised = dice_ce(logits[:count], labeled["label"], alpha=self.alpha)
        consistency = squared_difference(probs, target, valid=certain)

        ramp = self.weight * gaussian_ramp(iteration, self.ramp_iterations)
        confidence, label = target.max(dim=1, keepdim=True)
        terms = {
            "loss": supervised + ramp * consistency,
            "supervised": supervised,
            "consistency": consistency,
            "unsupervised_weight": torch.tensor(ramp),
            **health(
                unlabeled,
                label,
                confident=confidence >= self.health_confidence,
                other=pseudo_label(logits[count:])[0],
            ),
        }
        if certain is not None:
            terms["certain"] = certain.float().mean()
        return terms

    def after_update(self, iteration: int) -> None:
        """Move the teacher towards its student."""
        ema_update(self.teacher, self.network, early_decay(iteration, self.decay), buffers=self.buffers)

    def _predict(self, image: Tensor) -> Tensor:
        """Probabilities of the teacher on an image with noise, `(B, K, *crop)`."""
        noise = (self.noise * torch.randn_like(image)).clamp(-self.noise_limit, self.noise_limit)
        with teaching(self.teacher, self.teacher_mode):
            return torch.softmax(self.teacher(image + noise).float(), dim=1)

    def _certain(self, image: Tensor, iteration: int) -> Tensor | None:
        """Voxels that count, bool `(B, 1, *crop)`; None: all of them."""
        return None
