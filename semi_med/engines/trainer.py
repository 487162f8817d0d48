"""One trainer for all semi-supervised methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.trainer import Trainer
from monai.engines.workflow import Workflow
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from semi_med.data.crops import PairedBatches
from semi_med.engines.run_state import differences, random_state, run_settings, set_random_state
from semi_med.errors import InputError, TrainingError
from semi_med.methods.base import Method
from semi_med.ops import bare
from semi_med.runtime import keep_freed_memory

_MOST_SKIPPED = 10
_PLACES = ("margin", "margin_2", "scan", "scan_2", "offset")  # what views compute places with, on the CPU

View = Callable[[dict[str, Any], torch.Generator], dict[str, Tensor]]
Pair = tuple[dict[str, Any], dict[str, Any]]


class SemiSupervisedTrainer(Trainer):
    """Trains a `Method` on pairs of labelled and unlabelled batches.

    It owns what a method must not know: devices, mixed precision, the optimizer step, the learning rate, averaging
    of weights, random numbers and the state that a checkpoint holds.

    Args:
        device: where the networks are; batches are moved there before their views are made.
        max_epochs: epochs are a ruler for logs: `epoch_length` iterations each.
        train_data_loader: the pairs of batches.
        method: what is trained.
        optimizer: over the parameters of all trained networks.
        labeled_view, unlabeled_view: from a raw batch and a generator to what the method sees.
        epoch_length: iterations of an epoch.
        max_iterations: stop there even in the middle of an epoch; None for max_epochs * epoch_length.
        lr_scheduler: stepped once an iteration.
        seed: of the views. Networks and dropout use torch's global generator, seeded by the caller.
        first_iteration: place of the first update in the stream of the views' draws, for a run that goes on where an
            earlier one ended; the method and the schedule count from 0.
        amp: mixed precision: float16 with a scaler on CUDA, bfloat16 elsewhere.
        gradient_clip: largest norm of the gradient, None for no limit.
        average_decay: share of the old average kept when weights are averaged over iterations (0.99, say); the
            averaged networks are then the ones that are validated and deployed. 0 switches it off. Batch-norm
            statistics are averaged with the weights.
        channels_last: keep images and weights channels last, faster on most devices.
        train_handlers: Ignite handlers, attached in order.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: PairedBatches,
        method: Method,
        optimizer: torch.optim.Optimizer,
        *,
        labeled_view: View,
        unlabeled_view: View,
        epoch_length: int,
        max_iterations: int | None = None,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        seed: int = 0,
        first_iteration: int = 0,
        amp: bool = False,
        gradient_clip: float | None = None,
        average_decay: float = 0.0,
        channels_last: bool = False,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        self.method, self.optimizer, self.lr_scheduler = method, optimizer, lr_scheduler
        self.labeled_view, self.unlabeled_view = labeled_view, unlabeled_view
        self.seed, self.first_iteration = seed, first_iteration
        self.gradient_clip, self.batches = gradient_clip, train_data_loader
        whole = max_epochs * epoch_length
        self.total_iterations = whole if max_iterations is None else min(whole, max_iterations)
        self.networks = method.networks()
        self.kept = self._kept(method)
        self.channels_last = channels_last
        if channels_last:
            for network in self.kept.values():
                _to_channels_last(network)
        self.average_decay = average_decay
        self.averages: dict[str, AveragedModel] = {}
        if average_decay > 0:
            average = get_ema_multi_avg_fn(average_decay)
            self.averages = {
                name: AveragedModel(bare(network), multi_avg_fn=average, use_buffers=True)
                for name, network in self.networks.items()
                if any(p.requires_grad for p in network.parameters())
            }
        self._on_start: dict[str, Any] | None = None
        self._skipped: dict[str, int] = {}
        self.learning_rate = 0.0  # that of the last step
        self.exit_code = 0
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            decollate=False,
            amp=amp,
            handlers=train_handlers,
        )
        # The last of its kind, so that handlers can tidy up; Ignite itself swallows the error once there is one.
        self.add_event_handler(Events.EXCEPTION_RAISED, _raise)
        kind = self.state.device.type
        self.scaler = torch.amp.GradScaler(kind, enabled=amp and kind == "cuda")  # type: ignore[assignment]
        if kind == "cpu":
            keep_freed_memory()

    def run(self) -> None:  # type: ignore[override]
        """Train until the last iteration, from where the state stands."""
        if self.state.iteration >= self.total_iterations:
            self.logger.info(f"Nothing to do: iteration {self.state.iteration} of {self.total_iterations} is reached.")
            return
        self.batches.seek(self.state.iteration)
        self._restore_on_start()
        # MONAI's Trainer.run would replace the scaler by a new one.
        Workflow.run(self)
        if self.exit_code:
            raise SystemExit(self.exit_code)

    def _kept(self, method: Method) -> dict[str, nn.Module]:
        """All that is trained and that a checkpoint holds."""
        return method.networks()

    def _iteration(self, engine: Any, batchdata: Pair) -> dict[str, Tensor]:  # type: ignore[override]
        done = self.state.iteration - 1  # Ignite has counted this one already
        labeled, unlabeled = (
            view(self._to_device(part), self._generator(done, stream))
            for stream, (part, view) in enumerate(zip(batchdata, (self.labeled_view, self.unlabeled_view), strict=True))
        )
        for network in self.kept.values():
            network.train()
        terms = self._update(labeled, unlabeled, done, batchdata)
        self.method.after_update(done)
        for name, average in self.averages.items():
            average.update_parameters(bare(self.networks[name]))
        terms |= self._probe(labeled)
        if self.state.iteration >= self.total_iterations:
            self.terminate()
        return {name: term.detach() for name, term in terms.items()}

    def _update(
        self, labeled: dict[str, Tensor], unlabeled: dict[str, Tensor], done: int, batchdata: Pair
    ) -> dict[str, Tensor]:
        """One step of all that is trained, and the terms of it."""
        with self._autocast():
            terms = self.method.losses(labeled, unlabeled, done)
        if not torch.isfinite(terms["loss"]):
            self._stop_not_finite(terms, batchdata)
        assert self.scaler is not None
        self._step(terms["loss"], self.optimizer, scaler=self.scaler, lr_scheduler=self.lr_scheduler)
        return terms

    def _autocast(self) -> torch.autocast:
        kind = self.state.device.type
        return torch.autocast(kind, dtype=torch.float16 if kind == "cuda" else torch.bfloat16, enabled=self.amp)

    def _probe(self, labeled: dict[str, Tensor]) -> dict[str, Tensor]:
        """Let a view learn from how well the network does on what it has drawn to find that out."""
        if "probe_used" not in labeled:
            return {}
        with self._autocast():
            agreement = self.method.agreement(labeled)
        self.labeled_view.learn(labeled["probe_used"], agreement)  # type: ignore[attr-defined]
        return {"probe_agreement": agreement.nanmean()}

    def _step(
        self,
        loss: Tensor,
        optimizer: torch.optim.Optimizer,
        *,
        scaler: torch.amp.GradScaler,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None,
        of: str = "",
    ) -> None:
        """Minimise a loss; `of` names whose it is where several are trained in turn."""
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        if self._gradient_usable(optimizer, scaler, of):
            self._skipped[of] = 0
            scaler.step(optimizer)
        scaler.update()
        if optimizer is self.optimizer:
            self.learning_rate = float(optimizer.param_groups[0]["lr"])
        if lr_scheduler is not None:
            lr_scheduler.step()

    def _gradient_usable(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, of: str) -> bool:
        """Clip if asked to. In mixed precision without a scaler, do what a scaler does: leave out a broken step."""
        guard = self.amp and not scaler.is_enabled()
        if self.gradient_clip is None and not guard:
            return True
        scaler.unscale_(optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = self.gradient_clip if self.gradient_clip is not None else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        if scaler.is_enabled() or torch.isfinite(norm):
            return True
        self._skip_step(of)
        return False

    def _skip_step(self, of: str) -> None:
        skipped = self._skipped[of] = self._skipped.get(of, 0) + 1
        whose = f"the {of}'s gradient" if of else "the gradient"
        self.logger.warning(f"iteration {self.state.iteration}: {whose} is not finite, the step is left out")
        if skipped >= _MOST_SKIPPED:
            raise TrainingError(
                f"{whose} was not finite in {skipped} steps in a row (now iteration {self.state.iteration})",
                fix="Checkpoints are whole. Lower the learning rate, or train without amp, then resume",
                code="NOT_FINITE",
            )

    def _to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        moved = {}
        for key, value in batch.items():
            if isinstance(value, Tensor) and key not in _PLACES:
                value = value.to(self.state.device, non_blocking=True)
            moved[key] = value
        return moved

    def _generator(self, iteration: int, stream: int) -> torch.Generator:
        key = np.random.SeedSequence([self.seed, self.first_iteration + iteration, stream, self.state.rank])
        return torch.Generator().manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))

    def _stop_not_finite(self, terms: dict[str, Tensor], batchdata: Pair) -> None:
        broken = [name for name, term in terms.items() if not torch.isfinite(term)]
        cases = ", ".join([*batchdata[0]["case"], *batchdata[1]["case"]])
        raise TrainingError(
            f"the loss is not finite at iteration {self.state.iteration} (terms: {', '.join(broken)}; cases of the "
            f"batch: {cases})",
            fix="Checkpoints written before it are whole. Look at these scans, lower the learning rate or set "
            "gradient_clip, then resume",
            code="NOT_FINITE",
        )

    @contextmanager
    def deployed(self) -> Iterator[dict[str, nn.Module]]:
        """The networks as they would be deployed: with averaged weights inside the block if these are kept."""
        if not self.averages:
            yield self.networks
            return
        own = {name: _copy(bare(self.networks[name]).state_dict()) for name in self.averages}
        for name, average in self.averages.items():
            bare(self.networks[name]).load_state_dict(average.module.state_dict())
        try:
            yield self.networks
        finally:
            for name, state in own.items():
                bare(self.networks[name]).load_state_dict(state)

    def model_state(self) -> dict[str, dict[str, Tensor]]:
        """Weights for use: `model` is the first network, others keep their field's name."""
        with self.deployed() as networks:
            states = {name: _copy(bare(network).state_dict()) for name, network in networks.items()}
        first = next(iter(states))
        return {"model" if name == first else name: state for name, state in states.items()}

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """Everything that decides the next iteration."""
        return {
            "iteration": self.state.iteration,
            "total_iterations": self.total_iterations,
            "epoch_length": self.state.epoch_length,
            "settings": run_settings(self),
            "networks": {name: bare(network).state_dict() for name, network in self.kept.items()},
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler is not None else None,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "views": {name: view.state_dict() for name, view in self._learning_views().items()},
            "best": [float(self.state.best_metric), int(self.state.best_metric_epoch)],
            "random": random_state(),
        }

    def load_state_dict(self, state_dict: Any) -> None:
        """Go on exactly where `state_dict` was taken.

        Raises:
            InputError: it is of another run: other cases, method, settings, networks or schedule. The learning rate,
                gradient_clip and amp may differ; those of now are used.
        """
        state = dict(state_dict)
        self._check_same_run(state)
        try:
            for name, network in self.kept.items():
                bare(network).load_state_dict(state["networks"][name])
            for name, average in self.averages.items():
                average.load_state_dict(state["averages"][name])
        except (RuntimeError, KeyError) as error:
            raise InputError(
                f"the checkpoint's networks are not this run's: {str(error).splitlines()[0]}",
                fix="Resume with the settings the run was started with",
                code="RESUME_MISMATCH",
            ) from error
        self._load_optimizer(self.optimizer, self.lr_scheduler, state["optimizer"], state["lr_scheduler"])
        for name, view in self._learning_views().items():
            view.load_state_dict(state["views"][name])
        self.state.iteration = state["iteration"]
        self.state.epoch = state["iteration"] // self.state.epoch_length
        self.state.best_metric, self.state.best_metric_epoch = state["best"]
        self._on_start = {"scaler": state["scaler"], "random": state["random"]}

    def _learning_views(self) -> dict[str, Any]:
        """The views that keep something of what they have seen."""
        views = {"labeled": self.labeled_view, "unlabeled": self.unlabeled_view}
        return {name: view for name, view in views.items() if hasattr(view, "state_dict")}

    def _load_optimizer(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None,
        optimizer_state: dict[str, Any],
        scheduler_state: dict[str, Any] | None,
    ) -> None:
        """Load optimizer and schedule; a learning rate that was asked for now takes the place of the saved one."""
        wanted = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
        optimizer.load_state_dict(optimizer_state)
        if scheduler is not None and scheduler_state is not None:
            scheduler.load_state_dict(scheduler_state)
        for i, (group, new) in enumerate(zip(optimizer.param_groups, wanted, strict=True)):
            old = group.get("initial_lr", group["lr"])
            if new == old:
                continue
            self.logger.warning(f"the learning rate is {new:g} from here on; the run was started with {old:g}")
            group["lr"] *= new / old
            if scheduler is not None:
                group["initial_lr"] = scheduler.base_lrs[i] = new

    def _restore_on_start(self) -> None:
        """What the making of other components could still change, and the scaler, which MONAI makes late."""
        if self._on_start is None:
            return
        state, self._on_start = self._on_start, None
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        set_random_state(state["random"])
        if self.state.rank > 0:
            # The checkpoint is of rank 0; dropout must not be the same on all.
            torch.manual_seed(self._generator(self.state.iteration, 2).initial_seed())

    def _check_same_run(self, state: dict[str, Any]) -> None:
        found = differences(state.get("settings", {}), run_settings(self))
        if found:
            raise InputError(
                f"the checkpoint belongs to another run ({'; '.join(found)})",
                fix="Resume with the settings the run was started with, or start a new run in another output_dir",
                code="RESUME_MISMATCH",
            )


def _raise(engine: Engine, error: BaseException) -> None:
    raise error


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}


def _to_channels_last(network: nn.Module) -> None:
    dimensions = {p.dim() for p in network.parameters()}
    network.to(memory_format=torch.channels_last_3d if 5 in dimensions else torch.channels_last)  # type: ignore[call-overload]
