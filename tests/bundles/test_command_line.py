"""`python -m monai.bundle run` from another working directory, as a user types it."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TINY_SETTINGS

TINY = [part for key, value in TINY_SETTINGS.items() for part in (f"--{key}", json.dumps(value))]
TINY_ANY_DEVICE = [part for i in range(0, len(TINY), 2) if TINY[i] != "--device" for part in TINY[i : i + 2]]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}


def run_bundle(*arguments: str, folder: Path, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, "-m", "monai.bundle", "run", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=400
    )


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of its own, to be written into."""
    shutil.copytree(tiny_bundle, tmp_path / "somewhere" / "cotrain_la")
    return tmp_path / "somewhere" / "cotrain_la"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def data_of(tiny_data: Any) -> list[str]:
    return ["--dataset_dir", str(tiny_data.folder), "--data_list_file", str(tiny_data.data_list)]


def test_training_from_another_folder_writes_into_the_bundle_of_the_configuration(
    bundle: Path, elsewhere: Path, tiny_data: Any
) -> None:
    config = os.path.relpath(bundle / "configs" / "train.json", elsewhere)
    done = run_bundle("training", "--config_file", config, *TINY, *data_of(tiny_data), folder=elsewhere)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(torch.load(bundle / "models" / "model.pt", weights_only=True)) == {"model", "peer"}
    with (bundle / "logs" / "train.csv").open() as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["1", "4"]
    assert "iteration 4/4" in done.stderr
    assert list(elsewhere.iterdir()) == []


def test_a_misspelt_setting_ends_with_one_short_message_and_exit_code_2(
    bundle: Path, elsewhere: Path, tiny_data: Any
) -> None:
    config = str(bundle / "configs" / "train.json")
    arguments = ("training", "--config_file", config, *TINY, *data_of(tiny_data), "--method#cutmx", "false")
    done = run_bundle(*arguments, folder=elsewhere)
    assert done.returncode == 2
    said = done.stderr[done.stderr.index("error:") :]
    assert said == "error: there is no setting --method#cutmx. Did you mean --method#cutmix?\n"
    assert "Traceback" not in done.stderr
    assert not (bundle / "models").exists()


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_says_how_to_go_on_and_exits_with_143(
    bundle: Path, elsewhere: Path, tiny_data: Any
) -> None:
    config = str(bundle / "configs" / "train.json")
    endless = ("--max_iterations", "100000", "--val_interval", "100000", "--checkpoint_interval", "100000")
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", config]
    command += [*TINY, *endless, *data_of(tiny_data)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=elsewhere, env=environment(), stdout=pipe, stderr=pipe, text=True) as process:
        deadline = time.monotonic() + 300
        while not (bundle / "logs" / "train.csv").is_file() and time.monotonic() < deadline:
            time.sleep(0.2)
        process.terminate()
        said, _ = process.communicate(timeout=100)
    assert process.returncode == 143
    assert "checkpoint written. Go on with the same command and --resume true" in said
    assert len(list((bundle / "checkpoints").glob("*.pt"))) == 1


@pytest.mark.slow
def test_two_processes_train_together_on_the_cpu(bundle: Path, elsewhere: Path, tiny_data: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configs = [str(bundle / "configs" / f"{name}.json") for name in ("train", "multi_gpu_train")]
    done = run_bundle(
        *("training", "--config_file", str(configs), *TINY_ANY_DEVICE, *data_of(tiny_data)),
        *("--average_decay", "0.9"),
        launcher=("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)),
        folder=elsewhere,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    state = torch.load(bundle / "checkpoints" / "iteration_00000004.pt", weights_only=True)
    assert state["settings"]["labeled_batches#world_size"] == 2
    assert not any(key.startswith("module.") for key in state["networks"]["network"])
    with (bundle / "logs" / "train.csv").open() as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["1", "4"]
