"""FixMatch: what one network predicts on the weak view teaches it on the strong view, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from semi_med.losses import cross_entropy, dice_ce
from semi_med.methods.base import Batch, Method, health, keeping_statistics, require_choice, require_share
from semi_med.ops import IGNORED, MIXINGS, Mixed, gaussian_ramp, mix, pseudo_label


@dataclass(kw_only=True, eq=False)
class FixMatch(Method):
    """One network; its prediction on the weak view, where it is sure, is the label of the strong view.

    Sohn et al., "FixMatch", NeurIPS 2020, arXiv:2001.07685, equations 3 and 4, for each of the N voxels, in the form
    that is UniMatch's baseline (Yang et al., CVPR 2023, arXiv:2208.09910), with CutMix in the strong view:

        p_w = network(weak),   y = argmax p_w,   sure where max p_w >= tau
        L_u = 1 / N * sum over the sure voxels of CE(network(mix(strong)), mix(y))
        loss = (L_x + r lambda_u L_u) / 2        r: 1, or a ramp of the first iterations

    The sum is divided by all voxels, not by those that are sure. `mixing` is CutMix, ClassMix, SupMix or none, see
    `semi_med.ops.mix`.

    Differs from the paper: CutMix takes its rectangle from another image of the same batch, not of a second one, with
    the pseudo-label of the same pass; strong views leave no trace in batch-norm statistics, by which a network that
    trains for a short time would misread clean images; lambda_u can be ramped up, without which a network that starts
    from nothing may learn that there is background everywhere.
    """

    network: nn.Module
    threshold: float = 0.95  # tau
    weight: float = 1.0  # lambda_u
    ramp_iterations: int = 0  # until lambda_u is reached
    mixing: Literal["none", "cutmix", "classmix", "supmix"] = "cutmix"
    mixing_chance: float = 0.5  # of each image
    alpha: float = 1.0  # share of CE in L_x; the rest is Dice
    alpha_unsupervised: float = 1.0  # share of CE in the terms of unlabelled images

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say."""
        require_mixing(self.mixing, self.mixing_chance)
        require_share("alpha", self.alpha)
        require_share("alpha_unsupervised", self.alpha_unsupervised)

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """Terms of one iteration."""
        count = len(labeled["image"])
        logits, weak = self.network(torch.cat([labeled["image"], unlabeled["weak"]])).tensor_split([count])
        label, confident, _ = pseudo_label(weak, self.threshold)

        strong = mix(
            self.mixing,
            unlabeled["image"],
            label=label,
            confident=confident,
            labeled=labeled,
            chance=self.mixing_chance,
        )
        with keeping_statistics(self.network):
            found = self.network(strong.image)

        supervised = dice_ce(logits, labeled["label"], alpha=self.alpha)
        unsupervised = confident_loss(found, strong, alpha=self.alpha_unsupervised)
        weight = self.weight * gaussian_ramp(iteration, self.ramp_iterations)
        return {
            "loss": (supervised + weight * unsupervised) / 2,
            "supervised": supervised,
            "unsupervised": unsupervised,
            "unsupervised_weight": torch.tensor(weight),
            **mixed_health(unlabeled, label, confident=confident, strong=strong, found=found),
        }


def confident_loss(logits: Tensor, mixed: Mixed, *, alpha: float) -> Tensor:
    """What a mixed strong view teaches: the loss of its sure voxels, cross-entropy divided by all of them."""
    mean_ce = cross_entropy(logits, mixed.label, taught=mixed.confident).mean()
    return alpha * mean_ce + (1 - alpha) * dice_ce(logits, mixed.label, alpha=0.0, valid=mixed.confident)


def mixed_health(unlabeled: Batch, label: Tensor, *, confident: Tensor, strong: Mixed, found: Tensor) -> Batch:
    """The curves of `health`, with what the network finds in the strong view outside of what was pasted, and its share.

    Args:
        unlabeled: the batch.
        label: the pseudo-label before mixing, `(B, 1, *crop)`.
        confident: bool, the same shape.
        strong: the mixed view.
        found: its logits.
    """
    other = pseudo_label(found)[0].masked_fill(strong.region, IGNORED)
    pasted = strong.region.float().mean()
    return {**health(unlabeled, label, confident=confident, other=other), "pasted": pasted}


def require_mixing(mixing: str, chance: float) -> None:
    """Refuse an operator that there is not, and a chance that is none.

    Raises:
        ValueError: naming the setting.
    """
    require_choice("mixing", mixing, MIXINGS)
    require_share("mixing_chance", chance)
