"""SegMatch: a discriminator decides which pseudo-masks are worth learning from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from semi_med.losses import cross_entropy, dice_ce
from semi_med.methods.base import (
    AdversarialMethod,
    Batch,
    health,
    keeping_statistics,
    require_choice,
    require_share,
    teaching,
)
from semi_med.ops import (
    IGNORED,
    affine,
    bare,
    class_masks,
    draw_misplacements,
    gaussian_ramp,
    lent,
    mask_dice,
    mean_by_owner,
    misplaced,
    overlap,
    partner,
    pseudo_label,
    seen,
    warp,
)

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

    Differs from the paper: D is graded by default: it learns the Dice that a mask has with the expert's, from masks of
    both views of labelled images: right ones, wrong ones (another image's, misplaced ones) and what M finds. Equation 1
    tells labelled images from unlabelled ones, for which it need not look at the mask, and ranks masks badly
    (docs/methods/segmatch.md); it also has no lower bound, as log(1 - D) and log D go to minus infinity once D is
    right, and is steepest there. It is `discriminator_loss="literal"` as printed and "bce" as binary cross-entropy. D
    sees hard masks of both kinds: soft ones it would tell by their softness. Logits are warped, linearly, and voxels
    that a view has invented are left out of every term and score. Strong views go through the network apart from the
    labelled images and leave no trace in its batch-norm statistics. The paper names no tau, lambda_u or schedule.
    """

    network: nn.Module
    discriminator: nn.Module
    gate: Gate = "discriminator"
    threshold: float | None = None  # tau; None: 0.5 of D, 0.9 of the confidence, 0.95 of the map
    weight: float = 1.0  # lambda_u
    ramp_iterations: int = 0  # until lambda_u is reached
    alpha: float = 1.0  # share of CE in L_s; the rest is Dice
    discriminator_loss: Literal["graded", "bce", "literal"] = "graded"
    teacher_mode: Literal["eval", "train"] = "train"  # of the pass on the weak view
    health_confidence: float = 0.9  # only counted for the curve "confident"

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say."""
        require_choice("gate", self.gate, tuple(_THRESHOLDS))
        require_choice("discriminator_loss", self.discriminator_loss, ("graded", "bce", "literal"))
        require_choice("teacher_mode", self.teacher_mode, ("eval", "train"))
        require_share("health_confidence", self.health_confidence)
        require_share("alpha", self.alpha)

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

        supervised = self.alpha * cross_entropy(logits, labeled["label"]).mean()
        supervised = supervised + (1 - self.alpha) * dice_ce(logits, labeled["label"], alpha=0.0)
        unsupervised = cross_entropy(back, label, valid=valid, taught=accepted).mean()

        weight = self.weight * gaussian_ramp(iteration, self.ramp_iterations)
        terms = {
            "loss": supervised + weight * unsupervised,
            "supervised": supervised,
            "unsupervised": unsupervised,
            "unsupervised_weight": torch.tensor(weight),
            "score": score.mean(),
            "accepted": accepted.float().mean(),
            **self._curves(unlabeled, label, confidence, accepted, torch.where(valid, pseudo_label(back)[0], IGNORED)),
        }
        shown = {
            "real_image": labeled["image"],
            "real_truth": labeled["label"],
            "real_found": pseudo_label(logits.detach())[0],
            "made_image": weak,
            "made_label": label,
        }
        if "probe" in labeled:
            with teaching(self.network, "eval"):
                tried = pseudo_label(self.network(labeled["probe"]))[0]
            shown |= {"tried_image": labeled["probe"], "tried_truth": labeled["probe_label"], "tried_found": tried}
        return terms, shown

    def discriminator_losses(self, shown: Batch, iteration: int) -> dict[str, Tensor]:
        """What the discriminator learns: which pairs of image and mask fit."""
        images = torch.cat([shown["real_image"], shown["made_image"]])
        labels = torch.cat([shown["real_truth"].long(), shown["made_label"].long()])
        graded = self.discriminator_loss == "graded"
        with torch.set_grad_enabled(not graded):  # then they are curves only
            logits = _judged(
                bare(self.discriminator) if graded else self.discriminator, images, labels, probabilities=False
            )
        real, made = logits.split([len(shown["real_image"]), len(shown["made_image"])])
        if graded:
            loss = self._graded(shown)
        elif self.discriminator_loss == "bce":
            loss = functional.softplus(-real).mean() + functional.softplus(made).mean()
        else:
            loss = -functional.softplus(real).mean() - functional.softplus(-made).mean()
        return {
            "discriminator_loss": loss,
            "discriminator_labeled": torch.sigmoid(real).mean(),
            "discriminator_unlabeled": torch.sigmoid(made).mean(),
        }

    def _graded(self, shown: Batch) -> Tensor:
        """Cross-entropy between D and the Dice of masks of labelled images with the expert's.

        Half of it is of masks that were made up for both views, right and wrong ones, half of what the network found
        in them: its own mistakes are those that D is to see, and a wrong place is easily told from them.
        """
        made_up, found = [], []
        for view in ("real", "tried"):
            if f"{view}_image" not in shown:
                continue
            image, truth = shown[f"{view}_image"], shown[f"{view}_truth"].long()
            expert = truth.masked_fill(truth == IGNORED, 0)
            moved = misplaced(lent(expert), draw_misplacements(len(expert), expert.shape[2:]))
            made_up += [(image, mask, truth) for mask in (expert, partner(expert), moved)]
            found.append((image, shown[f"{view}_found"], truth))
        return (self._dice_error(made_up) + self._dice_error(found)) / 2

    def _dice_error(self, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """Mean cross-entropy between what D says of images with masks and the Dice of these with the true ones."""
        image, label, truth = (torch.cat(part) for part in zip(*pairs, strict=True))
        masks, owner, kind = class_masks(label.masked_fill(truth == IGNORED, IGNORED))
        logits = self.discriminator(image[owner], masks).float()
        return functional.binary_cross_entropy_with_logits(logits, mask_dice(masks, owner, kind, truth=truth))

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
        """The threshold that was set, of the gate in use, or the gate's own."""
        if gate == self.gate and self.threshold is not None:
            return self.threshold
        return _THRESHOLDS[gate]

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
    masks, owner, _ = class_masks(label)
    logits = discriminator(image[owner], masks).float()
    return mean_by_owner(torch.sigmoid(logits) if probabilities else logits, owner, len(image))
