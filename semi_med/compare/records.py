"""What is known about a job that was measured: its table, and the record of what the table was made from."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semi_med.compare.plan import Job
from semi_med.compare.stages import Stage, course_of, sha256_of
from semi_med.data.data_list import load_data_list
from semi_med.files import write_atomically


def table_of(job: Job, folder: Path) -> Path:
    """The job's metrics, a row for each test case and class."""
    return folder / "tables" / f"{job.name}.csv"


def record_path(job: Job, folder: Path) -> Path:
    """Beside the table: what it was made from."""
    return folder / "tables" / f"{job.name}.json"


def record_of(job: Job, folder: Path) -> dict[str, Any] | None:
    """What was noted when the job had been measured; None if nothing readable was."""
    try:
        return dict(json.loads(record_path(job, folder).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_record(
    stages: Sequence[Stage], job: Job, folder: Path, *, minutes: float | None, cases: int, iou: Mapping[str, float]
) -> None:
    """Note what a table was made from; written last, it says that the job is done.

    Args:
        stages: of the job.
        job: that was measured.
        folder: of the comparison.
        minutes: that its training took; None if that is not known.
        cases: of the test section.
        iou: as from `semi_med.metrics.iou.iou_of`.
    """
    content = {
        "table_sha256": sha256_of(table_of(job, folder)),
        "weights_sha256": sha256_of(stages[-1].model),
        "course": course_of(stages),
        "minutes": minutes,
        "cases": cases,
        "iou": {name: None if math.isnan(value) else value for name, value in iou.items()},
    }
    write_atomically(record_path(job, folder), json.dumps(content, indent=2) + "\n")


def is_old(record: Mapping[str, Any]) -> bool:
    """Whether an earlier version wrote it, which did not say what the table was made from."""
    return "table_sha256" not in record or "course" not in record


def fault_of(stages: Sequence[Stage], job: Job, folder: Path) -> str | None:
    """Why a job does not count as done: None if it does, "" if it was never measured, else what is wrong.

    Table and record alone are enough; a run that is there must hold the model that was measured.
    """
    table, record, model = table_of(job, folder), record_of(job, folder), stages[-1].model
    if record is None or not table.is_file():
        return "" if record is None and not table.is_file() else _half(table)
    if is_old(record):
        if (found := _cases_in(table)) != _cases_wanted(stages[-1]):
            return f"the table does not hold the test cases of its list, but {len(found)} others"
    elif sha256_of(table) != record["table_sha256"]:
        return "the table was changed after it was measured"
    elif differing := _differing(record["course"], course_of(stages)):
        return f"the table was measured with {differing}"
    if model.is_file() and sha256_of(model) != record.get("weights_sha256"):
        return "the table was measured with another model than that in the run's folder"
    return None


def _half(table: Path) -> str:
    record = table.with_suffix(".json")
    there, missing = (table, record) if table.is_file() else (record, table)
    return f"{there.name} is there without {missing.name}"


def _differing(theirs: Any, ours: Sequence[Mapping[str, Any]]) -> str:
    """In words what differs between two courses, "" if nothing does."""
    if not isinstance(theirs, list) or len(theirs) != len(ours) or not all(isinstance(one, dict) for one in theirs):
        return "another number of trainings"
    words = [
        f"{name} {_short(found.get(name))} instead of {_short(wanted.get(name))}"
        for found, wanted in zip(map(_flat, theirs), map(_flat, ours), strict=True)
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _flat(course: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in course.items() if name != "settings"}, **course.get("settings", {})}


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _cases_in(table: Path) -> set[str]:
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            return {str(row.get("case")) for row in csv.DictReader(stream)}
    except (OSError, ValueError, csv.Error):
        return set()


def _cases_wanted(stage: Stage) -> set[str]:
    return {case.name for case in load_data_list(stage.data_list).test}
