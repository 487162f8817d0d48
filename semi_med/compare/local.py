"""Many jobs on this machine: side by side as its cores or GPUs allow, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semi_med.cli_text import clock
from semi_med.compare.job import is_done, last_line
from semi_med.compare.locks import is_locked
from semi_med.compare.overrides import meaning
from semi_med.compare.plan import Job, Plan, about, job_command
from semi_med.compare.stages import progress_of, stages_of
from semi_med.errors import InputError

Say = Callable[[str], None]
_SECONDS = 15.0  # between lines of progress
_POLL = 0.2


@dataclass
class Outcome:
    """What became of the jobs.

    Attributes:
        done: names of those that are finished.
        failed: name to the last line of its log.
        elsewhere: those that another process runs.
        signal: that stopped the work, 0 for none.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    signal: int = 0


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    slot: int
    started: float
    told: bool = False  # to stop


def run_all(
    plan: Plan,
    folder: Path,
    *,
    jobs: int | None = None,
    say: Say = print,
    command: Callable[[Job, Path], list[str]] = job_command,
) -> Outcome:
    """Run the jobs of a plan that are not done. One that fails does not stop the others.

    On Ctrl-C, SIGTERM or SIGHUP the trainings finish their iteration, write a checkpoint and end; at a second one they
    are killed.

    Args:
        plan: with its jobs.
        folder: of the comparison.
        jobs: how many at a time; None for one on each GPU, else one on each core.
        say: told what happens, a line at a time.
        command: what runs a job; the process ends with code 0 when it is done.
    """
    outcome = Outcome(done=[job.name for job in plan.jobs if is_done(plan, job, folder)])
    waiting = [job for job in plan.jobs if job.name not in outcome.done]
    if not waiting:
        return outcome
    devices = _cuda_devices(plan)
    slots = _slots(jobs, len(waiting), devices)
    say(_beginning(plan, outcome, waiting, slots, devices))
    work = _Work(plan, folder, waiting, slots, devices, outcome, say=say, command=command)
    with work.handling_signals():
        work.run()
    for name in list(outcome.elsewhere):
        if is_done(plan, plan.job(name), folder):
            outcome.elsewhere.remove(name)
            outcome.done.append(name)
    return outcome


def _slots(jobs: int | None, waiting: int, devices: Sequence[str]) -> int:
    if jobs is not None and jobs < 1:
        raise InputError(f"at least one job at a time is needed, got {jobs}", where="--jobs", code="SETTING")
    return min(jobs or len(devices) or cores(), waiting)


def cores() -> int:
    """CPU cores that this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cuda_devices(plan: Plan) -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES of the GPUs that may be used; none where a device is chosen with --set."""
    if meaning(plan.settings.get("", {}).get("device")) is not None:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    import torch

    count = torch.cuda.device_count()
    return [name.strip() for name in visible.split(",")][:count] if visible else [str(n) for n in range(count)]


def _beginning(plan: Plan, outcome: Outcome, waiting: Sequence[Job], slots: int, devices: Sequence[str]) -> str:
    place = f" on {len(devices)} GPU{'s' if len(devices) > 1 else ''}" if devices else ""
    done = f", {len(outcome.done)} of {len(plan.jobs)} are done already" if outcome.done else ""
    return f"{len(waiting)} jobs of {plan.iterations} iterations, {slots} at a time{place}{done}"


def environment_of(slot: int, slots: int, devices: Sequence[str]) -> dict[str, str]:
    """The environment of the jobs of a slot: its GPU, or its share of the cores."""
    environment = dict(os.environ)
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    if slots > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // slots)))
    return environment


class _Work:
    """The jobs that run, those that wait, and what became of the others."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        waiting: Sequence[Job],
        slots: int,
        devices: Sequence[str],
        outcome: Outcome,
        *,
        say: Say,
        command: Callable[[Job, Path], list[str]],
    ) -> None:
        self.plan, self.folder, self.waiting = plan, folder, list(waiting)
        self.slots, self.devices, self.outcome = slots, devices, outcome
        self.say, self.command = say, command
        self.running: list[_Running] = []
        self.signals = 0

    def run(self) -> None:
        """Until nothing runs or waits."""
        spoken = time.monotonic()
        try:
            while self.running or (self.waiting and not self.outcome.signal):
                while self.waiting and len(self.running) < self.slots and not self.outcome.signal:
                    self._start(self.waiting.pop(0))
                time.sleep(_POLL)
                self._stop_if_asked()
                for one in list(self.running):
                    if one.process.poll() is not None:
                        self.running.remove(one)
                        self._ended(one)
                if time.monotonic() - spoken > _SECONDS and self.running:
                    spoken = time.monotonic()
                    self.say(progress_line(self.plan, self.folder, self._jobs(), self.waiting, slots=self.slots))
        finally:
            for one in self.running:
                _kill(one.process)

    def _jobs(self) -> list[Job]:
        return [one.job for one in self.running]

    def _start(self, job: Job) -> None:
        if is_locked(self.folder, job.name):
            self.say(f"{job.name} is being run by another process")
            self.outcome.elsewhere.append(job.name)
            return
        slot = min(set(range(self.slots)) - {one.slot for one in self.running})
        environment = environment_of(slot, self.slots, self.devices)
        command = self.command(job, self.folder)
        log = self.folder / "logs" / f"{job.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            # A session of its own: the terminal's Ctrl-C reaches only this process, which then stops each job once.
            process = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        self.running.append(_Running(job, process, slot, time.monotonic()))

    def _ended(self, one: _Running) -> None:
        name, code = one.job.name, one.process.returncode
        taken = clock(time.monotonic() - one.started)
        if code != 0:
            _signal_group(one.process, signal.SIGTERM)  # a training whose job process was killed would go on unseen
        if code == 0:
            self.outcome.done.append(name)
            self.say(f"{name} done in {taken} ({len(self.outcome.done)} of {len(self.plan.jobs)} jobs)")
        elif self.outcome.signal:
            self.say(f"{name} stopped")
        elif is_locked(self.folder, name):
            self.outcome.elsewhere.append(name)
        else:
            self.outcome.failed[name] = last_line(self.folder / "logs" / f"{name}.txt")
            self.say(f"{name} FAILED after {taken}: {self.outcome.failed[name]}")

    @contextlib.contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Let signals stop the jobs softly, and a second one at once."""
        old = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup
                    old[number] = signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self.outcome.signal = number
        self.signals += 1

    def _stop_if_asked(self) -> None:
        if self.signals and not any(one.told for one in self.running):
            self.say("stopping: the trainings write a checkpoint first; once more to stop at once")
        for one in self.running:
            if self.signals > 1:
                _kill(one.process)
            elif self.signals and not one.told:
                one.process.terminate()
                one.told = True


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a job and its training at once."""
    if process.poll() is None:
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def progress_line(plan: Plan, folder: Path, running: Sequence[Job], waiting: Sequence[Job], *, slots: int) -> str:
    """How many jobs are done, what the running ones have done, and the time left at the pace so far."""
    done = len(plan.jobs) - len(running) - len(waiting)
    parts = []
    for job in running:
        iterations = _iterations(plan, job, folder)[0]
        trained = iterations >= plan.iterations
        parts.append(f"{job.name} {'testing' if trained else f'{iterations}/{plan.iterations}'}")
    left = seconds_left(plan, folder, running, waiting, slots=slots)
    end = "" if left is None else f"; {clock(left)} left"
    return f"{done} of {len(plan.jobs)} jobs ended; {', '.join(parts)}{end}"


def _iterations(plan: Plan, job: Job, folder: Path) -> tuple[int, float]:
    """Iterations and seconds of a job, over its stages."""
    found = [progress_of(stage) for stage in stages_of(plan, job, folder)]
    return sum(iterations for iterations, _ in found), sum(seconds for _, seconds in found)


def seconds_left(
    plan: Plan, folder: Path, running: Sequence[Job], waiting: Sequence[Job], *, slots: int
) -> float | None:
    """Training time left; None while no run is 10 iterations old. An unseen method counts by its networks."""
    progress = {job.name: _iterations(plan, job, folder) for job in plan.jobs}
    paces: dict[str, float] = {}
    for method in plan.methods:
        own = [progress[job.name] for job in plan.jobs if job.method == method]
        iterations, seconds = sum(one[0] for one in own), sum(one[1] for one in own)
        if iterations >= 10:
            paces[method] = seconds / iterations
    if not paces:
        return None
    networks = {method: int(about(plan.recipe_of(method))["networks"]) for method in plan.methods}
    single = sum(pace / networks[method] for method, pace in paces.items()) / len(paces)
    rest = [
        (plan.iterations - progress[job.name][0]) * paces.get(job.method, single * networks[job.method])
        for job in (*running, *waiting)
    ]
    return max(sum(rest) / slots, max(rest, default=0.0))
