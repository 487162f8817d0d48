"""Many jobs on one machine: how many at a time, what happens to the others when one fails, how all are stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from compare_samples import train_stage

from semi_med.compare import local
from semi_med.compare.job import run_job
from semi_med.compare.local import environment_of, progress_line, run_all, seconds_left
from semi_med.compare.locks import locked
from semi_med.compare.stages import stages_of
from semi_med.errors import InputError


@pytest.fixture
def folder(ask) -> Path:
    return ask().folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(local, "_POLL", 0.02)
    monkeypatch.setattr(local, "_cuda_devices", lambda plan: [])


def child(code: str):
    """A stand-in for the command of a job; `name` and `folder` are known to it."""
    head = "import os, signal, sys, time\nname, folder = sys.argv[1:]\n"
    return lambda job, folder: [sys.executable, "-S", "-c", head + code, job.name, str(folder)]


NOTE = "def note(word):\n    with open(folder + '/notes', 'a') as f:\n        f.write(f'{word} {name}\\n')\n"


def notes(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "notes").read_text().splitlines()]


def quiet(line: str) -> None:
    """Where nobody listens."""


def test_every_job_is_run_once_in_its_order_and_never_more_than_allowed_at_a_time(plan, folder):
    code = NOTE + "note('start'); time.sleep(0.1); note('end')"
    outcome = run_all(plan, folder, jobs=2, say=quiet, command=child(code))
    assert sorted(outcome.done) == sorted(job.name for job in plan.jobs)
    assert (outcome.failed, outcome.signal) == ({}, 0)
    running, most = 0, 0
    for word, _ in notes(folder):
        running += 1 if word == "start" else -1
        most = max(most, running)
    assert most == 2
    started = [name for word, name in notes(folder) if word == "start"]
    assert len(started) == len(plan.jobs)
    assert set(started[:2]) == {plan.jobs[0].name, plan.jobs[1].name}


def test_a_job_that_fails_does_not_stop_the_others_and_is_named_with_its_last_line(plan, folder):
    code = "print('hello'); sys.exit('error: no luck' if name == 'cotrain_1_seed2' else 0)"
    lines: list[str] = []
    outcome = run_all(plan, folder, jobs=3, say=lines.append, command=child(code))
    assert outcome.failed == {"cotrain_1_seed2": "no luck"}
    assert len(outcome.done) == len(plan.jobs) - 1
    assert any(line.startswith("cotrain_1_seed2 FAILED after 0:00:0") for line in lines)
    assert (folder / "logs" / "cotrain_1_seed2.txt").read_text() == "hello\nerror: no luck\n"


def test_finished_jobs_are_taken(plan, folder, trainings):
    for name in ("cotrain_1_seed1", "supervised_2_seed2"):
        run_job(plan, plan.job(name), folder, say=quiet)
    lines: list[str] = []
    outcome = run_all(plan, folder, jobs=4, say=lines.append, command=child(NOTE + "note('start')"))
    assert not {"cotrain_1_seed1", "supervised_2_seed2"} & {name for _, name in notes(folder)}
    assert len(outcome.done) == len(plan.jobs)
    assert lines[0] == "8 jobs of 20 iterations, 4 at a time, 2 of 10 are done already"


def test_a_job_that_runs_elsewhere_is_left_to_it(plan, folder):
    with locked(folder, "cotrain_1_seed1"):
        outcome = run_all(plan, folder, jobs=4, say=quiet, command=child(NOTE + "note('start')"))
    assert outcome.elsewhere == ["cotrain_1_seed1"]
    assert "cotrain_1_seed1" not in {name for _, name in notes(folder)}
    assert len(outcome.done) == len(plan.jobs) - 1


def signals(folder: Path, *numbers: int) -> None:
    """Send signals to this process once the first job is ready, each after the one before was noticed."""

    def send() -> None:
        for count, number in enumerate(numbers, start=1):
            while not (folder / "notes").exists() or len(notes(folder)) < count:
                time.sleep(0.01)
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_jobs_softly_and_begins_no_other(plan, folder, number):
    code = NOTE + (
        "def end(*_):\n    time.sleep(0.2); note('checkpoint'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end); note('start'); time.sleep(60)"
    )
    before = signal.getsignal(number)
    signals(folder, number)
    outcome = run_all(plan, folder, jobs=1, say=quiet, command=child(code))
    assert notes(folder) == [["start", plan.jobs[0].name], ["checkpoint", plan.jobs[0].name]]
    assert (outcome.signal, outcome.done, outcome.failed) == (number, [], {})
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_them_at_once(plan, folder):
    code = NOTE + "signal.signal(signal.SIGTERM, lambda *_: note('deaf')); note('start')\nwhile True: time.sleep(60)"
    signals(folder, signal.SIGINT, signal.SIGINT)
    started = time.monotonic()
    outcome = run_all(plan, folder, jobs=1, say=quiet, command=child(code))
    assert [word for word, _ in notes(folder)] == ["start", "deaf"]
    assert outcome.signal == signal.SIGINT
    assert time.monotonic() - started < 30


def test_a_training_does_not_outlive_the_job_process_that_was_killed(plan, folder):
    grandchild = "import time, sys; open(sys.argv[1], 'w').write(str(__import__('os').getpid())); time.sleep(600)"
    # a file for each job's process: the next job must not empty the one that is looked at
    code = (
        "import subprocess\nfile = folder + f'/pid-{os.getpid()}'\n"
        f"subprocess.Popen([sys.executable, '-S', '-c', {grandchild!r}, file])\n"
        "while not os.path.exists(file) or not open(file).read(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    run_all(plan, folder, jobs=1, say=quiet, command=child(code))
    trainings = [int(file.read_text()) for file in folder.glob("pid-*")]
    assert trainings
    end = time.monotonic() + 60  # on a busy machine it takes a while to die
    while any(map(lives, trainings)):
        assert time.monotonic() < end, "a training still runs"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False


# ---- threads, GPUs, progress ---------------------------------------------------------------------------------------


def test_jobs_share_the_cores(monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environment_of(0, 3, [])["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in environment_of(0, 1, [])
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment_of(0, 3, [])["OMP_NUM_THREADS"] == "5"


def test_each_gpu_has_its_own_jobs():
    devices = ["0", "3"]
    assert [environment_of(slot, 4, devices)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["0", "3", "0", "3"]


@pytest.mark.parametrize(
    ("jobs", "devices", "slots"), [(None, [], 2), (None, ["0", "1", "2"], 3), (7, [], 7), (99, [], 10)]
)
def test_as_many_jobs_run_as_there_are_gpus_or_cores_unless_told(monkeypatch, jobs, devices, slots):
    monkeypatch.setattr(local, "cores", lambda: 2)
    assert local._slots(jobs, 10, devices) == slots


def test_no_job_at_a_time_is_refused(plan, folder):
    with pytest.raises(InputError, match="--jobs: at least one job"):
        run_all(plan, folder, jobs=0, say=quiet)


def test_progress_names_what_runs_and_the_time_left(plan, folder):
    running, waiting = [plan.job("cotrain_1_seed1")], [plan.job("supervised_1_seed1")]
    train_stage(stages_of(plan, running[0], folder)[0], iterations=10)  # 3 s an iteration
    # 10 iterations of co-training are left, and 20 of a method with one network instead of two, not seen yet
    assert seconds_left(plan, folder, running, waiting, slots=1) == pytest.approx(10 * 3 + 20 * 1.5)
    assert seconds_left(plan, folder, running, waiting, slots=2) == pytest.approx(30)
    line = progress_line(plan, folder, running, waiting, slots=1)
    assert line == "8 of 10 jobs ended; cotrain_1_seed1 10/20; 0:01:00 left"


def test_a_job_that_is_trained_is_said_to_be_tested(plan, folder):
    job = plan.job("cotrain_1_seed1")
    train_stage(stages_of(plan, job, folder)[0])
    assert (
        progress_line(plan, folder, [job], [], slots=1) == "9 of 10 jobs ended; cotrain_1_seed1 testing; 0:00:00 left"
    )


def test_no_time_is_guessed_before_anything_is_known(plan, folder):
    assert seconds_left(plan, folder, plan.jobs[:1], plan.jobs[1:], slots=1) is None
