"""Regions: classes measured together as one structure, such as the whole tumour, or the epicardium of a heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semi_med.errors import InputError
from semi_med.metrics.case import Row, case_metrics


@dataclass(frozen=True)
class Region:
    """A union of classes under a name; regions may overlap."""

    name: str
    values: tuple[int, ...]

    @property
    def text(self) -> str:
        """Its classes as `1+2`."""
        return "+".join(map(str, self.values))


def parse_region(text: str, *, classes: Mapping[int, str]) -> Region:
    """The region that `epi=1+2` or `epi=cavity+myocardium` names.

    Args:
        text: a name, and numbers or names of classes.
        classes: class index to name.

    Raises:
        InputError: code REGION, for another form, the background, or a class that is not there.
    """
    name, sign, members = text.partition("=")
    numbers = {class_name: value for value, class_name in classes.items()}
    if not sign or not name.strip() or not members.strip():
        raise _region_error(f"NAME=CLASS+CLASS was wanted, got {text!r}", classes)
    values = []
    for member in (part.strip() for part in members.split("+")):
        value = int(member) if member.isdecimal() else numbers.get(member)
        if value is None or value == 0 or value not in classes:
            raise _region_error(f"there is no class {member!r} for the region {name.strip()!r}", classes)
        values.append(value)
    return Region(name.strip(), tuple(sorted(set(values))))


def parse_regions(texts: Sequence[str], *, classes: Mapping[int, str]) -> tuple[Region, ...]:
    """The regions of an evaluation; two of one name are an error, code REGION."""
    regions = tuple(parse_region(text, classes=classes) for text in texts)
    names = [region.name for region in regions]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _region_error(f"the region {twice[0]!r} is named twice", classes)
    return regions


def _region_error(problem: str, classes: Mapping[int, str]) -> InputError:
    known = ", ".join(f"{value} {name}" for value, name in sorted(classes.items()) if value != 0)
    return InputError(problem, where="--region", fix=f"The classes are {known}: for example whole=1+2.", code="REGION")


def region_metrics(
    prediction: np.ndarray, label: np.ndarray, *, regions: Sequence[Region], spacing: Sequence[float] | None
) -> list[Row]:
    """Measure each region as one object; arguments as for `case_metrics`.

    Returns:
        One dict for each region with the keys of `case_metrics`; `class` is the text `1+2`.
    """
    rows = []
    for region in regions:
        objects = (np.isin(array, region.values) for array in (prediction, label))
        (row,) = case_metrics(*objects, classes={1: region.name}, spacing=spacing)
        rows.append({**row, "class": region.text})
    return rows
