"""ACDC: both ventricles and the myocardium in cine MR (Bernard et al., IEEE TMI 2018), 100 training patients.

The download has `training/patient001/` with `Info.cfg`, `patient001_4d.nii.gz`, and for the two phases that are labeled
`patient001_frame01.nii.gz` with `patient001_frame01_gt.nii.gz` and `patient001_frame12...`. A folder `testing/` has
patients 101 to 150, which the published split of the field does not use.

Oddities:

- Which frame is end-diastole (ED) and which end-systole (ES) is said by `Info.cfg` (`ED: 1`, `ES: 12`) only: ED is not
  always frame 1, and not always the earlier one (patient 90). Here a case is called `patient001_ED`; the field's lists
  call the earlier file frame01 and the later one frame02.
- Labels: 1 right ventricle, 2 myocardium, 3 left ventricle. Other data sets of the heart have 1 and 3 the other way.
- Slices are 5 to 10 mm apart and 1.4 to 1.9 mm wide; breath holds shift them against each other.
- Intensities have no common scale: as published, each frame is scaled to 0 to 1 by its own minimum and maximum.

Two variants: `volumes`, one case a frame; `slices`, one case a slice, numbered from 1 as the published list has them,
not resampled (training zooms them to 256 x 256; figures are those of whole volumes, after zooming back). The published
numbers 1, 3, 7 and 14 labeled patients are 32, 68, 136 and 256 labeled slices of 1312.

**All frames and slices of a patient stay in one section.**
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from semi_med.data.case_files import grid_difference
from semi_med.data.data_list import DataList
from semi_med.datasets.acdc_ids import SLICES, TEST, TRAIN, VALIDATION
from semi_med.datasets.found import files_under, layout_error
from semi_med.datasets.lists import SEEDS, possible_lists, published_lists, write_all
from semi_med.datasets.prepared import (
    MadeCase,
    PreparedDataset,
    SourceCase,
    check_source,
    finish,
    prepare_cases,
    some,
)
from semi_med.datasets.record import About, PreparedCase, planned
from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.inference.io import read_image, read_label

LABELED = (1, 3, 7, 14)
PHASES = ("ED", "ES")
VARIANTS = ("volumes", "slices")
ABOUT = About(
    name="acdc",
    modality={"0": "cine MR"},
    labels={"0": "background", "1": "right ventricle", "2": "myocardium", "3": "left ventricle"},
    reference=(
        "Bernard et al., Deep learning techniques for automatic MRI cardiac multi-structures segmentation and "
        "diagnosis: is the problem solved?, IEEE TMI 37:2514, 2018"
    ),
    licence="CC BY-NC-SA 4.0 as the challenge states it; cite the reference",
    origin="Automated Cardiac Diagnosis Challenge, https://www.creatis.insa-lyon.fr/Challenge/acdc/",
)


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists(slices: Mapping[str, Sequence[str]] | None = None) -> dict[str, DataList]:
    """The data lists by file name without suffix: `labeled_01`, `_03`, `_07`, `_14` patients, seeds, `all_labeled`.

    The published 70 patients are for training, 10 for validation, 20 for the test.

    Args:
        slices: of the variant `slices` the names of each patient's cases; None for the variant `volumes`.
    """
    train, validation, test = (
        [_patient(number, slices) for number in numbers] for numbers in (TRAIN, VALIDATION, TEST)
    )
    return published_lists(
        ABOUT,
        train=train,
        validation=validation,
        test=test,
        labeled=LABELED,
        unit="training patients",
        rest="Validation and test: the published patients.",
        seeds=SEEDS,
    )


def _patient(number: int, slices: Mapping[str, Sequence[str]] | None) -> list[PreparedCase]:
    subject = f"patient{number:03d}"
    names = [f"{subject}_{phase}" for phase in PHASES] if slices is None else slices.get(subject, ())
    return [planned(name, subject=subject) for name in names]


def write_lists(folder: str | Path) -> tuple[Path, ...]:
    """Write the lists of the variant `volumes` as `<name>.json`, and name the files."""
    return write_all(build_lists(), folder)


# ---- preparation ---------------------------------------------------------------------------------------------------


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    variant: str = "volumes",
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare ACDC: the two labeled frames of each patient, as volumes or as slices, scaled to 0 to 1.

    Args:
        source: a folder with `patient001` and so on at any depth.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        variant: "volumes" or "slices".
        progress: called with (cases done, cases in all) after each case.
        workers: threads.

    Raises:
        InputError: if there is no patient, or the target holds something else.
        ProblemsError: listing everything that is at fault; whole cases are written, and a next call keeps them.
    """
    source, target = check_source(source, target)
    if variant not in VARIANTS:
        raise InputError(f"the variant is volumes or slices, not {variant!r}", code="SETTING")
    frames = _find(source)
    done = prepare_cases(
        frames if variant == "volumes" else [one for frame in frames for one in _slices_of(frame)],
        target,
        source=source,
        about=ABOUT,
        recipe={"variant": variant, "intensities": "0 to 1 by minimum and maximum of the frame"},
        make=_make,
        progress=progress,
        workers=workers,
    )
    lists, notes = _lists_of(done, variant)
    if held := sorted({case.subject for case in done.entries.values() if case.split == "testing"}):
        notes.append(f"{len(held)} patients of the challenge's own test are prepared too: {some(held)}")
    return finish(done, lists, notes=notes)


def _lists_of(done: PreparedDataset, variant: str) -> tuple[dict[str, DataList], list[str]]:
    if variant == "volumes":
        return possible_lists(done, build_lists(), unit="volumes")
    slices: dict[str, list[str]] = {}
    for name, case in done.entries.items():
        slices.setdefault(case.subject, []).append(name)
    subjects = [f"patient{number:03d}" for number in (*TRAIN, *VALIDATION)]
    if missing := [name for name in subjects if name not in slices]:
        text = f"{len(missing)} of the {len(subjects)} patients for training and validation are not there"
        return {}, [f"{text}, so no data list is written: {some(missing)}"]
    lists, notes = possible_lists(done, build_lists(slices), unit="slices")
    published = {f"patient{number:03d}": 2 * count for number, count in zip(TRAIN, SLICES, strict=True)}
    if other := [name for name, count in published.items() if len(slices[name]) != count]:
        notes.append(f"{len(other)} patients have not as many slices as in the published list: {some(other)}")
    return lists, notes


def _find(source: Path) -> list[SourceCase]:
    files = list(files_under(source))
    infos: dict[str, Path] = {}
    for path in files:
        if path.name == "Info.cfg" and re.fullmatch(r"patient\d{3}", path.parent.name):
            if path.parent.name in infos:
                twice = f"this patient is there twice, also as {infos[path.parent.name].parent}"
                raise InputError(twice, where=path.parent, fix="Remove one.", code="DUPLICATE")
            infos[path.parent.name] = path
    if not infos:
        raise layout_error("patient001/Info.cfg", where=source)
    known = set(files)
    problems: list[SemiMedError] = []
    cases: list[SourceCase] = []
    for _, info in sorted(infos.items()):
        try:
            cases += _frames(info, known)
        except SemiMedError as error:
            problems.append(error)
    if problems:
        raise ProblemsError(problems, title=f"{source}")
    return cases


def _frames(info: Path, known: set[Path]) -> list[SourceCase]:
    facts, name = read_info(info), info.parent.name
    cases = []
    for phase in PHASES:
        stem = info.parent / f"{name}_frame{facts[phase]:0>2}"
        image, label = (
            next((path for path in (Path(f"{stem}{end}.nii.gz"), Path(f"{stem}{end}.nii")) if path in known), None)
            for end in ("", "_gt")
        )
        if image is None:
            raise InputError(
                f"{stem.name}.nii.gz is missing, which Info.cfg names as {phase}",
                where=info.parent,
                fix="Unpack the patient again.",
                code="NO_IMAGE",
            )
        cases.append(
            SourceCase(
                f"{name}_{phase}",
                image,
                label,
                extra={"info": info},
                subject=name,
                group=facts.get("Group"),
                split=next((p.name for p in info.parents if p.name in ("training", "testing")), None),
                details={"frame": int(facts[phase]), "phase": phase},
            )
        )
    return cases


def read_info(path: Path) -> dict[str, str]:
    """The lines `name: value` of an `Info.cfg`, among them whole numbers ED and ES.

    Raises:
        InputError: code FORMAT.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if any(not re.fullmatch(r"\d+", facts.get(phase, "")) for phase in PHASES):
        raise InputError(
            "lines `ED: <frame>` and `ES: <frame>` were wanted", where=path, fix="Get the file again.", code="FORMAT"
        )
    return facts


def _slices_of(frame: SourceCase) -> Iterable[SourceCase]:
    (image,) = frame.images
    count = read_image(image).array.shape[2]
    for number in range(1, count + 1):
        yield SourceCase(
            f"{frame.name}_slice_{number:02d}",
            frame.image,
            frame.label,
            extra=frame.extra,
            subject=frame.subject,
            group=frame.group,
            split=frame.split,
            details={**frame.details, "slice": number},
        )


def _make(case: SourceCase) -> MadeCase:
    (image_file,) = case.images
    scan = read_image(image_file)
    low, high = float(scan.array.min()), float(scan.array.max())
    if low == high:
        raise InputError("every voxel has the same value", where=image_file, fix="Get it again.", code="CONSTANT")
    image, notes, label = (scan.array - low) / (high - low), scan.warnings, None
    if case.labels:
        (label_file,) = case.labels
        drawn = read_label(label_file)
        error = grid_difference(
            drawn, shape=scan.array.shape, affine=scan.affine, where=label_file, reference=image_file.name
        )
        if error is not None:
            raise error
        if int(drawn.array.max()) > 3:
            raise InputError(
                f"a label of 0 to 3 was wanted, this has {drawn.array.max()}", where=label_file, code="LABEL_VALUES"
            )
        label = drawn.array
    else:
        notes = (*notes, "no label")
    affine = scan.affine
    if (number := case.details.get("slice")) is not None:
        image, label = image[..., number - 1], None if label is None else label[..., number - 1]
        affine = affine.copy()
        affine[:3, 3] = (scan.affine @ np.array([0, 0, number - 1, 1]))[:3]
    return MadeCase(image, label, affine, notes)
