"""Stopping and going on: not one bit of difference, whatever stopped it."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_samples import curve, load, make_trainer, newest, same
from ignite.engine import Engine, Events


class At:
    """Calls an action after one iteration, before any other handler."""

    def __init__(self, iteration: int, action: Callable[[Any], Any]) -> None:
        self.iteration, self.action = iteration, action

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self.action)


def kill_softly(engine: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def explode(engine: Any) -> None:
    raise RuntimeError("somebody pulled the plug")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    make_trainer(folder).run()
    return folder


def test_same_seed_gives_the_same_weights_and_another_seed_gives_others(unbroken: Path, tmp_path: Path) -> None:
    make_trainer(tmp_path / "again").run()
    make_trainer(tmp_path / "other", seed=1).run()
    model = load(unbroken / "models" / "model.pt")
    assert same(load(tmp_path / "again" / "models" / "model.pt"), model)
    assert not same(load(tmp_path / "other" / "models" / "model.pt"), model)


@pytest.mark.parametrize("stop_at", [4, 5])  # the end of an epoch, and the middle of one
def test_after_sigterm_every_later_number_is_that_of_the_unbroken_run(
    unbroken: Path, tmp_path: Path, stop_at: int
) -> None:
    with pytest.raises(SystemExit) as stopped:
        make_trainer(tmp_path, handlers=[At(stop_at, kill_softly)]).run()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert load(newest(tmp_path))["iteration"] == stop_at
    make_trainer(tmp_path, resume=True).run()
    assert curve(tmp_path) == curve(unbroken)
    assert curve(tmp_path, "validation") == curve(unbroken, "validation")
    for name in ("model.pt", "model_best_validation.pt"):
        assert same(load(tmp_path / "models" / name), load(unbroken / "models" / name))
    ours, theirs = load(newest(tmp_path)), load(newest(unbroken))
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert same(ours[key], theirs[key]), key


def test_after_an_exception_the_run_goes_on_from_the_last_checkpoint_to_the_same_end(
    unbroken: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="plug"):
        make_trainer(tmp_path, handlers=[At(8, explode)]).run()
    assert [row["iteration"] for row in curve(tmp_path)] == ["1", "2", "3", "4", "5", "6", "7"]
    make_trainer(tmp_path, resume=True).run()
    assert curve(tmp_path) == curve(unbroken)
    assert same(load(tmp_path / "models" / "model.pt"), load(unbroken / "models" / "model.pt"))


def test_what_happens_between_making_and_running_a_resumed_trainer_does_not_matter(
    unbroken: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError):
        make_trainer(tmp_path, handlers=[At(8, explode)]).run()
    trainer = make_trainer(tmp_path, resume=True)
    torch.rand(3), np.random.rand(3), random.random()
    trainer.run()
    assert same(load(newest(tmp_path))["random"], load(newest(unbroken))["random"])
    assert same(load(tmp_path / "models" / "model.pt"), load(unbroken / "models" / "model.pt"))


def test_random_numbers_of_numpy_and_python_go_on_where_they_stood(tmp_path: Path) -> None:
    np.random.seed(5), random.seed(5)
    np.random.randn(3), random.gauss(0, 1)  # both hold a spare Gaussian now
    make_trainer(tmp_path, iterations=3).run()
    expected = [np.random.randn(), np.random.rand(), random.gauss(0, 1), random.random()]
    state = load(newest(tmp_path))
    np.random.seed(6), random.seed(6)
    trainer = make_trainer(iterations=3)
    trainer.load_state_dict(state)
    trainer._restore_on_start()
    assert [np.random.randn(), np.random.rand(), random.gauss(0, 1), random.random()] == expected


def test_a_signal_during_the_last_iteration_does_not_lose_the_end_of_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, iterations=3)
    # After the checkpoint handler has looked, before the run is over.
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), kill_softly)
    trainer.run()
    assert load(newest(tmp_path))["iteration"] == 3
    assert same(load(tmp_path / "models" / "model.pt"), trainer.model_state())


def test_signal_handlers_of_the_process_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    make_trainer(tmp_path / "a", iterations=2).run()
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(RuntimeError):
        make_trainer(tmp_path / "b", handlers=[At(2, explode)]).run()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def ctrl_c_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_ends_the_run_at_once(tmp_path: Path, ctrl_c_interrupts: None) -> None:
    def twice(engine: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, handlers=[At(2, twice)]).run()
    assert not list((tmp_path / "checkpoints").glob("*.pt"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_that_comes_twice_still_ends_with_a_checkpoint(tmp_path: Path) -> None:
    def twice(engine: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stopped:
        make_trainer(tmp_path, handlers=[At(2, twice)]).run()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert load(newest(tmp_path))["iteration"] == 2


def test_resuming_a_finished_run_trains_nothing_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_trainer(tmp_path, iterations=3).run()
    before = (tmp_path / "models" / "model.pt").read_bytes(), curve(tmp_path)
    trainer = make_trainer(tmp_path, iterations=3, resume=True)
    trainer.logger.propagate = True
    with caplog.at_level("INFO"):
        trainer.run()
    assert "Nothing to do: iteration 3 of 3 is reached" in caplog.text
    assert ((tmp_path / "models" / "model.pt").read_bytes(), curve(tmp_path)) == before


def test_a_lower_learning_rate_may_be_asked_for_when_resuming(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        make_trainer(tmp_path, handlers=[At(7, explode)], gradient_clip=None).run()
    trainer = make_trainer(tmp_path, resume=True, learning_rate=0.005, gradient_clip=1.0)
    trainer.run()
    # PolynomialLR by hand: 0.005 (1 - done / 12) ** 0.9 for the step of iteration done + 1
    for row in curve(tmp_path)[6:]:
        by_hand = 0.005 * (1 - (int(row["iteration"]) - 1) / 12) ** 0.9
        assert float(row["learning_rate"]) == pytest.approx(by_hand, rel=1e-5)


def test_seconds_go_on_counting(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        make_trainer(tmp_path, handlers=[At(8, explode)]).run()
    text = (tmp_path / "logs" / "train.csv").read_text().replace("\r", "").splitlines()
    column = text[0].split(",").index("seconds")
    rows = [line.split(",") for line in text]
    rows[6][column] = "1000.00"  # as if iteration 6, the last that is kept, had been reached after 1000 s
    (tmp_path / "logs" / "train.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    make_trainer(tmp_path, resume=True).run()
    last = (tmp_path / "logs" / "train.csv").read_text().splitlines()[-1].split(",")
    assert 1000 < float(last[column]) < 1100


MISMATCHES = {
    "seed": ({"seed": 3}, "seed: 0 in the checkpoint, 3 here"),
    "length": ({"iterations": 20}, "max_iterations: 12 in the checkpoint, 20 here"),
    "method": ({"threshold": 0.7}, "method#threshold: 0.0 in the checkpoint, 0.7 here"),
    "averaging": ({"average_decay": 0.5}, "average_decay: 0.9 in the checkpoint, 0.5 here"),
    "stream": ({"first_iteration": 4}, "first_iteration: None in the checkpoint, 4 here"),
    "cases": ({"unlabeled": "tuvwxyz"}, "4 in the checkpoint, 7 here (only there: x, y, z)"),
    "network": ({"base_filters": 4}, "networks are not this run's"),
}


@pytest.mark.parametrize("what", MISMATCHES)
def test_other_settings_are_refused_with_the_difference(
    unbroken: Path, what: str, error_of: Callable[[Callable[[], object]], Any]
) -> None:
    settings, text = MISMATCHES[what]
    error = error_of(lambda: make_trainer(unbroken, resume=True, **settings))
    assert error.code == "RESUME_MISMATCH"
    assert text in str(error)
    assert len(str(error)) < 500
