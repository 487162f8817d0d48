"""Looking at the validation section changes nothing but what is written about it."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_samples import curve, evaluator, load, make_trainer, same
from ignite.engine import Engine, Events

from semi_med.engines import Checkpoints, Validate


class Scripted:
    """An evaluator whose metric is a list of numbers, and which looks at the weights it is given."""

    def __init__(self, *values: float, network: torch.nn.Module | None = None) -> None:
        self.values, self.network = list(values), network
        self.data_loader = [None]
        self.seen: list[dict[str, torch.Tensor]] = []
        self.state = SimpleNamespace(key_metric_name="mean_dice", metrics={}, metric_details={})

    def run(self) -> None:
        torch.rand(7)
        if self.network is not None:
            self.seen.append({k: v.clone() for k, v in self.network.state_dict().items()})
        self.state.metrics["mean_dice"] = self.values.pop(0)


def test_losses_and_weights_are_the_same_with_and_without_validation(tmp_path: Path) -> None:
    for name, settings in {"with": {"val_interval": 1}, "without": {"validate": False}}.items():
        make_trainer(tmp_path / name, **settings).run()
    assert curve(tmp_path / "with") == curve(tmp_path / "without")
    models = [load(tmp_path / name / "models" / "model.pt") for name in ("with", "without")]
    assert same(*models)
    assert len(curve(tmp_path / "with", "validation")) == 12
    assert not (tmp_path / "without" / "logs" / "validation.csv").exists()


def run_scripted(folder: Path, *values: float, **settings: Any) -> Any:
    trainer = make_trainer(iterations=len(values), **settings)
    looking = Scripted(*values, network=trainer.method.network)
    Validate(looking, folder, interval=1, tensorboard=False).attach(trainer)
    weights: list[Any] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: weights.append(engine.model_state()))
    trainer.run()
    return trainer, looking, weights


def test_the_best_model_is_that_of_the_largest_metric(tmp_path: Path) -> None:
    trainer, _, weights = run_scripted(tmp_path, 0.3, 0.8, 0.5)
    assert same(load(tmp_path / "models" / "model_best_validation.pt"), weights[1])
    assert not same(weights[1], weights[2])
    assert trainer.state.best_metric == 0.8
    assert [float(row["mean_dice"]) for row in curve(tmp_path, "validation")] == [0.3, 0.8, 0.5]


def test_an_undefined_metric_is_never_the_best_and_does_not_block_later_ones(tmp_path: Path) -> None:
    trainer, _, weights = run_scripted(tmp_path, math.nan, 0.1, math.nan)
    assert same(load(tmp_path / "models" / "model_best_validation.pt"), weights[1])
    assert trainer.state.best_metric == 0.1
    assert [row["mean_dice"] for row in curve(tmp_path, "validation")] == ["nan", "0.1", "nan"]


def test_a_resumed_run_remembers_the_best_value(tmp_path: Path) -> None:
    def part(values: list[float], *, resume: bool) -> Any:
        trainer = make_trainer(iterations=4)
        Validate(Scripted(*values), tmp_path, interval=1, tensorboard=False).attach(trainer)
        Checkpoints(tmp_path, interval=1, resume=resume).attach(trainer)
        return trainer

    first = part([0.8, 0.3], resume=False)
    first.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda engine: engine.terminate())
    first.run()
    best = (tmp_path / "models" / "model_best_validation.pt").read_bytes()
    part([0.5, 0.7], resume=True).run()
    assert [row["mean_dice"] for row in curve(tmp_path, "validation")] == ["0.8", "0.3", "0.5", "0.7"]
    assert (tmp_path / "models" / "model_best_validation.pt").read_bytes() == best


def test_if_every_metric_is_undefined_there_is_no_best_model(tmp_path: Path) -> None:
    run_scripted(tmp_path, math.nan, math.nan)
    assert not (tmp_path / "models").exists()


def test_averaged_weights_are_validated_and_the_trained_ones_put_back_exactly(tmp_path: Path) -> None:
    trained: list[Any] = []
    trainer = make_trainer(iterations=2, average_decay=0.9)
    looking = Scripted(0.1, 0.2, network=trainer.method.network)
    after: list[Any] = []

    def keep(place: list[Any]) -> Callable[[Any], None]:
        return lambda engine: place.append({k: v.clone() for k, v in engine.method.network.state_dict().items()})

    trainer.add_event_handler(Events.ITERATION_COMPLETED, keep(trained))
    Validate(looking, tmp_path, interval=1, tensorboard=False).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, keep(after))
    trainer.run()
    assert same(trained, after)
    # By hand, for any floating tensor: the first average is the first state, then 0.9 old + 0.1 new.
    key = "head.weight"
    assert torch.equal(looking.seen[0][key], trained[0][key])
    expected = 0.9 * trained[0][key] + 0.1 * trained[1][key]
    torch.testing.assert_close(looking.seen[1][key], expected)
    assert not torch.equal(looking.seen[1][key], trained[1][key])
    assert same(trainer.model_state()["model"], looking.seen[1])


def test_without_averaging_the_trained_weights_are_validated_and_deployed(tmp_path: Path) -> None:
    trainer, looking, _ = run_scripted(tmp_path, 0.1, 0.2, average_decay=0.0)
    assert same(looking.seen[-1], dict(trainer.method.network.state_dict()))
    assert same(trainer.model_state()["model"], looking.seen[-1])


def test_trained_weights_come_back_when_the_evaluator_fails(tmp_path: Path) -> None:
    trainer = make_trainer(iterations=2)
    trainer.run()
    before = {k: v.clone() for k, v in trainer.method.network.state_dict().items()}
    with pytest.raises(IndexError), trainer.deployed():
        Scripted().run()
    assert same(dict(trainer.method.network.state_dict()), before)


def test_validation_happens_every_interval_and_at_the_end(tmp_path: Path) -> None:
    make_trainer(tmp_path, iterations=8, val_interval=3).run()
    assert [row["iteration"] for row in curve(tmp_path, "validation")] == ["3", "6", "8"]


def test_without_a_validation_case_training_goes_on_to_its_model(tmp_path: Path) -> None:
    trainer = make_trainer(iterations=2)
    Validate(evaluator(trainer.method.network, names=""), tmp_path, interval=1).attach(trainer)
    trainer.run()
    assert trainer.state.iteration == 2
    assert not (tmp_path / "logs" / "validation.csv").exists()


def test_a_mean_over_classes_comes_with_each_class(tmp_path: Path) -> None:
    trainer = make_trainer(iterations=1)
    looking = Scripted(0.5)
    looking.state.metric_details["mean_dice"] = torch.tensor([[0.2, 0.8], [0.4, math.nan]])  # two cases, two classes
    Validate(looking, tmp_path, interval=1, tensorboard=False).attach(trainer)
    trainer.run()
    assert curve(tmp_path, "validation") == [{"iteration": "1", "mean_dice": "0.5", "dice_1": "0.3", "dice_2": "0.8"}]


def test_the_engine_is_left_in_training_mode(tmp_path: Path) -> None:
    modes: list[bool] = []

    class Look:
        def attach(self, engine: Engine) -> None:
            losses = engine.method.losses

            def look(*args: Any) -> Any:
                modes.append(engine.method.network.training and engine.method.peer.training)
                return losses(*args)

            engine.method.losses = look

    make_trainer(tmp_path, iterations=3, val_interval=1, handlers=[Look()]).run()
    assert modes == [True] * 3
