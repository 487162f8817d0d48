"""FixMatchSeg: what one network predicts on the weak view teaches it on the strong view, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from semi_med.losses import dice_boundary
from semi_med.methods.base import Batch, Method, health, require_choice, require_share, teaching
from semi_med.ops import (
    draw_cutmix_regions,
    gaussian_ramp,
    image_confidence,
    overlap,
    partner,
    paste,
    pseudo_label,
)


@dataclass(kw_only=True, eq=False)
class FixMatchSeg(Method):
    """One network; its prediction on a weakly changed image is the label of the strongly changed one, if it is sure.

    Upretee and Khanal, "FixMatchSeg: Fixing FixMatch for Semi-Supervised Semantic Segmentation", arXiv:2208.00400.
    With alpha the weak view (rotation, elastic), A the strong one (sharpness, contrast, blur on the weak view) and
    mu B unlabelled images:

        q_b = max over classes of p(y | alpha(u_b)),   y_b = argmax of it,   mean q_b over the image
        L(y, p) = DL + BL                                                  soft Dice and boundary loss
        l_s = mean over b of L(p_b, p(y | x_b))
        l_u = 1 / (mu B) * sum over b of 1(mean q_b >= tau) L(y_b, p(y | A(alpha(u_b))))
        loss = l_s + lambda_u l_u

    The gate is one for each image, and the sum is divided by all mu B images, not by those that pass.

    Differs from the paper: distances of the boundary loss are in units of the longest side of the image, without which
    they would be a hundred times the Dice term that they are to equal (the paper names none); Dice and boundary loss
    are taken over the foreground classes.
    """

    network: nn.Module
    threshold: float = 0.9  # tau
    gate: Literal["image", "foreground"] = "image"  # over which voxels the confidence of an image is averaged
    weight: float = 1.0  # lambda_u
    ramp_iterations: int = 0  # until lambda_u is reached; the paper has no ramp
    cutmix: bool = False  # whether a box of each strong view is filled from another one; not in the paper
    boundary: float = 1.0  # weight of BL beside DL; 0 leaves it out
    teacher_mode: Literal["eval", "train"] = "train"  # of the pass on the weak view
    health_confidence: float = 0.9  # only counted for the curve "confident"

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say."""
        require_choice("gate", self.gate, ("image", "foreground"))
        require_choice("teacher_mode", self.teacher_mode, ("eval", "train"))
        require_share("health_confidence", self.health_confidence)
        if self.boundary < 0:
            raise ValueError(f"boundary is a weight of at least 0, not {self.boundary}")

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """Terms of one iteration; `accepted` is the share of images that pass the gate."""
        count = len(labeled["image"])
        with teaching(self.network, self.teacher_mode):
            label, _, confidence = pseudo_label(self.network(unlabeled["weak"]))
        accepted = image_confidence(confidence, label, gate=self.gate) >= self.threshold

        strong, target, counts = unlabeled["image"], label, accepted
        if self.cutmix:
            region = draw_cutmix_regions(len(label), label.shape[2:]).to(label.device)
            strong, target = (paste(one, partner(one), region) for one in (strong, target))
            counts = accepted & partner(accepted)  # both pictures of a mixture must pass

        logits = self.network(torch.cat([labeled["image"], strong]))
        supervised = self._loss(logits[:count], labeled["label"]).mean()
        unsupervised = (self._loss(logits[count:], target) * counts).sum() / len(label)

        predicted = pseudo_label(logits[count:])[0]
        weight = self.weight * gaussian_ramp(iteration, self.ramp_iterations)
        return {
            "loss": supervised + weight * unsupervised,
            "supervised": supervised,
            "unsupervised": unsupervised,
            "accepted": accepted.float().mean(),
            "confidence": confidence.mean(),
            **health(unlabeled, label, confident=confidence >= self.health_confidence, other=predicted),
            "agreement": overlap(target, predicted),  # of mixed with mixed
        }

    def _loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """DL + BL of each image, `(B,)`."""
        return dice_boundary(torch.softmax(logits.float(), dim=1), label, boundary=self.boundary)
