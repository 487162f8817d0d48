"""What the trainer does with a method, step by step."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import CROP, cases, curve, load, make_trainer, newest, same
from ignite.engine import Engine, Events

from semi_med.data.augment import View
from semi_med.data.crops import CropBatches, PairedBatches
from semi_med.engines import Checkpoints, Curves, SemiSupervisedTrainer, Validate
from semi_med.engines.curves import append_row, forget_after
from semi_med.errors import InputError
from semi_med.methods import Supervised
from semi_med.networks import VNet


class Record:
    """Notes something of the engine after every iteration."""

    def __init__(self, look: Any) -> None:
        self.look, self.seen = look, []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: self.seen.append(self.look(engine)))


@pytest.mark.parametrize(("iterations", "epoch_length"), [(7, 3), (6, 3), (2, 5), (1, 1)])
def test_training_stops_at_the_iteration_asked_for(tmp_path: Path, iterations: int, epoch_length: int) -> None:
    trainer = make_trainer(tmp_path, iterations=iterations, epoch_length=epoch_length, validate=False)
    trainer.run()
    assert trainer.state.iteration == iterations
    assert load(newest(tmp_path))["iteration"] == iterations
    assert [row["iteration"] for row in curve(tmp_path)] == [str(i + 1) for i in range(iterations)]


def test_the_learning_rate_of_every_step_is_the_polynomial_one(tmp_path: Path) -> None:
    make_trainer(tmp_path, iterations=5, validate=False).run()
    rates = [float(row["learning_rate"]) for row in curve(tmp_path)]
    # 0.05 (1 - done / 5) ** 0.9 with 0, 1, ... 4 steps done
    assert rates == pytest.approx([0.05, 0.0409027, 0.0315713, 0.0219199, 0.0117465], rel=1e-4)


def test_a_batch_is_a_function_of_seed_and_iteration_alone() -> None:
    batches = make_trainer().batches
    for iteration in (0, 5):
        assert same(batches.pair(iteration), make_trainer().batches.pair(iteration))
    assert not same(batches.pair(0), batches.pair(1))


def one_network(*, gradient_clip: float | None = None, amp: bool = False, **settings: Any) -> SemiSupervisedTrainer:
    """Supervised training of one network by plain SGD of rate 1, for one iteration."""
    torch.manual_seed(0)
    network = VNet(base_filters=2, levels=2, dropout=0.0)
    return SemiSupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=PairedBatches(CropBatches(cases("abc"), CROP, 2)),
        method=Supervised(network=network),
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        labeled_view=View(CROP),
        unlabeled_view=View(CROP),
        epoch_length=1,
        gradient_clip=gradient_clip,
        amp=amp,
        **settings,
    )


def step_length(trainer: SemiSupervisedTrainer) -> float:
    network = trainer.networks["network"]
    before = [p.detach().clone() for p in network.parameters()]
    trainer.run()
    return float(
        torch.cat([(p.detach() - b).flatten() for p, b in zip(network.parameters(), before, strict=True)]).norm()
    )


def test_a_gradient_longer_than_gradient_clip_is_shortened_to_it() -> None:
    free = step_length(one_network())
    assert free > 0.02
    assert step_length(one_network(gradient_clip=0.01)) == pytest.approx(0.01, rel=1e-3)


def test_a_gradient_shorter_than_gradient_clip_is_left_alone() -> None:
    assert step_length(one_network(gradient_clip=1e6)) == pytest.approx(step_length(one_network()), rel=1e-6)


def test_a_method_without_unlabeled_batches_trains() -> None:
    trainer = one_network()
    trainer.run()
    assert set(trainer.state.output) == {"loss", "supervised"}


def test_mixed_precision_on_cpu_is_bfloat16_and_keeps_weights_in_float32() -> None:
    trainer = one_network(amp=True)
    kinds: list[torch.dtype] = []
    trainer.networks["network"].register_forward_hook(lambda module, args, out: kinds.append(out.dtype))
    trainer.run()
    assert kinds == [torch.bfloat16]
    assert {p.dtype for p in trainer.networks["network"].parameters()} == {torch.float32}
    assert torch.isfinite(trainer.state.output["loss"])


def test_mixed_precision_co_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    make_trainer(tmp_path / "a", iterations=6, amp=True, validate=False).run()
    stop = make_trainer(tmp_path / "b", iterations=6, amp=True, validate=False)
    stop.add_event_handler(Events.ITERATION_COMPLETED(once=4), lambda engine: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stop.run()
    make_trainer(tmp_path / "b", iterations=6, amp=True, validate=False, resume=True).run()
    assert same(*(load(tmp_path / name / "models" / "model.pt") for name in "ab"))


def test_channels_last_changes_the_layout_and_hardly_the_loss() -> None:
    trainers = one_network(), one_network(channels_last=True)
    for trainer in trainers:
        trainer.run()
    plain, last = (trainer.state.output["loss"] for trainer in trainers)
    torch.testing.assert_close(plain, last, rtol=1e-4, atol=1e-5)
    weight = trainers[1].networks["network"].encoders[1][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_the_ramp_sees_the_count_of_updates_done() -> None:
    record = Record(lambda engine: float(engine.state.output["unsupervised_weight"]))
    make_trainer(iterations=8, handlers=[record]).run()
    # ramp of 6 iterations: exp(-5 (1 - done / 6) ** 2)
    assert record.seen[0] == pytest.approx(0.0067379, rel=1e-4)
    assert record.seen[3] == pytest.approx(0.2865048, rel=1e-4)
    assert record.seen[6:] == [1.0, 1.0]


def test_after_update_follows_every_step_with_its_iteration() -> None:
    trainer, calls = make_trainer(iterations=3), []
    trainer.method.after_update = calls.append
    trainer.run()
    assert calls == [0, 1, 2]


@pytest.mark.parametrize("handler", [Checkpoints, Curves, partial(Validate, None)])
def test_an_interval_of_no_iterations_is_refused(handler: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every 0 iterations are impossible"):
        handler(tmp_path, interval=0)


def test_rows_after_a_checkpoint_and_torn_rows_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    for iteration in (1, 2, 12):
        append_row(path, {"iteration": iteration, "loss": 0.5})
    with path.open("a") as file:
        file.write("1")  # the process died while it wrote 13,0.4
    forget_after(path, 5)
    append_row(path, {"iteration": 6, "loss": 0.25})
    assert path.read_text().split() == ["iteration,loss", "1,0.5", "2,0.5", "6,0.25"]


def test_a_new_column_widens_a_curve(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    append_row(path, {"iteration": 1, "loss": 0.5})
    append_row(path, {"iteration": 2, "loss": 0.4, "dice": 0.9})
    append_row(path, {"iteration": 3, "loss": 0.3})
    assert path.read_text().split() == ["iteration,loss,dice", "1,0.5,", "2,0.4,0.9", "3,0.3,"]
