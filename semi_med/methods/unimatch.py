"""UniMatch: one weak view teaches two strong views and itself with channels dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from semi_med.losses import dice_ce
from semi_med.methods.base import Batch, Method, keeping_statistics, require_share
from semi_med.methods.fixmatch import confident_loss, mixed_health, require_mixing
from semi_med.networks import stepped
from semi_med.ops import Mixed, bare, drop_channels, gaussian_ramp, mix, pseudo_label


@dataclass(kw_only=True, eq=False)
class UniMatch(Method):
    """As FixMatch, with two strong views of each image and one in which the encoder's channels are dropped.

    Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation", CVPR 2023,
    arXiv:2208.09910. With f = g o e, encoder and decoder, y and "sure" as in FixMatch, each term with its own draws:

        L_s1, L_s2 = 1 / N * sum over the sure voxels of CE(f(mix(strong_i)), mix(y))
        L_fp       = 1 / N * sum over the sure voxels of CE(g(dropout(e(weak))), y)
        loss = (L_x + r ((mu / 2) (L_s1 + L_s2) + lambda L_fp)) / 2,   mu = lambda = 1/2,   r as in FixMatch

    `mixing` is CutMix (the paper's), ClassMix, SupMix (`semi_med.ops.mix`) or none. With SupMix it is the base of Mano
    et al., VISAPP 2025, arXiv:2604.07122.

    Differs from the paper: as `FixMatch`; channels are dropped in the features of the unlabelled images only, since
    nothing is learnt from dropped labelled ones, and go through the decoder apart.
    """

    network: nn.Module  # f
    threshold: float = 0.95  # tau
    strong_weight: float = 0.5  # mu, of both strong views together
    feature_weight: float = 0.5  # lambda
    ramp_iterations: int = 0  # until mu and lambda are reached
    feature_dropout: float = 0.5  # share of the channels of each map of the encoder
    mixing: Literal["none", "cutmix", "classmix", "supmix"] = "cutmix"
    mixing_chance: float = 0.5  # of each image of each strong view
    alpha: float = 1.0  # share of CE in L_x; the rest is Dice
    alpha_unsupervised: float = 1.0  # share of CE in the terms of unlabelled images

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say."""
        require_mixing(self.mixing, self.mixing_chance)
        require_share("alpha", self.alpha)
        require_share("alpha_unsupervised", self.alpha_unsupervised)
        if not 0 <= self.feature_dropout < 1:
            raise ValueError(f"feature_dropout is a share of at least 0 and below 1, not {self.feature_dropout}")
        stepped(bare(self.network), wanted_by=type(self).__name__)

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """Terms of one iteration; `strong_1`, `strong_2` and `feature` are learnt from unlabelled images."""
        terms, _ = self.step(labeled, unlabeled, iteration)
        return terms

    def step(self, labeled: Batch, unlabeled: Batch, iteration: int) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """The terms, and the decoder's maps of the labelled images and of the weak views, which SUFD compares."""
        if "strong_2" not in unlabeled:
            raise ValueError("UniMatch wants a second strong view: set strong_views of the unlabeled view to 2")
        maps, (logits, weak, dropped) = self._weak_pass(labeled["image"], unlabeled["weak"])
        label, confident, _ = pseudo_label(weak, self.threshold)

        strong = [
            mix(
                self.mixing,
                unlabeled[key],
                label=label,
                confident=confident,
                labeled=labeled,
                chance=self.mixing_chance,
                first=first,
            )
            for first, key in enumerate(("image", "strong_2"))
        ]
        with keeping_statistics(self.network):
            found_1, found_2 = self.network(torch.cat([view.image for view in strong])).chunk(2)

        supervised = dice_ce(logits, labeled["label"], alpha=self.alpha)
        strong_1, strong_2 = (
            confident_loss(found, view, alpha=self.alpha_unsupervised)
            for found, view in zip((found_1, found_2), strong, strict=True)
        )
        unmixed = Mixed(unlabeled["weak"], label, confident, torch.zeros_like(confident))
        feature = confident_loss(dropped, unmixed, alpha=self.alpha_unsupervised)

        unsupervised = self.strong_weight / 2 * (strong_1 + strong_2) + self.feature_weight * feature
        ramp = gaussian_ramp(iteration, self.ramp_iterations)
        terms = {
            "loss": (supervised + ramp * unsupervised) / 2,
            "supervised": supervised,
            "strong_1": strong_1,
            "strong_2": strong_2,
            "feature": feature,
            "unsupervised_ramp": torch.tensor(ramp),
            **mixed_health(unlabeled, label, confident=confident, strong=strong[0], found=found_1),
        }
        return terms, maps

    def _weak_pass(self, image: Tensor, weak: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Maps and logits of labelled images and weak views, and logits of weak views with channels dropped."""
        steps, count, size = stepped(bare(self.network), wanted_by=type(self).__name__), len(image), image.shape[2:]
        features = steps.features(torch.cat([image, weak]))
        maps = steps.decode(features)
        logits, found = steps.classify(maps, size).tensor_split([count])
        with keeping_statistics(self.network):
            dropped = steps.decode([drop_channels(part[count:], self.feature_dropout) for part in features])
            changed = steps.classify(dropped, size)
        first, second = maps.tensor_split([count])
        return (first, second), (logits, found, changed)
