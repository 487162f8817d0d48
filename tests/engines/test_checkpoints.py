"""What is on disk is whole, whatever happens while it is written or lies there."""

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import curve, load, make_trainer, newest, same

from semi_med.engines import Checkpoints
from semi_med.engines.checkpoints import finite, save_atomically
from semi_med.errors import ResourceError

ErrorOf = Callable[[Callable[[], object]], Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    make_trainer(folder, iterations=6, checkpoint_interval=2, validate=False).run()
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of 6 iterations with checkpoints at 4 and 6."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def resume(run: Path) -> Any:
    return make_trainer(run, iterations=6, checkpoint_interval=2, validate=False, resume=True)


def test_the_last_two_checkpoints_are_kept_each_with_its_checksum(run: Path) -> None:
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == [
        "iteration_00000004.json",
        "iteration_00000004.pt",
        "iteration_00000006.json",
        "iteration_00000006.pt",
    ]


def test_model_pt_holds_the_networks_of_the_last_iteration(run: Path) -> None:
    model, state = load(run / "models" / "model.pt"), load(newest(run))
    assert list(model) == ["model", "peer"]
    average = {
        key.removeprefix("module."): value
        for key, value in state["averages"]["network"].items()
        if key.startswith("module.")
    }
    assert same(model["model"], average)
    assert not same(model["model"], state["networks"]["network"])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate_without_checksum(path: Path) -> None:
    truncate(path)
    path.with_suffix(".json").unlink()


def rubbish_without_checksum(path: Path) -> None:
    path.write_bytes(b"\x80\x04rubbish that begins like a pickle")
    path.with_suffix(".json").unlink()


def empty_checksum(path: Path) -> None:
    path.with_suffix(".json").write_text("[]")


DAMAGES = [truncate, flip_a_bit, empty, truncate_without_checksum, rubbish_without_checksum, empty_checksum]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(
    run: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(newest(run))
    trainer = make_trainer(iterations=6)
    trainer.logger.propagate = True
    with caplog.at_level("INFO"):
        Checkpoints(run, resume=True).restore(trainer)
    assert trainer.state.iteration == 4
    assert "iteration_00000006.pt is damaged" in caplog.text
    assert "resumed from iteration_00000004.pt: 4 of 6 iterations are done" in caplog.text


def test_from_the_checkpoint_before_a_damaged_one_the_same_end_is_reached(run: Path, finished: Path) -> None:
    truncate(newest(run))
    resume(run).run()
    assert same(load(run / "models" / "model.pt"), load(finished / "models" / "model.pt"))
    assert curve(run) == curve(finished)


def test_damaged_checkpoints_do_not_count_as_one_that_is_kept(run: Path) -> None:
    truncate(newest(run))
    trainer = make_trainer(run, iterations=6, checkpoint_interval=1, validate=False, resume=True)
    trainer.state.iteration = 5
    checkpoints = Checkpoints(run, resume=True)
    checkpoints.save(trainer)
    kept = sorted(path.name for path in (run / "checkpoints").glob("*.pt"))
    assert kept == ["iteration_00000004.pt", "iteration_00000005.pt"]


def test_if_all_checkpoints_are_damaged_nothing_is_started_anew(run: Path, error_of: ErrorOf) -> None:
    for path in (run / "checkpoints").glob("*.pt"):
        truncate(path)
    error = error_of(lambda: resume(run))
    assert error.code == "NO_CHECKPOINT"
    assert "all checkpoints are damaged" in str(error)
    assert "another --output_dir" in str(error)


def test_a_folder_with_a_run_is_refused_without_resume(run: Path, error_of: ErrorOf) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    error = error_of(lambda: make_trainer(run, iterations=6))
    assert error.code == "OUTPUT_EXISTS"
    assert "already holds a run (iteration_00000006.pt)" in str(error)
    assert "--resume true" in str(error)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_resume_without_a_checkpoint_is_refused(tmp_path: Path, error_of: ErrorOf) -> None:
    error = error_of(lambda: make_trainer(tmp_path, resume=True))
    assert error.code == "NO_CHECKPOINT"
    assert "there is no checkpoint to resume from" in str(error)


def test_a_checkpoint_with_code_in_it_is_not_run(run: Path, tmp_path: Path, error_of: ErrorOf) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    for path in (run / "checkpoints").glob("*.pt"):
        torch.save({"iteration": Payload()}, path)
        path.with_suffix(".json").unlink()
    assert error_of(lambda: resume(run)).code == "NO_CHECKPOINT"
    assert not (tmp_path / "owned").exists()


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    save_atomically({"a": torch.ones(3)}, tmp_path / "x.pt")
    monkeypatch.setattr(*((os, "fsync") if where == "fsync" else (Path, "replace")), full_disk)
    with pytest.raises(ResourceError, match="disk is full"):
        save_atomically({"a": torch.zeros(3)}, tmp_path / "x.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
    assert load(tmp_path / "x.pt")["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("size", [1, 5_000, 20_000, 60_000])
def test_a_full_disk_stops_the_run_and_keeps_its_checkpoints(
    run: Path, finished: Path, size: int, error_of: ErrorOf
) -> None:
    """The disk is full after `size` bytes of any file; a checkpoint has about 100 kB, a model 30 kB."""
    newest(run).unlink()
    before = {path.name: path.read_bytes() for path in run.glob("checkpoints/*")}
    trainer = resume(run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        error = error_of(trainer.run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.code == "DISK_FULL"
    assert error.exit_code == 3
    after = {path.name: path.read_bytes() for path in run.glob("checkpoints/*")}
    assert all(after[name] == data for name, data in before.items() if name.startswith("iteration_00000004"))
    resume(run).run()
    assert same(load(run / "models" / "model.pt"), load(finished / "models" / "model.pt"))


def test_temporary_files_of_a_killed_run_are_swept(run: Path) -> None:
    for folder in ("checkpoints", "models"):
        (run / folder / ".semi_med_x7.tmp").write_bytes(b"half")
    resume(run).run()  # nothing is left to train
    assert not list(run.rglob("*.tmp"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_finite_looks_into_every_corner(value: float) -> None:
    assert finite({"a": [torch.ones(2), (torch.ones(2, dtype=torch.int64), "text", None)]})
    assert not finite({"a": [torch.ones(2), (torch.tensor([1.0, value]),)]})
