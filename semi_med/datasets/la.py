"""LA: the left atrium in late-gadolinium MR, of the 2018 Atrial Segmentation Challenge (Xiong et al., MedIA 2021).

The challenge's own layout is `<case>/lgemri.nrrd` with `<case>/laendo.nrrd`, whose label has the value 255; 88 slices,
0.625 mm isotropic. Copies that are cropped round the atrium are in use too: a folder `images/` with a folder `labels/`
of the same file names.

Two things to know about every published figure on LA, ours included:

- The scans are cropped round the *expert's label*, those of the test too, so that the region of interest is given away.
- The field's script enlarges the label's box to at least 112 x 112 x 80 voxels and adds a margin of 10 to 20 voxels in
  x and y drawn at random without a seed, so that no two copies are equal. It computes a box in z as well and does not
  apply it: all slices are kept.

Differs from the published script: the margin is 15 voxels on each side, always; the box takes in its last voxel, which
the script counts into the margin; it is never smaller than 112 x 112 where the scan is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from semi_med.data.case_files import grid_difference
from semi_med.data.data_list import DataList
from semi_med.datasets.boxes import crop_interval, moved
from semi_med.datasets.la_ids import TEST, TRAIN
from semi_med.datasets.lists import possible_lists, published_lists, write_all
from semi_med.datasets.prepared import (
    MadeCase,
    PreparedDataset,
    SourceCase,
    check_source,
    finish,
    prepare_cases,
)
from semi_med.datasets.record import About, planned
from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.inference.io import IMAGE_SUFFIXES, Scan, case_name, read_image, read_label

LEAST = (112, 112)  # voxels along i and j
MARGIN = 15  # voxels at each side along i and j
LABELED = (4, 8, 16)
VALIDATION = 4

_REFERENCE = (
    "Xiong et al., A global benchmark of algorithms for segmenting the left atrium from late gadolinium-enhanced "
    "cardiac magnetic resonance imaging, Medical Image Analysis 67:101832, 2021"
)
_LICENCE = "Challenge data without a licence text: research only, cite the reference"
ABOUT = About(
    name="la",
    modality={"0": "LGE-MR"},
    labels={"0": "background", "1": "left atrium"},
    reference=_REFERENCE,
    licence=_LICENCE,
    origin="2018 Atrial Segmentation Challenge, https://atriaseg2018.cardiacatlas.org",
)


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists(train_ids: Sequence[str] = TRAIN, test_ids: Sequence[str] = TEST) -> dict[str, DataList]:
    """The data lists of LA by file name without suffix.

    `labeled_04`, `_08`, `_16`: labeled are the first training scans, as published. `..._seed1` to `_seed3`: labeled
    are drawn at random; for one seed the 4 are among the 8 and those among the 16. `all_labeled`: the upper bound. In
    all of them the last 4 training scans are the validation section, which published runs do not have, and the test is
    the published one.

    Args:
        train_ids: training scans in the published order, at least 20.
        test_ids: test scans.

    Raises:
        InputError: if there are too few training scans, or an id occurs twice.
    """
    ids = [*train_ids, *test_ids]
    if len(train_ids) < max(LABELED) + VALIDATION or len(set(ids)) < len(ids):
        raise InputError(
            f"at least {max(LABELED) + VALIDATION} training scans and no id twice were wanted, "
            f"got {len(train_ids)} training scans and {len(ids) - len(set(ids))} repeated ids",
            where="LA",
        )
    train, test = ([[planned(name)] for name in names] for names in (train_ids, test_ids))
    return published_lists(
        ABOUT,
        train=train[:-VALIDATION],
        validation=train[-VALIDATION:],
        test=test,
        labeled=LABELED,
        unit="training scans",
        rest=f"Validation: the last {VALIDATION} training scans of the published order, the same in every list and "
        "taken from the unlabeled ones. Test: the published test scans.",
    )


def write_lists(folder: str | Path) -> tuple[Path, ...]:
    """Write the lists of the published split as `<name>.json`, and name the files."""
    return write_all(build_lists(), folder)


# ---- preparation ---------------------------------------------------------------------------------------------------


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare LA: `target/images`, `target/labels`, and its data lists if all 80 training scans are there.

    From the challenge's layout each scan is normalised to mean 0 and standard deviation 1 over the whole image, then
    cropped (see above), written as float32 with its place in space kept. A scan without a label cannot be cropped: it
    is normalised, kept whole and reported. A folder that is cropped already is verified; its intensities stay as they
    are, and its labels are written as 0 and 1.

    Args:
        source: a folder with `<case>/lgemri.nrrd` at any depth, or with `images/` and `labels/`.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        progress: called with (cases done, cases in all) after each case.
        workers: threads; each holds one case in memory (about 0.5 GB for the challenge's scans).

    Raises:
        InputError: if there is no scan, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    source, target = check_source(source, target)
    raw = _find_challenge(source)
    cases = raw or _find_cropped(source)
    recipe = {"from": "challenge" if raw else "cropped", "least": list(LEAST), "margin": MARGIN}
    make = _crop_case if raw else _verify_case
    done = prepare_cases(
        cases,
        target,
        source=source,
        about=ABOUT,
        recipe=recipe,
        make=make,
        progress=progress,
        workers=workers,
    )
    lists, notes = possible_lists(done, build_lists(), unit="scans")
    if not raw:
        notes = ["The scans were cropped before; their intensities are kept as they were.", *notes]
    return finish(done, lists, notes=notes)


# ---- the challenge's own files -------------------------------------------------------------------------------------


def _find_challenge(source: Path) -> list[SourceCase]:
    folders: dict[str, Path] = {}
    problems: list[SemiMedError] = []
    for folder in sorted({path.parent for name in ("lgemri.nrrd", "laendo.nrrd") for path in source.rglob(name)}):
        if not (folder / "lgemri.nrrd").exists():
            problems.append(_no_image(folder / "laendo.nrrd", "lgemri.nrrd"))
        elif folder.name in folders:
            problems.append(
                InputError(
                    f"this case is there twice, also as {folders[folder.name]}",
                    where=folder,
                    fix="Remove one.",
                    code="DUPLICATE",
                )
            )
        folders[folder.name] = folder
    if problems:
        raise ProblemsError(problems, title=f"{source}")
    labels = {name: folder / "laendo.nrrd" for name, folder in folders.items()}
    return [
        SourceCase(name, folder / "lgemri.nrrd", labels[name] if labels[name].exists() else None)
        for name, folder in sorted(folders.items())
    ]


def _crop_case(case: SourceCase) -> MadeCase:
    (image_file,) = case.images
    scan = read_image(image_file)
    mean, deviation = scan.array.mean(dtype=np.float64), scan.array.std(dtype=np.float64)
    if deviation == 0:
        raise InputError("every voxel has the same value", where=image_file, fix="Export it again.", code="CONSTANT")
    image = (scan.array - np.float32(mean)) / np.float32(deviation)
    if not case.labels:
        return MadeCase(image, None, scan.affine, (*scan.warnings, "no label: kept whole, not cropped"))
    (label_file,) = case.labels
    label, notes = _read_atrium(label_file), scan.warnings
    error = grid_difference(label, shape=image.shape, affine=scan.affine, where=label_file, reference=image_file.name)
    if error is not None and label.array.shape != image.shape:
        raise error
    if error is not None:  # the published script pairs the voxels and never looks at the headers
        notes = (*notes, "the label's header places it elsewhere; voxels are paired as they are stored")
    found = np.argwhere(label.array.any(axis=2))
    if not found.size:
        raise InputError(
            "the label is empty, so there is nothing to crop round", where=label_file, fix="Get the file again."
        )
    low, high = found.min(axis=0), found.max(axis=0) + 1
    (i0, i1), (j0, j1) = (
        crop_interval(int(low[axis]), int(high[axis]), image.shape[axis], least=LEAST[axis], margin=MARGIN)
        for axis in (0, 1)
    )
    return MadeCase(image[i0:i1, j0:j1], label.array[i0:i1, j0:j1], moved(scan.affine, (i0, j0, 0)), notes)


def _read_atrium(path: Path) -> Scan:
    """The label with 1 for the left atrium, which the challenge's files write as 255."""
    label = read_label(path)
    highest = int(label.array.max())
    if highest not in (0, 1, 255) or np.any((label.array != 0) & (label.array != highest)):
        values = [str(value) for value in np.unique(label.array)[:5]]
        raise InputError(
            f"a label of 0 and 255, or of 0 and 1, was wanted, this has {', '.join(values)}",
            where=path,
            fix="Take the challenge's laendo.nrrd, which shows the left atrium only.",
            code="LABEL_VALUES",
        )
    return Scan((label.array > 0).astype(np.uint8), label.affine, label.warnings)


def _no_image(label: Path, wanted: str) -> InputError:
    return InputError(f"there is no image {wanted} for this label", where=label, fix="Add it.", code="NO_IMAGE")


# ---- a folder that is cropped already ------------------------------------------------------------------------------


def _find_cropped(source: Path) -> list[SourceCase]:
    if not (source / "images").is_dir():
        raise InputError(
            "neither <case>/lgemri.nrrd nor a folder images/ was found here",
            where=source,
            fix="Name the folder that the challenge's archive was unpacked to, or one with images/ and labels/.",
            code="LAYOUT",
        )
    problems: list[SemiMedError] = []
    images, labels = (_scans_by_name(source / folder, problems) for folder in ("images", "labels"))
    problems.extend(_no_image(labels[name], f"images/{name}") for name in labels if name not in images)
    if not images:
        problems.append(InputError("there is no scan", where=source / "images", fix="Add some.", code="NO_CASES"))
    if problems:
        raise ProblemsError(problems, title=f"{source}")
    return [SourceCase(name, images[name], labels.get(name)) for name in images]


def _scans_by_name(folder: Path, problems: list[SemiMedError]) -> dict[str, Path]:
    """The scans of a folder by case; what is no scan, and a second scan of one case, is added to `problems`."""
    scans: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = case_name(path)
        if path.name.startswith("."):
            continue
        if name == path.name or name in scans:
            what = f"a second scan of the case {name}" if name in scans else f"no scan ({', '.join(IMAGE_SUFFIXES)})"
            problems.append(InputError(f"this is {what}", where=path, fix="Move it elsewhere.", code="LAYOUT"))
        else:
            scans[name] = path
    return scans


def _verify_case(case: SourceCase) -> MadeCase:
    (image_file,) = case.images
    scan = read_image(image_file)
    # a sound file is copied as it is: its integers stay exact and small
    whole = image_file.name.lower().endswith(".nii.gz") and not scan.warnings
    image = image_file if whole else scan.array
    if not case.labels:
        return MadeCase(image, None, scan.affine, (*scan.warnings, "no label"))
    (label_file,) = case.labels
    label = _read_atrium(label_file)
    error = grid_difference(
        label, shape=scan.array.shape, affine=scan.affine, where=label_file, reference=image_file.name
    )
    if error is not None:
        raise error
    return MadeCase(image, label.array, scan.affine, scan.warnings)
