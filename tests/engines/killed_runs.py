"""Trains in child processes that are killed at random moments; a script, so that it can fork before any thread is.

    python killed_runs.py <folder> <kills> <seed>

prints one JSON line: for each kill the iterations of the checkpoints that were whole after it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from engine_samples import make_trainer

from semi_med.engines import Checkpoints

ITERATIONS = 16
PEEK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def train(folder: Path, *, resume: bool) -> None:
    make_trainer(folder, iterations=ITERATIONS, checkpoint_interval=1, resume=resume).run()


def in_child(folder: Path) -> int:
    """Start or resume a training in a child; its process id."""
    resume = any((folder / "checkpoints").glob("iteration_*.pt"))
    child = os.fork()
    if child:
        return child
    try:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
        train(folder, resume=resume)
        os._exit(0)
    except BaseException:
        os._exit(9)


def names_of_checkpoints(folder: Path) -> list[str]:
    """What lies in the folder of checkpoints."""
    return sorted(path.name for path in (folder / "checkpoints").glob("iteration_*.pt"))


def whole_checkpoints(folder: Path) -> list[int]:
    """Iterations of the checkpoints that can be read."""
    found = []
    for path in sorted((folder / "checkpoints").glob("iteration_*.pt")):
        try:
            found.append(Checkpoints._read(path)["iteration"])
        except Exception:
            continue
    return found


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    draw = random.Random(seed)
    started = time.monotonic()
    os.waitpid(in_child(folder / "unbroken"), 0)
    lasts = time.monotonic() - started
    log: list[dict[str, object]] = []
    broken = folder / "broken"
    while len(log) < kills:
        before = names_of_checkpoints(broken)
        child = in_child(broken)
        if len(log) % 3 == 0:  # at any time
            time.sleep(draw.uniform(0.0, 0.6) * lasts)
        else:  # while iterations and checkpoints follow each other
            while names_of_checkpoints(broken) == before and os.waitid(os.P_PID, child, PEEK) is None:
                time.sleep(0.001)
            time.sleep(draw.uniform(0.0, 4.0) * lasts / ITERATIONS)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        log.append({"killed": killed, "exit": os.waitstatus_to_exitcode(status), "whole": whole_checkpoints(broken)})
        if not killed:  # it had come to its end: begin another one
            broken.rename(folder / f"done_{len(log)}")
    _, status = os.waitpid(in_child(broken), 0)
    print(json.dumps({"kills": log, "exit": os.waitstatus_to_exitcode(status)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
