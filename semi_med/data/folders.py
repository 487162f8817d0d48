"""Which scans a folder holds and which of its files are their labels, by the ways that names are commonly given.

Three layouts are known: `images/` with `labels/` (also `imagesTr`, `labelsTr` and the like) and equal names; images and
labels side by side, told apart by an ending such as `_label` or `_mask`; and plain scans. Series of DICOM files are
found as the folders that hold them. Nothing is opened here but to see whether a file is DICOM.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semi_med.errors import InputError
from semi_med.inference.io import READ_SUFFIXES, case_name

LABEL_ENDINGS = ("labels", "label", "segmentation", "seg", "masks", "mask", "gt", "ground_truth", "manual", "1stHO")
_LABEL_NAME = re.compile(rf"(.+?)[-_.]({'|'.join(LABEL_ENDINGS)})", re.IGNORECASE)
_IMAGE_NAME = re.compile(r"(.+)[-_.](?:image|img)", re.IGNORECASE)
_FOLDERS = re.compile(r"(images?|imgs?|labels?|masks?|segmentations?)(Tr|Ts|_?train|_?test)?", re.IGNORECASE)
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_SIDE_FILES = (".raw", ".zraw", ".img")  # payloads of .mhd headers, which name them


@dataclass(frozen=True)
class FoundFolder:
    """What a folder holds.

    Attributes:
        items: as a data list gives them: `image` (a path, or one for each channel), `case`, `label` if there is one.
        ignored: files that are no scans, by suffix.
        notes: labels without an image, and other oddities.
    """

    items: list[dict[str, Any]]
    ignored: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_cases(folder: str | Path) -> FoundFolder:
    """The scans of a folder, at any depth, with their labels. Hidden files are passed over.

    Args:
        folder: the folder; links to folders are not followed.

    Raises:
        InputError: code NOT_FOUND, NOT_A_FOLDER, or NO_SCANS if there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        code = "NOT_A_FOLDER" if folder.exists() else "NOT_FOUND"
        raise InputError("a folder was wanted, this is none", where=folder, fix="Check the path.", code=code)
    places, ignored = _files(folder)
    items: list[dict[str, Any]] = []
    unpaired: list[str] = []
    done: set[Path] = set()
    for images, labels in _folder_pairs(places):
        done |= {images, *([labels] if labels else [])}
        own, left = _by_folder(places[images], places[labels] if labels else [])
        items += own
        unpaired += left
    for place, files in places.items():
        if place not in done:
            items += _side_by_side(files)
    series = _series(folder, places)
    items += series
    if not items:
        raise InputError(
            f"this folder holds no file that ends in {', '.join(READ_SUFFIXES)}, and no DICOM series",
            where=folder,
            fix="Name the folder that holds the scans.",
            code="NO_SCANS",
        )
    _name_apart(items, folder)
    notes = [f"{len(unpaired)} labels have no image of their name: {', '.join(unpaired[:5])}"] if unpaired else []
    if ignored and not series:
        notes.append("not looked at: " + ", ".join(f"{count} {name}" for name, count in sorted(ignored.items())))
    return FoundFolder(items, ignored, tuple(notes))


def scan_files(folder: Path) -> list[Path]:
    """The scans of a folder but for DICOM, at any depth, sorted."""
    return [path for files in _files(folder)[0].values() for path in files]


def dicom_folders(folder: Path) -> list[Path]:
    """The folders that hold DICOM files and no other scans, at any depth."""
    return [Path(item["image"]) for item in _series(folder, _files(folder)[0])]


def _files(folder: Path) -> tuple[dict[Path, list[Path]], dict[str, int]]:
    """Scans by their folder, and how many other files there are of each kind."""
    places: dict[Path, list[Path]] = {}
    ignored: Counter[str] = Counter()
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        scans = []
        for name in sorted(name for name in names if not name.startswith(".")):
            if name.lower().endswith(READ_SUFFIXES):
                scans.append(Path(root, name))
            elif not name.lower().endswith(_SIDE_FILES):
                ignored[_kind(name)] += 1
        places[Path(root)] = scans
    return places, dict(ignored)


def _kind(name: str) -> str:
    suffix = Path(name).suffix.lower()
    return suffix if suffix[1:].isalnum() and 1 < len(suffix) <= 6 and not suffix[1:].isdigit() else "other"


def _folder_pairs(places: dict[Path, list[Path]]) -> Iterator[tuple[Path, Path | None]]:
    """Folders of images, each with its folder of labels: `images` and `labels`, `imagesTr` and `labelsTr`."""
    named: dict[tuple[Path, str], dict[bool, Path]] = defaultdict(dict)
    for place in places:
        match = _FOLDERS.fullmatch(place.name)
        if match:
            is_label = not match[1].lower().startswith(("image", "img"))
            named[place.parent, (match[2] or "").lower()].setdefault(is_label, place)
    for pair in named.values():
        if False in pair and (places[pair[False]] or True in pair):
            yield pair[False], pair.get(True)


def _by_folder(images: Sequence[Path], labels: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Cases of a folder of images with a folder of labels, and labels without an image."""
    by_name = {case_name(path): path for path in labels}
    for path in labels:  # a label may have an ending of its own
        match = _LABEL_NAME.fullmatch(case_name(path))
        if match:
            by_name.setdefault(match[1], path)
    groups: dict[str, list[Path]] = defaultdict(list)
    names = {case_name(path) for path in images}
    for path in images:
        name = case_name(path)
        match = _CHANNEL.fullmatch(name)
        channel = match is not None and name not in by_name and (match[1] in by_name or f"{match[1]}_0001" in names)
        groups[match[1] if match and channel else name].append(path)
    items = []
    used: set[Path] = set()
    for name, files in groups.items():
        item: dict[str, Any] = {"image": str(files[0]) if len(files) == 1 else [str(file) for file in files]}
        item["case"] = name
        if name in by_name:
            item["label"] = str(by_name[name])
            used.add(by_name[name])
        items.append(item)
    return items, [path.name for path in labels if path not in used]


def _side_by_side(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Cases of one folder in which images and labels lie together."""
    names = {case_name(path): path for path in files}
    labels: dict[str, Path] = {}
    partner: set[Path] = set()
    for name, path in names.items():
        match = _LABEL_NAME.fullmatch(name)
        if match is None:
            continue
        base = match[1]
        image = next((names[other] for other in _image_names(base, names) if names[other] != path), None)
        if image is not None and image not in labels.values():
            labels.setdefault(str(image), path)
            partner.add(path)
    items = []
    for name, path in names.items():
        if path in partner:
            continue
        match = _IMAGE_NAME.fullmatch(name)
        item = {"image": str(path), "case": match[1] if match and str(path) in labels else name}
        if str(path) in labels:
            item["label"] = str(labels[str(path)])
        items.append(item)
    return items


def _image_names(base: str, names: dict[str, Path]) -> Iterator[str]:
    for candidate in (f"{base}_image", f"{base}-image", f"{base}_img", base):
        if candidate in names:
            yield candidate


def _series(folder: Path, places: dict[Path, list[Path]]) -> list[dict[str, Any]]:
    """Folders without scans of other formats that hold DICOM files themselves."""
    from semi_med.inference.dicom import is_dicom

    found = []
    for place, scans in places.items():
        names = sorted(entry.name for entry in place.iterdir() if not entry.is_dir() and not entry.name.startswith("."))
        if not scans and names and any(is_dicom(place / name) for name in names[:3]):
            relative = place.relative_to(folder).as_posix()
            found.append({"image": str(place), "case": relative if relative != "." else place.resolve().name})
    return found


def _name_apart(items: list[dict[str, Any]], folder: Path) -> None:
    """Cases of one name in different folders are called by their path."""
    counts = Counter(item["case"] for item in items)
    for item in items:
        if counts[item["case"]] > 1:
            first = item["image"] if isinstance(item["image"], str) else item["image"][0]
            relative = Path(first).relative_to(folder)
            item["case"] = relative.as_posix()
