"""Co-training with fixed and dynamic pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from semi_med.losses import dice_ce
from semi_med.methods.base import Batch, Method, require_choice, require_share, teaching
from semi_med.ops import (
    SHIFT_DIRECTIONS,
    com,
    crop_at,
    draw_cutmix_regions,
    draw_offsets,
    gaussian_ramp,
    overlap,
    partner,
    paste,
    pseudo_label,
)


class Taught(NamedTuple):
    """What one network teaches the other: a label and the voxels that count, both (B, 1, *crop)."""

    label: Tensor
    valid: Tensor

    def cut(self, region: Tensor) -> Taught:
        """CUT(.) of the label: the partner's inside the region, as it was done to the images."""
        return Taught(*(paste(part, partner(part), region) for part in self))


@dataclass(kw_only=True, eq=False)
class CoTraining(Method):
    """Two networks teach each other with two pseudo-labels for each unlabelled crop.

    Kumari and Singh, "Leveraging Fixed and Dynamic Pseudo-labels for Semi-supervised Medical Image Segmentation",
    arXiv:2405.07256. SN_1 is `network`, SN_2 is `peer`. The fixed pseudo-label y^uf is the other network's prediction
    on the crop. The dynamic one, y^ud = COM(y^uf, y^ut), takes the other network's prediction on a shifted crop
    wherever that crop covers the fixed one. SN_1 learns on the original crops (figure 2b), SN_2 on CutMix crops with
    labels mixed by the same region (figure 2c).

        loss = L_sup(SN_1) + L_sup(SN_2) + w(t) * sum over both directions of (fixed * L_fix + dynamic * L_dyn)

    The readable part of the paper gives no number. Ours, each a field: L_sup = alpha CE + (1 - alpha) Dice with
    alpha 0.5; L_fix and L_dyn the same loss on hard labels without threshold; Gaussian ramp; one of the four shifts
    drawn for each step (`shifts_per_step=4` averages all four); CutMix box in the plane of the first two axes;
    pseudo-labels made by the networks in evaluation mode (no dropout, running statistics), on the `weak` view of the
    crop, which is the crop itself unless the recipe keeps intensity changes for the student. A batch of one
    unlabelled crop has no partner and is not mixed.
    """

    network: nn.Module  # SN_1
    peer: nn.Module  # SN_2
    alpha: float = 0.5  # share of CE in L_sup
    alpha_unsupervised: float = 0.5  # share of CE in L_fix and L_dyn
    weight: float = 1.0  # w at the end of the ramp
    ramp_iterations: int = 6000
    fixed: float = 1.0  # weight of L_fix; 0 is "dynamic only"
    dynamic: float = 1.0  # weight of L_dyn; 0 is "fixed only"
    cutmix: bool = True
    cutmix_axes: Sequence[int] = (0, 1)
    max_shift: Sequence[int] = (28, 28, 20)  # voxels along each axis
    shift_pattern: Literal["corners", "faces"] = "corners"
    shifts: Sequence[int] = (0, 1, 2, 3)  # which of c_d1 .. c_d4
    shifts_per_step: int = 1
    threshold: float = 0.0
    teacher_mode: Literal["eval", "train"] = "eval"
    health_confidence: float = 0.9  # only counted for the curve "confident"

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say."""
        if not set(self.shifts) <= {0, 1, 2, 3} or not 1 <= self.shifts_per_step <= max(1, len(self.shifts)):
            raise ValueError(
                f"shifts must be among 0..3 and shifts_per_step between 1 and their number, not {list(self.shifts)} "
                f"and {self.shifts_per_step}"
            )
        if self.fixed == 0 and self.dynamic == 0:
            raise ValueError("fixed and dynamic are both 0: nothing is learnt from unlabelled scans; use Supervised")
        if self.dynamic != 0 and not self.shifts:
            raise ValueError(
                "shifts is empty: there is no dynamic pseudo-label without a shifted crop; set dynamic to 0"
            )
        if self.network is self.peer:
            raise ValueError("network and peer are one and the same: build the peer anew, equal twins never disagree")
        require_choice("shift_pattern", self.shift_pattern, tuple(SHIFT_DIRECTIONS))
        require_choice("teacher_mode", self.teacher_mode, ("eval", "train"))
        require_share("alpha", self.alpha)
        require_share("alpha_unsupervised", self.alpha_unsupervised)

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """Terms of one iteration; `_1` is learnt by SN_1 from SN_2, `_2` by SN_2 from SN_1."""
        image, count = unlabeled["image"], len(labeled["image"])
        offsets = self._draw_shifts(unlabeled["margin"].cpu())
        shifted = [self._shifted(unlabeled, offset) for offset in offsets]
        region = self._draw_regions(image)

        with torch.no_grad():
            fixed_1, dynamic_1, confident_1 = self._teach(self.network, unlabeled["weak"], shifted, offsets)
            fixed_2, dynamic_2, confident_2 = self._teach(self.peer, unlabeled["weak"], shifted, offsets)
        mixed = paste(image, partner(image), region)

        logits_1 = self.network(torch.cat([labeled["image"], image]))
        logits_2 = self.peer(torch.cat([labeled["image"], mixed]))

        supervised_1 = dice_ce(logits_1[:count], labeled["label"], alpha=self.alpha)
        supervised_2 = dice_ce(logits_2[:count], labeled["label"], alpha=self.alpha)
        fix_1 = self._learn(logits_1[count:], [fixed_2])
        dyn_1 = self._learn(logits_1[count:], dynamic_2)
        fix_2 = self._learn(logits_2[count:], [fixed_1.cut(region)])
        dyn_2 = self._learn(logits_2[count:], [taught.cut(region) for taught in dynamic_1])

        ramp = self.weight * gaussian_ramp(iteration, self.ramp_iterations)
        unsupervised = self.fixed * (fix_1 + fix_2) + self.dynamic * (dyn_1 + dyn_2)
        terms = {
            "loss": supervised_1 + supervised_2 + ramp * unsupervised,
            "supervised": supervised_1 + supervised_2,
            "unsupervised": unsupervised,
            "fixed_1": fix_1,
            "dynamic_1": dyn_1,
            "fixed_2": fix_2,
            "dynamic_2": dyn_2,
            "unsupervised_weight": torch.tensor(ramp),
            "confident": (confident_1 + confident_2) / 2,
            "foreground": (fixed_1.label > 0).float().mean(),
            "agreement": overlap(fixed_1.label, fixed_2.label),
        }
        if "monitor_label" in unlabeled:
            terms["pseudo_label_dice"] = overlap(fixed_1.label, unlabeled["monitor_label"].long())
            if dynamic_1:
                terms["dynamic_label_dice"] = overlap(dynamic_1[0].label, unlabeled["monitor_label"].long())
        return terms

    def _draw_shifts(self, margin: Tensor) -> list[Tensor]:
        if self.dynamic == 0:
            return []
        drawn = torch.randperm(len(self.shifts))[: self.shifts_per_step].tolist()
        return [draw_offsets(margin, self.max_shift, index=self.shifts[i], pattern=self.shift_pattern) for i in drawn]

    def _shifted(self, unlabeled: Batch, offset: Tensor) -> Tensor:
        size = unlabeled["image"].shape[2:]
        context = unlabeled["context"]
        centre = torch.tensor([(c - s) // 2 for c, s in zip(context.shape[2:], size, strict=True)])
        return crop_at(context, centre + offset, size)

    def _draw_regions(self, image: Tensor) -> Tensor:
        size = image.shape[2:]
        if not self.cutmix:
            return torch.zeros((len(image), 1, *size), dtype=torch.bool, device=image.device)
        return draw_cutmix_regions(len(image), size, axes=self.cutmix_axes).to(image.device)

    def _teach(
        self, teacher: nn.Module, image: Tensor, shifted: list[Tensor], offsets: list[Tensor]
    ) -> tuple[Taught, list[Taught], Tensor]:
        """Fixed pseudo-label, one dynamic pseudo-label a shift, and the share of confident voxels."""
        with teaching(teacher, self.teacher_mode):
            logits = teacher(torch.cat([image, *shifted])).split(len(image))

        label, valid, confidence = pseudo_label(logits[0], self.threshold)
        fixed = Taught(label, valid)
        dynamic = []
        for other, offset in zip(logits[1:], offsets, strict=True):
            temporary = pseudo_label(other, self.threshold)[:2]
            dynamic.append(Taught(*(com(f, t, offset) for f, t in zip(fixed, temporary, strict=True))))
        return fixed, dynamic, (confidence >= self.health_confidence).float().mean()

    def _learn(self, logits: Tensor, lessons: Sequence[Taught]) -> Tensor:
        if not lessons:
            return logits.new_zeros(())
        alpha = self.alpha_unsupervised
        return torch.stack([dice_ce(logits, label, alpha=alpha, valid=valid) for label, valid in lessons]).mean()
