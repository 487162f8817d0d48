"""CAMUS: echocardiograms of two and four chambers (Leclerc et al., IEEE Transactions on Medical Imaging, 2019).

Two editions of the same pictures are in use; both have four pictures a patient, `2CH` and `4CH` at end-diastole (`ED`)
and end-systole (`ES`):

- MetaImage: `<training or testing>/patient0001/patient0001_2CH_ED.mhd` with its `.raw`, and `..._ED_gt.mhd`. Patients 1
  to 450 are those of the challenge's training; the 50 of its test came without labels.
- NIfTI: `database_nifti/patient0001/patient0001_2CH_ED.nii.gz` and `..._ED_gt.nii.gz`, all 500 patients with labels;
  beside it `database_split/subgroup_{training,validation,testing}.txt`.

Oddities:

- Pictures differ in size, and pixels are not square (about 0.31 mm along a row, 0.15 mm along a column). Both are kept,
  so that distances can be measured in mm. i runs along the rows, from left to right, j away from the probe.
- A file may have two axes or a third of length 1; both are read. The place in space is that of the probe, not of the
  patient.
- Labels are 0 background, 1 left ventricular cavity, 2 myocardium, 3 left atrium. What the challenge calls *epicardium*
  is 1 and 2 together.
- `Info_2CH.cfg` and `Info_4CH.cfg` give picture quality and ejection fraction, kept as details; sex and age are left.
- Sequences (`_sequence`, `_half_sequence`) are not used. About 2 % of them run from ES to ED.

FixMatchSeg takes 1000, 400 and 400 of 1800 pictures for training, validation and test. These are exactly 250, 100 and
100 patients of four pictures, but that paper does not say that patients were kept together. Here they always are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from semi_med.data.case_files import grid_difference
from semi_med.data.data_list import DataList
from semi_med.datasets.found import by_name, files_under, layout_error, refuse_labels_alone
from semi_med.datasets.lists import SEEDS, SPLIT_SEED, Parts, drawn_lists, shuffled, write_all
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
from semi_med.errors import InputError
from semi_med.inference.byte_check import check_regular_file, decoding
from semi_med.inference.pictures import (
    read_flat_image,
    read_flat_label,
    resize_image,
    resize_label,
    resized_affine,
    smallest_type,
    wrong_values,
)

LABELED = (4, 8, 16, 32, 64, 100)  # pictures, four of each patient
CHALLENGE_PATIENTS = tuple(f"patient{number:04d}" for number in range(1, 451))
PARTS = (250, 100, 100)  # patients for training, validation, test
VIEWS = ("2CH_ED", "2CH_ES", "4CH_ED", "4CH_ES")

ABOUT = About(
    name="camus",
    modality={"0": "ultrasound"},
    labels={"0": "background", "1": "left ventricular cavity", "2": "myocardium", "3": "left atrium"},
    reference=(
        "Leclerc et al., Deep learning for segmentation using an open large-scale dataset in 2D echocardiography, "
        "IEEE Transactions on Medical Imaging 38(9):2198-2210, 2019"
    ),
    licence="Free for research after registration; not to be passed on; cite the reference",
    origin="CREATIS, https://www.creatis.insa-lyon.fr/Challenge/camus",
)

_SUFFIX = r"(?:\.mhd|\.nii\.gz|\.nii)"
_FRAME = r"(?P<name>patient\d{4}_[24]CH_E[DS])"


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare CAMUS: each picture as a slice with its spacing, intensities as they are.

    Args:
        source: a folder with `patient0001_2CH_ED.mhd` or `.nii.gz` and so on at any depth, of one edition.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        size: columns and rows of every picture after resampling (320 for FixMatchSeg); None keeps them as they are.
        progress: called with (cases done, cases in all) after each case.
        workers: threads.

    Raises:
        InputError: if there is no picture, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    source, target = check_source(source, target)
    files = list(files_under(source))
    splits = _read_splits(files)
    cases, edition = _find(files, source, splits)
    done = prepare_cases(
        cases,
        target,
        source=source,
        about=ABOUT,
        recipe={"edition": edition, "size": size},
        make=lambda case: _make(case, size=size),
        progress=progress,
        workers=workers,
    )
    lists, notes = _possible_lists(done, splits)
    return finish(done, lists, notes=notes)


# ---- files ---------------------------------------------------------------------------------------------------------


def _find(
    files: list[Path], source: Path, splits: Mapping[str, Mapping[str, Sequence[str]]]
) -> tuple[list[SourceCase], str]:
    images = by_name(files, _FRAME + _SUFFIX, where=source)
    labels = by_name(files, rf"{_FRAME}_gt{_SUFFIX}", where=source)
    infos = {(path.parent, path.stem[-3:].upper()): path for path in files if re.fullmatch(_INFO, path.name, re.I)}
    if not images:
        raise layout_error("patient0001_2CH_ED.mhd or patient0001_2CH_ED.nii.gz", where=source)
    refuse_labels_alone(images, labels, where=source)
    suffixes = {"mhd" if path.suffix.lower() == ".mhd" else "nifti" for path in (*images.values(), *labels.values())}
    if len(suffixes) > 1:
        raise InputError(
            "this folder holds both editions, MetaImage and NIfTI", where=source, fix="Name one.", code="LAYOUT"
        )
    (split,) = splits.values() if len(splits) == 1 else ({},)
    part_of = {patient: part for part, patients in split.items() for patient in patients}
    cases = [
        _source_case(name, images[name], labels.get(name), infos, part_of.get(name[:11].lower()))
        for name in sorted(images)
    ]
    return cases, suffixes.pop()


_INFO = r"Info_[24]CH\.cfg"


def _source_case(
    name: str, image: Path, label: Path | None, infos: Mapping[tuple[Path, str], Path], split: str | None
) -> SourceCase:
    info = infos.get((image.parent, name[12:15].upper()))
    pixels = (path.with_suffix(".raw") for path in (image, label) if path is not None)
    return SourceCase(
        name,
        image,
        label,
        extra={**({"info": info} if info else {}), **{path.name: path for path in pixels if path.exists()}},
        subject=name[:11],
        group=name[12:],
        split=split,
        details=_quality(info) if info else {},
    )


def _quality(info: Path) -> dict[str, str | float]:
    """Picture quality and ejection fraction in percent, of what `Info_2CH.cfg` says."""
    check_regular_file(info)
    lines = (line.partition(":") for line in info.read_text(encoding="utf-8", errors="replace").splitlines())
    facts = {key.strip().lower(): value.strip() for key, _, value in lines}
    found: dict[str, str | float] = {"quality": facts["imagequality"]} if facts.get("imagequality") else {}
    fraction = facts.get("ef") or facts.get("lvef")
    if fraction and re.fullmatch(r"\d+(\.\d+)?", fraction):
        found["ejection_fraction"] = float(fraction)
    return found


def _read_splits(files: list[Path]) -> dict[str, dict[str, list[str]]]:
    """The published splits that are there: patients of each part, by the number of the fold (empty for the only one).

    Raises:
        InputError: code SPLIT, if a file names anything but patients or a patient twice; NOT_FOUND, if a part misses.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for path in files:
        match = re.fullmatch(r"subgroup(\d*)_(training|validation|testing)\.txt", path.name, re.IGNORECASE)
        if not match:
            continue
        names = path.read_text(encoding="utf-8", errors="replace").split()
        others = [name for name in names if not re.fullmatch(r"patient\d{4}", name)]
        parts = found.setdefault(match[1], {})
        earlier = [name for part in parts.values() for name in part]
        if others or len(set(names) | set(earlier)) < len(names) + len(earlier) or not names:
            raise InputError(
                f"one patient a line was wanted, none twice in a split, got {some(others) or 'one that is repeated'}",
                where=path,
                fix="Get the file again.",
                code="SPLIT",
            )
        parts[match[2].lower()] = names
    for number, parts in found.items():
        if missing := {"training", "validation", "testing"} - parts.keys():
            name = f"subgroup{number}_{missing.pop()}.txt"
            raise InputError("this part of a published split is missing", where=name, fix="Add it.", code="NOT_FOUND")
    return found


# ---- one picture ---------------------------------------------------------------------------------------------------


def _make(case: SourceCase, *, size: int | None) -> MadeCase:
    with decoding(case.images[0]):  # a NIfTI file of two axes is unpacked a second time, outside the door
        scan = read_flat_image(case.images[0])
    image, affine, notes = smallest_type(scan.array), scan.affine, scan.warnings
    label = None
    if case.labels:
        with decoding(case.labels[0]):
            read = read_flat_label(case.labels[0])
        label = read.array
        error = grid_difference(
            replace(read, array=label[..., np.newaxis]),
            shape=(*image.shape, 1),
            affine=affine,
            where=case.labels[0],
            reference=case.images[0].name,
        )
        if error is not None and label.shape != image.shape:
            raise error
        if error is not None:
            notes = (*notes, "the label's header places it elsewhere; pixels are paired as they are stored")
        if label.max() > 3:
            raise wrong_values(label, wanted="0 to 3", where=case.labels[0])
    if size is not None:
        affine = resized_affine(affine, image.shape, (size, size))
        image = resize_image(image, (size, size))
        label = None if label is None else resize_label(label, (size, size))
    return MadeCase(image, label, affine, notes)


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists(cases: Mapping[str, PreparedCase], *, seeds: Sequence[int] = SEEDS) -> dict[str, DataList]:
    """The data lists of FixMatchSeg: 250, 100 and 100 of the challenge's 450 patients, drawn with seed 0.

    `labeled_004_seed1` has 4 labeled pictures, those of one patient; and so on to 100 pictures of 25 patients.

    Args:
        cases: by name, with all four pictures and labels of patients 1 to 450.
        seeds: of the draws of labeled patients.
    """
    order = shuffled(CHALLENGE_PATIENTS, seed=SPLIT_SEED)
    ends = np.cumsum(PARTS)
    train, validation, test = (sorted(order[end - n : end]) for n, end in zip(PARTS, ends, strict=True))
    rest = (
        "Each patient has four pictures. Training, validation and test are 250, 100 and 100 of the challenge's 450 "
        f"patients, drawn with seed {SPLIT_SEED}: the numbers of FixMatchSeg, which does not name its patients."
    )
    parts, counts = Parts(train, validation, test), _patients(LABELED)
    return drawn_lists(ABOUT, cases, parts, counts=counts, unit="patients", rest=rest, seeds=seeds)


def write_lists(folder: str | Path) -> tuple[Path, ...]:
    """Write the lists of the first seed, and name the files; those of the other seeds come with the preparation.

    Each list names 1800 pictures; names are known without them.
    """
    names = [f"{patient}_{view}" for patient in CHALLENGE_PATIENTS for view in VIEWS]
    cases = {name: planned(name, subject=name[:11]) for name in names}
    return write_all(build_lists(cases, seeds=SEEDS[:1]), folder)


def _patients(pictures: Sequence[int]) -> dict[str, int]:
    return {f"{count:03d}": count // len(VIEWS) for count in pictures}


def _official_lists(
    cases: Mapping[str, PreparedCase], number: str, split: Mapping[str, Sequence[str]]
) -> dict[str, DataList]:
    fold = f" fold {number}" if number else ""
    rest = f"Each patient has four pictures. Training, validation and test are the data set's own split{fold}."
    parts = Parts(split["training"], split["validation"], split["testing"])
    few = {name: count for name, count in _patients(LABELED).items() if count <= len(parts.train)}
    prefix = f"official{number}_"
    return drawn_lists(ABOUT, cases, parts, counts=few, unit="patients", rest=rest, seeds=SEEDS, prefix=prefix)


def _possible_lists(
    done: PreparedDataset, splits: Mapping[str, Mapping[str, Sequence[str]]]
) -> tuple[dict[str, DataList], list[str]]:
    """The lists whose patients are all there, and why others are not."""
    counts: dict[str, int] = {}
    for case in done.entries.values():
        counts[case.subject] = counts.get(case.subject, 0) + (case.label is not None)
    whole = {patient for patient, count in counts.items() if count == len(VIEWS)}
    lists: dict[str, DataList] = {}
    notes = []
    if partly := sorted(set(counts) - whole):
        notes.append(f"{len(partly)} patients have not all four pictures with labels: {some(partly)}")
    if missing := sorted(set(CHALLENGE_PATIENTS) - whole):
        notes.append(f"{len(missing)} of the challenge's 450 patients are not whole, so FixMatchSeg has no lists here")
    else:
        lists |= build_lists(done.entries)
    for number, split in sorted(splits.items()):
        if missing := sorted({patient for part in split.values() for patient in part} - whole):
            notes.append(
                f"split {number or 'of the data set'}: {len(missing)} patients are not whole, so it has no lists "
                f"here: {some(missing)}"
            )
        else:
            lists |= _official_lists(done.entries, number, split)
    return lists, notes
