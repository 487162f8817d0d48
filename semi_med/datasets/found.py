"""Finding the files of a data set by name, at any depth: archives are unpacked into folders of many names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from semi_med.datasets.prepared import some
from semi_med.errors import InputError, ProblemsError, SemiMedError

_LEFTOVERS = ("__MACOSX",)  # what other systems put into archives


def files_under(source: Path) -> Iterator[Path]:
    """All files below a folder in the order of their names, without hidden ones and leftovers of archives."""
    for folder, folders, files in os.walk(source, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _LEFTOVERS)
        yield from (Path(folder) / file for file in sorted(files) if not file.startswith("."))


def by_name(files: list[Path], pattern: str, *, where: Path) -> dict[str, Path]:
    """The files whose names match, by the group `name` of the pattern.

    Args:
        files: where to look.
        pattern: of the whole file name; upper and lower case are the same.
        where: the folder, for the error.

    Raises:
        ProblemsError: if a name is there twice.
    """
    wanted, found = re.compile(pattern, re.IGNORECASE), dict[str, Path]()
    problems: list[SemiMedError] = []
    for path in files:
        match = wanted.fullmatch(path.name)
        if match is None:
            continue
        if match["name"] in found:
            problems.append(
                InputError(
                    f"{match['name']} is there twice, also as {found[match['name']]}",
                    where=path,
                    fix="Remove one, or name the folder of one edition only.",
                    code="DUPLICATE",
                )
            )
        found.setdefault(match["name"], path)
    if problems:
        raise ProblemsError(problems, title=f"{where}")
    return found


def refuse_labels_alone(images: Mapping[str, Path], labels: Mapping[str, Path], *, where: Path) -> None:
    """Refuse labels whose image is missing: a sign of a download that is not whole.

    Raises:
        InputError: code NO_IMAGE.
    """
    alone = sorted(labels.keys() - images.keys())
    if alone:
        raise InputError(
            f"{len(alone)} labels have no image: {some(alone)}",
            where=where,
            fix="Unpack the images into the same folder.",
            code="NO_IMAGE",
        )


def layout_error(wanted: str, *, where: Path) -> InputError:
    """The error for a folder in which nothing of a data set was found."""
    return InputError(
        f"{wanted} was not found here, at any depth",
        where=where,
        fix="Name the folder that the download was unpacked to; its layout is in the data set's page of the docs.",
        code="LAYOUT",
    )
