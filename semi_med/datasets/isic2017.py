"""ISIC 2017, part 1: lesions in photographs of the skin (Codella et al., ISBI 2018).

Three parts, each a folder of photographs and one of drawn labels:

- `ISIC-2017_Training_Data/ISIC_0000000.jpg`, `ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png`: 2000
- `ISIC-2017_Validation_Data`, `ISIC-2017_Validation_Part1_GroundTruth`: 150
- `ISIC-2017_Test_v2_Data`, `ISIC-2017_Test_v2_Part1_GroundTruth`: 600

Oddities:

- Beside each photograph lies `ISIC_0000000_superpixels.png`, of the challenge's part 2: it is skipped.
- Photographs differ in size, up to 6700 x 4500 pixels. They stay the JPEG files that they are, each verified whole:
  as PNG they would take several times as much.
- Labels have 0 and 255. They were drawn in several ways, by hand and by filling with a mouse, so that outlines differ
  in smoothness. Hairs, rulers and dark corners are part of the photographs.
- This edition gives no patients: the subject is the photograph. Several may show one lesion.
- The test was released twice; `v2` is the one that counts.

FixMatchSeg labels 100 photographs, uses 1000 as unlabeled, and says nothing of the other 900.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from semi_med.data.data_list import DataList
from semi_med.datasets.found import by_name, files_under, layout_error, refuse_labels_alone
from semi_med.datasets.lists import Parts, drawn_lists
from semi_med.datasets.photographs import ListsAndNotes, PhotographSet, lists_if_whole, with_label
from semi_med.datasets.prepared import PreparedDataset, SourceCase
from semi_med.datasets.record import About, PreparedCase
from semi_med.errors import InputError

LABELED = (100,)
UNLABELED = 1000
PARTS = {"training": 2000, "validation": 150, "test": 600}

ABOUT = About(
    name="isic2017",
    modality={"0": "red", "1": "green", "2": "blue"},
    labels={"0": "background", "1": "lesion"},
    reference=(
        "Codella et al., Skin lesion analysis toward melanoma detection: a challenge at the 2017 International "
        "Symposium on Biomedical Imaging (ISBI), hosted by the International Skin Imaging Collaboration "
        "(ISIC), ISBI 2018"
    ),
    licence="Believed CC0, not confirmed here: see the archive's page; cite the reference",
    origin="ISIC Challenge 2017, https://challenge.isic-archive.com/data/#2017",
)


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare ISIC 2017: photographs as they are, labels as PNG.

    Args:
        source: a folder with `ISIC-2017_Training_Data` and so on at any depth.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        size: columns and rows of every picture after resampling (320 for FixMatchSeg), which makes them PNG; None
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
    images = by_name(files, r"(?P<name>ISIC_\d{7})\.jpg", where=source)
    labels = by_name(files, r"(?P<name>ISIC_\d{7})_segmentation\.png", where=source)
    if not images:
        raise layout_error("ISIC-2017_Training_Data/ISIC_0000000.jpg", where=source)
    refuse_labels_alone(images, labels, where=source)
    return [
        SourceCase(name, path, labels.get(name), split=_part(path, source)) for name, path in sorted(images.items())
    ]


def _part(path: Path, source: Path) -> str:
    folders = "/".join((source.name, *path.relative_to(source).parts[:-1])).lower()
    found = [part for part in PARTS if re.search(rf"isic-2017_{part}(_v\d)?_data", folders)]
    if len(found) != 1:
        raise InputError(
            f"a folder ISIC-2017_{{Training,Validation,Test_v2}}_Data was wanted round it, got {path.parent.name}",
            where=path,
            fix="Keep the names of the folders that the archives unpack to.",
            code="LAYOUT",
        )
    return found[0]


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists(cases: Mapping[str, PreparedCase]) -> dict[str, DataList]:
    """Lists with 100 labeled photographs and 1000 unlabeled ones, as FixMatchSeg has them, and with all 2000.

    Args:
        cases: by name; those of the training part with labels.
    """
    train, validation, test = (with_label(cases, part) for part in PARTS)
    rest = (
        f"Unlabeled: {UNLABELED} further ones of the training part, drawn with the same seed; the others are not used. "
        "Validation and test are the challenge's own. FixMatchSeg does not name its photographs."
    )
    return drawn_lists(
        ABOUT,
        cases,
        Parts(train, validation, test),
        counts={f"{count:03d}": count for count in LABELED},
        unit="photographs",
        rest=rest,
        most_unlabeled=UNLABELED,
    )


def _possible_lists(done: PreparedDataset) -> ListsAndNotes:
    return lists_if_whole(done, build_lists, parts=PARTS)


_SET = PhotographSet(about=ABOUT, find=_find, lists=_possible_lists, keep=True)
