"""What a round trains on: the labelled scans and all unlabelled ones of a datastore, as the project's data list.

Scans are linked to, labels are copied: what was trained on stays what it was when an annotator corrects a label.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.data.data_list import Case, DataList, save_data_list
from semi_med.data.members import Member
from semi_med.data.members import subject_pattern as pattern_of
from semi_med.errors import InputError
from semi_med.files import write_atomically
from semi_med.inference.io import READ_SUFFIXES, Scan, read_image, read_label, write_label
from semi_med.inference.picture_check import is_picture
from semi_med.label_app.models import Bundle
from semi_med.label_app.qupath import SUFFIX as ANNOTATIONS
from semi_med.label_app.qupath import draw, read_annotations

HELD_OUT = 0.2  # share of the labelled scans that are validated with
_FEWEST = 2  # labelled scans that are trained with before one is held out
FINAL = "final"  # MONAI Label's tag of what an annotator has submitted


@dataclass(frozen=True)
class Sections:
    """Ids of scans.

    Attributes:
        labeled: with labels, to train with.
        validation: with labels, never trained with.
        unlabeled: all others, but for further scans of people in `validation`.
    """

    labeled: list[str]
    validation: list[str]
    unlabeled: list[str]


class HeldOut:
    """Which subjects are for validation. One that has been on a side stays there.

    A subject is drawn by the hash of its name, so that neither its place in the list nor what is labelled later
    matters. The first two labelled ones are for training whatever they are called.

    Args:
        file: where the sides are kept.
        subject_pattern: finds the subject in a scan's name; without it each scan is one of its own, but for names
            after the BIDS scheme.
        share: of subjects for validation, from 0 up to, but not including, 1.

    Raises:
        InputError: code SETTING.
    """

    def __init__(self, file: Path, subject_pattern: str | None = None, *, share: float = HELD_OUT) -> None:
        if not 0 <= share < 1:
            raise InputError(
                f"a share from 0 to less than 1 is wanted, got {share}", where="--held-out", code="SETTING"
            )
        self.file, self.share = file, share
        self.pattern = None if subject_pattern is None else pattern_of(subject_pattern)

    def split(self, labeled: Sequence[str]) -> tuple[list[str], list[str]]:
        """Training and validation; what is seen for the first time is put on a side for good."""
        sides = self._sides()
        known = dict(sides)
        for subject in sorted({self._subject(name) for name in labeled}, key=_hash, reverse=True):
            if subject not in sides:
                trained = sum(sides.get(self._subject(one)) == "training" for one in labeled)
                drawn = _hash(subject) < self.share and trained >= _FEWEST
                sides[subject] = "validation" if drawn else "training"
        if sides != known:
            write_atomically(self.file, json.dumps(sides, indent=2, ensure_ascii=False))
        chosen = {name: sides[self._subject(name)] for name in labeled}
        training = [name for name in labeled if chosen[name] == "training"]
        validation = [name for name in labeled if chosen[name] == "validation"]
        # the labels of all training scans may have been taken back
        return (training, validation) if training else (validation, [])

    def holds_out(self, name: str) -> bool:
        """Whether a scan, with a label or without, is of a subject that is validated with."""
        return self._sides().get(self._subject(name)) == "validation"

    def _sides(self) -> dict[str, str]:
        return json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}

    def _subject(self, name: str) -> str:
        return Member.of("", {"image": name}, pattern=self.pattern).subject


def _hash(name: str) -> float:
    """From 0 to 1, the same for a name wherever and whenever."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def sections_of(datastore: Any, held_out: HeldOut) -> Sections:
    """Sorts the scans of a MONAI Label datastore by what is known of them."""
    training, validation = held_out.split(sorted(datastore.get_labeled_images()))
    unlabeled = sorted(datastore.get_unlabeled_images())
    return Sections(training, validation, [name for name in unlabeled if not held_out.holds_out(name)])


def write_round(folder: Path, datastore: Any, sections: Sections, *, bundle: Bundle) -> Path:
    """Writes the data list of a round, links to its scans and copies of its labels.

    Args:
        folder: the data are put there; paths of the list are relative to it.
        datastore: of MONAI Label, local or remote.
        sections: of the round.
        bundle: that is trained.

    Returns:
        The data list's file.

    Raises:
        InputError: code NO_LABELS or NO_CASES, there is nothing to learn from; code LABEL_VALUES, a label has
            structures that the bundle does not know.
    """
    check_enough(sections, bundle)

    def cases(names: Sequence[str], *, labels: bool) -> list[Case]:
        return [
            Case(
                image=_link(folder, name, datastore.get_image_uri(name)),
                label=_copy_label(folder, name, datastore, bundle) if labels else None,
                case=name,
                subject=f"scan {name}",  # that people are not on both sides is seen to by `HeldOut`
            )
            for name in names
        ]

    plain = tuple(range(len(bundle.classes)))
    listed = DataList(
        name="study",
        description=f"A round of annotation with {bundle.folder.name}.",
        modality={str(number): name for number, name in enumerate(bundle.channels)},
        labels={str(number): name for number, name in enumerate(bundle.classes)},
        file_values=None if bundle.values == plain else list(bundle.values),
        labeled=cases(sections.labeled, labels=True),
        validation=cases(sections.validation, labels=True),
        unlabeled=cases(sections.unlabeled, labels=False) if bundle.needs_unlabeled else [],
    )
    save_data_list(listed, folder / "data_list.json")
    return folder / "data_list.json"


def check_enough(sections: Sections, bundle: Bundle) -> None:
    """Whether there is something to learn from.

    Raises:
        InputError: code NO_LABELS or NO_CASES.
    """
    if not sections.labeled:
        raise InputError(
            "no scan has a label yet", fix="Label one scan, submit it, then press Train.", code="NO_LABELS"
        )
    if bundle.needs_unlabeled and not sections.unlabeled:
        raise InputError(
            f"every scan has a label, and {bundle.folder.name} learns from scans without",
            fix="Add scans to the study, or start the server with a supervised bundle as well (--bundle, twice).",
            code="NO_CASES",
        )


def _link(folder: Path, name: str, uri: str) -> str:
    source = Path(uri)
    if not source.exists():
        raise InputError("the scan is not where the datastore says", where=uri, code="NOT_FOUND")
    suffix = "" if source.is_dir() else _suffix(source)
    target = folder / "images" / f"{name}{suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())
    return f"images/{target.name}"


def _suffix(path: Path) -> str:
    return next((end for end in READ_SUFFIXES if path.name.lower().endswith(end)), path.suffix)


def _copy_label(folder: Path, name: str, datastore: Any, bundle: Bundle) -> str:
    source = Path(datastore.get_label_uri(name, FINAL))
    drawn = source.suffix.lower() == ANNOTATIONS
    target = folder / "labels" / f"{name}{'.png' if drawn else _suffix(source)}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if not drawn and not _names_in(datastore.get_label_info(name, FINAL) or {}):
        shutil.copyfile(source, target)
        return f"labels/{target.name}"
    scan = final_label(name, datastore, bundle)
    target = target.with_name(f"{name}{'.png' if target.name.endswith('.png') else '.nii.gz'}")
    write_label(target, scan.array, affine=scan.affine, axes=scan.axes)
    return f"labels/{target.name}"


def final_label(name: str, datastore: Any, bundle: Bundle) -> Scan:
    """The label that a person has submitted for a scan, with the bundle's numbers where the client gave names.

    Raises:
        InputError: it cannot be read, or has structures that the bundle does not know.
    """
    source, where = Path(datastore.get_label_uri(name, FINAL)), f"label of {name}"
    if source.suffix.lower() == ANNOTATIONS:
        return _drawn(source, Path(datastore.get_image_uri(name)), bundle, where=where)
    scan = read_label(source, flat=bundle.dimensions == 2)
    names = _names_in(datastore.get_label_info(name, FINAL) or {})
    if not names:
        return scan
    there = set(np.unique(scan.array).tolist()) - {0}
    numbers = numbers_of({old: one for old, one in names.items() if old in there}, bundle, where=where)
    return dataclasses.replace(scan, array=_renumber(scan.array, numbers))


def _drawn(source: Path, picture: Path, bundle: Bundle, *, where: str) -> Scan:
    """Annotations as class indices on the pixels of their picture."""
    shapes = read_annotations(source)
    names = dict(enumerate({one.name: None for one in shapes}))
    numbers = {names[place]: value for place, value in numbers_of(names, bundle, where=where).items()}
    if not is_picture(picture):
        raise InputError(
            f"annotations lie on a picture, the scan is {picture.name}",
            where=where,
            fix="Submit a label file instead.",
            code="FORMAT",
        )
    scan = read_image(picture, channels=len(bundle.channels))
    return Scan(draw(shapes, numbers, size=scan.array.shape[:2]), scan.affine)


def _names_in(info: Mapping[str, Any]) -> dict[int, str]:
    """What a client said of a label's numbers: 3D Slicer numbers segments as they lie in its list."""
    sent = info.get("label_info")
    entries = [one for one in sent if isinstance(one, Mapping)] if isinstance(sent, list) else []
    return {one["idx"]: str(one.get("name", "")) for one in entries if isinstance(one.get("idx"), int)}


def numbers_of(names: Mapping[int, str], bundle: Bundle, *, where: str) -> dict[int, int]:
    """The bundle's numbers for those of a label, by the names of its structures, in whatever case.

    Raises:
        InputError: code LABEL_VALUES, a name is none of the bundle's.
    """
    known = {name.lower(): value for name, value in zip(bundle.classes, bundle.values, strict=True)}
    found: dict[int, int] = {}
    for number, name in names.items():
        if name.lower() not in known:
            raise InputError(
                f"the label has a structure {name!r}, the model knows {', '.join(bundle.labels)}",
                where=where,
                fix="Rename the segment, or delete it, and submit the label again.",
                code="LABEL_VALUES",
            )
        found[number] = known[name.lower()]
    return found


def _renumber(label: np.ndarray, numbers: Mapping[int, int]) -> np.ndarray:
    result = label.astype(np.uint16)
    for old, new in numbers.items():
        result[label == old] = new
    return result
