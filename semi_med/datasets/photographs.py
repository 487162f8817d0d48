"""What data sets of photographs with drawn labels have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from semi_med.datasets.prepared import MadeCase, PreparedDataset, SourceCase
from semi_med.datasets.record import PreparedCase
from semi_med.inference.pictures import check_same_size, read_photograph, resize_image, resize_label

ReadLabel = Callable[[Path], tuple[np.ndarray, tuple[str, ...]]]


def make_photograph(case: SourceCase, *, read_label: ReadLabel, size: int | None = None) -> MadeCase:
    """A photograph and its labels: the first is the label, those of further observers go by their names.

    Args:
        case: one photograph, at most one label, and labels of other observers as `extra`.
        read_label: class indices (i, j) of a label's file, and warnings.
        size: columns and rows after resampling; None keeps the photograph as it is.

    Raises:
        InputError: if a file cannot be read, or image and label differ in size.
    """
    image, notes = read_photograph(case.images[0])
    files = {**({"": case.labels[0]} if case.labels else {}), **case.extra}
    labels = {}
    for name, path in files.items():
        label, more = read_label(path)
        check_same_size(label, image, where=path, reference=case.images[0].name)
        labels[name] = label if size is None else resize_label(label, (size, size))
        notes = (*notes, *more)
    if size is not None:
        image = resize_image(image, (size, size))
    return MadeCase(image, labels.pop("", None), None, notes, more_labels=labels)


def with_label(cases: Mapping[str, PreparedCase], split: str) -> list[str]:
    """Names of the cases of a published part that have a label, in order."""
    return sorted(name for name, case in cases.items() if case.split == split and case.label is not None)


def compare_parts(done: PreparedDataset, sizes: Mapping[str, int]) -> list[str]:
    """A note on each published part that is not whole.

    Args:
        done: what was prepared.
        sizes: cases that each part has as published.
    """
    return [
        f"{there} of the {count} cases of the {part} part are there with a label"
        for part, count in sizes.items()
        if (there := len(with_label(done.entries, part))) != count
    ]
