"""SCR on JSRT: lungs, heart and clavicles in chest radiographs (van Ginneken et al., Medical Image Analysis, 2006).

Two downloads of two institutions, unpacked into one folder:

- JSRT: `All247images/JPCLN001.IMG` to `JPCLN154.IMG` (with a nodule) and `JPCNN001.IMG` to `JPCNN093.IMG` (without)
- SCR: `scratch/fold1/masks/{left lung,right lung,heart,left clavicle,right clavicle}/JPCLN001.gif`, and `fold2`

Oddities:

- `.IMG` has no header: 2048 x 2048 pixels of 16 bits, *high byte first*, 12 of them used, 0.175 mm. Values grow with
  the blackening of the film, so that air is bright; here they are inverted (4095 minus the value), as radiographs are
  looked at. What is above 4095 counts as 4095.
- Labels have 1024 x 1024 pixels, half the resolution. By default radiographs are brought to 1024 x 1024 by the mean of
  2 x 2 pixels, so that labels stay as they were drawn.
- Each structure has a drawing of its own, and they overlap: clavicles lie over lungs, the heart over the left lung.
  A pixel has one class here, that of the structure painted last: right lung, left lung, heart, right clavicle, left
  clavicle. How many pixels that covers is among each case's details.
- *Left* and *right* are the patient's; the patient's left is on the right of the picture.
- `fold1` holds the odd numbers (124), `fold2` the even ones (123). Each is published as training of the other.
- Only the first observer's drawings are in the download. One radiograph for each patient.

FixMatchSeg labels 100 radiographs, uses 100 as unlabeled, and does not say which, nor how the other 47 are divided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from semi_med.data.data_list import DataList
from semi_med.datasets.found import by_name, files_under, layout_error
from semi_med.datasets.lists import SPLIT_SEED, Parts, drawn_lists, shuffled, write_all
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
from semi_med.inference.pictures import (
    check_same_size,
    read_drawing,
    read_raw_pixels,
    resize_image,
    resize_label,
    two_valued,
)

PIXELS, SPACING = 2048, 0.175  # along both axes, mm
DRAWN = 1024  # pixels of the labels
HIGHEST = 4095  # of 12 bits
# in the order of painting, with the class of three and of five
PAINTED = {
    "right lung": (1, 1),
    "left lung": (1, 2),
    "heart": (2, 3),
    "right clavicle": (3, 4),
    "left clavicle": (3, 5),
}
NAMES = (
    *(f"JPCLN{number:03d}" for number in range(1, 155)),
    *(f"JPCNN{number:03d}" for number in range(1, 94)),
)
LABELED, UNLABELED, VALIDATION = 100, 100, 23
FOLD_VALIDATION = 12

_CLASSES = {
    3: {"0": "background", "1": "lungs", "2": "heart", "3": "clavicles"},
    5: {"0": "background", **{str(number): name for name, (_, number) in PAINTED.items()}},
}


def about(structures: int = 3) -> About:
    """The data set with three classes, or with five where left and right are told apart."""
    return About(
        name="scr_jsrt",
        modality={"0": "radiograph"},
        labels=_CLASSES[structures],
        reference=(
            "van Ginneken et al., Segmentation of anatomical structures in chest radiographs using supervised methods: "
            "a comparative study on a public database, Medical Image Analysis 10(1):19-40, 2006; Shiraishi et al., "
            "American Journal of Roentgenology 174:71-74, 2000"
        ),
        licence="Non-commercial research only, not to be passed on; cite both references",
        origin="JSRT database, http://db.jsrt.or.jp; SCR database, https://www.isi.uu.nl/Research/Databases/SCR",
    )


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    size: int = DRAWN,
    structures: int = 3,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare SCR: inverted radiographs with their spacing, and one label for all structures.

    Args:
        source: a folder with `JPCLN001.IMG` and `<fold>/masks/<structure>/JPCLN001.gif` and so on at any depth.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        size: columns and rows: 1024 as the labels were drawn; 2048 as the radiographs, with each pixel of a label
            repeated; any other number, such as 320 for FixMatchSeg, resamples both.
        structures: 3 classes (lungs, heart, clavicles), or 5 with left and right apart.
        progress: called with (cases done, cases in all) after each case.
        workers: threads.

    Raises:
        InputError: if there is no radiograph, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    if structures not in _CLASSES or not 1 <= size <= PIXELS:
        raise InputError(
            f"3 or 5 structures and a size from 1 to {PIXELS} are wanted, got {structures} and {size}", code="SETTING"
        )
    source, target = check_source(source, target)
    data_set = about(structures)
    done = prepare_cases(
        _find(source),
        target,
        source=source,
        about=data_set,
        recipe={"size": size, "structures": structures, "painted": list(PAINTED)},
        make=lambda case: _make(case, size=size, structures=structures),
        progress=progress,
        workers=workers,
    )
    lists, notes = _possible_lists(done, data_set)
    return finish(done, lists, notes=notes)


# ---- files ---------------------------------------------------------------------------------------------------------


def _find(source: Path) -> list[SourceCase]:
    files = list(files_under(source))
    images = {
        name.upper(): path for name, path in by_name(files, r"(?P<name>JPC[LN]N\d{3})\.IMG", where=source).items()
    }
    if not images:
        raise layout_error("All247images/JPCLN001.IMG", where=source)
    drawings: dict[str, dict[str, Path]] = {}
    for structure in PAINTED:
        chosen = [path for path in files if path.parent.name.lower().replace("_", " ") == structure]
        for name, path in by_name(chosen, r"(?P<name>JPC[LN]N\d{3})\.gif", where=source).items():
            drawings.setdefault(name.upper(), {})[structure] = path
    problems: list[SemiMedError] = []
    for name, drawn in sorted(drawings.items()):
        if name not in images:
            problems.append(InputError(f"there is no {name}.IMG for these drawings", where=name, code="NO_IMAGE"))
        if missing := [structure for structure in PAINTED if structure not in drawn]:
            problems.append(
                InputError(
                    f"there is no drawing of {', '.join(missing)}", where=name, fix="Unpack SCR whole.", code="NO_LABEL"
                )
            )
    if problems:
        raise ProblemsError(problems, title=f"{source}")
    return [_source_case(name, path, drawings.get(name)) for name, path in sorted(images.items())]


def _source_case(name: str, image: Path, drawings: Mapping[str, Path] | None) -> SourceCase:
    folders = {part.lower() for path in (drawings or {}).values() for part in path.parts}
    fold = next((fold for fold in ("fold1", "fold2") if fold in folders), None)
    label = None if drawings is None else tuple(drawings[structure] for structure in PAINTED)
    group = "nodule" if name.startswith("JPCLN") else "no nodule"
    return SourceCase(name, image, label, group=group, split=fold)


# ---- one radiograph ------------------------------------------------------------------------------------------------


def _make(case: SourceCase, *, size: int, structures: int) -> MadeCase:
    stored = read_raw_pixels(case.images[0], shape=(PIXELS, PIXELS), dtype=">u2")
    whole = (HIGHEST - np.minimum(stored, HIGHEST)).astype(np.int16)
    affine = radiograph_affine(SPACING * PIXELS / size)
    label, covered = _paint(case.labels, structures=structures) if case.labels else (None, 0)
    if size == PIXELS:
        image = whole
        label = None if label is None else label.repeat(2, axis=0).repeat(2, axis=1)
    elif size == DRAWN:
        image = whole.reshape(DRAWN, 2, DRAWN, 2).mean(axis=(1, 3), dtype=np.float32)
    else:
        image = resize_image(whole.astype(np.float32), (size, size))
        label = None if label is None else resize_label(label, (size, size))
    details = {"overpainted_pixels": covered} if case.labels else {}
    return MadeCase(image, label, affine, details=details)


def radiograph_affine(spacing: float) -> np.ndarray:
    """Where the pixels of a radiograph lie, seen from the front: i towards the patient's left, j towards the feet.

    Args:
        spacing: mm between pixels. The one slice counts as 1 mm thick, although it shows the whole chest.

    Returns:
        4x4, voxel to RAS mm; 0 is the corner of the film at the top of the patient's right.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-spacing, 0, 0], [0, 0, -1], [0, -spacing, 0]])
    affine[:3, 3] = -spacing / 2, 0, -spacing / 2
    return affine


def _paint(files: tuple[Path, ...], *, structures: int) -> tuple[np.ndarray, int]:
    """The label, and how many pixels belong to several structures."""
    label = np.zeros((DRAWN, DRAWN), np.uint8)
    covered = 0
    for (structure, classes), path in zip(PAINTED.items(), files, strict=True):
        drawn, _ = read_drawing(path)
        check_same_size(drawn, label, where=path, reference="SCR's drawings")
        inside = two_valued(drawn, where=path) > 0
        if not inside.any():
            raise InputError(f"the drawing of the {structure} is empty", where=path, fix="Get it again.", code="EMPTY")
        covered += int(np.count_nonzero(label[inside]))
        label[inside] = classes[0 if structures == 3 else 1]
    return label, covered


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists(cases: Mapping[str, PreparedCase], data_set: About | None = None) -> dict[str, DataList]:
    """Lists in FixMatchSeg's numbers, and those of the two published folds.

    Args:
        cases: by name; all 247, with labels.
        data_set: with the classes that the labels have.
    """
    data_set = data_set or about()
    order = shuffled(NAMES, seed=SPLIT_SEED)
    train, rest = order[: LABELED + UNLABELED], order[LABELED + UNLABELED :]
    lists = drawn_lists(
        data_set,
        cases,
        Parts(sorted(train), sorted(rest[:VALIDATION]), sorted(rest[VALIDATION:])),
        counts={f"{LABELED:03d}": LABELED},
        unit="radiographs",
        rest=(
            f"Training, validation and test are {len(train)}, {VALIDATION} and {len(rest) - VALIDATION} radiographs "
            f"drawn with seed {SPLIT_SEED}: 100 labeled and 100 unlabeled are the numbers of FixMatchSeg, which does "
            "not name them."
        ),
    )
    folds = {fold: sorted(name for name, case in cases.items() if case.split == fold) for fold in ("fold1", "fold2")}
    for fold, other in (("fold1", "fold2"), ("fold2", "fold1")):
        order = shuffled(folds[fold], seed=SPLIT_SEED)
        lists |= drawn_lists(
            data_set,
            cases,
            Parts(sorted(order[FOLD_VALIDATION:]), sorted(order[:FOLD_VALIDATION]), folds[other]),
            counts={},
            unit="radiographs",
            rest=f"Training is the published {fold} but {FOLD_VALIDATION} for validation; the test is {other}.",
            prefix=f"{fold}_",
        )
    return lists


def write_lists(folder: str | Path) -> tuple[Path, ...]:
    """Write the lists with three classes, and name the files; a radiograph's number tells its fold."""
    folds = {name: "fold1" if int(name[-3:]) % 2 else "fold2" for name in NAMES}
    cases = {name: replace(planned(name), split=fold) for name, fold in folds.items()}
    return write_all(build_lists(cases), folder)


def _possible_lists(done: PreparedDataset, data_set: About) -> tuple[dict[str, DataList], list[str]]:
    whole = {name for name, case in done.entries.items() if case.label is not None}
    if missing := sorted(set(NAMES) - whole):
        text = f"{len(missing)} of the {len(NAMES)} radiographs are not there with labels, so no data list is written"
        return {}, [f"{text}: {some(missing)}"]
    return build_lists(done.entries, data_set), []
