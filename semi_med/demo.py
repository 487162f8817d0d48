"""The demo: on drawn hearts, is a network better for having seen unlabelled scans too?

Nothing here is chosen on the test phantoms: both trainings have the same length, the same seed and the settings of
the recipe, which were set on the validation phantoms, and the networks compared are those of the last iteration.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_med.cli_text import clock
from semi_med.data.data_list import DataList, load_data_list
from semi_med.errors import InputError, TrainingError
from semi_med.files import write_atomically
from semi_med.launch import training_command
from semi_med.metrics import evaluate
from semi_med.recipes.compose import compose, compose_config
from semi_med.report import CaseView, RunView, write_run_report
from semi_med.report.verdict import judge

NAMES = {"cotrain": "co-training", "supervised": "supervised only"}
RECORD = "demo.json"
_PARTS = ("data", "bundles", "runs", "predictions", "logs")
_SECONDS = 15.0  # between lines of progress
NOTES = (
    "Supervised only learns from 4 labelled scans, co-training from the same 4 and 16 unlabelled ones.",
    "The scans are drawings. Nothing here says anything about patients or about real scans.",
    "One seed of one drawing proves nothing about a method: with another seed the difference may be smaller, larger "
    "or of the other sign.",
    "Both networks were trained for the same number of iterations with the same seed and settings; co-training also "
    "trains a second network and takes several times as long for an iteration.",
    "Settings were chosen on the 4 validation phantoms; the 8 test phantoms were used once, for the figures below.",
)


@dataclass(frozen=True)
class DemoResult:
    """What came out: the report's path, the verdict in words, and the mean Dice on the test by run."""

    report: Path
    headline: str
    sentences: tuple[str, ...]
    dice: dict[str, float]


def run_demo(
    folder: str | Path,
    *,
    iterations: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    cases: Mapping[str, int] | None = None,
    settings: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> DemoResult:
    """Draw, train twice, predict, evaluate, report.

    Args:
        folder: missing or empty; or, with `overwrite`, an earlier demo.
        iterations: of both trainings; None for the recipe's.
        seed: of both trainings; the drawings do not depend on it.
        overwrite: replace an earlier demo.
        cases: number of drawings by section; None for the demo's own.
        settings: overrides for both trainings.
        say: told what happens, a line at a time.

    Raises:
        InputError: the folder holds something else, or an earlier demo that is not to be replaced.
        TrainingError: a training ended early; its log is named.
    """
    from semi_med.datasets import phantom

    folder, started = Path(folder).absolute(), time.monotonic()
    _open_folder(folder, overwrite=overwrite)
    counts = phantom.CASES if cases is None else cases
    total = iterations or int(compose_config("train", method="cotrain", task="phantom")["max_iterations"])
    write_atomically(folder / RECORD, json.dumps({"iterations": total, "seed": seed, "cases": dict(counts)}) + "\n")

    say(f"drawing {sum(counts.values())} phantoms")
    listed = load_data_list(phantom.prepare(folder / "data", cases=counts))
    say(f"training twice for {total} iterations: {', '.join(NAMES)}")
    minutes = _train_both(folder, {"max_iterations": total, "seed": seed, **(settings or {})}, total=total, say=say)
    tables = {method: _measure(method, folder, listed, say=say) for method in NAMES}

    runs = [
        RunView(NAMES[method], folder / "runs" / method, tables[method], _settings_of(folder, method), minutes[method])
        for method in NAMES
    ]
    report = write_run_report(
        folder / "report.html",
        title="Do unlabelled scans help? A demo on drawings",
        runs=runs,
        cases=_case_views(folder, listed),
        notes=NOTES,
    )
    verdict = judge(runs[0], runs[1])
    say(f"done in {clock(time.monotonic() - started)}")
    return DemoResult(report, verdict.headline, verdict.sentences, {m: _mean_dice(t) for m, t in tables.items()})


def _open_folder(folder: Path, *, overwrite: bool) -> None:
    """Make the folder ready; only what a demo wrote is ever removed."""
    if folder.exists() and not folder.is_dir():
        raise InputError("a folder was wanted, this is a file", where=folder, fix="Choose another.", code="TARGET")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / RECORD).is_file():
        raise InputError("the folder is not empty", where=folder, fix="Choose another with -o.", code="OUTPUT_EXISTS")
    if not overwrite:
        fix = "Look at its report.html, add --overwrite to replace it, or choose another with -o."
        raise InputError("the folder holds a demo", where=folder, fix=fix, code="OUTPUT_EXISTS")
    for part in _PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / "report.html").unlink(missing_ok=True)


def _train_both(
    folder: Path, settings: Mapping[str, Any], *, total: int, say: Callable[[str], None]
) -> dict[str, float]:
    """Train side by side, each with its share of the cores; minutes by method."""
    cores = os.cpu_count() or 1
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores // len(NAMES)))}
    (folder / "logs").mkdir(exist_ok=True)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    minutes: dict[str, float] = {}
    started = time.monotonic()
    try:
        for method in NAMES:
            bundle = compose(method, "phantom", folder / "bundles" / f"{method}_phantom")
            paths = {"dataset_dir": folder / "data", "output_dir": folder / "runs" / method}
            command = training_command(bundle, settings={**paths, **settings})
            with (folder / "logs" / f"{method}.txt").open("wb") as log:
                processes[method] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        spoken = time.monotonic()
        while len(minutes) < len(processes):
            time.sleep(0.2)
            for method, process in processes.items():
                if method not in minutes and process.poll() is not None:
                    minutes[method] = (time.monotonic() - started) / 60
                    _check_ended(process.returncode, folder / "logs" / f"{method}.txt")
            if time.monotonic() - spoken > _SECONDS and len(minutes) < len(processes):
                spoken = time.monotonic()
                say(_progress(folder, total=total, seconds=spoken - started))
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
                process.wait()
    return minutes


def _check_ended(code: int, log: Path) -> None:
    if code == 0:
        return
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1].removeprefix("error: ") if lines else "it said nothing"
    raise TrainingError(f"the training ended with code {code}: {last}", where=log, fix="Look at the log", code="FAILED")


def _progress(folder: Path, *, total: int, seconds: float) -> str:
    done = {method: _iterations_done(folder / "runs" / method / "logs" / "train.csv") for method in NAMES}
    slowest = min(done.values())
    left = f", {clock(seconds / slowest * (total - slowest))} left" if slowest >= 10 else ""
    return ", ".join(f"{method} {count}/{total}" for method, count in done.items()) + left


def _iterations_done(log: Path) -> int:
    try:
        with log.open(encoding="utf-8", newline="") as stream:
            return max((int(row["iteration"]) for row in csv.DictReader(stream)), default=0)
    except (OSError, KeyError, TypeError, ValueError):  # not there yet, or half a line
        return 0


def _measure(method: str, folder: Path, listed: DataList, *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Predict and evaluate the test phantoms."""
    from semi_med.inference.batch import predict

    images = [folder / "data" / file for case in listed.test for file in case.files]
    output = folder / "predictions" / method
    say(f"predicting {len(images)} test phantoms with {method}")
    rows = predict(folder / "runs" / method, images, output)
    if failed := [row for row in rows if row["status"] == "failed"]:
        raise TrainingError(
            f"{len(failed)} test phantoms could not be predicted, the first: {failed[0]['error']}", where=output
        )
    classes = {int(value): name for value, name in listed.labels.items()}
    names = [case.name for case in listed.test]
    table = folder / "predictions" / f"{method}.csv"
    return evaluate(output, folder / "data" / "labels", output=table, classes=classes, cases=names).rows


def _settings_of(folder: Path, method: str) -> dict[str, Any]:
    settings = json.loads((folder / "runs" / method / "run.json").read_text(encoding="utf-8"))["settings"]
    return {name: value for name, value in settings.items() if name not in ("dataset_dir", "data_list_file")}


def _case_views(folder: Path, listed: DataList) -> list[CaseView]:
    return [
        CaseView(
            case.name,
            folder / "data" / case.files[0],
            folder / "data" / str(case.label),
            {NAMES[m]: folder / "predictions" / m / f"{case.name}_seg.nii.gz" for m in NAMES},
        )
        for case in listed.test
    ]


def _mean_dice(rows: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(row["dice"] for row in rows) / len(rows))
