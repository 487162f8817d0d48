"""SupMix and SUFD on UniMatch: expert pixels pasted where labels are missing, and a discriminator of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from semi_med.methods.base import AdversarialMethod, Batch
from semi_med.methods.unimatch import UniMatch
from semi_med.ops import bare


@dataclass(kw_only=True, eq=False)
class SupMixSUFD(AdversarialMethod, UniMatch):
    """As UniMatch, with SupMix in place of CutMix, and a discriminator between labelled and unlabelled feature maps.

    Mano et al., "Accuracy Improvement of Semi-Supervised Segmentation Using Supervised ClassMix and Sup-Unsup Feature
    Discriminator", VISAPP 2025, arXiv:2604.07122. SupMix (equations 7 to 11) is `semi_med.ops.mix`. With p_l and p_w
    the decoder's maps of labelled images and of the weak views, D the discriminator and B binary cross-entropy:

        network:        loss = UniMatch + w B(D(p_w), 1)                               (equation 12, first term)
        discriminator:  1/2 (B(D(p_w), 0) + B(D(p_l), 1)), on detached maps            (the other two)

    1 is "from a labelled image". The maps are not detached in the network's term, so that unlabelled images come to be
    represented like labelled ones; D is frozen there.

    Differs from the paper: as `UniMatch`; the maps are those that the classes are read from (the paper says that they
    come out of the model); w and D's layers and optimizer are not given there.
    """

    discriminator: nn.Module  # D
    mixing: Literal["none", "cutmix", "classmix", "supmix"] = "supmix"
    adversarial_weight: float = 1.0  # w

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say."""
        super().__post_init__()
        if self.adversarial_weight < 0:
            raise ValueError(f"adversarial_weight is a weight of at least 0, not {self.adversarial_weight}")

    def losses_and_shown(self, labeled: Batch, unlabeled: Batch, iteration: int) -> tuple[dict[str, Tensor], Batch]:
        """UniMatch's terms and `adversarial`; the discriminator is shown both kinds of maps."""
        terms, (from_labeled, from_weak) = self.step(labeled, unlabeled, iteration)
        # its weights are frozen: nothing is to be exchanged between processes
        adversarial = _told(bare(self.discriminator)(from_weak), labeled=True)
        terms["loss"] = terms["loss"] + self.adversarial_weight * adversarial
        return {**terms, "adversarial": adversarial}, {"labeled": from_labeled, "unlabeled": from_weak}

    def discriminator_losses(self, shown: Batch, iteration: int) -> dict[str, Tensor]:
        """Its loss, and the share of places that it tells rightly: 1/2 if it cannot, which is the aim."""
        logits = self.discriminator(torch.cat([shown["labeled"], shown["unlabeled"]]))
        of_labeled, of_unlabeled = logits.tensor_split([len(shown["labeled"])])
        loss = (_told(of_unlabeled, labeled=False) + _told(of_labeled, labeled=True)) / 2
        right = ((of_labeled > 0).float().mean() + (of_unlabeled < 0).float().mean()) / 2
        return {"discriminator_loss": loss, "discriminator_right": right}


def _told(logits: Tensor, *, labeled: bool) -> Tensor:
    """B: binary cross-entropy of the discriminator's logits, where all of them should say the same."""
    return functional.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits.float(), float(labeled)))
