"""The structures that labels show: their numbers, names, sizes and parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from semi_med.data.validation import CaseVerdict
from semi_med.errors import InputError
from semi_med.planning.look import Form

MOST_CLASSES = 64  # beyond it a label is taken for an image
_LARGEST_VALUE = 65535  # that a written mask can hold
_LARGEST_OF_PICTURES = 255
_MANY = 10
_WHOLE = 0.999  # share of the largest part beside which the others are specks


@dataclass(frozen=True)
class Structure:
    """One class of the labels.

    Attributes:
        value: its number in the files.
        name: what it is called.
        cases: labelled cases that show it.
        share: of the voxels of those cases, the median.
        components: connected parts in a case, the median; None if not counted.
        largest: share of the structure that its largest part has, the median; None if not counted.
        whole: cases in which the largest part is all of it, but for specks.
        thickness: mm, see `semi_med.planning.look.Form`, the median; None if not measured.
    """

    value: int
    name: str
    cases: int
    share: float
    components: float | None = None
    largest: float | None = None
    whole: int = 0
    thickness: float | None = None


def find_structures(
    verdicts: Sequence[CaseVerdict], names: Sequence[str], *, pictures: bool = False, ignored: int | None = None
) -> tuple[int, tuple[Structure, ...]]:
    """The background's value and the structures.

    0 is the background; where no label has a 0, the smallest value is.

    Args:
        verdicts: of the cases, with what `look_at` kept.
        names: of the structures in the order of their values; none for `class <value>`.
        pictures: masks will be PNG files with a palette, which holds fewer numbers.
        ignored: what labels hold where nothing is known: no structure.

    Raises:
        InputError: code LABEL_VALUES or CLASSES.
    """
    counts = _counts(verdicts, ignored)
    values = sorted({value for found, _ in counts for value, number in found.items() if number})
    if len(values) > MOST_CLASSES:
        raise InputError(
            f"the labels hold {len(values)} different values, {values[0]} to {values[-1]}; up to {MOST_CLASSES} are "
            "taken for classes",
            where="labels",
            fix="These may be images, or masks that a lossy format (JPEG) or interpolation has blurred.",
            code="LABEL_VALUES",
        )
    if len(values) < 2:
        raise InputError(
            f"the labels hold nothing but {values[0] if values else 'nothing'}",
            where="labels",
            fix="A label has the background and at least one structure.",
            code="LABEL_VALUES",
        )
    largest = _LARGEST_OF_PICTURES if pictures else _LARGEST_VALUE
    if values[-1] > largest:
        raise InputError(
            f"a mask can have numbers up to {largest}, the labels go up to {values[-1]}",
            where="labels",
            fix=f"Renumber: `semi-med convert LABELS OUTPUT --label --map-labels {values[-1]}=1`.",
            code="LABEL_VALUES",
        )
    background, *others = values if 0 not in values else [0, *(value for value in values if value)]
    if names and len(names) != len(others):
        raise InputError(
            f"{len(names)} names came for {len(others)} classes; the values are {', '.join(map(str, others))}",
            where="--class",
            fix="Give one --class NAME for each, in this order.",
            code="CLASSES",
        )
    if len({"background", *names}) <= len(names):
        raise InputError(
            f"different names, and not 'background', were wanted, got {', '.join(names)}",
            where="--class",
            fix="Tables and files tell classes by their names.",
            code="CLASSES",
        )
    called = list(names) or [f"class {value}" for value in others]
    return background, tuple(_structure(value, name, counts) for value, name in zip(others, called, strict=True))


def measured_on(
    verdicts: Sequence[CaseVerdict], classes: Sequence[Structure], *, ignored: int | None
) -> tuple[Structure, ...]:
    """The same structures as these cases alone show them; one that none of them shows stays as it was, in no case."""
    counts = _counts(verdicts, ignored)
    return tuple(
        _structure(one.value, one.name, counts)
        if any(found.get(one.value) for found, _ in counts)
        else replace(one, cases=0, whole=0)
        for one in classes
    )


def _counts(verdicts: Sequence[CaseVerdict], ignored: int | None) -> list[tuple[Mapping[int, int], Mapping[int, Form]]]:
    """Of each label: voxels by value, and the forms of its structures."""
    counts: list[tuple[Mapping[int, int], Mapping[int, Form]]] = []
    for verdict in verdicts:
        facts = verdict.facts.get(verdict.label or "")
        if facts is not None and facts.values is not None:
            known = {value: number for value, number in facts.values.items() if value != ignored}
            counts.append((known, verdict.kept.forms if verdict.kept else {}))
    return counts


def unknown_share(verdicts: Sequence[CaseVerdict], ignored: int) -> float:
    """Share of the labels' voxels that have the value which is ignored.

    Raises:
        InputError: code LABEL_VALUES, there is none.
    """
    facts = [found for verdict in verdicts if (found := verdict.facts.get(verdict.label or "")) is not None]
    counts = [found.values for found in facts if found.values is not None]
    unknown, whole = sum(found.get(ignored, 0) for found in counts), sum(sum(found.values()) for found in counts)
    if not unknown:
        values = sorted({value for found in counts for value, number in found.items() if number})
        raise InputError(
            f"no label holds {ignored}; the values are {', '.join(map(str, values[:_MANY]))}",
            where="--ignored",
            fix="Name the value that says that nothing is known there, or leave it out.",
            code="LABEL_VALUES",
        )
    return unknown / whole


def _structure(value: int, name: str, counts: Sequence[tuple[Mapping[int, int], Mapping[int, Form]]]) -> Structure:
    shares = [found[value] / sum(found.values()) for found, _ in counts if found.get(value)]
    forms = [found[value] for _, found in counts if value in found]
    return Structure(
        value=value,
        name=name,
        cases=len(shares),
        share=float(np.median(shares)),
        components=float(np.median([form.parts for form in forms])) if forms else None,
        largest=float(np.median([form.largest for form in forms])) if forms else None,
        whole=sum(form.largest >= _WHOLE for form in forms),
        thickness=float(np.median([form.thickness for form in forms])) if forms else None,
    )
