"""Splits with a seed: which subjects are labeled, unlabeled, for validation and for the test.

All cases of one subject stay together. The subjects whose cases all have labels are put into one order, drawn with the
seed so that every stretch of it holds the strata in their proportions; the test is its beginning, then validation, then
the labeled ones. So for one seed the test does not depend on the other numbers, and the 4 labeled are among the 8. The
order depends on the names of the subjects, not on that of the input.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from semi_med.data.data_list import SECTIONS, Case, DataList
from semi_med.errors import InputError


@dataclass(frozen=True)
class SplitCase:
    """A case to be split.

    Attributes:
        case: with its label, as `label` or `monitor_label`, if there is one.
        stratum: what the sections should hold in equal proportions; of a subject the most frequent one counts.
    """

    case: Case
    stratum: str | None = None

    @property
    def subject(self) -> str:
        """Whom the case shows."""
        return self.case.subject or self.case.name

    @property
    def label(self) -> str | None:
        """The file of its label."""
        return self.case.label or self.case.monitor_label


@dataclass(frozen=True)
class Split:
    """Cases by section, and how they came there.

    Attributes:
        sections: for each section its cases, in the order of their names.
        subjects: number of subjects of each section.
        description: of the draw, in words.
        strata: for each section the number of subjects of each stratum.
    """

    sections: Mapping[str, tuple[Case, ...]]
    subjects: Mapping[str, int]
    description: str
    strata: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def make_split(
    cases: Sequence[SplitCase],
    *,
    labeled: int | float,
    validation: int | float = 0,
    test: int | float = 0,
    seed: int = 0,
    of_the_rest: bool = False,
) -> Split:
    """Draw a split.

    Args:
        cases: of any number of subjects.
        labeled: subjects with labels: a whole number, or a fraction of all whose labels are known (0.1 is 10 %).
        validation: the same for the validation section.
        test: the same for the test section.
        seed: of the draw.
        of_the_rest: a fraction of labeled subjects is one of those that are left for training.

    Returns:
        the split. Subjects that are left over, and those without a label, are unlabeled.

    Raises:
        InputError: code SPLIT, if a number is negative, there are too few subjects, or a case or file is there twice.
    """
    _refuse_repeated(cases)
    groups: dict[str, list[SplitCase]] = {}
    for case in cases:
        groups.setdefault(case.subject, []).append(case)
    known = {name: group for name, group in groups.items() if all(case.label for case in group)}
    counts = _counts(labeled, validation, test, known=len(known), of_the_rest=of_the_rest)
    order = _order({name: _stratum(group) for name, group in known.items()}, seed=seed)
    chosen: dict[str, list[str]] = {}
    start = 0
    for section in ("test", "validation", "labeled"):
        chosen[section] = order[start : start + counts[section]]
        start += counts[section]
    chosen["unlabeled"] = [name for name in groups if name not in set(order[:start])]
    return Split(
        sections={name: _cases(chosen[name], groups, unlabeled=name == "unlabeled") for name in SECTIONS},
        subjects={name: len(chosen[name]) for name in SECTIONS},
        description=_description(chosen, seed, strata={_stratum(group) for group in known.values()}),
        strata={name: _tally(_stratum(groups[subject]) for subject in chosen[name]) for name in SECTIONS},
    )


def split_list(
    split: Split,
    *,
    name: str,
    labels: Mapping[str, str],
    ignored: int | None = None,
    count_class_0: bool | None = None,
    modality: Mapping[str, str] | None = None,
    reference: str = "",
    licence: str = "",
    description: str = "",
    file_values: Sequence[int] | None = None,
) -> DataList:
    """The data list of a split; the keywords are those of `DataList`, `description` comes before that of the draw."""
    return DataList(
        name=name,
        description=f"{description} {split.description}".strip(),
        reference=reference,
        licence=licence,
        modality=dict(modality or {}),
        labels=dict(labels),
        file_values=None if file_values is None else list(file_values),
        ignored=ignored,
        count_class_0=count_class_0,
        **{section: list(cases) for section, cases in split.sections.items()},
    )


def foreground_strata(shares: Mapping[str, float], *, bins: int = 4) -> dict[str, str]:
    """Strata of subjects by the share of their voxels that is labeled: equally many in each, `1 of 4` the smallest.

    Args:
        shares: share of foreground by subject.
        bins: number of strata; fewer if there are fewer subjects.
    """
    order = sorted(shares, key=lambda name: (shares[name], name))
    bins = max(1, min(bins, len(order)))
    return {name: f"{place * bins // len(order) + 1} of {bins}" for place, name in enumerate(order)}


# ---- drawing -------------------------------------------------------------------------------------------------------


def _order(strata: Mapping[str, str], *, seed: int) -> list[str]:
    """All subjects, so that every stretch holds the strata in nearly equal proportions.

    Subject j of the n of a stratum, in a drawn order, stands at (j + 0.5) / n of the whole.
    """
    rng = random.Random(seed)
    members: dict[str, list[str]] = {}
    for name in sorted(strata):
        members.setdefault(strata[name], []).append(name)
    places: list[tuple[float, float, str]] = []
    for stratum in sorted(members):
        names = sorted(members[stratum], key=lambda _: rng.random())
        places += [((j + 0.5) / len(names), rng.random(), name) for j, name in enumerate(names)]
    return [name for _, _, name in sorted(places)]


def _stratum(group: Sequence[SplitCase]) -> str:
    tally = _tally(case.stratum or "" for case in group)
    return min(tally, key=lambda name: (-tally[name], name))


def _tally(names: Iterable[str]) -> dict[str, int]:
    tally: dict[str, int] = {}
    for name in names:
        tally[name] = tally.get(name, 0) + 1
    return dict(sorted(tally.items()))


def _counts(
    labeled: int | float, validation: int | float, test: int | float, *, known: int, of_the_rest: bool
) -> dict[str, int]:
    counts = {"test": _count(test, known, "test"), "validation": _count(validation, known, "validation")}
    rest = known - sum(counts.values())
    counts["labeled"] = _count(labeled, rest if of_the_rest else known, "labeled")
    if counts["labeled"] < 1 or sum(counts.values()) > known:
        wanted = ", ".join(f"{count} for {section}" for section, count in counts.items())
        raise InputError(
            f"at least one labeled subject and no more than there are were wanted, got {wanted}, of {known} subjects "
            "with labels",
            where="split",
            fix="Ask for fewer, or for more labeled ones.",
            code="SPLIT",
        )
    return counts


def _count(number: int | float, whole: int, section: str) -> int:
    """A number of subjects; a fraction is rounded to the nearest number, but not to none."""
    if isinstance(number, bool) or not number >= 0 or (isinstance(number, float) and number > 1):
        raise InputError(
            f"a number from 0 or a fraction from 0.0 to 1.0 was wanted for {section}, got {number!r}",
            where="split",
            fix="1 means one subject, 1.0 all of them.",
            code="SPLIT",
        )
    if isinstance(number, int):
        return number
    return max(round(number * whole), 1) if number > 0 and whole > 0 else 0


def _cases(subjects: Sequence[str], groups: Mapping[str, Sequence[SplitCase]], *, unlabeled: bool) -> tuple[Case, ...]:
    cases = [case for name in subjects for case in groups[name]]
    return tuple(
        one.case.model_copy(
            update={
                "label": None if unlabeled else one.label,
                "monitor_label": one.label if unlabeled else None,
            }
        )
        for one in sorted(cases, key=lambda one: one.case.name)
    )


def _description(chosen: Mapping[str, Sequence[str]], seed: int, *, strata: set[str]) -> str:
    counts = ", ".join(f"{len(chosen[name])} {name}" for name in SECTIONS)
    how = f", in equal proportions of {len(strata)} strata" if len(strata) > 1 else ""
    return f"Subjects drawn with seed {seed}{how}: {counts}."


def _refuse_repeated(cases: Sequence[SplitCase]) -> None:
    if not cases:
        raise InputError("there is no case", where="split", fix="Check the path.", code="SPLIT")
    for what, values in (
        ("case", [case.case.name for case in cases]),
        ("image", [file for case in cases for file in case.case.files]),
    ):
        tally = _tally(values)
        if twice := [value for value, count in tally.items() if count > 1]:
            raise InputError(
                f"{len(twice)} {what}s are there twice: {', '.join(twice[:5])}",
                where="split",
                fix="Remove one of each, or give the cases names of their own.",
                code="SPLIT",
            )
