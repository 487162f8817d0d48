"""Data lists that keep the labels of a few subjects, drawn with a seed from one base list.

The pool are the subjects of the training side whose cases all have labels: those of `labeled`, and those of
`unlabeled` with a `monitor_label`. A drawn list keeps the labels of the first n subjects of a shuffled pool, so that
for one seed the 4 are among the 8. The others become unlabelled cases with a `monitor_label`: their labels may be
watched and train nothing. Validation and test are the base list's own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from semi_med.data.data_list import Case, DataList
from semi_med.data.validation import check_sections
from semi_med.errors import InputError, ProblemsError, SemiMedError

_TRAINING = ("labeled", "unlabeled")
_HELD_OUT = ("validation", "test")


def subject_of(case: Case) -> str:
    """Whom a case shows; a case without a subject is its own."""
    return case.subject or case.name


def pool_subjects(base: DataList) -> list[str]:
    """The subjects that labels can be drawn from, sorted: each of their training cases has a label."""
    cases = [*base.labeled, *base.unlabeled]
    without = {subject_of(case) for case in cases if case.label is None and case.monitor_label is None}
    return sorted({subject_of(case) for case in cases} - without)


def counts_scans(base: DataList) -> bool:
    """Whether a number of subjects is a number of scans, as no case names another subject than itself."""
    return all(subject_of(case) == case.name for case in (*base.labeled, *base.unlabeled))


def draw_labeled(base: DataList, *, count: int | None, seed: int) -> DataList:
    """The base list with labels of `count` subjects only.

    Args:
        base: any data list; it says nothing about which labels are kept, only which are known.
        count: subjects that keep their labels; None for the whole pool, whatever the seed.
        seed: of the draw. The first `count` subjects of one shuffled order are taken.

    Returns:
        A list whose training cases are those of the base list, in its order.

    Raises:
        InputError: code LABELED, the pool does not hold so many subjects.
    """
    pool, unit = pool_subjects(base), "scan" if counts_scans(base) else "subject"
    if not pool or (count is not None and not 1 <= count <= len(pool)):
        raise InputError(
            f"{'all' if count is None else count} labelled {unit}s were asked for, but the training pool holds "
            f"{len(pool)} {unit}s whose labels are known",
            where=f"data list {base.name}",
            fix="Give at least 1 and at most that many. The pool is `labeled`, and `unlabeled` with a monitor_label.",
            code="LABELED",
        )
    order = list(pool)
    random.Random(seed).shuffle(order)
    drawn = set(order[:count])
    cases = [*base.labeled, *base.unlabeled]
    how = f"{len(drawn)} of {len(pool)} {unit}s keep their labels" + (
        "." if count is None else f", drawn with seed {seed}."
    )
    parts = {name: getattr(base, name) for name in DataList.model_fields if name not in _TRAINING}
    return DataList(
        **{**parts, "description": f"{base.description} {how}".strip()},
        labeled=[_with_label(case) for case in cases if subject_of(case) in drawn],
        unlabeled=[_without_label(case) for case in cases if subject_of(case) not in drawn],
    )


def _with_label(case: Case) -> Case:
    return case.model_copy(update={"label": case.label or case.monitor_label, "monitor_label": None})


def _without_label(case: Case) -> Case:
    return case.model_copy(update={"label": None, "monitor_label": case.label or case.monitor_label})


def check_apart(lists: Mapping[str, DataList]) -> None:
    """Refuse lists that cannot be compared on one test section. No file is opened.

    Args:
        lists: by the name that an error calls them.

    Raises:
        ProblemsError: in one list a case or subject is in two sections; or two lists differ in their test section;
            or what one holds out, another one trains on.
        InputError: code NO_CASES, there is no test section.
    """
    for name, data_list in lists.items():
        check_sections(
            data_list.sections("/"), labels=data_list.label_values, sections_needed=(), title=f"data list {name}"
        )
        if not data_list.test:
            raise InputError(
                "there is no test section, so that nothing could be measured",
                where=f"data list {name}",
                fix='Name labelled cases of other subjects under "test".',
                code="NO_CASES",
            )
    problems = [problem for first in lists for second in lists for problem in _clashes(lists, first, second)]
    if problems:
        raise ProblemsError(problems, title="these data lists cannot be compared")


def _clashes(lists: Mapping[str, DataList], first: str, second: str) -> Iterator[SemiMedError]:
    """What the second list says against the first."""
    if first == second:
        return
    names = list(lists)
    a, b = lists[first], lists[second]
    if names.index(first) < names.index(second) and _entries(a) != _entries(b):
        yield InputError(
            "the test sections differ",
            where=f"{first} and {second}",
            fix="Measure all methods on the same cases.",
            code="TEST",
        )
    trained = {subject_of(case) for section in _TRAINING for case in getattr(b, section)}
    trained |= {file for section in _TRAINING for case in getattr(b, section) for file in case.files}
    for section in _HELD_OUT:
        for case in getattr(a, section):
            if trained & {subject_of(case), *case.files}:
                yield InputError(
                    f"{case.name} is in the section {section} of {first}, and {second} trains on it or its subject",
                    where=second,
                    fix="Keep a subject out of training in all lists, or in none.",
                    code="LEAKAGE",
                )


def _entries(data_list: DataList) -> set[tuple[str, str, tuple[str, ...], str | None]]:
    return {(case.name, subject_of(case), case.files, case.label) for case in data_list.test}
