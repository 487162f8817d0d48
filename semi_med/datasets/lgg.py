"""LGG: tumours in slices of brain MR, lower-grade gliomas of TCGA (Buda et al., Comput. Biol. Med., 2019).

`kaggle_3m/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1.tif` and `..._1_mask.tif`: a folder for each of 110 patients,
named by institution, patient and date; 256 x 256 pixels, 8 bits.

Oddities:

- The three colours of a slice are three MR contrasts: before contrast agent, FLAIR, after it. Where a patient lacks the
  first or the last, FLAIR stands in its place, so that channels are equal.
- Slices are numbered without leading zeros: `_10` follows `_1` in the order of names, not of the head.
- Neither spacing nor orientation is kept in the files. Slices are stored as pictures; a volume made of them says 1 mm
  in all directions, which is a stand-in: distances on it are in voxels.
- Labels have 0 and 255; most slices have no tumour. They show what is bright on FLAIR, not the tumour's core.
- In some patients the air of a channel is not 0 but a grey of its own (about 80 of 255).
- `data.csv` (genomic clusters) and `README.md` beside the folders are not used.

`variant="slices"` keeps each slice as published. `variant="buda"` makes volumes the way the data set's authors train:
first and last slice dropped; intensities below a tenth of the highest set to 0; cut to the smallest box round the rest;
padded to a square; resampled to 256 x 256; clipped to the 10th and 99th percentile of the volume, all three channels
together; each channel brought to mean 0 and SD 1. Resampling gives each volume a scale of its own.

SegMatch trains on 100 patients and reports on 10. The authors of the data set draw 10 of the 110 with seed 42 of
Python's generator; these are the test here, since SegMatch does not name its own. Their published figure of 0.91 was
reached with the checkpoint that was best on the same 10.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from semi_med.data.data_list import DataList
from semi_med.datasets.found import by_name, files_under, layout_error, refuse_labels_alone
from semi_med.datasets.lists import SPLIT_SEED, Parts, drawn_lists, shuffled
from semi_med.datasets.photographs import make_photograph
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
from semi_med.errors import InputError
from semi_med.inference.pictures import check_same_size, read_drawing, read_photograph, two_valued

VARIANTS = ("slices", "buda")
PATIENTS, TEST, VALIDATION = 110, 10, 5
TEST_SEED = 42  # as the data set's authors draw their validation patients
LABELED = (5, 10, 20, 50)  # patients; SegMatch does not give its numbers
SIZE = 256

ABOUT = About(
    name="lgg",
    modality={"0": "MR before contrast agent", "1": "FLAIR", "2": "MR after contrast agent"},
    labels={"0": "background", "1": "FLAIR abnormality"},
    reference=(
        "Buda et al., Association of genomic subtypes of lower-grade gliomas with shape features automatically "
        "extracted by a deep learning algorithm, Computers in Biology and Medicine 109:218-225, 2019"
    ),
    licence="Believed CC BY-NC-SA 4.0, not confirmed here: research only; cite the reference",
    origin="https://www.kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation, images from The Cancer Imaging Archive",
)

_SLICE = r"(?P<name>TCGA_[A-Z0-9]{2}_[A-Z0-9]{4}_\d{8}_\d+)"


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    variant: str = "slices",
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare LGG: slices as published, or the volumes that the data set's authors train on.

    Args:
        source: a folder with `TCGA_CS_4941_19960909_1.tif` and so on at any depth.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        variant: "slices" or "buda", see above.
        progress: called with (cases done, cases in all) after each case.
        workers: threads.

    Raises:
        InputError: if there is no slice, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    if variant not in VARIANTS:
        raise InputError(f"one of {', '.join(VARIANTS)} was wanted, got {variant!r}", code="SETTING")
    source, target = check_source(source, target)
    slices = _find(source)
    cases = slices if variant == "slices" else _by_patient(slices)
    make = _make_slice if variant == "slices" else _make_volume
    done = prepare_cases(
        cases,
        target,
        source=source,
        about=ABOUT,
        recipe={"variant": variant},
        make=make,
        progress=progress,
        workers=workers,
    )
    lists, notes = _possible_lists(done)
    return finish(done, lists, notes=notes)


# ---- files ---------------------------------------------------------------------------------------------------------


def _find(source: Path) -> list[SourceCase]:
    files = list(files_under(source))
    images = by_name(files, rf"{_SLICE}\.tif", where=source)
    labels = by_name(files, rf"{_SLICE}_mask\.tif", where=source)
    if not images:
        raise layout_error("kaggle_3m/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1.tif", where=source)
    refuse_labels_alone(images, labels, where=source)
    return [
        SourceCase(name, images[name], labels.get(name), subject=patient_of(name), group=name.split("_")[1])
        for name in sorted(images, key=_in_head)
    ]


def patient_of(case: str) -> str:
    """Institution and patient of a slice or volume: `TCGA_CS_4941`."""
    return "_".join(case.split("_")[:3])


def _in_head(slice_name: str) -> tuple[str, int]:
    scan, number = slice_name.rsplit("_", 1)
    return scan, int(number)


def _by_patient(slices: Sequence[SourceCase]) -> list[SourceCase]:
    """One case for each scan; its slices in the order of the head."""
    scans: dict[str, list[SourceCase]] = {}
    for case in slices:
        scans.setdefault(_in_head(case.name)[0], []).append(case)
    made = []
    for name, members in scans.items():
        if without := [case.name for case in members if case.label is None]:
            raise InputError(
                f"{len(without)} slices have no label: {some(without)}", where=name, fix="Get them.", code="NO_LABEL"
            )
        numbers = [_in_head(case.name)[1] for case in members]
        if missing := sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers)):
            raise InputError(
                f"slices are missing: {some([str(number) for number in missing])}",
                where=name,
                fix="Unpack the archive again.",
                code="NO_CASES",
            )
        images = tuple(case.images[0] for case in members)
        labels = tuple(case.labels[0] for case in members)
        made.append(SourceCase(name, images, labels, subject=patient_of(name), group=members[0].group))
    return made


# ---- one slice, one volume -----------------------------------------------------------------------------------------


def _read_label(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    drawn, notes = read_drawing(path)
    return two_valued(drawn, where=path), notes


def _make_slice(case: SourceCase) -> MadeCase:
    return make_photograph(case, read_label=_read_label)


def _make_volume(case: SourceCase) -> MadeCase:
    pictures: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for image_file, label_file in zip(case.images[1:-1], case.labels[1:-1], strict=True):
        image, label = read_photograph(image_file)[0], _read_label(label_file)[0]
        check_same_size(label, image, where=label_file, reference=image_file.name)
        check_same_size(label, (pictures or [image])[0], where=label_file, reference="the first slice")
        pictures.append(image)
        labels.append(label)
    if not pictures:
        raise InputError("at least three slices are wanted", where=case.name, fix="Get the others.", code="NO_CASES")
    image, label, box = buda_volume(np.stack(pictures, axis=2), np.stack(labels, axis=2), where=case.name)
    return MadeCase(image, label, np.diag([-1.0, -1.0, 1.0, 1.0]), details={"box": box})


def buda_volume(
    image: np.ndarray, label: np.ndarray, *, size: int = SIZE, where: str = "volume"
) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """A volume as the data set's authors train on it, see the head of this module.

    Args:
        image: (i, j, k, 3) uint8.
        label: (i, j, k).
        size: columns and rows to resample to.
        where: for the error.

    Returns:
        (size, size, k', 3) float32, (size, size, k') uint8, and the box that was cut out: first voxel and the one after
        the last along i, j, k.

    Raises:
        InputError: code CONSTANT, if a channel is the same everywhere.
    """
    kept = np.where(image < image.max() * 0.1, 0, image)
    box = []
    for axis in range(3):
        others = tuple(a for a in range(4) if a != axis)
        filled = np.flatnonzero(kept.any(axis=others))
        if not filled.size:
            raise InputError("every voxel has the same value", where=where, fix="Get the files again.", code="CONSTANT")
        box.append([int(filled[0]), int(filled[-1]) + 1])
    cut = tuple(slice(low, high) for low, high in box)
    kept, label = _square(kept[cut]), _square(label[cut])
    image = np.stack([_resized(kept[:, :, k], size, order=2) for k in range(kept.shape[2])], axis=2)
    label = np.stack([_resized(label[:, :, k], size, order=0) for k in range(label.shape[2])], axis=2)
    low, high = np.percentile(image, (10, 99))
    image = np.clip(image, low, high)
    mean, deviation = image.mean(axis=(0, 1, 2)), image.std(axis=(0, 1, 2))
    if not deviation.all():
        raise InputError("a channel has the same value everywhere", where=where, code="CONSTANT")
    return ((image - mean) / deviation).astype(np.float32), label.astype(np.uint8), box


def _resized(picture: np.ndarray, size: int, *, order: int) -> np.ndarray:
    """(i, j[, c]) resampled to `size` x `size` by splines of an order, in float64; between slices nothing is mixed."""
    from skimage.transform import resize

    if picture.ndim == 3:
        channels = [_resized(picture[..., c], size, order=order) for c in range(picture.shape[2])]
        return np.stack(channels, axis=2)
    return resize(picture.astype(np.float64), (size, size), order=order, mode="constant", cval=0, anti_aliasing=False)


def _square(array: np.ndarray) -> np.ndarray:
    """Zeros at both sides of the shorter of i and j, the odd one after."""
    most = max(array.shape[:2])
    lacks = [most - array.shape[axis] for axis in (0, 1)]
    return np.pad(array, [(lack // 2, lack - lack // 2) for lack in lacks] + [(0, 0)] * (array.ndim - 2))


# ---- lists ---------------------------------------------------------------------------------------------------------


def published_test(scans: Sequence[str]) -> list[str]:
    """The ten that the data set's authors hold out, of the names of all 110 folders.

    Raises:
        InputError: code NO_CASES, if there are not 110: the draw would be another one.
    """
    if len(set(scans)) != PATIENTS:
        raise InputError(f"{PATIENTS} scans are wanted, got {len(set(scans))}", where=ABOUT.name, code="NO_CASES")
    return random.Random(TEST_SEED).sample(sorted(set(scans)), TEST)


def build_lists(cases: Mapping[str, PreparedCase]) -> dict[str, DataList]:
    """Lists of 5, 10, 20 and 50 labeled patients, and of all; the test is that of the data set's authors.

    Args:
        cases: slices or volumes of all 110 patients, by name.
    """
    test = {patient_of(scan) for scan in published_test(_scans(cases))}
    order = shuffled({case.subject for case in cases.values()} - test, seed=SPLIT_SEED)
    validation, train = order[:VALIDATION], order[VALIDATION:]
    rest = (
        f"Test: the {TEST} patients that the data set's authors draw with seed {TEST_SEED}. Validation: "
        f"{VALIDATION} of the other 100, drawn with seed {SPLIT_SEED}; neither they nor SegMatch have one beside "
        "the test."
    )
    return drawn_lists(
        ABOUT,
        cases,
        Parts(sorted(train), sorted(validation), sorted(test)),
        counts={f"{count:02d}": count for count in LABELED},
        unit="patients",
        rest=rest,
    )


def _scans(cases: Mapping[str, PreparedCase]) -> list[str]:
    """Names of the source's folders: a slice's name without its number, a volume's as it is."""
    return sorted({match[0] for name in cases if (match := re.match(r"TCGA_\w{2}_\w{4}_\d{8}", name))})


def _possible_lists(done: PreparedDataset) -> tuple[dict[str, DataList], list[str]]:
    scans = _scans(done.entries)
    if len(scans) != PATIENTS or done.without_label:
        text = f"{len(scans)} scans are there, {len(done.without_label)} slices without a label"
        return {}, [f"{text}; the published draw needs all {PATIENTS}, so no data list is written."]
    return build_lists(done.entries), []
