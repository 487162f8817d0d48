"""BCP: boxes of labelled crops are pasted into unlabelled ones and the other way round."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from semi_med.losses import dice_ce
from semi_med.methods.base import Batch, Method, health, require_choice, require_share, teaching
from semi_med.ops import (
    draw_boxes,
    early_decay,
    ema_copy,
    ema_update,
    largest_components,
    partner,
    paste,
    pseudo_label,
    repeated,
)


@dataclass(kw_only=True, eq=False)
class BCP(Method):
    """Labelled and unlabelled crops share one image, in both directions; a mean teacher labels the unlabelled part.

    Bai et al., "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation", CVPR 2023, arXiv:2305.00673.
    M is 0 in a box and 1 outside; y^u is the largest component of each class of the teacher's prediction:

        x_in  = x^l_j M + x^u_p (1 - M)        x_out = x^u_q M + x^l_i (1 - M)                (equations 1 and 2)
        loss  = L(q_in, y^l_j) on M + a L(q_in, y^u_p) on 1 - M
              + L(q_out, y^l_i) on 1 - M + a L(q_out, y^u_q) on M                             (equations 5 and 6)
        teacher <- decay * teacher + (1 - decay) * student, after each update

    Student and teacher start from `CopyPaste`, the pre-training, which is an earlier run.

    Differs from the paper: every crop of the batch is mixed in both directions, with other partners, instead of one
    half of the batch in each; Dice is taken over the foreground classes; the teacher is in evaluation mode; batch-norm
    statistics are averaged with the weights; the decay is smaller in the first 100 iterations.
    """

    network: nn.Module  # the student
    teacher: nn.Module = field(init=False)
    alpha: float = 0.5  # share of CE in L
    pseudo_weight: float = 0.5  # a
    box_share: float = 2 / 3  # beta: side of the box along each axis
    largest_component: bool = True
    decay: float = 0.99
    teacher_mode: Literal["eval", "train"] = "eval"
    buffers: Literal["average", "copy", "own"] = "average"  # of batch norm in the teacher
    health_confidence: float = 0.9  # only counted for the curve "confident"

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say, then copy the student."""
        for name in ("alpha", "decay", "box_share"):
            require_share(name, getattr(self, name))
        _require_box(self.box_share)
        require_choice("teacher_mode", self.teacher_mode, ("eval", "train"))
        require_choice("buffers", self.buffers, ("average", "copy", "own"))
        self.teacher = ema_copy(self.network)

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """Terms of one iteration; `unsupervised` is learnt from the teacher's labels."""
        with teaching(self.teacher, self.teacher_mode):
            label, _, confidence = pseudo_label(self.teacher(unlabeled["weak"]))
        if self.largest_component:
            label = largest_components(label)

        count = max(len(labeled["image"]), len(unlabeled["image"]))
        image_j, label_j = (repeated(labeled[key], count) for key in ("image", "label"))
        image_i, label_i = (repeated(partner(labeled[key]), count) for key in ("image", "label"))
        image_u, label_u = repeated(unlabeled["image"], count), repeated(label, count)
        box = draw_boxes(count, image_j.shape[2:], share=self.box_share).to(image_j.device)

        mixed = torch.cat([paste(image_j, image_u, box), paste(image_u, image_i, box)])
        logits_in, logits_out = self.network(mixed).split(count)

        supervised = self._loss(logits_in, label_j, ~box) + self._loss(logits_out, label_i, box)
        unsupervised = self._loss(logits_in, label_u, box) + self._loss(logits_out, label_u, ~box)

        student = torch.where(box, logits_in.argmax(1, keepdim=True), logits_out.argmax(1, keepdim=True))
        return {
            "loss": supervised + self.pseudo_weight * unsupervised,
            "supervised": supervised,
            "unsupervised": unsupervised,
            **health(
                unlabeled,
                label,
                confident=confidence >= self.health_confidence,
                other=student[: len(label)],
            ),
        }

    def after_update(self, iteration: int) -> None:
        """Move the teacher towards its student."""
        ema_update(self.teacher, self.network, early_decay(iteration, self.decay), buffers=self.buffers)

    def _loss(self, logits: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        return dice_ce(logits, label, alpha=self.alpha, valid=valid)


@dataclass(kw_only=True, eq=False)
class CopyPaste(Method):
    """The pre-training of BCP: boxes of labelled crops pasted into other labelled crops, and their labels alike.

    Bai et al., CVPR 2023, section 3.4. The unlabelled crops are not looked at.

    Differs from the paper: the last iteration is used, not the best one.
    """

    network: nn.Module
    alpha: float = 0.5  # share of CE
    box_share: float = 2 / 3  # beta

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        require_share("alpha", self.alpha)
        require_share("box_share", self.box_share)
        _require_box(self.box_share)

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """The supervised loss on the mixed crops as `loss` and `supervised`."""
        image, label = labeled["image"], labeled["label"]
        box = draw_boxes(len(image), image.shape[2:], share=self.box_share).to(image.device)
        logits = self.network(paste(image, partner(image), box))
        loss = dice_ce(logits, paste(label, partner(label), box), alpha=self.alpha)
        return {"loss": loss, "supervised": loss.detach()}


def _require_box(share: float) -> None:
    if share == 0:
        raise ValueError("box_share is 0: nothing would be pasted")
