"""Cityscapes: street scenes of 50 cities (Cordts et al., CVPR 2016), for the tables of Dense FixMatch.

- `leftImg8bit/{train,val}/aachen/aachen_000000_000019_leftImg8bit.png`: 2975 and 500 photographs of 2048 x 1024 pixels
- `gtFine/{train,val}/aachen/aachen_000000_000019_gtFine_labelIds.png`
- with `extra=True` also `leftImg8bit/train_extra`: 19 998 further photographs, as unlabeled ones

Oddities:

- `labelIds` has 34 numbers, of which 19 classes are trained and evaluated. Here they are 0 to 18 in the usual order
  (`trainIds`), so that *0 is the road, not a background*; every other pixel is 255 and must be ignored by losses and
  metrics. `labelTrainIds` files, which the data set's scripts can make, are not needed.
- `gtFine/test` holds stand-ins; the true labels are on the challenge's server. The test part is not prepared. The
  500 of `val` are what papers report on, and they are the test here.
- Dense FixMatch keeps the checkpoint that is best on those 500 as well. Here the photographs of one city of the
  training part (`ulm`, 95) are for validation, and never labeled or unlabeled.
- One photograph of `train_extra` is black in the archive (`troisdorf_000000_000073`); the download page offers the
  whole one. Black, it is left out, which is noted. Any other damaged or empty photograph is an error.
- Coarse labels (`gtCoarse`) are not used, as in that paper.

Photographs are copied byte by byte. Dense FixMatch draws its labeled photographs four times at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from semi_med.data.data_list import DataList
from semi_med.datasets.found import by_name, files_under, layout_error, refuse_labels_alone
from semi_med.datasets.lists import ListMaker, Parts, drawn_lists
from semi_med.datasets.photographs import ListsAndNotes, lists_if_whole, with_label
from semi_med.datasets.prepared import MadeCase, PreparedDataset, SourceCase, check_source, finish, prepare_cases
from semi_med.datasets.record import About, PreparedCase
from semi_med.errors import InputError
from semi_med.ignored import IGNORED
from semi_med.inference.pictures import check_same_size, read_indices, read_photograph, wrong_values

PARTS = {"train": 2975, "val": 500}
EXTRA = "train_extra"
HELD_CITY = "ulm"
BLACK = "troisdorf_000000_000073"
LABELED = (93, 186, 372, 744, 1488)
SEEDS = (1, 2, 3, 4)

# the number that `labelIds` has for each class, in the order of the classes
LABEL_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
_HIGHEST_ID = 33
_NAME = r"(?P<name>[a-z-]+_\d{6}_\d{6})"

ABOUT = About(
    name="cityscapes",
    modality={"0": "red", "1": "green", "2": "blue"},
    labels={str(index): name for index, name in enumerate(LABEL_IDS)},
    reference="Cordts et al., The Cityscapes dataset for semantic urban scene understanding, CVPR 2016",
    licence="Cityscapes licence: non-commercial research after registration, not to be passed on; cite the reference",
    origin="https://www.cityscapes-dataset.com",
    ignored=IGNORED,
    count_class_0=True,
)


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    extra: bool = False,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare Cityscapes: photographs as they are, labels with 19 classes and 255 for what is ignored.

    Args:
        source: a folder with `leftImg8bit/` and `gtFine/` at any depth.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        extra: also the photographs of `train_extra`, unlabeled (44 GB).
        progress: called with (cases done, cases in all) after each case.
        workers: threads.

    Raises:
        InputError: if there is no photograph, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    source, target = check_source(source, target)
    cases = _find(source, extra=extra)
    black = [case for case in cases if case.name == BLACK and _is_empty(read_photograph(case.images[0])[0])]
    done = prepare_cases(
        [case for case in cases if case not in black],
        target,
        source=source,
        about=ABOUT,
        recipe={"extra": extra, "ignored": IGNORED},
        make=_make,
        progress=progress,
        workers=workers,
    )
    lists, notes = _possible_lists(done)
    notes += [f"{case.name} is black, as published, and was left out." for case in black]
    return finish(done, lists, notes=[f"Pixels of {IGNORED} belong to no class and are to be ignored.", *notes])


def _find(source: Path, *, extra: bool) -> list[SourceCase]:
    parts = (*PARTS, *([EXTRA] if extra else []))
    files = [path for path in files_under(source) if _part(path) in parts]
    images = by_name(files, rf"{_NAME}_leftImg8bit\.png", where=source)
    labels = by_name(files, rf"{_NAME}_gtFine_labelIds\.png", where=source)
    if not images:
        raise layout_error("leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png", where=source)
    refuse_labels_alone(images, labels, where=source)
    return [
        SourceCase(name, path, labels.get(name), group=name.rsplit("_", 2)[0], split=_part(path))
        for name, path in sorted(images.items())
    ]


def _part(path: Path) -> str:
    """Name of the folder above the city's."""
    return path.parent.parent.name


def _is_empty(image: np.ndarray) -> bool:
    return bool(image.min() == image.max())


def _make(case: SourceCase) -> MadeCase:
    image, notes = read_photograph(case.images[0])
    if _is_empty(image):
        raise InputError(
            "every pixel has the same value",
            where=case.images[0],
            fix="Take the whole photograph from the download page.",
            code="CONSTANT",
        )
    if not case.labels:
        return MadeCase(case.images[0], None, None, notes)
    ids, more = read_indices(case.labels[0])
    check_same_size(ids, image, where=case.labels[0], reference=case.images[0].name)
    if ids.max() > _HIGHEST_ID:
        raise wrong_values(ids, wanted=f"0 to {_HIGHEST_ID} (labelIds)", where=case.labels[0])
    table = np.full(_HIGHEST_ID + 1, IGNORED, np.uint8)
    table[list(LABEL_IDS.values())] = np.arange(len(LABEL_IDS))
    return MadeCase(case.images[0], table[ids], None, (*notes, *more))


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists(cases: Mapping[str, PreparedCase]) -> dict[str, DataList]:
    """Lists with 93 to 1488 labeled photographs, four draws each, as Dense FixMatch has them, and with all.

    `all_labeled_with_extra` has those of `train_extra` as unlabeled ones, if they are there.

    Args:
        cases: by name; those of the training part with labels.
    """
    train, test = (with_label(cases, part) for part in PARTS)
    validation = [name for name in train if cases[name].group == HELD_CITY]
    parts = Parts([name for name in train if cases[name].group != HELD_CITY], validation, test)
    rest = (
        f"Validation: the {len(validation)} of the city {HELD_CITY}, taken from the training part. Test: the published "
        f"val part. Pixels of {IGNORED} are to be ignored."
    )
    counts = {f"{count:04d}": count for count in LABELED}
    lists = drawn_lists(ABOUT, cases, parts, counts=counts, unit="photographs", rest=rest, seeds=SEEDS)
    if further := sorted(name for name, case in cases.items() if case.split == EXTRA):
        lists["all_labeled_with_extra"] = ListMaker(ABOUT, cases)(
            labeled=parts.train,
            unlabeled=further,
            validation=validation,
            test=test,
            description=f"Labeled: all {len(parts.train)} photographs. Unlabeled: those of train_extra. {rest}",
        )
    return lists


def _possible_lists(done: PreparedDataset) -> ListsAndNotes:
    return lists_if_whole(done, build_lists, parts=PARTS, train="train")
