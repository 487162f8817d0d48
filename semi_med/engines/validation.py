"""Looking at the validation section while training. The test section is never seen here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from semi_med.engines.checkpoints import require_finite, save_model
from semi_med.engines.curves import append_row, check_interval, forget_after
from semi_med.engines.run_state import random_state, set_random_state


class Validate:
    """Runs an evaluator every few iterations, keeps its curve and the best model beside the headline one.

    The curve goes to `logs/validation.csv` (and TensorBoard), the best model so far to
    `models/model_best_validation.pt`. The headline model stays that of the last iteration. An undefined metric is
    never the best. Random numbers drawn by the evaluator do not change the training. Without a case to look at
    nothing is done.

    Must stand before `Checkpoints` among the handlers, so that a checkpoint knows the best value.

    Args:
        evaluator: a MONAI evaluator whose key metric is a mean Dice with details (cases x classes); None for none.
        output_dir: the run's folder.
        interval: iterations between validations; one is always made at the end.
        tensorboard: write to `logs/tensorboard` as well.
        loss: from probabilities `(B, K, *spatial)`, as the inferer gives them, and label `(B, 1, *spatial)` to one
            number for each image `(B,)`; its mean over the cases is the column `loss`. None for no such column.
        first_class: number of the first class among the details: 0 where the metric includes it.
        trained_with: settings that lie beside the model, see `save_model`.
    """

    def __init__(
        self,
        evaluator: Any,
        output_dir: str | Path,
        *,
        interval: int = 500,
        tensorboard: bool = True,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        first_class: int = 1,
        trained_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.evaluator, self.tensorboard, self.loss, self.trained_with = evaluator, tensorboard, loss, trained_with
        self.first_class = first_class
        self._losses: list[Tensor] = []
        if evaluator is not None and loss is not None:
            evaluator.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._measure)
        self.interval = check_interval(interval, "validations")
        self.output_dir = Path(output_dir)
        self.path = self.output_dir / "logs" / "validation.csv"

    def attach(self, engine: Engine) -> None:
        """Hang on the trainer's events."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._maybe)

    def _begin(self, engine: Any) -> None:
        if engine.state.rank > 0:
            return
        forget_after(self.path, engine.state.iteration)
        if engine.state.iteration == 0:
            self.path.unlink(missing_ok=True)

    def _maybe(self, engine: Any) -> None:
        iteration = engine.state.iteration
        if not self._has_cases() or (iteration % self.interval and iteration != engine.total_iterations):
            return
        drawn = random_state()
        self._losses = []
        with engine.deployed():
            self.evaluator.run()
        set_random_state(drawn)
        name = self.evaluator.state.key_metric_name
        mean = float(self.evaluator.state.metrics[name])
        row: dict[str, Any] = {"iteration": iteration, "mean_dice": f"{mean:.6g}"}
        details = self.evaluator.state.metric_details.get(name)
        if details is not None:
            means = torch.nanmean(details.float(), dim=0).tolist()
            for index, value in enumerate(means, start=self.first_class):
                row[f"dice_{index}"] = f"{value:.6g}"
        if self._losses:
            row["loss"] = f"{torch.cat(self._losses).double().mean().item():.6g}"
        if engine.state.rank > 0:
            return
        append_row(self.path, row)
        if self.tensorboard:
            self._to_tensorboard(row)
        engine.logger.info(f"validation at iteration {iteration}: mean Dice {mean:.4f}")
        if math.isfinite(mean) and mean > engine.state.best_metric:
            engine.state.best_metric, engine.state.best_metric_epoch = mean, engine.state.epoch
            model = engine.model_state()
            require_finite(model, engine)
            save_model(model, self.output_dir / "models" / "model_best_validation.pt", self.trained_with)

    def _measure(self, evaluator: Any) -> None:
        """The loss of a batch, before its probabilities are made labels."""
        assert self.loss is not None
        output = evaluator.state.output
        with torch.no_grad():
            self._losses.append(self.loss(output["pred"].float(), output["label"]).reshape(-1).cpu())

    def _has_cases(self) -> bool:
        return self.evaluator is not None and len(self.evaluator.data_loader) > 0

    def _to_tensorboard(self, row: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.output_dir / "logs" / "tensorboard"), filename_suffix=".validation") as writer:
            for name, value in row.items():
                if name != "iteration":
                    writer.add_scalar(f"validation/{name}", float(value), int(row["iteration"]))
