"""What `semi-med compare` does: plan, run what is missing, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semi_med.compare.job import run_job
from semi_med.compare.local import Outcome, run_all
from semi_med.compare.plan import RECORD, Plan, read_plan
from semi_med.compare.planning import Request, prepare_plan
from semi_med.errors import InputError, TrainingError

if TYPE_CHECKING:
    from semi_med.compare.collect import Report

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What came out; `report` is None where nothing could be reported."""

    plan: Plan
    outcome: Outcome
    report: Report | None


def compare(request: Request, *, jobs: int | None = None, say: Say = print) -> Result:
    """Plan or go on with a comparison, run all its jobs here, and report.

    Args:
        request: what is asked for.
        jobs: how many at a time; None for as many as the machine allows.
        say: told what happens, a line at a time.

    Raises:
        InputError: the request cannot be met; nothing was run.
        TrainingError: every job failed, so that there is nothing to report.
    """
    folder = request.folder.absolute()
    plan = prepare_plan(request)
    for note in plan.notes:
        say(f"note: {note}")
    outcome = run_all(plan, folder, jobs=jobs, say=say)
    if outcome.signal:
        return Result(plan, outcome, None)
    if not outcome.done:
        if outcome.elsewhere:
            return Result(plan, outcome, None)
        name, line = next(iter(outcome.failed.items()))
        raise TrainingError(
            f"all {len(plan.jobs)} jobs failed, {name}: {line}", where=folder / "logs" / f"{name}.txt", code="FAILED"
        )
    return Result(plan, outcome, _report(plan, folder, request.dataset_dir))


def run_one(folder: Path, wanted: str, *, dataset_dir: Path | None = None, say: Say = print) -> int:
    """Run one job of a plan by name or number, from 1; its exit code. No report is made."""
    folder = folder.absolute()
    plan = planned(folder)
    place = None if dataset_dir is None else dataset_dir.absolute()
    return run_job(plan, plan.job(wanted), folder, dataset_dir=place, say=say)


def report_only(folder: Path, *, dataset_dir: Path | None = None) -> Report:
    """The report of what is finished, also while jobs run."""
    folder = folder.absolute()
    return _report(planned(folder), folder, dataset_dir)


def _report(plan: Plan, folder: Path, dataset_dir: Path | None) -> Report:
    from semi_med.compare.collect import write_report  # figures are heavy, and a job draws none

    return write_report(plan, folder, dataset_dir=None if dataset_dir is None else dataset_dir.absolute())


def planned(folder: Path) -> Plan:
    """The plan of a folder.

    Raises:
        InputError: there is none.
    """
    plan = read_plan(folder)
    if plan is None:
        raise InputError(
            f"there is no comparison here ({RECORD} is missing)",
            where=folder,
            fix="Name its folder with -o; --plan-only makes one.",
            code="NO_PLAN",
        )
    return plan
