"""SegMatch: a discriminator decides which pseudo-masks are worth learning from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from semi_med.losses import cross_entropy
from semi_med.methods.base import (
    AdversarialMethod,
    Batch,
    health,
    keeping_statistics,
    require_choice,
    require_share,
    teaching,
)
from semi_med.ops import IGNORED, affine, bare, class_masks, mean_by_owner, overlap, pseudo_label, seen, warp

Gate = Literal["discriminator", "identity", "confidence", "confidence_map"]

_THRESHOLDS = {"discriminator": 0.5, "identity": 0.0, "confidence": 0.9, "confidence_map": 0.95}


@dataclass(kw_only=True, eq=False)
class SegMatch(AdversarialMethod):
    """The prediction on a weak view is the label of a strong one, of images whose mask a discriminator finds fitting.

    "SegMatch" (a manuscript without authors; code named there: github.com/samottaghi/brain-segmentation). With T1 the
    weak transformation (flip, shift), T2 the strong one (RandAugment or CTAugment, geometry included), M the network, D
    the discriminator, H the cross-entropy, B labelled and mu B unlabelled images:

        y_u = argmax M(T1(x_u))                                                  the pseudo-mask
        L_s = 1 / B      * sum over b of H(M(T1(x_l)), T1(y_l))
        L_u = 1 / (mu B) * sum over b of 1(D(T1(x_u), y_u) > tau) H(T1 T2^-1 M(T2(x_u)), y_u)
        the network minimises    L_s + lambda_u L_u
        the discriminator        log(1 - D(x_l, y_l)) + log D(x_u, M(x_u))       equation 1, as printed

    Gates in place of D: `identity` lets every image pass, `confidence` those whose mean confidence exceeds tau,
    `confidence_map` the voxels whose confidence does. D is trained under every gate, so that they can be compared.
    D does not know classes: it sees one binary mask at a time, of each foreground class that is present (an empty one
    where none is), and its scores are averaged. It gates and sends no gradient into the network.

    Differs from the paper: equation 1 has no lower bound, as log(1 - D) and log D go to minus infinity once D is right,
    and is steepest there; binary cross-entropy is the default, and the printed form is `discriminator_loss="literal"`.
    D sees hard masks of both kinds: soft ones it would tell by their softness. Logits are warped, linearly, and voxels
    that a view has invented are left out of every term and score. Strong views go through the network apart from the
    labelled images and leave no trace in its batch-norm statistics. The paper names no tau, lambda_u or schedule.
    """

    network: nn.Module
    discriminator: nn.Module
    gate: Gate = "discriminator"
    threshold: float | None = None  # tau; None: 0.5 of D, 0.9 of the mean confidence, 0.95 of the map
    weight: float = 1.0  # lambda_u
    discriminator_loss: Literal["bce", "literal"] = "bce"
    fakes: Literal["unlabeled", "both"] = "unlabeled"  # masks that D is to find unfit: of which images
    teacher_mode: Literal["eval", "train"] = "train"  # of the pass on the weak view
    health_confidence: float = 0.9  # only counted for the curve "confident"

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say."""
        require_choice("gate", self.gate, tuple(_THRESHOLDS))
        require_choice("discriminator_loss", self.discriminator_loss, ("bce", "literal"))
        require_choice("fakes", self.fakes, ("unlabeled", "both"))
        require_choice("teacher_mode", self.teacher_mode, ("eval", "train"))
        require_share("health_confidence", self.health_confidence)

    def losses_and_shown(self, labeled: Batch, unlabeled: Batch, iteration: int) -> tuple[dict[str, Tensor], Batch]:
        """Terms of one iteration, and the pairs of image and mask that the discriminator is to judge."""
        weak = unlabeled["weak"]
        with teaching(self.network, self.teacher_mode):
            label, _, confidence = pseudo_label(self.network(weak))
        label = label.masked_fill(~unlabeled["seen"], IGNORED) if "seen" in unlabeled else label
        score = self.score(self.gate, weak, label, confidence)
        accepted = self._accepted(score, confidence)

        logits = self.network(labeled["image"])
        with keeping_statistics(self.network):
            back, valid = _brought_back(self.network(unlabeled["image"]), unlabeled)

        supervised = cross_entropy(logits, labeled["label"]).mean()
        unsupervised = cross_entropy(back, label, valid=valid, taught=accepted).mean()

        terms = {
            "loss": supervised + self.weight * unsupervised,
            "supervised": supervised,
            "unsupervised": unsupervised,
            "score": score.mean(),
            "accepted": accepted.float().mean(),
            **self._curves(unlabeled, label, confidence, accepted, torch.where(valid, pseudo_label(back)[0], IGNORED)),
        }
        shown = {
            "real_image": labeled["image"],
            "real_label": labeled["label"],
            "made_image": weak,
            "made_label": label,
            "own_label": pseudo_label(logits)[0].masked_fill(labeled["label"] == IGNORED, IGNORED),
        }
        return terms, shown

    def discriminator_losses(self, shown: Batch, iteration: int) -> dict[str, Tensor]:
        """Equation 1: an expert's mask of a labelled image is to score 1, a mask that the network made 0."""
        pairs = [(shown["real_image"], shown["real_label"]), (shown["made_image"], shown["made_label"])]
        if self.fakes == "both":
            pairs.append((shown["real_image"], shown["own_label"]))
        images, labels = (torch.cat(parts) for parts in zip(*((i, m.long()) for i, m in pairs), strict=True))
        logits = _judged(self.discriminator, images, labels, probabilities=False)
        real, made = logits[: len(shown["real_image"])], logits[len(shown["real_image"]) :]
        if self.discriminator_loss == "bce":
            loss = functional.softplus(-real).mean() + functional.softplus(made).mean()
        else:
            loss = -functional.softplus(real).mean() - functional.softplus(-made).mean()
        return {
            "discriminator_loss": loss,
            "discriminator_labeled": torch.sigmoid(real).mean(),
            "discriminator_unlabeled": torch.sigmoid(made[: len(shown["made_image"])]).mean(),
        }

    def score(self, gate: Gate, image: Tensor, label: Tensor, confidence: Tensor) -> Tensor:
        """What a gate says of each image, 0 to 1, `(B,)`; without a gradient.

        Args:
            gate: which one.
            image: `(B, C, *crop)`.
            label: pseudo-label, `(B, 1, *crop)`, `IGNORED` where the image was invented.
            confidence: its probability, `(B, 1, *crop)`.
        """
        if gate == "identity":
            return torch.ones(len(image), device=image.device)
        if gate == "discriminator":
            discriminator = bare(self.discriminator)
            with teaching(discriminator, "eval"):
                return _judged(discriminator, image, label, probabilities=True)
        counted = label != IGNORED
        value = confidence if gate == "confidence" else (confidence > self._tau(gate)).float()
        return (value * counted).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)

    def _tau(self, gate: Gate) -> float:
        return _THRESHOLDS[gate] if self.threshold is None else self.threshold

    def _accepted(self, score: Tensor, confidence: Tensor) -> Tensor:
        """Voxels that are learnt from, bool `(B, 1, *crop)`: of one image all or none, but for the map."""
        tau = self._tau(self.gate)
        if self.gate == "confidence_map":
            return confidence > tau
        return (score > tau).view(-1, *[1] * (confidence.dim() - 1)).expand_as(confidence)

    def _curves(
        self, unlabeled: Batch, label: Tensor, confidence: Tensor, accepted: Tensor, other: Tensor
    ) -> dict[str, Tensor]:
        """The health of the pseudo-masks; with monitoring also that of those that pass and of those that do not."""
        curves = health(unlabeled, label, confident=confidence >= self.health_confidence, other=other)
        curves["confidence"] = confidence.mean()
        if "monitor_label" in unlabeled:
            hidden = unlabeled["monitor_label"].long()
            for name, chosen in (("accepted", accepted), ("rejected", ~accepted)):
                curves[f"{name}_label_dice"] = overlap(torch.where(chosen, label, IGNORED), hidden)
        return curves


def _brought_back(logits: Tensor, unlabeled: Batch) -> tuple[Tensor, Tensor]:
    """T1 T2^-1: the prediction on the strong view in the frame of the weak one, and the voxels where it is known."""
    if "strong_matrix" not in unlabeled:
        return logits, torch.ones_like(logits[:, :1], dtype=torch.bool)
    back = affine.compose(affine.inverse(unlabeled["strong_matrix"]), unlabeled["weak_matrix"])
    valid = seen(back, logits.shape[2:], linear=True, device=logits.device)
    return warp(logits, back, nearest=False), valid & unlabeled["seen"]


def _judged(discriminator: nn.Module, image: Tensor, label: Tensor, *, probabilities: bool) -> Tensor:
    """The discriminator's mean over the masks of each image, `(B,)`: of its logits, or of its probabilities."""
    masks, owner = class_masks(label)
    logits = discriminator(image[owner], masks).float()
    return mean_by_owner(torch.sigmoid(logits) if probabilities else logits, owner, len(image))
