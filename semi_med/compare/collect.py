"""The report of a comparison, from the jobs that are finished."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_med.compare.job import prediction_of
from semi_med.compare.lists import shows_pictures
from semi_med.compare.plan import Job, Plan, task_of
from semi_med.compare.records import fault_of, is_old, record_of, table_of
from semi_med.compare.stages import Stage, stages_of
from semi_med.data.data_list import DataList, load_data_list
from semi_med.data.subsets import subject_of
from semi_med.errors import InputError
from semi_med.report.comparison_views import ComparisonView, RunResult

_PLACES = ("bundle_root", "dataset_dir", "output_dir", "data_list_file", "pretrained", "resume", "cache_dir")
_NOT_TOLD = (*_PLACES, "rank", "world_size", "unlabeled_data", "needs_unlabeled", "run", "training", "labeled")
_COMPONENTS = (
    *("network_def", "peer_def", "method", "optimizer", "lr_scheduler", "labeled_augment", "unlabeled_augment"),
    *("train#labeled_view", "train#unlabeled_view"),
    *("discriminator_def", "discriminator_optimizer", "randaugment", "ctaugment"),
)


@dataclass(frozen=True)
class Report:
    """The files written, and the verdicts in words."""

    written: tuple[Path, ...]
    sentences: tuple[str, ...]
    missing: tuple[str, ...]


def write_report(plan: Plan, folder: Path, *, dataset_dir: Path | None = None) -> Report:
    """Write `comparison.html`, `comparison.csv`, `summary.csv` and `iou.csv` of what is finished.

    Args:
        plan: with its jobs.
        folder: of the comparison.
        dataset_dir: where the data lie on this machine; None for where the plan says.

    Raises:
        InputError: no job is finished.
    """
    from semi_med.report.comparison import verdict_sentences, write_comparison

    view = collect(plan, folder, dataset_dir=dataset_dir)
    written = [*write_comparison(folder, view), *_write_iou(plan, folder, view)]
    return Report(tuple(written), tuple(verdict_sentences(view)), tuple(view.missing))


def _write_iou(plan: Plan, folder: Path, view: ComparisonView) -> list[Path]:
    """`iou.csv`: mean and SD over seeds of each class's IoU, of the runs whose record has it."""
    from semi_med.metrics.files import write_csv
    from semi_med.metrics.iou import IOU_COLUMNS, over_seeds

    runs: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    finished = {run.name for run in view.runs}
    for job in plan.jobs:
        found = (record_of(job, folder) or {}).get("iou") if job.name in finished else None
        if found:
            labeled = "all" if job.labeled is None else str(job.labeled)
            values = {name: math.nan if value is None else float(value) for name, value in found.items()}
            runs.setdefault((job.method, labeled), {})[job.seed] = values
    return [write_csv(folder / "iou.csv", over_seeds(runs), columns=IOU_COLUMNS)] if runs else []


def collect(plan: Plan, folder: Path, *, dataset_dir: Path | None = None) -> ComparisonView:
    """Everything that stands on the page.

    Raises:
        InputError: no job is finished, or the data are not there.
    """
    data = dataset_dir or Path(plan.dataset_dir)
    faults = {job.name: fault_of(stages_of(plan, job, folder), job, folder) for job in plan.jobs}
    finished = [job for job in plan.jobs if faults[job.name] is None]
    if not finished:
        raise InputError(
            f"none of the {len(plan.jobs)} jobs is finished, so that there is nothing to report",
            where=folder,
            fix="Run them: without --report-only, or line by line from jobs.txt.",
            code="NO_RUNS",
        )
    if not data.is_dir():
        raise InputError(
            "the data set's folder is missing here", where=data, fix="Name it with --dataset-dir.", code="MISSING"
        )
    listed = load_data_list(folder / "lists" / f"{finished[0].data_list}.json")
    thing = "picture" if shows_pictures(listed) else "scan"
    return ComparisonView(
        title=f"{_title(plan, folder)}: did the unlabelled {thing}s help?",
        runs=[_result(plan, job, folder, listed) for job in finished],
        method_names={method: plan.title_of(method) for method in plan.methods},
        subjects={case.name: subject_of(case) for case in listed.test},
        images={case.name: data / case.files[0] for case in listed.test},
        labels={case.name: data / str(case.label) for case in listed.test},
        unit=plan.unit,
        thing=thing,
        missing=[job.name for job in plan.jobs if job not in finished],
        notes=(_NOTE.replace("scans", f"{thing}s"), *plan.notes, *_notes_on(faults, finished, folder)),
        summary=_summary(plan, listed, thing=thing),
    )


_NOTE = (
    "All methods train on the same labelled scans of a seed, for the same number of iterations, and are measured with "
    "the networks of the last iteration. Nothing was chosen on the test scans."
)


def _notes_on(faults: Mapping[str, str | None], finished: Sequence[Job], folder: Path) -> list[str]:
    """Tables that were left out because they are not what was measured, and those that cannot say what they are."""
    notes = [
        f"{name} is left out: {fault}. The next start tests it again if its run is there."
        for name, fault in faults.items()
        if fault
    ]
    old = [job.name for job in finished if is_old(record_of(job, folder) or {})]
    if old:
        notes.append(
            f"{len(old)} of {len(finished)} tables were measured by an earlier version, which did not note what they "
            "were made from; they are taken as they are. To have them checked, remove their tables/*.json and start "
            "again: predictions are kept, and only measured anew."
        )
    return notes


def _title(plan: Plan, folder: Path) -> str:
    return str(task_of(plan.task, folder).about["title"])


def _result(plan: Plan, job: Job, folder: Path, listed: DataList) -> RunResult:
    from semi_med.metrics.files import read_table

    minutes = (record_of(job, folder) or {}).get("minutes")
    return RunResult(
        name=job.name,
        method=job.method,
        labeled=job.labeled,
        seed=job.seed,
        folder=folder / "runs" / job.name,
        table=read_table(table_of(job, folder)),
        predictions={case.name: prediction_of(job, folder, case.name) for case in listed.test},
        minutes=math.nan if minutes is None else float(minutes),
        settings=settings_of(plan, job, folder),
    )


def settings_of(plan: Plan, job: Job, folder: Path) -> dict[str, Any]:
    """All that a run was trained with: its recipe's numbers and what was changed, without places on a machine."""
    *earlier, last = stages_of(plan, job, folder)
    found = {**_of_config(last.folder / "configs" / "train.json"), **_of_record(last)}
    shown = {
        name: value
        for name, value in found.items()
        if name.split("#")[-1] not in _NOT_TOLD and not (isinstance(value, str) and Path(value).is_absolute())
    }
    for stage in earlier:
        shown["earlier run"] = f"{stage.method}, {stage.iterations} iterations"
    return {**shown, "data list": job.data_list}


def _of_record(stage: Stage) -> dict[str, Any]:
    """What the run itself wrote down, what was changed last."""
    try:
        record = json.loads((stage.folder / "run.json").read_text(encoding="utf-8"))
        return {**record["settings"], **record["changed"]}
    except (OSError, ValueError, KeyError, TypeError):
        return dict(stage.settings)


def _of_config(path: Path) -> dict[str, Any]:
    """The numbers and words of a configuration: those on top, and those of the components that decide a training."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = {name: value for name, value in config.items() if _is_plain(value)}
    for name in _COMPONENTS:
        part: Any = config
        for key in name.split("#"):
            part = part.get(key) if isinstance(part, Mapping) else None
        for key, value in part.items() if isinstance(part, Mapping) else ():
            if _is_plain(value):
                found[f"{name}#{key}".replace("#_target_", "")] = value
    return found


def _is_plain(value: Any) -> bool:
    """Neither an expression, a reference nor a component."""
    if isinstance(value, list):
        return bool(value) and all(_is_plain(one) for one in value)
    return not isinstance(value, Mapping) and not (isinstance(value, str) and value.startswith(("$", "@", "%")))


def _summary(plan: Plan, listed: DataList, *, thing: str) -> dict[str, Any]:
    training = [*listed.labeled, *listed.unlabeled]
    counts: Mapping[str, list[Any]] = {"training": training, "validation": listed.validation, "test": listed.test}
    split = {
        name: f"{len(cases)} {thing}s of {len({subject_of(case) for case in cases})} subjects"
        for name, cases in counts.items()
    }
    own = [
        f"{method + ':' if method else ''}{n}={v}" for method, part in plan.settings.items() for n, v in part.items()
    ]
    return {
        "task": plan.task,
        "iterations": plan.iterations,
        "seeds": ", ".join(map(str, plan.seeds)),
        **{f"{name} section": text for name, text in split.items()},
        f"{plan.unit}s with known labels": plan.pool,
        "data list": f"{plan.base['source']}, SHA-256 {plan.base['sha256'][:16]}",
        "settings of all runs": ", ".join(own) or "those of the recipes",
        "command": command_of(plan),
    }


def command_of(plan: Plan) -> str:
    """The command that gives the same plan, without places on a machine."""
    arms = [f"{name}={plan.variants[name]}" if name in plan.variants else name for name in plan.methods]
    words = ["semi-med", "compare", "--task", _asked(plan), "--methods", *arms]
    words += [
        "--labeled",
        *map(str, plan.labeled),
        "--seeds",
        str(len(plan.seeds)),
        "--iterations",
        str(plan.iterations),
    ]
    settings = [
        f"{m + ':' if m else ''}{name}={value}" for m, part in plan.settings.items() for name, value in part.items()
    ]
    words += ["--set", *settings] if settings else []
    words += [] if plan.all_labels else ["--no-all-labels"]
    return f"{shlex.join(words)} --dataset-dir <data> -o <folder>"


def _asked(plan: Plan) -> str:
    """The task's name, or the path of the person's own; what lies before the name in a whole path stays private."""
    if not plan.asked:
        return plan.task
    path = Path(plan.asked)
    return f"./{path.name if path.is_absolute() else path}"
