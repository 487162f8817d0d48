"""What a method is: a dataclass of networks and numbers with one verb."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from semi_med.ops import class_agreement, known, overlap

Batch = dict[str, Tensor]
"""Tensors of one batch. Labeled: `image` (B, C, *crop), `label` (B, 1, *crop). Unlabeled: `image` (the fixed crop as
the student sees it), `strong_2` (changed once more, where the view makes two of it), `weak` (as the teacher does),
`context` (the weak crop with a margin around it) and `margin` (B, n, 2), the free voxels on each side; with monitoring
also `monitor_label`, never used in a loss. Views with a geometry of their own add `weak_matrix` and `strong_matrix`
(B, n + 1, n + 1), from the voxels of `weak` and `image` to those of `context`, and `seen` (B, 1, *crop), the voxels of
`weak` that the scan has; one that probes adds `probe` and `probe_label` to the labelled batch."""


@dataclass(kw_only=True, eq=False)
class Method:
    """Base of all methods: subclasses add their networks and numbers as fields and write `losses`.

    A method never sees a device, an optimizer, a scaler, a logger, a path or an engine.
    """

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """Scalars of one iteration: `"loss"` is minimised, the rest are curves.

        Args:
            labeled: `image` (B, C, *crop) and `label` (B, 1, *crop).
            unlabeled: `image`, `weak`, `context` and `margin`.
            iteration: 0-based count of updates done, for ramps.
        """
        raise NotImplementedError

    def after_update(self, iteration: int) -> None:
        """Called after each optimizer step; an averaged teacher moves here."""

    def agreement(self, labeled: Batch) -> Tensor:
        """How well the deployed network does on a probe, each image a number from 0 to 1, `(B,)`.

        Args:
            labeled: with `probe` and `probe_label`.
        """
        network = next(iter(self.networks().values()))
        with teaching(network, "eval"):
            return class_agreement(torch.softmax(network(labeled["probe"]).float(), dim=1), labeled["probe_label"])

    def networks(self) -> dict[str, nn.Module]:
        """The networks among the fields by name, in order; the first is the one that is deployed."""
        return _modules(self)


@dataclass(kw_only=True, eq=False)
class AdversarialMethod(Method):
    """A method with discriminators: fields whose names begin with "discriminator", trained in turn with the networks.

    Each iteration the networks are trained on `losses` while the discriminators are frozen, then the discriminators on
    what they were shown, from which no gradient leads back. Subclasses write `losses_and_shown` and
    `discriminator_losses`.
    """

    def losses_and_shown(self, labeled: Batch, unlabeled: Batch, iteration: int) -> tuple[dict[str, Tensor], Batch]:
        """What `losses` gives, and what the discriminators are to see of it.

        A term may send a gradient through a discriminator into the networks: its weights are frozen here.
        """
        raise NotImplementedError

    def discriminator_losses(self, shown: Batch, iteration: int) -> dict[str, Tensor]:
        """Scalars of one iteration of the discriminators: `"discriminator_loss"` is minimised, the rest are curves."""
        raise NotImplementedError

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """Scalars of one iteration of the networks."""
        return self.losses_and_shown(labeled, unlabeled, iteration)[0]

    def networks(self) -> dict[str, nn.Module]:
        """The networks among the fields, without the discriminators."""
        return {name: module for name, module in _modules(self).items() if not name.startswith("discriminator")}

    def discriminators(self) -> dict[str, nn.Module]:
        """The discriminators among the fields by name."""
        return {name: module for name, module in _modules(self).items() if name.startswith("discriminator")}


def _modules(method: Method) -> dict[str, nn.Module]:
    values = {field.name: getattr(method, field.name) for field in fields(method)}
    return {name: value for name, value in values.items() if isinstance(value, nn.Module)}


@contextmanager
def teaching(network: nn.Module, mode: str) -> Iterator[None]:
    """No gradient, and the network in `mode` ("eval" or "train") inside the block; after it as it was before."""
    training = network.training
    network.train(mode == "train")
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


@contextmanager
def keeping_statistics(network: nn.Module) -> Iterator[None]:
    """Batch norm learns no statistics inside the block, where images are unlike those the network is to be used on.

    They are still normalised by those of their own batch in training mode.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def health(unlabeled: Batch, label: Tensor, *, confident: Tensor, other: Tensor) -> dict[str, Tensor]:
    """Curves that tell whether pseudo-labels are worth learning from; none of them is ever minimised.

    Args:
        unlabeled: for its `monitor_label`, if it has one.
        label: the pseudo-label `(B, 1, *crop)`.
        confident: bool `(B, 1, *crop)`.
        other: another opinion on the same voxels, class indices `(B, 1, *crop)`.

    Returns:
        `confident` and `foreground`, shares of voxels; `agreement` and `pseudo_label_dice`, overlap of the
        foregrounds with the other opinion and with the expert.
    """
    curves = {
        "confident": confident.float().mean(),
        "foreground": ((label > 0) & known(label)).float().mean(),
        "agreement": overlap(label, other),
    }
    if "monitor_label" in unlabeled:
        curves["pseudo_label_dice"] = overlap(label, unlabeled["monitor_label"].long())
    return curves


def require_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a word that is not among the known ones.

    Raises:
        ValueError: naming the setting and the choices.
    """
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")


def require_share(name: str, value: float) -> None:
    """Refuse a share outside [0, 1].

    Raises:
        ValueError: naming the setting.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a share between 0 and 1, not {value}")
