"""One job from beginning to end: train, then predict and measure the test section. What is done is not done again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from semi_med import launch
from semi_med.compare.locks import locked
from semi_med.compare.plan import Job, Plan
from semi_med.compare.records import fault_of, table_of, write_record
from semi_med.compare.stages import (
    Stage,
    check_bundle,
    check_same_run,
    is_started,
    is_trained,
    minutes_of,
    sha256_of,
    stages_of,
    write_origin,
)
from semi_med.data.data_list import Case, DataList, load_data_list
from semi_med.errors import InputError, ProblemsError, ResourceError, SemiMedError, TrainingError
from semi_med.files import write_atomically

Say = Callable[[str], None]


def run_job(plan: Plan, job: Job, folder: Path, *, dataset_dir: Path | None = None, say: Say = print) -> int:
    """Do what is missing of a job.

    Args:
        plan: that the job is of.
        job: one of its jobs.
        folder: of the comparison.
        dataset_dir: where the data lie on this machine; None for where the plan says.
        say: told what happens, a line at a time.

    Returns:
        0 if the job is done; 128 + n if signal n stopped its training, which can be gone on with.

    Raises:
        TrainingError: the training failed, with the last line of its log.
        InputError: the run's folder holds another run, or the data cannot be used.
        ProblemsError: test cases could not be predicted or measured; the others are kept.
        ResourceError: code BUSY, another process runs this job.
    """
    with locked(folder, job.name) as lock:
        fault = fault_of(stages_of(plan, job, folder), job, folder)
        if fault is None:
            say(f"{job.name} is done already")
            return 0
        data = dataset_dir or Path(plan.dataset_dir)
        if not data.is_dir():
            raise InputError(
                "the data set's folder is missing here", where=data, fix="Name it with --dataset-dir.", code="MISSING"
            )
        stages = stages_of(plan, job, folder, dataset_dir=data)
        if fault:
            _check_can_be_tested(stages, fault, job, folder)
            say(f"{job.name} is tested again: {fault}")
        if not (is_trained(stages[-1]) and _checked(stages[-1])):
            for stage in stages:
                if code := _train(stage, log=folder / "logs" / f"{job.name}.txt", name=job.name, say=say, lock=lock):
                    return code
        listed = load_data_list(stages[-1].data_list)
        _predict(stages[-1], listed, data, predictions_of(job, folder), say=say)
        _measure(stages, listed, data, job, folder)
        say(f"{job.name}: done")
    return 0


def is_done(plan: Plan, job: Job, folder: Path) -> bool:
    """Whether a job is trained and measured, as the plan has it and with the model that lies in its folder."""
    return fault_of(stages_of(plan, job, folder), job, folder) is None


def _check_can_be_tested(stages: Sequence[Stage], fault: str, job: Job, folder: Path) -> None:
    """Refuse to train for hours what was trained already, only because its table is not what it was.

    Raises:
        InputError: code DIFFERENT, the run is not there.
    """
    if not any(is_trained(stage) or is_started(stage) for stage in stages):
        raise InputError(
            f"{fault}, and the run that it came from is not here to be tested again",
            where=table_of(job, folder),
            fix=f"Put back the file or {stages[-1].folder}; or remove tables/{job.name}.* to train it again.",
            code="DIFFERENT",
        )


def predictions_of(job: Job, folder: Path) -> Path:
    """Folder of the job's predicted labels, `<case>_seg.nii.gz`, or `.png` where they are pictures."""
    return folder / "predictions" / job.name


def prediction_of(job: Job, folder: Path, case: str) -> Path:
    """File of a case's predicted label, whether or not it is there."""
    return _prediction(predictions_of(job, folder), case)


def _prediction(target: Path, case: str) -> Path:
    return next((path for path in _predictions(target, case) if path.is_file()), target / f"{case}_seg.nii.gz")


def _predictions(target: Path, case: str) -> list[Path]:
    return [target / f"{case}_seg{suffix}" for suffix in (".nii.gz", ".png")]


def _checked(stage: Stage) -> bool:
    check_same_run(stage)
    return True


def _train(stage: Stage, *, log: Path, name: str, say: Say, lock: int) -> int:
    """Train a stage to its last iteration unless that is there; 0, or the code of the signal that stopped it.

    The training holds the job's lock too: if this process is killed, nobody starts a second one beside it.
    """
    if is_trained(stage):
        check_same_run(stage)
        say(f"{name}: {stage.method} is trained already")
        return 0
    check_bundle(stage)
    settings = dict(stage.settings)
    if is_started(stage):
        check_same_run(stage)
        settings["resume"] = "true"
    else:
        write_origin(stage)
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"{name}: {'going on with' if 'resume' in settings else 'training'} {stage.method}, log in {log}")
    with log.open("ab") as stream:
        code = launch.run(launch.training_command(stage.bundle, settings=settings), log=stream, keep=(lock,))
    if code in (130, 143):
        say(f"{name}: stopped; the same command goes on with it")
        return code
    if code or not is_trained(stage):
        raise TrainingError(
            f"the training ended with code {code}: {last_line(log)}", where=log, fix="Look at the log", code="FAILED"
        )
    return 0


def last_line(log: Path) -> str:
    """The last line that was written to a log, without the word error."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 8192))
            lines = stream.read().decode("utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].strip().removeprefix("error: ") if lines else "it said nothing"


def _predict(stage: Stage, listed: DataList, data: Path, target: Path, *, say: Say) -> None:
    """Segment the test cases that this model has not segmented yet."""
    digest, mark = sha256_of(stage.model), target / "weights.json"
    if _mark(mark) != digest:
        for path in (path for case in listed.test for path in _predictions(target, case.name)):
            path.unlink(missing_ok=True)
        write_atomically(mark, json.dumps({"weights_sha256": digest}) + "\n")
    missing = [case for case in listed.test if not _prediction(target, case.name).is_file()]
    if missing:
        say(f"predicting {len(missing)} of {len(listed.test)} test cases")
        device = stage.settings.get("device")
        predict_cases(stage.folder, missing, data, target, device=None if device is None else str(device))


def _mark(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def predict_cases(run: Path, cases: Sequence[Case], data: Path, target: Path, *, device: str | None) -> None:
    """Segment cases with a run's networks of the last iteration; one that fails does not stop the others.

    Raises:
        ProblemsError: naming the cases that failed.
    """
    from semi_med.inference.io import write_label
    from semi_med.inference.picture_check import is_picture
    from semi_med.inference.predictor import Predictor

    predictor = Predictor.load(run, device=device)
    problems: list[SemiMedError] = []
    for case in cases:
        try:
            files = [data / file for file in case.files]
            found = predictor(files)
            suffix = ".png" if is_picture(files[0]) else ".nii.gz"
            write_label(target / f"{case.name}_seg{suffix}", found.label, affine=found.affine, axes=found.axes)
        except ResourceError:
            raise
        except SemiMedError as error:
            problems.append(error)
    if problems:
        raise ProblemsError(problems, title=f"predicting the test cases into {target}")


def _measure(stages: list[Stage], listed: DataList, data: Path, job: Job, folder: Path) -> None:
    """Write the table, and when it is whole the record that says so."""
    from semi_med.metrics.files import write_csv

    rows = measure_cases(listed, data, predictions_of(job, folder))
    write_csv(table_of(job, folder), rows)
    minutes = minutes_of(stages)
    known = None if math.isnan(minutes) else round(minutes, 3)
    iou = measure_iou(listed, data, predictions_of(job, folder))
    write_record(stages, job, folder, minutes=known, cases=len(listed.test), iou=iou)


def measure_iou(listed: DataList, data: Path, predictions: Path) -> dict[str, float]:
    """IoU of all classes over the pixels of the whole test section, as from `semi_med.metrics.iou.iou_of`."""
    from semi_med.metrics.iou import counts_of, iou_of

    pairs = {case.name: (_prediction(predictions, case.name), data / str(case.label)) for case in listed.test}
    classes = listed.structures_by_value
    return iou_of(counts_of(pairs, classes=classes, ignored=listed.ignored), classes=classes)


def measure_cases(listed: DataList, data: Path, predictions: Path) -> list[dict[str, Any]]:
    """Rows of `semi_med.metrics.evaluate` for the test section.

    Raises:
        ProblemsError: naming the cases that cannot be measured.
    """
    from semi_med.metrics.evaluate import evaluate

    classes = listed.structures_by_value
    rows: list[dict[str, Any]] = []
    problems: list[SemiMedError] = []
    for case in listed.test:
        try:
            file, label = _prediction(predictions, case.name), data / str(case.label)
            found = evaluate(file, label, classes=classes, ignored=listed.ignored, count_class_0=0 in classes)
            rows += [{**row, "case": case.name} for row in found.rows]
        except ProblemsError as error:
            problems += error.problems
        except SemiMedError as error:
            problems.append(error)
    if problems:
        raise ProblemsError(problems, title="measuring the test cases")
    return rows
