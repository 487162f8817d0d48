"""A run ends when its validation has not gained for a while, and ends there again when it is resumed."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import curve, evaluator, load, make_trainer
from test_validate_handler import Scripted

from semi_med.engines import Checkpoints, EarlyStop, Validate
from semi_med.errors import InputError


def run(folder: Path, values: list[float], *, iterations: int, resume: bool = False, **settings: Any) -> Any:
    """Validation after every iteration gives the next of the values."""
    handlers = [
        Validate(Scripted(*values), folder, interval=1, tensorboard=False),
        EarlyStop(folder, **{"patience": 2, "column": "mean_dice", "larger_is_better": True, **settings}),
        Checkpoints(folder, interval=1, resume=resume),
    ]
    trainer = make_trainer(iterations=iterations, handlers=handlers)
    trainer.run()
    return trainer


def test_a_run_stops_after_as_many_validations_without_a_gain_as_patience_allows(tmp_path: Path) -> None:
    trainer = run(tmp_path, [0.1, 0.5, 0.4, 0.5, 0.9, 0.9], iterations=6)
    assert trainer.state.iteration == 4  # 0.4 and an equal 0.5 are no gain
    assert load(tmp_path / "checkpoints" / "iteration_00000004.pt")["iteration"] == 4
    assert len(curve(tmp_path, "validation")) == 4


def test_a_gain_starts_the_count_anew_and_undefined_values_are_none(tmp_path: Path) -> None:
    trainer = run(tmp_path, [0.1, math.nan, 0.2, 0.1, 0.3, math.nan, math.nan, 0.9], iterations=8)
    assert trainer.state.iteration == 7


def test_a_loss_counts_downwards(tmp_path: Path) -> None:
    trainer = run(tmp_path, [0.9, 0.5, 0.6, 0.7, 0.1], iterations=5, larger_is_better=False)
    assert trainer.state.iteration == 4


def test_without_patience_nothing_stops(tmp_path: Path) -> None:
    assert run(tmp_path, [0.9] * 5, iterations=5, patience=None).state.iteration == 5


def test_a_run_that_was_stopped_early_is_not_gone_on_with(tmp_path: Path) -> None:
    run(tmp_path, [0.5, 0.4, 0.3], iterations=9)
    model = (tmp_path / "models" / "model.pt").read_bytes()
    trainer = run(tmp_path, [0.9] * 9, iterations=9, resume=True)
    assert trainer.state.iteration == 3
    assert (tmp_path / "models" / "model.pt").read_bytes() == model


def test_a_resumed_run_stops_where_the_unbroken_one_does(tmp_path: Path) -> None:
    values = [0.1, 0.5, 0.4, 0.3, 0.2]

    class Interrupted(Scripted):
        def run(self) -> None:
            if len(self.values) == 2:
                raise RuntimeError("power cut")
            super().run()

    handlers = [
        Validate(Interrupted(*values), tmp_path, interval=1, tensorboard=False),
        EarlyStop(tmp_path, patience=2, column="mean_dice", larger_is_better=True),
        Checkpoints(tmp_path, interval=1),
    ]
    with pytest.raises(RuntimeError):
        make_trainer(iterations=5, handlers=handlers).run()
    assert run(tmp_path, values[3:], iterations=5, resume=True).state.iteration == 4


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'los', but iteration, mean_dice"):
        run(tmp_path, [0.5, 0.4], iterations=2, column="los")


def test_the_validation_loss_is_the_mean_over_cases_of_what_the_network_predicts(tmp_path: Path) -> None:
    def loss(probs: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return (probs[:, 1:] - label).abs().flatten(1).mean(1)

    trainer = make_trainer(iterations=2)
    looking = evaluator(trainer.method.network, names="vw")
    Validate(looking, tmp_path, interval=2, tensorboard=False, loss=loss).attach(trainer)
    trainer.run()
    with trainer.deployed(), torch.no_grad():
        network = trainer.method.network.eval()
        each = [loss(network(case["image"]), case["label"]).item() for case in looking.data_loader]
    (row,) = curve(tmp_path, "validation")
    assert float(row["loss"]) == pytest.approx(sum(each) / 2, rel=1e-4)
