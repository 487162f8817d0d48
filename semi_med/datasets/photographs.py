"""What data sets of photographs with drawn labels have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from semi_med.data.data_list import DataList
from semi_med.datasets.prepared import MadeCase, PreparedDataset, SourceCase, check_source, finish, prepare_cases
from semi_med.datasets.record import About, PreparedCase
from semi_med.datasets.stored import JPEG
from semi_med.inference.pictures import (
    check_same_size,
    read_drawing,
    read_photograph,
    resize_image,
    resize_label,
    two_valued,
)

ReadLabel: TypeAlias = Callable[[Path], tuple[np.ndarray, tuple[str, ...]]]
ListsAndNotes: TypeAlias = tuple[dict[str, DataList], list[str]]


def read_two_valued(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The label of one drawn structure, (i, j) of 0 and 1, and warnings.

    Raises:
        InputError: if the file cannot be read, is in colour, or holds other values than 0 and 255, or 0 and 1.
    """
    drawn, notes = read_drawing(path)
    return two_valued(drawn, where=path), notes


@dataclass(frozen=True, kw_only=True)
class PhotographSet:
    """How a data set of photographs is prepared.

    Attributes:
        about: the data set.
        find: its cases in a source.
        lists: those that are possible with what was prepared, and notes.
        read_label: class indices (i, j) of a label's file, and warnings.
        keep: photographs stay the JPEG files that they are, unless another size is asked for.
        recipe: settings that the outcome depends on.
    """

    about: About
    find: Callable[[Path], Sequence[SourceCase]]
    lists: Callable[[PreparedDataset], ListsAndNotes]
    read_label: ReadLabel = read_two_valued
    keep: bool = False
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def prepare(
        self,
        source: str | Path,
        target: str | Path,
        *,
        size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        workers: int = 2,
    ) -> PreparedDataset:
        """Find, make and write all cases, and the lists; see the `prepare` of each data set."""
        source, target = check_source(source, target)
        done = prepare_cases(
            self.find(source),
            target,
            source=source,
            about=self.about,
            recipe=self.recipe,
            make=lambda case: make_photograph(case, read_label=self.read_label, size=size, keep=self.keep),
            progress=progress,
            workers=workers,
        )
        lists, notes = self.lists(done)
        return finish(done, lists, notes=notes)


def make_photograph(
    case: SourceCase, *, read_label: ReadLabel, size: int | None = None, keep: bool = False
) -> MadeCase:
    """A photograph and its labels: the first is the label, those of further observers go by their names.

    Args:
        case: one photograph, at most one label, and labels of other observers as `extra`.
        read_label: class indices (i, j) of a label's file, and warnings.
        size: columns and rows after resampling; None keeps the photograph as it is.
        keep: copy a JPEG with colours byte by byte instead of writing its pixels as PNG, which is several times larger.

    Raises:
        InputError: if a file cannot be read, or image and label differ in size.
    """
    image, notes = read_photograph(case.images[0])
    grey = any(note.startswith("GREY") for note in notes)
    files = {**({"": case.labels[0]} if case.labels else {}), **case.extra}
    labels = {}
    for name, path in files.items():
        label, more = read_label(path)
        check_same_size(label, image, where=path, reference=case.images[0].name)
        labels[name] = label if size is None else resize_label(label, (size, size))
        notes = (*notes, *more)
    if size is not None:
        image = resize_image(image, (size, size))
    copied = keep and size is None and not grey and case.images[0].suffix.lower() == JPEG
    return MadeCase(case.images[0] if copied else image, labels.pop("", None), None, notes, more_labels=labels)


def with_label(cases: Mapping[str, PreparedCase], split: str) -> list[str]:
    """Names of the cases of a published part that have a label, in order."""
    return sorted(name for name, case in cases.items() if case.split == split and case.label is not None)


def lists_if_whole(
    done: PreparedDataset,
    build_lists: Callable[[Mapping[str, PreparedCase]], dict[str, DataList]],
    *,
    parts: Mapping[str, int],
    train: str = "training",
    called: str = "The training part",
) -> ListsAndNotes:
    """The lists of a data set whose training part is whole, and a note on each published part that is not.

    Args:
        done: what was prepared.
        build_lists: of the cases by name.
        parts: cases that each part has as published.
        train: the part that lists are drawn from.
        called: that part, for the note.
    """
    there = {part: len(with_label(done.entries, part)) for part in parts}
    notes = [
        f"{there[part]} of the {count} cases of the {part} part are there with a label"
        for part, count in parts.items()
        if there[part] != count
    ]
    if there[train] != parts[train]:
        return {}, [*notes, f"{called} is not whole, so no data list is written."]
    return build_lists(done.entries), notes
