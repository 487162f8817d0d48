"""What a comparison of methods is given: finished runs, and the test cases they were measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semi_med.metrics.case import Row


@dataclass(frozen=True)
class RunResult:
    """One finished run: a method, trained with some labels from one seed, and measured on the test cases.

    Attributes:
        name: of the job, for example "cotrain_4_seed1" or "supervised_all_seed1".
        method: recipe name.
        labeled: number of labelled subjects (or scans, see `ComparisonView.unit`); None for all of the training pool.
        seed: of the run. Runs with one seed and one number of labels train on the same labelled subjects.
        folder: of the run; `logs/train.csv` and `logs/validation.csv` are looked for there.
        table: rows of `semi_med.metrics.evaluate`, one for each test case and class.
        predictions: test case to the file of its predicted label.
        minutes: training time, NaN if unknown.
        settings: exact settings of the run.
    """

    name: str
    method: str
    labeled: int | None
    seed: int
    folder: Path
    table: Sequence[Row]
    predictions: Mapping[str, Path]
    minutes: float
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class ComparisonView:
    """Everything that stands on the page of a comparison.

    Attributes:
        title: heading.
        runs: the finished runs.
        method_names: recipe name to the name shown, in order of display.
        subjects: test case to its subject; scans of one subject count as one unit.
        images: test case to the file of its image.
        labels: test case to the file of the expert's label.
        unit: what `RunResult.labeled` counts, "subject", "scan" or "picture".
        thing: what a case is called, "scan" or "picture"; a picture has no millimetres and no anatomical axes.
        baseline: recipe name of the method that the others are compared with.
        missing: jobs that are not finished.
        notes: sentences shown at the top.
        summary: settings shared by all runs (task, iterations, counts of the split, command, versions).
    """

    title: str
    runs: Sequence[RunResult]
    method_names: Mapping[str, str]
    subjects: Mapping[str, str]
    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    unit: str = "subject"
    thing: str = "scan"
    baseline: str = "supervised"
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
