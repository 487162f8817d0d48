"""One trainer for all semi-supervised methods."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.engines.trainer import Trainer
from monai.engines.workflow import Workflow
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from semi_med.data.crops import PairedBatches
from semi_med.errors import InputError, TrainingError
from semi_med.methods.base import Method
from semi_med.runtime import keep_freed_memory

View = Callable[[dict[str, Any], torch.Generator], dict[str, Tensor]]


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
        amp: bool = False,
        gradient_clip: float | None = None,
        average_decay: float = 0.0,
        channels_last: bool = False,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        self.method, self.optimizer, self.lr_scheduler = method, optimizer, lr_scheduler
        self.labeled_view, self.unlabeled_view, self.seed = labeled_view, unlabeled_view, seed
        self.gradient_clip = gradient_clip
        whole = max_epochs * epoch_length
        self.total_iterations = whole if max_iterations is None else min(whole, max_iterations)
        self.networks = method.networks()
        self.channels_last = channels_last
        if channels_last:
            for network in self.networks.values():
                _to_channels_last(network)
        self.average_decay = average_decay
        self.averages: dict[str, AveragedModel] = {}
        if average_decay > 0:
            average = get_ema_multi_avg_fn(average_decay)
            self.averages = {
                name: AveragedModel(network, multi_avg_fn=average, use_buffers=True)
                for name, network in self.networks.items()
            }
        self._resumed = False
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
        kind = self.state.device.type
        self.scaler = torch.amp.GradScaler(kind, enabled=amp and kind == "cuda")
        if kind == "cpu":
            keep_freed_memory()

    def run(self) -> None:  # type: ignore[override]
        """Train until the last iteration, from where the state stands."""
        if self.state.iteration >= self.total_iterations:
            self.logger.info(f"Nothing to do: iteration {self.state.iteration} of {self.total_iterations} is reached.")
            return
        self.data_loader.seek(self.state.iteration)
        # MONAI's Trainer.run would replace the scaler by a new one.
        Workflow.run(self)
        if self.exit_code:
            raise SystemExit(self.exit_code)

    def _iteration(self, engine: Any, batchdata: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Tensor]:
        done = self.state.iteration - 1  # Ignite has counted this one already
        labeled, unlabeled = (
            view(self._to_device(part), self._generator(done, stream))
            for stream, (part, view) in enumerate(
                zip(batchdata, (self.labeled_view, self.unlabeled_view), strict=True)
            )
        )
        for network in self.networks.values():
            network.train()
        kind = self.state.device.type
        with torch.autocast(kind, dtype=torch.float16 if kind == "cuda" else torch.bfloat16, enabled=self.amp):
            terms = self.method.losses(labeled, unlabeled, done)
        if not torch.isfinite(terms["loss"]):
            self._stop_not_finite(terms, batchdata)
        self._step(terms["loss"])
        self.method.after_update(done)
        for name, average in self.averages.items():
            average.update_parameters(self.networks[name])
        if self.state.iteration >= self.total_iterations:
            self.terminate()
        return {name: term.detach() for name, term in terms.items()}

    def _step(self, loss: Tensor) -> None:
        scaler = self.scaler
        assert scaler is not None
        self.optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        if self.gradient_clip is not None:
            scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
        scaler.step(self.optimizer)
        scaler.update()
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()

    def _to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        moved = {}
        for key, value in batch.items():
            if isinstance(value, Tensor) and key != "margin":
                value = value.to(self.state.device, non_blocking=True)
            moved[key] = value
        return moved

    def _generator(self, iteration: int, stream: int) -> torch.Generator:
        key = np.random.SeedSequence([self.seed, iteration, stream, self.state.rank])
        return torch.Generator().manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))

    def _stop_not_finite(self, terms: dict[str, Tensor], batchdata: tuple[dict[str, Any], dict[str, Any]]) -> None:
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
        own = {name: _copy(network.state_dict()) for name, network in self.networks.items()}
        for name, average in self.averages.items():
            self.networks[name].load_state_dict(average.module.state_dict())
        try:
            yield self.networks
        finally:
            for name, state in own.items():
                self.networks[name].load_state_dict(state)

    def model_state(self) -> dict[str, dict[str, Tensor]]:
        """Weights for use: `model` is the first network, others keep their field's name."""
        with self.deployed() as networks:
            states = {name: _copy(_bare(network).state_dict()) for name, network in networks.items()}
        first = next(iter(states))
        return {"model" if name == first else name: state for name, state in states.items()}

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """Everything that decides the next iteration."""
        version, keys, position, has_gauss, gauss = np.random.get_state()
        return {
            "iteration": self.state.iteration,
            "total_iterations": self.total_iterations,
            "epoch_length": self.state.epoch_length,
            "seed": self.seed,
            "method": self._method_settings(),
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler is not None else None,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "best": [float(self.state.best_metric), int(self.state.best_metric_epoch)],
            "random": {
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "numpy": [str(version), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
                "python": random.getstate(),
            },
        }

    def load_state_dict(self, state_dict: Any) -> None:
        """Go on exactly where `state_dict` was taken.

        Raises:
            InputError: it is of another run: other method, settings, networks or schedule.
        """
        state = dict(state_dict)
        self._check_same_run(state)
        try:
            for name, network in self.networks.items():
                network.load_state_dict(state["networks"][name])
            for name, average in self.averages.items():
                average.load_state_dict(state["averages"][name])
        except (RuntimeError, KeyError) as error:
            raise InputError(
                f"the checkpoint's networks are not this run's: {str(error).splitlines()[0]}",
                fix="Resume with the settings the run was started with",
                code="RESUME_MISMATCH",
            ) from error
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lr_scheduler is not None:
            self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.state.iteration = state["iteration"]
        self.state.epoch = state["iteration"] // self.state.epoch_length
        self.state.best_metric, self.state.best_metric_epoch = state["best"]
        random_state = state["random"]
        torch.set_rng_state(random_state["torch"])
        if random_state["cuda"] and len(random_state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(random_state["cuda"])
        version, keys, position, has_gauss, gauss = random_state["numpy"]
        np.random.set_state((version, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
        python_version, numbers, python_gauss = random_state["python"]
        random.setstate((python_version, tuple(numbers), python_gauss))
        self._resumed = True

    def _method_settings(self) -> dict[str, Any]:
        plain = {k: v for k, v in vars(self.method).items() if not isinstance(v, nn.Module)}
        settings = {k: list(v) if isinstance(v, list | tuple) else v for k, v in plain.items()}
        return {"name": type(self.method).__name__, **settings}

    def _check_same_run(self, state: dict[str, Any]) -> None:
        mine = {
            "seed": self.seed,
            "total_iterations": self.total_iterations,
            "epoch_length": self.state.epoch_length,
            **{f"method {key}": value for key, value in self._method_settings().items()},
        }
        theirs = {key: state[key] for key in ("seed", "total_iterations", "epoch_length")}
        theirs |= {f"method {key}": value for key, value in state["method"].items()}
        differences = [
            f"{key}: {theirs.get(key)} in the checkpoint, {mine.get(key)} here"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]
        if differences:
            raise InputError(
                f"the checkpoint belongs to another run ({'; '.join(differences)})",
                fix="Resume with the settings the run was started with, or start a new run in another output_dir",
                code="RESUME_MISMATCH",
            )


def _bare(network: nn.Module) -> nn.Module:
    """The network inside a DistributedDataParallel wrapper."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}


def _to_channels_last(network: nn.Module) -> None:
    dimensions = {p.dim() for p in network.parameters()}
    network.to(memory_format=torch.channels_last_3d if 5 in dimensions else torch.channels_last)  # type: ignore[call-overload]
