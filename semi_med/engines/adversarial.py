"""The trainer of methods with discriminators: networks and discriminators are trained in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from semi_med.engines.trainer import Pair, SemiSupervisedTrainer
from semi_med.errors import InputError
from semi_med.methods.base import AdversarialMethod, Method


class AdversarialTrainer(SemiSupervisedTrainer):
    """Trains an `AdversarialMethod`: a step of the networks, then one of the discriminators, each iteration.

    In the step of the networks the weights of the discriminators are frozen; whether a gradient leads through them into
    the networks is the method's choice. In that of the discriminators nothing leads back into the networks. Checkpoints
    hold both sides; `models/model.pt` holds the networks alone.

    Args:
        args: as for `SemiSupervisedTrainer`, `method` among them.
        discriminator_optimizer: over the parameters of all discriminators.
        discriminator_lr_scheduler: stepped once an iteration; None for a constant learning rate.
        settings: as for `SemiSupervisedTrainer`.

    Raises:
        InputError: code SETTING, the method has no discriminator.
    """

    method: AdversarialMethod

    def __init__(
        self,
        *args: Any,
        discriminator_optimizer: torch.optim.Optimizer,
        discriminator_lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        **settings: Any,
    ) -> None:
        method = settings.get("method", args[3] if len(args) > 3 else None)
        if not isinstance(method, AdversarialMethod) or not method.discriminators():
            raise InputError(
                f"{type(method).__name__} has no discriminator to train",
                fix="Use semi_med.engines.SemiSupervisedTrainer",
                code="SETTING",
            )
        self.discriminators = method.discriminators()
        self.discriminator_optimizer = discriminator_optimizer
        self.discriminator_lr_scheduler = discriminator_lr_scheduler
        super().__init__(*args, **settings)
        kind = self.state.device.type
        self.discriminator_scaler = torch.amp.GradScaler(kind, enabled=self.amp and kind == "cuda")

    def _update(
        self, labeled: dict[str, Tensor], unlabeled: dict[str, Tensor], done: int, batchdata: Pair
    ) -> dict[str, Tensor]:
        assert self.scaler is not None
        with self._frozen():
            with self._autocast():
                terms, shown = self.method.losses_and_shown(labeled, unlabeled, done)
            if not torch.isfinite(terms["loss"]):
                self._stop_not_finite(terms, batchdata)
            self._step(terms["loss"], self.optimizer, scaler=self.scaler, lr_scheduler=self.lr_scheduler)
        shown = {name: value.detach() for name, value in shown.items()}
        with self._autocast():
            theirs = self.method.discriminator_losses(shown, done)
        if not torch.isfinite(theirs["discriminator_loss"]):
            self._stop_not_finite(theirs, batchdata)
        self._step(
            theirs["discriminator_loss"],
            self.discriminator_optimizer,
            scaler=self.discriminator_scaler,
            lr_scheduler=self.discriminator_lr_scheduler,
            of="discriminator",
        )
        return {**terms, **theirs}

    def _kept(self, method: Method) -> dict[str, nn.Module]:
        return {**method.networks(), **self.discriminators}

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """No gradient for the weights of the discriminators inside the block."""
        parameters = [p for module in self.discriminators.values() for p in module.parameters() if p.requires_grad]
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """Everything that decides the next iteration, of both sides."""
        scheduler = self.discriminator_lr_scheduler
        return {
            **super().state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "discriminator_lr_scheduler": scheduler.state_dict() if scheduler is not None else None,
            "discriminator_scaler": self.discriminator_scaler.state_dict(),
        }

    def load_state_dict(self, state_dict: Any) -> None:
        """Go on exactly where `state_dict` was taken; what is refused is what the other trainer refuses."""
        super().load_state_dict(state_dict)
        self._load_optimizer(
            self.discriminator_optimizer,
            self.discriminator_lr_scheduler,
            state_dict["discriminator_optimizer"],
            state_dict["discriminator_lr_scheduler"],
        )
        assert self._on_start is not None
        self._on_start["discriminator_scaler"] = state_dict["discriminator_scaler"]

    def _restore_on_start(self) -> None:
        state = self._on_start or {}
        super()._restore_on_start()
        if state.get("discriminator_scaler"):
            self.discriminator_scaler.load_state_dict(state["discriminator_scaler"])
