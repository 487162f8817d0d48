"""BraTS 2019: gliomas in MR of the brain (Menze et al. 2015, Bakas et al. 2017 and 2018), the 335 training cases.

The download has `HGG/` (259 high grade) and `LGG/` (76 low grade) with `BraTS19_<id>/BraTS19_<id>_<what>.nii.gz` for
flair, t1, t1ce, t2 and seg; all on one grid of 240 x 240 x 155 at 1 mm, without the skull, 0 outside the brain.

Oddities:

- Labels are 0, 1 (necrotic and non-enhancing core), 2 (oedema) and **4** (enhancing); 3 does not occur. Class indices
  have no gaps here, so that 4 becomes 3.
- The challenge's regions are nested: whole tumour = 1, 2 and 3; core = 1 and 3; enhancing = 3 (indices of here).
- Each of them may be missing: many LGG have no enhancing tumour.
- `2013_*` are from earlier years, in part cases before and after an operation. Each id is one patient.

Two variants:

- `flair`, as the field's benchmark has it (SSL4MIS, TraCoCo, UA-MT): FLAIR alone, whole tumour against the rest.
- `regions`: all four modalities as channels (flair, t1, t1ce, t2), three classes.

Scans are cropped to the box of the brain, as published. Intensities are stored as they are. The published ones are cut
at the 99.9th percentile and brought to mean 0 and SD 1 over the voxels above 0, the background being moved along: that
is the bundle's (`StandardizeAboveZero`), so that it can be given any scan without a skull.

Differs from the published script: its box loses the last voxel on each axis, and its percentile is one of 256 steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from semi_med.data.case_files import grid_difference
from semi_med.data.data_list import DataList
from semi_med.datasets.boxes import box_of, moved
from semi_med.datasets.brats2019_ids import PREFIX, TEST, TRAIN, VALIDATION
from semi_med.datasets.found import by_name, files_under, layout_error, refuse_labels_alone
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
from semi_med.datasets.record import About, planned
from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.inference.io import Scan, read_image, read_label

Variant = Literal["flair", "regions"]

MODALITIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"flair": ("flair",), "regions": ("flair", "t1", "t1ce", "t2")}
)
LABELED = (25, 50)
GRADES = ("HGG", "LGG")
ENHANCING = 4  # in the files; 3 here

_NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1 with contrast agent", "t2": "T2"}
_CLASSES = {
    "flair": {"0": "background", "1": "whole tumour"},
    "regions": {"0": "background", "1": "necrotic and non-enhancing core", "2": "oedema", "3": "enhancing tumour"},
}


def about_of(variant: str) -> About:
    """The data set of a variant.

    Raises:
        InputError: code SETTING.
    """
    if variant not in MODALITIES:
        raise InputError(
            f"the variant is flair or regions, not {variant!r}", fix="See docs/datasets/brats2019.md.", code="SETTING"
        )
    return About(
        name="brats2019" if variant == "flair" else "brats2019_regions",
        modality={str(number): _NAMES[name] for number, name in enumerate(MODALITIES[variant])},
        labels=_CLASSES[variant],
        reference=(
            "Menze et al., The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS), IEEE TMI 34:1993, 2015; "
            "Bakas et al., Advancing The Cancer Genome Atlas glioma MRI collections with expert segmentation labels "
            "and radiomic features, Scientific Data 4:170117, 2017; Bakas et al., arXiv:1811.02629"
        ),
        licence="Terms of the challenge's registration: research only, cite the references, do not pass the data on",
        origin="BraTS 2019, https://www.med.upenn.edu/cbica/brats2019/data.html",
    )


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists(variant: str = "flair") -> dict[str, DataList]:
    """The data lists of a variant by file name without suffix: `labeled_25`, `labeled_50`, seeds, `all_labeled`.

    The published 250 are for training, the published 25 for validation, the published 60 for the test.

    Args:
        variant: "flair", or "regions", which has the published lists without the seeds.
    """
    about = about_of(variant)
    channels = len(MODALITIES[variant])
    train, validation, test = (
        [[planned(PREFIX + name, channels=channels)] for name in names] for names in (TRAIN, VALIDATION, TEST)
    )
    return published_lists(
        about,
        train=train,
        validation=validation,
        test=test,
        labeled=LABELED,
        unit="training cases",
        rest="Validation and test: the published ones.",
        seeds=SEEDS if variant == "flair" else (),
    )


def write_lists(folder: str | Path) -> tuple[Path, ...]:
    """Write the lists of both variants into `<folder>` and `<folder>_regions`, and name the files."""
    folder = Path(folder)
    regions = write_all(build_lists("regions"), folder.with_name(f"{folder.name}_regions"))
    return (*write_all(build_lists("flair"), folder), *regions)


# ---- preparation ---------------------------------------------------------------------------------------------------


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    variant: str = "flair",
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare BraTS 2019: cropped to the brain, intensities as they are.

    Args:
        source: a folder with `HGG` and `LGG` at any depth.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        variant: "flair" or "regions", see above.
        progress: called with (cases done, cases in all) after each case.
        workers: threads; each holds one case in memory (about 0.2 GB, 0.5 GB for four modalities).

    Raises:
        InputError: if there is no scan, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    source, target = check_source(source, target)
    about = about_of(variant)
    done = prepare_cases(
        _find(source, MODALITIES[variant]),
        target,
        source=source,
        about=about,
        recipe={"variant": variant, "crop": "brain", "intensities": "as stored"},
        make=lambda case: _make(case, whole_tumour=variant == "flair"),
        progress=progress,
        workers=workers,
    )
    lists, notes = possible_lists(done, build_lists(variant), unit="cases")
    if without := [name for name, case in done.entries.items() if case.group is None]:
        notes.append(f"{len(without)} cases lie in no folder HGG or LGG: {some(without)}")
    return finish(done, lists, notes=notes)


def _find(source: Path, modalities: tuple[str, ...]) -> list[SourceCase]:
    files = list(files_under(source))
    found = {
        what: by_name(files, rf"(?P<name>BraTS19_\w+?)_{what}\.nii(\.gz)?", where=source)
        for what in (*modalities, "seg")
    }
    names = sorted(set().union(*(found[what] for what in modalities)))
    if not names:
        raise layout_error("HGG/BraTS19_<id>/BraTS19_<id>_flair.nii.gz", where=source)
    problems: list[SemiMedError] = [
        InputError(
            f"the modality {what} of {name} is missing", where=source, fix="Unpack the case again.", code="NO_IMAGE"
        )
        for name in names
        for what in modalities
        if name not in found[what]
    ]
    if problems:
        raise ProblemsError(problems, title=f"{source}")
    refuse_labels_alone(found[modalities[0]], found["seg"], where=source)
    return [
        SourceCase(
            name, tuple(found[what][name] for what in modalities), found["seg"].get(name), group=_grade(found, name)
        )
        for name in names
    ]


def _grade(found: Mapping[str, Mapping[str, Path]], name: str) -> str | None:
    folders = {parent.name.upper() for parent in found["flair"][name].parents}
    return next((grade for grade in GRADES if grade in folders), None)


def _make(case: SourceCase, *, whole_tumour: bool) -> MadeCase:
    scans = [read_image(path) for path in case.images]
    first = scans[0]
    notes = tuple(dict.fromkeys(warning for scan in scans for warning in scan.warnings))
    for path, scan in zip(case.images[1:], scans[1:], strict=True):
        _refuse_other_grid(scan, first, path, case.images[0])
    brain = np.any([scan.array != 0 for scan in scans], axis=0)
    if not brain.any():
        raise InputError("every voxel is 0", where=case.images[0], fix="Unpack the case again.", code="CONSTANT")
    box = tuple(slice(low, high) for low, high in box_of(brain))
    image = _integers(np.stack([scan.array[box] for scan in scans], axis=-1))
    affine = moved(first.affine, [part.start for part in box])
    if not case.labels:
        return MadeCase(image, None, affine, (*notes, "no label"))
    (label_file,) = case.labels
    label = read_label(label_file)
    _refuse_other_grid(label, first, label_file, case.images[0])
    classes = _classes(label, label_file)
    if np.count_nonzero(classes) > np.count_nonzero(classes[box]):
        notes = (*notes, "part of the tumour lies outside the brain's box and was cut off")
    classes = classes[box]
    return MadeCase(image, (classes > 0).astype(np.uint8) if whole_tumour else classes, affine, notes)


def _integers(image: np.ndarray) -> np.ndarray:
    """As int16 where nothing is lost by it, which is so for the original files."""
    small = np.abs(image).max() < 32767 and not np.any(image != np.rint(image))
    return image.astype(np.int16) if small else image


def _refuse_other_grid(scan: Scan, first: Scan, path: Path, reference: Path) -> None:
    error = grid_difference(scan, shape=first.array.shape, affine=first.affine, where=path, reference=reference.name)
    if error is not None:
        raise error


def _classes(label: Scan, path: Path) -> np.ndarray:
    """The label with 3 for what the files call 4."""
    values = set(np.unique(label.array).tolist())
    if not values <= {0, 1, 2, ENHANCING}:
        raise InputError(
            f"a label of 0, 1, 2 and 4 was wanted, this has {sorted(values)[:6]}",
            where=path,
            fix="Take the challenge's own _seg file; in other years and copies the values differ.",
            code="LABEL_VALUES",
        )
    return np.where(label.array == ENHANCING, 3, label.array).astype(np.uint8)
