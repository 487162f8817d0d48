"""Where the files of a data list lie, in folders that a person gives: those of the data set, or copies of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from semi_med.data.data_list import SECTIONS, Case, DataList
from semi_med.errors import InputError
from semi_med.inference.io import READ_SUFFIXES, case_name


def section_files(
    listed: DataList, section: str, places: Sequence[Path], *, labels: bool = False
) -> dict[str, tuple[Path, ...]]:
    """The scans of a section, or their labels, by case.

    A file is looked for by its path in the list, from the folder of the data set, from any folder of it that is given,
    or as a file that is given; else by its name alone, where no other file of the list has that name.

    Args:
        listed: the data list.
        section: of its sections.
        places: folders and files.
        labels: the labels of the cases that have one, not their scans.

    Raises:
        InputError: code NOT_FOUND, naming the files that are not there.
    """
    counts = Counter(
        case_name(file) for name in SECTIONS for case in getattr(listed, name) for file in _of(case, labels)
    )
    indices: dict[Path, dict[str, list[Path]]] = {}
    found: dict[str, tuple[Path, ...]] = {}
    missing: list[str] = []
    wanted = {case.name: _of(case, labels) for case in getattr(listed, section)}
    for name, files in wanted.items():
        paths = []
        for file in files:
            path = _by_path(file, places)
            if path is None and counts[case_name(file)] == 1:
                path = _by_name(case_name(file), places, indices)
            if path is None:
                missing.append(file)
            else:
                paths.append(path)
        if paths:
            found[name] = tuple(paths)
    if missing:
        what, where = ("labels", "in the folder of the labels") if labels else ("scans", "among the inputs")
        shown = ", ".join(PurePosixPath(file).name for file in missing[:5])
        raise InputError(
            f"{len(missing)} of the {sum(map(len, wanted.values()))} {what} of the section {section} are not {where}: "
            f"{shown} (looked for in {', '.join(map(str, places))})",
            where=f"data list {listed.name}",
            fix=f"Name the folder of the {what}, or that of the data set.",
            code="NOT_FOUND",
        )
    return found


def _of(case: Case, labels: bool) -> tuple[str, ...]:
    label = case.label or case.monitor_label
    return ((label,) if label else ()) if labels else case.files


def _by_path(file: str, places: Sequence[Path]) -> Path | None:
    """Where the path of the list leads, from a place whose own last folders are the first ones of the path."""
    parts = PurePosixPath(file).parts
    for place in places:
        own = Path(os.path.abspath(place)).parts  # noqa: PTH100 - links stay as they are named
        for shared in range(len(parts) + 1):
            path = place.joinpath(*parts[shared:])
            if own[len(own) - shared :] == parts[:shared] and path.exists():
                return path
    return None


def _by_name(name: str, places: Sequence[Path], indices: dict[Path, dict[str, list[Path]]]) -> Path | None:
    """The only scan of this name, the uppermost first."""
    for place in places:
        if place not in indices:
            indices[place] = {}
            for path in _scans(place):
                indices[place].setdefault(case_name(path), []).append(path)
        paths = indices[place].get(name, [])
        above = [path for path in paths if path.parent == place] or paths
        if len(above) == 1:
            return above[0]
    return None


def _scans(place: Path) -> Iterator[Path]:
    """Scans in a folder at any depth and the folders below it, which may be series; or the file that is given."""
    if not place.is_dir():
        yield place
        return
    for root, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in folders)
        yield from (Path(root, name) for name in names if name[0] != "." and name.lower().endswith(READ_SUFFIXES))
