"""Numbers that are not finite stop a training, name their origin and reach no file."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import load, make_trainer, newest
from ignite.engine import Events
from torch import Tensor

from semi_med.engines.checkpoints import finite
from semi_med.errors import TrainingError


def all_files_are_finite(folder: Path) -> bool:
    files = list(folder.rglob("*.pt"))
    return bool(files) and all(finite(load(path)) for path in files)


def test_a_nan_in_a_scan_stops_the_run_and_its_case_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as stopped:
        make_trainer(tmp_path, poisoned="b", validate=False).run()
    error = stopped.value
    assert error.code == "NOT_FINITE"
    assert error.exit_code == 3
    names = str(error).split("cases of the batch: ")[1].split(")")[0].split(", ")
    assert len(names) == 4
    assert "b" in names
    assert set(names) <= set("abctuvw")
    assert "supervised" in str(error)


class PoisonLoss:
    """Makes the loss of one iteration something else, as a method with a bug would."""

    def __init__(self, at: int, value: float) -> None:
        self.at, self.value = at, value

    def attach(self, engine: Any) -> None:
        losses = engine.method.losses

        def poisoned(labeled: Any, unlabeled: Any, iteration: int) -> dict[str, Tensor]:
            terms = losses(labeled, unlabeled, iteration)
            return terms if iteration + 1 != self.at else {**terms, "loss": terms["loss"] * self.value}

        engine.method.losses = poisoned


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_newest_checkpoint_is_from_before_a_loss_that_is_not_finite(tmp_path: Path, value: float) -> None:
    with pytest.raises(TrainingError, match="loss is not finite at iteration 8"):
        make_trainer(tmp_path, handlers=[PoisonLoss(8, value)]).run()
    assert load(newest(tmp_path))["iteration"] == 6
    assert all_files_are_finite(tmp_path)
    make_trainer(tmp_path, resume=True).run()
    assert load(newest(tmp_path))["iteration"] == 12


class PoisonGradient:
    """A finite loss with a gradient that is NaN, at the iterations given."""

    def __init__(self, *at: int) -> None:
        self.at = at

    def attach(self, engine: Any) -> None:
        weight = next(engine.method.network.parameters())
        weight.register_hook(lambda gradient: gradient * math.nan if engine.state.iteration in self.at else gradient)


@pytest.mark.parametrize("at", [3, 12])  # a validation and a checkpoint follow at once; the last iteration
def test_weights_that_became_nan_are_never_written(tmp_path: Path, at: int, error_of: Callable[..., Any]) -> None:
    error = error_of(make_trainer(tmp_path, handlers=[PoisonGradient(at)], average_decay=0.0).run)
    assert error.code == "NOT_FINITE"
    assert f"weights are not finite after iteration {at}" in str(error)
    files = list(tmp_path.rglob("*.pt"))
    assert all(finite(load(path)) for path in files)
    assert bool(files) == (at > 3)


def test_without_checkpoint_between_nan_weights_stop_at_the_next_loss(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="loss is not finite at iteration 9"):
        make_trainer(tmp_path, handlers=[PoisonGradient(8)], average_decay=0.0).run()
    assert load(newest(tmp_path))["iteration"] == 6


def test_clipping_leaves_out_a_step_whose_gradient_is_not_finite(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, handlers=[PoisonGradient(5)], gradient_clip=1.0)
    trainer.run()
    assert load(newest(tmp_path))["iteration"] == 12
    assert all_files_are_finite(tmp_path)


def test_ten_steps_without_a_finite_gradient_in_a_row_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not finite in 10 steps in a row"):
        make_trainer(tmp_path, handlers=[PoisonGradient(*range(2, 13))], gradient_clip=1.0).run()


def test_an_error_of_a_handler_is_not_swallowed() -> None:
    trainer = make_trainer()

    def fail(engine: Any) -> None:
        raise ZeroDivisionError("a handler's own error")

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), fail)
    with pytest.raises(ZeroDivisionError, match="own error"):
        trainer.run()
    assert torch.isfinite(next(trainer.method.network.parameters())).all()
