"""The Medical Segmentation Decathlon (Antonelli et al., Nature Communications 2022): any of its ten tasks.

A task is a folder such as `Task04_Hippocampus` with `dataset.json`, `imagesTr/`, `labelsTr/` and `imagesTs/`.

Oddities:

- The archives hold copies of every file's name with `._` in front, left by a Mac: they are no scans.
- Several channels are the fourth axis of one file (BrainTumour, Prostate). Here each channel is a file.
- Labels of Hippocampus are partly stored as float32; their values are whole numbers.
- The test has no labels: its scans are unlabeled cases, which is what a semi-supervised run can use them for.
- Nothing says which cases show one person. In Hippocampus both sides of a person are cases of their own, so that a
  split by file puts one person on both sides. A CSV with the columns `case` and `subject` says more, if you have one.
- `dataset.json` counts its lists (`numTraining`), names classes by number and channels by `modality`.

Intensities and voxels are kept: a file of one channel is copied as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.data.case_files import grid_difference
from semi_med.data.data_list import DataList
from semi_med.data.splits import SplitCase, make_split, split_list
from semi_med.datasets.prepared import (
    MadeCase,
    PreparedDataset,
    SourceCase,
    check_source,
    finish,
    prepare_cases,
    some,
)
from semi_med.datasets.record import About, PreparedCase
from semi_med.datasets.subjects import read_subjects
from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.inference.io import case_name, read_image, read_label

FRACTIONS = {"labeled_10": 0.1, "labeled_20": 0.2}  # of the subjects that are neither for validation nor for the test
VALIDATION, TEST = 0.1, 0.2
SEED = 1

_REFERENCE = "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128, 2022"


def build_lists(about: About, cases: Mapping[str, PreparedCase], *, seed: int = SEED) -> dict[str, DataList]:
    """Seeded lists, since the Decathlon publishes none: 10 and 20 % of the training subjects labeled, and all.

    Of the labeled subjects 20 % are for the test and 10 % for validation, the same in all lists; cases without a label
    are unlabeled.

    Args:
        about: the task.
        cases: what was prepared.
        seed: of the split.
    """
    known = [SplitCase(case.listed(), stratum=case.group) for case in cases.values() if case.label]
    others = [SplitCase(case.listed(unlabeled=True)) for case in cases.values() if not case.label]
    lists = {}
    for name, fraction in {**FRACTIONS, "all_labeled": 1.0}.items():
        split = make_split(
            [*known, *others], labeled=fraction, validation=VALIDATION, test=TEST, seed=seed, of_the_rest=True
        )
        lists[f"{name}_seed{seed}"] = split_list(
            split,
            name=about.name,
            labels=about.labels,
            modality=about.modality,
            reference=about.reference,
            licence=about.licence,
        )
    return lists


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    subjects: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare a task of the Decathlon: verified, labels as whole numbers, channels apart, lists with a seed.

    Args:
        source: the folder of a task, with its `dataset.json`.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        subjects: a CSV with the columns `case` and `subject`, if it is known which cases show one person.
        progress: called with (cases done, cases in all) after each case.
        workers: threads; each holds one case in memory.

    Raises:
        InputError: if `dataset.json` is missing or wrong, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    source, target = check_source(source, target)
    task = read_task(source)
    about = _about(task, source)
    named = read_subjects(subjects) if subjects else {}
    cases = [
        replace(case, subject=named[case.name].subject, group=named[case.name].group) if case.name in named else case
        for case in _cases(task, source)
    ]
    done = prepare_cases(
        cases,
        target,
        source=source,
        about=about,
        recipe={"task": about.name, "intensities": "as stored", "subjects": bool(named)},
        make=lambda case: _make(case, about),
        progress=progress,
        workers=workers,
    )
    notes = []
    if named and (unknown := [case.name for case in cases if case.name not in named]):
        notes.append(
            f"{len(unknown)} cases are not in {Path(str(subjects)).name}, and count as subjects: {some(unknown)}"
        )
    if not named:
        notes.append("Nothing says which cases show one person; each counts as a subject of its own.")
    few = len({case.subject for case in done.entries.values() if case.label}) < _FEWEST
    if few:
        notes.append(f"Fewer than {_FEWEST} subjects have a label: no data list is written; see `semi-med split`.")
    return finish(done, {} if few else build_lists(about, done.entries), notes=notes)


_FEWEST = 20


# ---- dataset.json --------------------------------------------------------------------------------------------------


def read_task(source: Path) -> dict[str, Any]:
    """`dataset.json` of a task, whose parts have the types that are counted on.

    Raises:
        InputError: code LAYOUT or FORMAT.
    """
    path = source / "dataset.json"
    if not path.is_file():
        raise InputError(
            "there is no dataset.json in this folder",
            where=source,
            fix="Name the folder of one task, such as Task04_Hippocampus.",
            code="LAYOUT",
        )
    try:
        task = json.loads(path.read_text(encoding="utf-8-sig"))
        numbers = [list(map(int, task[key])) for key in ("labels", "modality")]
        right = all(sorted(found) == list(range(len(found))) for found in numbers) and len(numbers[0]) > 1
        right &= all({"image", "label"} <= set(entry) for entry in task["training"])
        files = [file for entry in task["training"] for file in (entry["image"], entry["label"])]
        right &= all(_inside(file) for file in (*files, *task.get("test", ())))
        if right and isinstance(task["name"], str):
            return dict(task)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(
        "keys name, labels and modality (by number, from 0 without gaps), training (image and label) and test, with "
        "paths in this folder, were wanted",
        where=path,
        fix="Take the dataset.json of the Decathlon; that of nnU-Net's second version is another format.",
        code="FORMAT",
    )


def _inside(file: Any) -> bool:
    """Whether this is a path that stays in its folder."""
    return isinstance(file, str) and not Path(file).is_absolute() and ".." not in Path(file).parts


def _about(task: Mapping[str, Any], source: Path) -> About:
    return About(
        name=f"msd_{source.resolve().name}".lower()
        if source.name.lower().startswith("task")
        else f"msd_{task['name']}".lower(),
        modality={number: str(task["modality"][number]) for number in sorted(task["modality"], key=int)},
        labels={number: str(task["labels"][number]) for number in sorted(task["labels"], key=int)},
        reference="; ".join(part for part in (_REFERENCE, str(task.get("reference", "")).strip()) if part),
        licence=str(task.get("licence", "")).strip() or "CC BY-SA 4.0",
        origin="Medical Segmentation Decathlon, http://medicaldecathlon.com",
    )


def _cases(task: Mapping[str, Any], source: Path) -> list[SourceCase]:
    problems: list[SemiMedError] = []
    pairs = [(entry["image"], entry["label"]) for entry in task["training"]] + [
        (file, None) for file in task.get("test", ())
    ]
    cases = []
    for image, label in pairs:
        files = [source / file for file in (image, label) if file]
        problems += [
            InputError(
                "dataset.json names this file, which is not there", where=path, fix="Unpack it again.", code="NOT_FOUND"
            )
            for path in files
            if not path.is_file()
        ]
        split = "training" if label else "test"
        cases.append(SourceCase(case_name(files[0]), files[0], files[1] if label else None, split=split))
    listed = {path for case in cases for path in case.files}
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        for path in sorted((source / folder).glob("*.nii*")) if (source / folder).is_dir() else ():
            if path not in listed and not path.name.startswith("."):
                problems.append(
                    InputError(
                        "dataset.json does not name this file", where=path, fix="Move it elsewhere.", code="LAYOUT"
                    )
                )
    if problems:
        raise ProblemsError(problems, title=f"{source}")
    return cases


# ---- one case ------------------------------------------------------------------------------------------------------


def _make(case: SourceCase, about: About) -> MadeCase:
    (image_file,) = case.images
    channels = len(about.modality)
    scan = read_image(image_file, channels=channels)
    found = scan.array.shape[3] if scan.array.ndim == 4 else 1
    if found != channels:
        raise InputError(
            f"{channels} channels were wanted, as dataset.json has it, this has {found}",
            where=image_file,
            fix="Get it again.",
            code="CHANNELS",
        )
    whole = channels == 1 and image_file.name.lower().endswith(".nii.gz") and not scan.warnings
    image: np.ndarray | Path = image_file if whole else scan.array
    if not case.labels:
        return MadeCase(image, None, scan.affine, scan.warnings)
    (label_file,) = case.labels
    label = read_label(label_file)
    error = grid_difference(
        label, shape=scan.array.shape[:3], affine=scan.affine, where=label_file, reference=image_file.name
    )
    if error is not None:
        raise error
    if int(label.array.max()) >= len(about.labels):
        raise InputError(
            f"labels from 0 to {len(about.labels) - 1} were wanted, as dataset.json has it, this has "
            f"{label.array.max()}",
            where=label_file,
            fix="Get it again.",
            code="LABEL_VALUES",
        )
    return MadeCase(image, label.array, scan.affine, scan.warnings)
