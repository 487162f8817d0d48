"""Dense FixMatch: labels of a weak view are carried through the geometry of both views to the strong one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from semi_med.losses import cross_entropy, dice_ce
from semi_med.methods.base import Batch, Method, health, require_choice, require_share, teaching
from semi_med.ops import (
    IGNORED,
    affine,
    early_decay,
    ema_copy,
    ema_update,
    gaussian_ramp,
    known,
    overlap,
    pseudo_label,
    warp,
)


@dataclass(kw_only=True, eq=False)
class DenseFixMatch(Method):
    """The teacher's label of a weak view, moved to where the strong view has the same place, teaches the student there.

    Martí i Rabadán et al., "Dense FixMatch", arXiv:2210.09919. With alpha the geometry of the weak view (crop, flip)
    and A that of the strong one (crop, flip, RandAugment), for each voxel of the strong view:

        p_w = teacher(alpha(u)),   y = argmax p_w,   sure where max p_w >= tau
        match(y) = A(alpha^-1(y))                   nearest neighbour; equation 1; the same of what is sure
        L_u = 1 / |V| * sum over the sure voxels in V of CE(student(A(u)), match(y)),   V: voxels that have a source
        loss = L_s + lambda L_u
        teacher <- d teacher + (1 - d) student, d = min(1 - 1 / (t + 1), decay), batch-norm statistics too

    The teacher is what is deployed, whoever makes the labels.

    Differs from the paper: tau is 0.95 by default, since with 0.5 a class that is not learnt at once was taught away
    (docs/methods/dense_fixmatch.md); Dice is added to the cross-entropy of the labelled crops (`alpha=1` for the
    paper's); unlabelled weak views go through the teacher only, so that they are not in the student's batch statistics;
    a young teacher forgets fast, which short trainings need. The authors' code divides by all of V, as here; the
    paper's text can also be read as the mean over the sure voxels.
    """

    teacher: nn.Module = field(init=False)  # the first, so it is deployed
    network: nn.Module  # the student
    threshold: float = 0.95  # tau; the paper has 0.5
    weight: float = 1.0  # lambda
    ramp_iterations: int = 0  # of lambda; the paper warms up in one row of its table 5 only
    decay: float = 0.99
    labels_from: Literal["teacher", "student"] = "teacher"
    buffers: Literal["average", "copy"] = "average"  # of batch norm in the teacher
    alpha: float = 0.5  # share of CE in L_s; the rest is Dice
    alpha_unsupervised: float = 1.0  # share of CE in L_u

    def __post_init__(self) -> None:
        """Refuse settings that would train something else than they say, then copy the student."""
        for name in ("decay", "alpha", "alpha_unsupervised"):
            require_share(name, getattr(self, name))
        require_choice("labels_from", self.labels_from, ("teacher", "student"))
        require_choice("buffers", self.buffers, ("average", "copy"))
        self.teacher = ema_copy(self.network)

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """Terms of one iteration; `matched` is the share of the strong view that has a source."""
        count = len(labeled["image"])
        label, confident = self._pseudo_label(unlabeled["weak"])
        target = match(label.masked_fill(~seen(unlabeled), IGNORED), unlabeled, fill=IGNORED)
        sure = match(confident, unlabeled, fill=0)

        logits = self.network(torch.cat([labeled["image"], unlabeled["image"]]))
        supervised = dice_ce(logits[:count], labeled["label"], alpha=self.alpha)
        unsupervised = matched_loss(logits[count:], target, sure, alpha=self.alpha_unsupervised)

        ramp = self.weight * gaussian_ramp(iteration, self.ramp_iterations)
        curves = health(unlabeled, label, confident=confident, other=label)
        return {
            "loss": supervised + ramp * unsupervised,
            "supervised": supervised,
            "unsupervised": unsupervised,
            "unsupervised_weight": torch.tensor(ramp),
            "matched": (target != IGNORED).float().mean(),
            # the student's opinion is on the strong view, so it is compared there
            **curves | {"agreement": overlap(target, pseudo_label(logits[count:])[0])},
        }

    def after_update(self, iteration: int) -> None:
        """Move the teacher towards its student."""
        ema_update(self.teacher, self.network, early_decay(iteration, self.decay), buffers=self.buffers)

    def _pseudo_label(self, weak: Tensor) -> tuple[Tensor, Tensor]:
        """Most probable class of each voxel of the weak view, and whether it is probable enough."""
        of_teacher = self.labels_from == "teacher"
        network, mode = (self.teacher, "eval") if of_teacher else (self.network, "train")
        with teaching(network, mode):
            label, confident, _ = pseudo_label(network(weak), self.threshold)
        return label, confident


def match(maps: Tensor, unlabeled: Batch, *, fill: int) -> Tensor:
    """A(alpha^-1(maps)): maps of the weak view in the frame of the strong one, by nearest neighbour.

    Args:
        maps: `(B, C, *crop)`, any type.
        unlabeled: for `weak_matrix` and `strong_matrix`, see `semi_med.data.two_views`; views without them lie on each
            other.
        fill: of voxels whose place is not in the weak view.
    """
    if "weak_matrix" not in unlabeled:
        return maps
    through = affine.compose(affine.inverse(unlabeled["weak_matrix"]), unlabeled["strong_matrix"])
    return warp(maps, through, nearest=True, fill=fill)


def matched_loss(logits: Tensor, target: Tensor, sure: Tensor, *, alpha: float) -> Tensor:
    """alpha * CE of the sure voxels, divided by all of the batch that have a source, + (1 - alpha) * Dice of the sure.

    Args:
        logits: of the strong view, `(B, K, *crop)`.
        target: matched labels, `IGNORED` without a source, `(B, 1, *crop)`.
        sure: bool, the same shape.
        alpha: share of the cross-entropy.
    """
    matched = known(target).flatten(1).sum(1)
    each = cross_entropy(logits, target, taught=sure)
    mean_ce = (each * matched).sum() / matched.sum().clamp(min=1)
    return alpha * mean_ce + (1 - alpha) * dice_ce(logits, target, alpha=0.0, valid=sure)


def seen(unlabeled: Batch) -> Tensor:
    """Voxels of the weak view that the scan has, bool `(B, 1, *crop)`; all of them if the batch says nothing."""
    weak = unlabeled["weak"]
    return unlabeled.get("seen", torch.ones_like(weak[:, :1], dtype=torch.bool))
