"""REFUGE: optic disc and cup in photographs of the eye's fundus (Orlando et al., Medical Image Analysis, 2020).

Three parts of 400, each an archive of photographs and one of drawn labels; names of files are unique over all of them,
so that files are found by name at any depth:

- training: `Training400/{Glaucoma,Non-Glaucoma}/g0001.jpg` and `n0001.jpg`, labels in
  `Annotation-Training400/Disc_Cup_Masks/{Glaucoma,Non-Glaucoma}/g0001.bmp`
- validation: `REFUGE-Validation400/V0001.jpg`, `REFUGE-Validation400-GT/Disc_Cup_Masks/V0001.bmp`
- test: `Test400/T0001.jpg`, `REFUGE-Test-GT/Disc_Cup_Masks/{G,N}/T0001.bmp`

Oddities:

- In a label 0 is the cup, 128 the rest of the disc and 255 the background: dark is inside. Here the cup is 2, the rest
  of the disc 1 and the background 0; what is called *disc* in the challenge is 1 and 2 together.
- Training photographs have 2124 x 2056 pixels and come from one camera, those of validation and test 1634 x 1634 from
  another: a change of domain that figures on the test contain.
- `Training400/AMD` of some copies belongs to another challenge and has no labels; its names do not match.
- The second edition (REFUGE2) ships these 1200 as its training part, and has new photographs of the *same names* for
  its own validation and test. Name the folder of the first 1200 only; names that are there twice are refused.
- No link between photographs and patients is published: the subject is the photograph.

FixMatchSeg labels 100 and calls 400 unlabeled: all 400 of the training part, with the labeled ones again among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from semi_med.data.data_list import DataList
from semi_med.datasets.found import by_name, files_under, layout_error, refuse_labels_alone
from semi_med.datasets.lists import Parts, drawn_lists
from semi_med.datasets.photographs import ListsAndNotes, PhotographSet, lists_if_whole, with_label
from semi_med.datasets.prepared import PreparedDataset, SourceCase
from semi_med.datasets.record import About, PreparedCase
from semi_med.inference.pictures import read_drawing, wrong_values

LABELED = (100,)
PARTS = {"training": 400, "validation": 400, "test": 400}
_PART_OF = {"g": "training", "n": "training", "v": "validation", "t": "test"}

ABOUT = About(
    name="refuge",
    modality={"0": "red", "1": "green", "2": "blue"},
    labels={"0": "background", "1": "optic disc without cup", "2": "optic cup"},
    reference=(
        "Orlando et al., REFUGE Challenge: a unified framework for evaluating automated methods for glaucoma "
        "assessment from fundus photographs, Medical Image Analysis 59:101570, 2020"
    ),
    licence="Challenge data: research only after registration; cite the reference",
    origin="REFUGE challenge, https://refuge.grand-challenge.org",
)


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare REFUGE: photographs as they are, labels as PNG.

    Args:
        source: a folder with `g0001.jpg`, `g0001.bmp` and so on at any depth.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        size: columns and rows of every picture after resampling (320 for FixMatchSeg); which makes them PNG; None
            keeps the photographs' own files.
        progress: called with (cases done, cases in all) after each case.
        workers: threads.

    Raises:
        InputError: if there is no photograph, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    recipe = {"size": size}
    return replace(_SET, recipe=recipe).prepare(source, target, size=size, progress=progress, workers=workers)


def _find(source: Path) -> list[SourceCase]:
    files = list(files_under(source))
    images = by_name(files, r"(?P<name>[gnvt]\d{4})\.jpg", where=source)
    labels = by_name(files, r"(?P<name>[gnvt]\d{4})\.bmp", where=source)
    if not images:
        raise layout_error("g0001.jpg, V0001.jpg or T0001.jpg", where=source)
    refuse_labels_alone(images, labels, where=source)
    return [
        SourceCase(
            name, path, labels.get(name), group=_diagnosis(path, labels.get(name)), split=_PART_OF[name[0].lower()]
        )
        for name, path in sorted(images.items())
    ]


def _diagnosis(image: Path, label: Path | None) -> str | None:
    """Glaucoma or not, where folders say so."""
    folders = {path.parent.name.lower() for path in (image, label) if path is not None}
    known = {"glaucoma": "glaucoma", "g": "glaucoma", "non-glaucoma": "no glaucoma", "n": "no glaucoma"}
    return next((known[folder] for folder in sorted(folders) if folder in known), None)


def _read_label(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    drawn, notes = read_drawing(path)
    if not np.isin(drawn, (0, 128, 255)).all():
        raise wrong_values(drawn, wanted="0, 128 and 255", where=path)
    return (drawn <= 128).astype(np.uint8) + (drawn == 0), notes


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists(cases: Mapping[str, PreparedCase]) -> dict[str, DataList]:
    """Lists with 100 labeled photographs of the training part, as FixMatchSeg has them, and with all of them.

    Args:
        cases: by name; those of the training part with labels.
    """
    train, validation, test = (with_label(cases, part) for part in PARTS)
    rest = (
        "Unlabeled: the other photographs of the training part. Validation and test are the challenge's own; "
        "FixMatchSeg does not name its 100 labeled ones."
    )
    counts = {f"{count:03d}": count for count in LABELED}
    return drawn_lists(ABOUT, cases, Parts(train, validation, test), counts=counts, unit="photographs", rest=rest)


def _possible_lists(done: PreparedDataset) -> ListsAndNotes:
    return lists_if_whole(done, build_lists, parts=PARTS)


_SET = PhotographSet(about=ABOUT, find=_find, lists=_possible_lists, read_label=_read_label, keep=True)
