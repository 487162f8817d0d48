"""Pascal VOC 2012: objects of 20 kinds in photographs (Everingham et al., IJCV 2010), for Dense FixMatch's tables.

- `VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg`, `SegmentationClass/2007_000032.png`
- `VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt`: 1464 and 1449 names
- the augmented set, further 9118 photographs of `JPEGImages` with labels of SBD (Hariharan et al., ICCV 2011), in one
  of two forms: `SegmentationClassAug/2008_000002.png`, or SBD's own `benchmark_RELEASE/dataset/cls/2008_000002.mat`

Oddities:

- Labels are pictures with a palette: the class is the palette's number, not the colour. A copy that was saved as RGB
  or grey has lost it and is refused.
- The background is one of the 21 classes that papers take their mean over, so it is measured like the others.
- 255 is the outline between objects and must be ignored by losses and metrics. SBD's labels have none.
- For photographs that both have, VOC's own label is taken. The augmented set is what SBD has beyond VOC's two lists.
- No labels of the test are public: the 1449 of `val` are what papers report on, and they are the test here. Dense
  FixMatch keeps the checkpoint that is best on them as well; here 100 of the 1464, drawn with seed 0, are for
  validation, so that *all* means 1364 instead of 1464.
- The subject is the photograph.

Dense FixMatch draws 92, 183, 366 and 732 of the 1464 as labeled ones, four times; the others and the augmented set are
unlabeled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from semi_med.data.data_list import DataList
from semi_med.datasets.found import by_name, files_under, layout_error
from semi_med.datasets.lists import SPLIT_SEED, ListMaker, Parts, drawn_lists, shuffled
from semi_med.datasets.photographs import ListsAndNotes, PhotographSet, lists_if_whole, with_label
from semi_med.datasets.prepared import PreparedDataset, SourceCase, some
from semi_med.datasets.record import About, PreparedCase
from semi_med.errors import InputError
from semi_med.ignored import IGNORED
from semi_med.inference.byte_check import COPY_AGAIN, check_regular_file
from semi_med.inference.pictures import read_indices, wrong_values

PARTS = {"train": 1464, "val": 1449}
AUGMENTED = "augmented"
AUGMENTED_SIZE = 9118
VALIDATION = 100
LABELED = (92, 183, 366, 732)
SEEDS = (1, 2, 3, 4)
CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor"),
)
_NAME = r"(?P<name>\d{4}_\d{6})"

ABOUT = About(
    name="pascal_voc",
    modality={"0": "red", "1": "green", "2": "blue"},
    labels={str(index): name for index, name in enumerate(CLASSES)},
    reference=(
        "Everingham et al., The Pascal Visual Object Classes (VOC) challenge, International Journal of Computer Vision "
        "88(2):303-338, 2010; Hariharan et al., Semantic contours from inverse detectors, ICCV 2011"
    ),
    licence="Photographs from Flickr under its terms of use: research; cite the references",
    origin="http://host.robots.ox.ac.uk/pascal/VOC/voc2012; SBD, http://home.bharathh.info/pubs/codes/SBD",
    ignored=IGNORED,
    count_class_0=True,
)


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare Pascal VOC: photographs as they are, labels as PNG; VOC's two lists, and the augmented set if it is.

    Args:
        source: a folder with `VOC2012/` at any depth, and with one form of the augmented set.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        progress: called with (cases done, cases in all) after each case.
        workers: threads.

    Raises:
        InputError: if a part is missing, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    return _SET.prepare(source, target, progress=progress, workers=workers)


# ---- files ---------------------------------------------------------------------------------------------------------


def _find(source: Path) -> list[SourceCase]:
    files = list(files_under(source))

    def of(folder: str, suffix: str) -> dict[str, Path]:
        inside = [path for path in files if path.parent.name == folder]
        return by_name(inside, rf"{_NAME}\.{suffix}", where=source)

    images, own = of("JPEGImages", "jpg"), of("SegmentationClass", "png")
    pictures, mats = of("SegmentationClassAug", "png"), of("cls", "mat")
    if not images:
        raise layout_error("VOC2012/JPEGImages/2007_000032.jpg", where=source)
    if pictures and mats:
        raise InputError(
            "the augmented set is there in both forms, SegmentationClassAug and SBD's cls",
            where=source,
            fix="Keep one.",
            code="LAYOUT",
        )
    labels = {name: (path, part) for part in PARTS for name, path in _listed(files, part, own, source).items()}
    further = {name: path for name, path in {**pictures, **mats}.items() if name not in labels}
    labels |= {name: (path, AUGMENTED) for name, path in further.items()}
    if missing := sorted(labels.keys() - images.keys()):
        raise InputError(
            f"{len(missing)} photographs are missing: {some(missing)}",
            where=source,
            fix="Unpack the photographs of VOC 2012 into the same folder.",
            code="NO_IMAGE",
        )
    return [SourceCase(name, images[name], path, split=part) for name, (path, part) in sorted(labels.items())]


def _listed(files: list[Path], part: str, labels: Mapping[str, Path], source: Path) -> dict[str, Path]:
    """The labels of one of VOC's lists."""
    lists = [path for path in files if path.name == f"{part}.txt" and path.parent.name == "Segmentation"]
    if len(lists) != 1:
        raise layout_error(f"one file ImageSets/Segmentation/{part}.txt", where=source)
    check_regular_file(lists[0])
    names = lists[0].read_text(encoding="utf-8").split()
    if missing := [name for name in names if name not in labels]:
        raise InputError(
            f"{len(missing)} of {len(names)} names have no label in SegmentationClass: {some(missing)}",
            where=lists[0],
            fix="Unpack VOC 2012 again.",
            code="NO_LABEL",
        )
    return {name: labels[name] for name in names}


def _read_label(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    label, notes = (_read_mat(path), ()) if path.suffix.lower() == ".mat" else read_indices(path)
    if np.any((label >= len(CLASSES)) & (label != IGNORED)):
        raise wrong_values(label, wanted=f"0 to {len(CLASSES) - 1} and {IGNORED}", where=path)
    return label, notes


def _read_mat(path: Path) -> np.ndarray:
    """SBD's class indices: rows and columns in the field `Segmentation` of `GTcls`."""
    from scipy.io import loadmat

    check_regular_file(path)
    try:
        content = loadmat(path, variable_names=["GTcls"])["GTcls"][0, 0]["Segmentation"]
        rows = content[0, 0] if content.dtype == object else content
        label = np.asarray(rows, dtype=np.uint8).swapaxes(0, 1)
        if label.ndim != 2 or np.any(label.swapaxes(0, 1) != rows):
            raise ValueError(f"{rows.dtype} {rows.shape}")
    except Exception as error:  # scipy's reader raises almost anything on damaged files
        raise InputError(
            f"this is no label of SBD ({type(error).__name__}: {error})", where=path, fix=COPY_AGAIN, code="CORRUPT"
        ) from error
    return label


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists(cases: Mapping[str, PreparedCase]) -> dict[str, DataList]:
    """Lists with 92 to 732 labeled photographs, four draws each, as Dense FixMatch has them, and with all.

    Where the augmented set is there, it is unlabeled; `all_labeled_with_augmented` has it beside all labeled ones,
    `augmented_all_labeled` has it labeled as well.

    Args:
        cases: by name; those of VOC's two lists.
    """
    order = shuffled(with_label(cases, "train"), seed=SPLIT_SEED)
    validation, train, test = sorted(order[:VALIDATION]), sorted(order[VALIDATION:]), with_label(cases, "val")
    further = with_label(cases, AUGMENTED)
    rest = (
        f"Validation: {VALIDATION} photographs of VOC's train list drawn with seed {SPLIT_SEED}. Test: VOC's val list. "
        f"Pixels of {IGNORED} are to be ignored."
    )
    counts = {f"{count:03d}": count for count in LABELED}
    parts = Parts(train, validation, test, further)
    lists = drawn_lists(ABOUT, cases, parts, counts=counts, unit="photographs", rest=rest, seeds=SEEDS)
    for name, labeled, unlabeled in (
        ("all_labeled_with_augmented", train, further),
        ("augmented_all_labeled", [*train, *further], []),
    ):
        if further:
            lists[name] = ListMaker(ABOUT, cases)(
                labeled=labeled,
                unlabeled=unlabeled,
                validation=validation,
                test=test,
                description=f"Labeled: {len(labeled)} photographs. {rest}",
            )
    return lists


def _possible_lists(done: PreparedDataset) -> ListsAndNotes:
    parts = {**PARTS, AUGMENTED: AUGMENTED_SIZE}
    lists, notes = lists_if_whole(done, build_lists, parts=parts, train="train", called="VOC's train list")
    return lists, [f"Pixels of {IGNORED} belong to no class and are to be ignored.", *notes]


_SET = PhotographSet(
    about=ABOUT, find=_find, lists=_possible_lists, read_label=_read_label, keep=True, recipe={"ignored": IGNORED}
)
