"""COVID-19 CT: findings in 100 slices of chest CT (MedSeg, from the Italian Society of Radiology, 2020).

Two volumes of 512 x 512 x 100 voxels: `tr_im.nii.gz` and `tr_mask.nii.gz`. They are no volumes: each of their 100
slices is a picture of its own, of more than 40 patients, made from JPEG files.

Oddities:

- Labels are 1 ground glass, 2 consolidation, 3 pleural effusion.
- Intensities were brought back towards Hounsfield units with air at -1000 and fat at -100; they are kept as they are.
- The first axis runs along the rows of a slice, from left to right, the second down its columns. Viewers that read
  rows first show slices lying on their side.
- Voxel sizes in the header are stand-ins: the pictures came without.
- Which slices show the same patient is *not published*, and some patients have several. However the slices are divided,
  a patient can be on both sides, so that figures on them are too good. The subject is the slice, for want of anything
  better; nothing here can mend that.
- `val_im.nii.gz` (10 slices without labels), the lung masks and the nine volumes of the second release are not used.

SupMix takes 70, 10 and 20 slices of a copy by QMENTA at 256 x 256, and does not use the 10. That copy's division is not
at hand: it is drawn with seed 0 here, or in the order of the file (`ordered`), which keeps neighbours together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from semi_med.data.data_list import DataList
from semi_med.datasets.found import by_name, files_under, layout_error
from semi_med.datasets.lists import SPLIT_SEED, Parts, drawn_lists, shuffled, write_all
from semi_med.datasets.prepared import MadeCase, PreparedDataset, SourceCase, check_source, finish, prepare_cases
from semi_med.datasets.record import About, PreparedCase, planned
from semi_med.errors import InputError
from semi_med.inference.io import Scan, read_image, read_label
from semi_med.inference.pictures import resize_image, resize_label, resized_affine, smallest_type, wrong_values

SLICES = 100
PARTS = (70, 10, 20)  # training, validation, test
LABELED = (9, 18)  # an eighth and a quarter of 70

ABOUT = About(
    name="covid19_ct",
    modality={"0": "CT"},
    labels={"0": "background", "1": "ground glass", "2": "consolidation", "3": "pleural effusion"},
    reference="MedSeg and Jenssen et al., MedSeg Covid Dataset 1, figshare, 2021, doi:10.6084/m9.figshare.13521488",
    licence="CC0 as third parties quote its page on figshare, not confirmed here; pictures of SIRM: research only",
    origin="MedSeg, https://medicalsegmentation.com/covid19",
)


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare COVID-19 CT: each slice a case of its own, intensities as they are.

    Args:
        source: a folder with `tr_im.nii.gz` and `tr_mask.nii.gz` at any depth.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        size: columns and rows of every slice after resampling (256 for SupMix); None keeps them as they are.
        progress: called with (cases done, cases in all) after each case.
        workers: threads; they share one copy of both volumes.

    Raises:
        InputError: if the volumes are not there or do not belong together, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    source, target = check_source(source, target)
    image_file, label_file = _find(source)
    scan, label = _read(image_file, label_file)
    count = scan.array.shape[2]
    cases = [SourceCase(_name(number), image_file, label_file) for number in range(count)]
    done = prepare_cases(
        cases,
        target,
        source=source,
        about=ABOUT,
        recipe={"size": size},
        make=lambda case: _make(case, scan, label, size=size),
        progress=progress,
        workers=workers,
    )
    if count != SLICES:
        return finish(done, notes=[f"{count} slices instead of {SLICES}: no data list is written.", LEAK])
    return finish(done, build_lists(done.entries), notes=[LEAK])


LEAK = "Slices of one patient may be on both sides of any split: which belong together is not published."


def _find(source: Path) -> tuple[Path, Path]:
    found = by_name(list(files_under(source)), r"(?P<name>tr_im|tr_mask)\.nii(\.gz)?", where=source)
    if set(found) != {"tr_im", "tr_mask"}:
        raise layout_error("tr_im.nii.gz with tr_mask.nii.gz", where=source)
    return found["tr_im"], found["tr_mask"]


def _read(image_file: Path, label_file: Path) -> tuple[Scan, np.ndarray]:
    """Both volumes, the image in the smallest type that holds it; pixels are paired as they are stored."""
    scan, label = read_image(image_file), read_label(label_file).array
    if label.shape != scan.array.shape:
        wanted, got = (" x ".join(str(size) for size in shape) for shape in (scan.array.shape, label.shape))
        raise InputError(
            f"its shape is {got}, that of {image_file.name} is {wanted}",
            where=label_file,
            fix="Take both files from one download.",
            code="GEOMETRY",
        )
    if label.max() > 3:
        raise wrong_values(label, wanted="0 to 3", where=label_file)
    return replace(scan, array=smallest_type(scan.array)), label


def _make(case: SourceCase, scan: Scan, whole: np.ndarray, *, size: int | None) -> MadeCase:
    number = int(case.name.rsplit("_", 1)[1])
    image, label = scan.array[:, :, number], whole[:, :, number]
    affine = scan.affine.copy()
    affine[:3, 3] = (scan.affine @ [0, 0, number, 1])[:3]
    if image.min() == image.max():
        raise InputError("every pixel has the same value", where=case.name, fix="Get the file again.", code="CONSTANT")
    if size is not None:
        affine = resized_affine(affine, image.shape, (size, size))
        image, label = resize_image(image, (size, size)), resize_label(label, (size, size))
    return MadeCase(image, label, affine)


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists(cases: Mapping[str, PreparedCase]) -> dict[str, DataList]:
    """Lists in SupMix's numbers, of slices drawn with seed 0, and `ordered_...` of slices in the order of the file.

    Args:
        cases: all 100, by name.
    """
    names = sorted(cases)
    drawn = f"Training, validation and test are 70, 10 and 20 slices drawn with seed {SPLIT_SEED}. {LEAK}"
    in_order = f"Training, validation and test are the first 70, next 10 and last 20 slices of the file. {LEAK}"
    return {
        **_lists_of(cases, shuffled(names, seed=SPLIT_SEED), rest=drawn),
        **_lists_of(cases, names, rest=in_order, prefix="ordered_"),
    }


def write_lists(folder: str | Path) -> tuple[Path, ...]:
    """Write the lists, and name the files; slices are known by their numbers."""
    return write_all(build_lists({name: planned(name) for name in map(_name, range(SLICES))}), folder)


def _name(number: int) -> str:
    return f"slice_{number:03d}"


def _lists_of(
    cases: Mapping[str, PreparedCase], names: Sequence[str], *, rest: str, prefix: str = ""
) -> dict[str, DataList]:
    train, validation, _ = PARTS
    parts = Parts(sorted(names[:train]), sorted(names[train : train + validation]), sorted(names[train + validation :]))
    counts = {f"{count:02d}": count for count in LABELED}
    return drawn_lists(ABOUT, cases, parts, counts=counts, unit="slices", rest=rest, prefix=prefix)
