"""SIGKILL at any moment: a whole checkpoint is always there, and the end is that of the unbroken run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_samples import curve, load, same

SCRIPT = Path(__file__).with_name("killed_runs.py")


def run_and_kill(folder: Path, kills: int, seed: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPT), str(folder), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    log = json.loads(done.stdout.splitlines()[-1])
    reached = 0
    for kill in log["kills"]:
        assert kill["exit"] in (-9, 0), log
        assert kill["whole"] or reached == 0, log
        newest = max(kill["whole"], default=0)
        assert newest >= reached, log  # nothing that was done is lost
        reached = newest if kill["killed"] else 0
    assert log["exit"] == 0, log
    assert any(kill["killed"] and kill["whole"] for kill in log["kills"]), log
    for done_folder in [folder / "broken", *folder.glob("done_*")]:
        assert curve(done_folder) == curve(folder / "unbroken")
        assert curve(done_folder, "validation") == curve(folder / "unbroken", "validation")
        for name in ("model.pt", "model_best_validation.pt"):
            assert same(load(done_folder / "models" / name), load(folder / "unbroken" / "models" / name))
        assert not list(done_folder.rglob("*.tmp"))


def test_a_run_killed_three_times_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    run_and_kill(tmp_path, 3, seed=0)


@pytest.mark.slow
def test_a_run_killed_thirty_times_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    run_and_kill(tmp_path, 30, seed=1)
