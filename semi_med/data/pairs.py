"""A person's own scans and labels, as they lie: one folder or two, several files a case, labels for some of them.

Names decide. A label belongs to the image of its name, with or without an ending such as `_seg`; the files of a case
with several channels have endings such as `_0000` or `_flair`, or lie in a folder of their own. Nothing is opened but
to see whether a file is DICOM.
"""

from __future__ import annotations

import bisect
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semi_med.data.folders import LABEL_ENDINGS, dicom_folders, scan_files
from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.inference.channels import group_channels
from semi_med.inference.io import READ_SUFFIXES, case_name

_ENDING = re.compile(rf"(?:(.*?)[-_. ])?({'|'.join(LABEL_ENDINGS)}|labelmap|annotation|gtv?)", re.IGNORECASE)
_FURTHER = re.compile(rf"(.+?)[-_. ](?:(?:{'|'.join(LABEL_ENDINGS)})[-_ ]?\d+|[2-9](?:nd|rd|th)HO)", re.IGNORECASE)
_PART = r"[-_ ]?(tr|ts|train|test)?"
_LABEL_FOLDER = re.compile(
    rf"(?:labels?|masks?|segmentations?|annotations?|ground[-_ ]?truth|gt){_PART}", re.IGNORECASE
)
_IMAGE_FOLDER = re.compile(rf"(?:images?|imgs?|scans?){_PART}", re.IGNORECASE)
_SHOWN = 5


@dataclass(frozen=True)
class Pair:
    """One case as files.

    Attributes:
        case: its name, which names its outputs; no slash.
        images: one file for each channel, or the folder of a DICOM series.
        label: its label, if it has one.
        folder: that it lies in, relative to the folder of the images.
        channels: the ending of each file; an empty one for an only file.
    """

    case: str
    images: tuple[Path, ...]
    label: Path | None = None
    folder: str = ""
    channels: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Pairs:
    """All cases of a person's folders.

    Attributes:
        root: the folder that all files lie in, which a data list's paths are relative to.
        cases: in the order of their names.
        channels: endings of the channels' files; one empty one for one file a case.
        notes: what was passed over.
    """

    root: Path
    cases: tuple[Pair, ...]
    channels: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Label:
    folder: str
    case: str
    path: Path


def find_pairs(images: str | Path, labels: str | Path | None = None) -> Pairs:
    """The cases of a folder of images, with the labels that lie there or in a second folder.

    Args:
        images: folder, at any depth; links to folders are not followed.
        labels: folder of the labels; None if they lie among the images, told by an ending or by a folder's name.

    Raises:
        InputError: a folder is missing or holds no scan; labels were given and none belongs to an image.
        ProblemsError: cases have different channels, or two labels belong to one image.
    """
    images, labels = _folder(images), None if labels is None else _folder(labels)
    apart = labels is not None and labels.resolve() != images.resolve()
    files = scan_files(images)
    series = dicom_folders(images)
    if not files and not series:
        raise InputError(
            f"this folder holds no file that ends in {', '.join(READ_SUFFIXES)}, and no DICOM series",
            where=images,
            fix="Name the folder that holds the scans with --images.",
            code="NO_SCANS",
        )
    notes: list[str] = []
    inside, pictures = _told_apart(files, images, label_folder=labels if apart else None)
    if labels is not None and apart:
        found = [_label_of(path, labels) for path in scan_files(labels)]
        if inside:
            notes.append(
                f"{len(inside)} files among the images are named as labels and were left out, as --labels is given"
            )
    else:
        found = inside
    pictures, further = _without_further(pictures, found)
    if further:
        notes.append(
            f"{len(further)} files are named as further labels of a scan and were left out: "
            f"{', '.join(path.name for path in further[:_SHOWN])}; where they show more of it, join them with its label"
        )
    cases = [*_grouped(pictures, images, found), *(_series(folder, images) for folder in series)]
    cases, unpaired = _with_labels(cases, found)
    if unpaired:
        shown = ", ".join(label.path.name for label in unpaired[:_SHOWN])
        notes.append(f"{len(unpaired)} labels have no image of their name: {shown}")
    if labels is not None and not any(case.label for case in cases):
        raise _none_matches(cases, found, labels)
    channels = _channels(cases)
    root = images.absolute() if labels is None else Path(os.path.commonpath([images.absolute(), labels.absolute()]))
    named = sorted(_named_apart(cases), key=lambda case: case.case)
    return Pairs(root, tuple(named), channels, tuple(notes))


def _folder(given: str | Path) -> Path:
    folder = Path(os.path.abspath(given))  # noqa: PTH100 - links stay as they are named
    if not folder.is_dir():
        code = "NOT_A_FOLDER" if folder.exists() else "NOT_FOUND"
        raise InputError("a folder was wanted, this is none", where=given, fix="Check the path.", code=code)
    return folder


def _told_apart(files: Sequence[Path], root: Path, *, label_folder: Path | None) -> tuple[list[_Label], list[Path]]:
    """Labels, by their ending or their folder, and images; files of `label_folder` are neither."""
    labels, images = [], []
    names: dict[Path, list[str]] = defaultdict(list)
    for path in files:
        names[path.parent].append(case_name(path))
    names = {place: sorted(found) for place, found in names.items()}
    for path in files:
        if label_folder is not None and label_folder in path.parents:
            continue
        name = case_name(path)
        match = _ENDING.fullmatch(name)
        in_folder = any(_LABEL_FOLDER.fullmatch(part) for part in path.relative_to(root).parts[:-1])
        # `a_seg` is a label only where something else in the folder begins with `a`
        if in_folder or (match is not None and _begins(names[path.parent], match[1] or "", but=name)):
            labels.append(_label_of(path, root))
        else:
            images.append(path)
    return labels, images


def _without_further(images: Sequence[Path], labels: Sequence[_Label]) -> tuple[list[Path], list[Path]]:
    """Images, and files such as `a_mask_1` and `a_2ndHO` beside an image or a label of `a`, which are none."""
    cases = {(label.path.parent, label.case) for label in labels} | {(path.parent, case_name(path)) for path in images}
    kept: list[Path] = []
    further: list[Path] = []
    for path in images:
        match = _FURTHER.fullmatch(case_name(path))
        (further if match and (path.parent, match[1]) in cases else kept).append(path)
    return kept, further


def _begins(names: Sequence[str], start: str, *, but: str) -> bool:
    """Whether any other of the sorted names begins so."""
    place = bisect.bisect_left(names, start)
    return any(name.startswith(start) and name != but for name in names[place : place + 2])


def without_ending(name: str) -> str:
    """The case that the name of a label tells: `a_seg`, `a-mask` and `a` are labels of `a`; a bare `seg` of ""."""
    match = _ENDING.fullmatch(name)
    return match[1] or "" if match else name


def _label_of(path: Path, root: Path) -> _Label:
    return _Label(_place(path, root), without_ending(case_name(path)), path)


def _place(path: Path, root: Path) -> str:
    """The folders between the root and a file, without those that only tell images from labels."""
    places = []
    for part in path.parent.relative_to(root).parts:
        match = _LABEL_FOLDER.fullmatch(part) or _IMAGE_FOLDER.fullmatch(part)
        places.append((match[1] or "").lower() if match else part)
    return "/".join(place for place in places if place)


def _grouped(images: Sequence[Path], root: Path, labels: Sequence[_Label]) -> Iterator[Pair]:
    folders: dict[Path, dict[str, Path]] = defaultdict(dict)
    for path in images:
        name = case_name(path)
        if name in folders[path.parent]:
            other = folders[path.parent][name].name
            raise InputError(
                f"{other} and {path.name} have one name", where=path.parent, fix="Remove one of them.", code="CASE_NAME"
            )
        folders[path.parent][name] = path
    known = {label.case for label in labels if label.case}
    for folder, groups in group_channels(folders, cases=known).items():
        for case, channels in groups.items():
            # files that have no name but their channel are the case of their folder
            place = _place(folder / "x" if case or folder == root else folder, root)
            paths = tuple(folders[folder][name] for name in channels.values())
            endings = tuple(channels) if len(channels) > 1 else ("",)
            yield Pair(case or folder.name, paths, folder=place, channels=endings)


def _series(folder: Path, root: Path) -> Pair:
    return Pair(folder.name, (folder,), folder=_place(folder, root) if folder != root else "")


def _with_labels(cases: Sequence[Pair], labels: Sequence[_Label]) -> tuple[list[Pair], list[_Label]]:
    """Cases with their labels: of the same folder and name, else of the same name anywhere if that is one case's."""
    exact: dict[tuple[str, str], int] = {}
    for number, case in enumerate(cases):
        first = exact.setdefault((case.folder, case.case), number)
        if first != number:
            raise InputError(
                f"{cases[first].images[0]} and this file have one name in folders of one meaning",
                where=case.images[0],
                fix="Rename one of them or its folder, so that labels and masks tell them apart.",
                code="CASE_NAME",
            )
    by_name: dict[str, list[int]] = defaultdict(list)
    by_folder: dict[str, list[int]] = defaultdict(list)
    for number, case in enumerate(cases):
        by_name[case.case].append(number)
        by_folder[case.folder].append(number)
    taken: dict[int, list[_Label]] = defaultdict(list)
    unpaired: list[_Label] = []
    for label in labels:
        # a label that is only called `seg` belongs to the case of its folder, or to the only one in it
        place, _, last = label.folder.rpartition("/")
        name = label.case or last
        found = exact.get((label.folder if label.case else place, name))
        if found is None:
            others = by_name.get(name) or by_name.get(case_name(label.path), [])
            found = others[0] if len(others) == 1 else None
        if found is None and not label.case:
            near = by_folder[label.folder]
            found = near[0] if len(near) == 1 else None
        if found is None:
            unpaired.append(label)
        else:
            taken[found].append(label)
    twice: list[SemiMedError] = [
        InputError(
            f"{len(several)} labels belong to it: {', '.join(label.path.name for label in several)}",
            where=cases[number].images[0],
            fix="Keep one of them, or name the folder of the ones that are meant with --labels.",
            code="TWO_LABELS",
        )
        for number, several in taken.items()
        if len(several) > 1
    ]
    if twice:
        raise ProblemsError(twice, title="labels")
    return [
        replace(case, label=taken[number][0].path) if number in taken else case for number, case in enumerate(cases)
    ], unpaired


def _none_matches(cases: Sequence[Pair], labels: Sequence[_Label], folder: Path) -> InputError:
    shown = f", for example {labels[0].path.name} and {cases[0].images[0].name}" if labels else ""
    return InputError(
        f"none of its {len(labels)} labels has the name of one of the {len(cases)} images{shown}",
        where=folder,
        fix="A label is named like its image, with or without _seg, _label, _mask or _gt.",
        code="NO_PAIRS",
    )


def _channels(cases: Sequence[Pair]) -> tuple[str, ...]:
    """The endings of the channels, which must be the same for all cases."""
    counts = Counter(case.channels for case in cases)
    usual = max(counts, key=lambda endings: (counts[endings], len(endings), endings))
    problems: list[SemiMedError] = [
        InputError(
            f"it has {len(case.images)} files ({', '.join(path.name for path in case.images)}){_told(case.channels)}; "
            f"most cases have {len(usual)}{_told(usual)}",
            where=case.case,
            fix="Give all cases the same channels, called alike, or take the case away.",
            code="CHANNELS",
        )
        for case in cases
        if case.channels != usual
    ]
    if problems:
        raise ProblemsError(problems, title="channels")
    return usual


def _told(channels: Sequence[str]) -> str:
    return f": {', '.join(channels)}" if len(channels) > 1 else ""


def _named_apart(cases: Sequence[Pair]) -> Iterator[Pair]:
    """Cases of one name in different folders are called by their folders too, or only by them where each is alone."""
    counts, folders = Counter(case.case for case in cases), Counter(case.folder for case in cases)
    crowded = {case.case for case in cases if not case.folder or folders[case.folder] > 1}
    for case in cases:
        name, place = case.case, case.folder.replace("/", "__")
        if counts[name] > 1 and place:
            name = f"{place}__{name}" if name in crowded or place in counts else place
        yield replace(case, case=name.lstrip(".") or "case")
