"""One case or person in two places: by path, by voxels, by label file, by subject."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from semi_med.data.case_files import CaseContent
from semi_med.data.members import Member
from semi_med.errors import InputError

_HELD_OUT = {"validation", "test"}
_TRANSDUCTIVE = {"unlabeled", "test"}
_SAME_SUBJECT = "the same subject is in two sections"
_SHOWN = 6

Key = Callable[[Member], Any]


def shared_cases(
    members: Sequence[Member], contents: Mapping[tuple[str, ...], CaseContent], *, transductive: bool = False
) -> tuple[list[InputError], list[str]]:
    """Cases that are in two sections, or twice in one; each set of cases is named once, by the plainest reason.

    Args:
        members: all cases.
        contents: of those that were read; the others are compared by path and subject only.
        transductive: cases may be both unlabeled and in the test; this is then a note.

    Returns:
        Errors, code LEAKAGE if the validation or the test is touched, else DUPLICATE; and notes.
    """

    def digest(member: Member) -> str | None:
        return contents[member.key].digest if member.key in contents else None

    told: dict[int, list[frozenset[int]]] = defaultdict(list)
    reasons: list[tuple[str, Key, bool]] = [
        ("the same image file is listed twice", lambda m: m.key, True),
        ("the images hold the same voxels", digest, True),
        ("the same label file is used in two sections", lambda m: m.label and os.path.realpath(m.label), False),
        (_SAME_SUBJECT, lambda m: m.subject, False),
    ]
    problems: list[InputError] = []
    allowed: set[int] = set()
    for reason, key, within in reasons:
        for group in _groups(members, key):
            ids = frozenset(id(member) for member in group)
            sections = {member.section for member in group}
            if not (len(sections) > 1 or within) or any(ids <= others for others in told[id(group[0])]):
                continue
            for member in group:
                told[id(member)].append(ids)
            if transductive and sections == _TRANSDUCTIVE:
                allowed |= {id(member) for member in group if member.section == "test"}
            else:
                problems.append(_shared(reason, group))
    return problems, _transductive_note(len(allowed))


def _groups(members: Sequence[Member], key: Key) -> Iterator[tuple[Member, ...]]:
    found: dict[Any, list[Member]] = defaultdict(list)
    for member in members:
        if (value := key(member)) is not None:
            found[value].append(member)
    return (tuple(group) for group in found.values() if len(group) > 1)


def _transductive_note(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"TRANSDUCTIVE: {count} test cases, or their subjects, are among the unlabeled ones; a figure measured on this "
        "test must be called transductive wherever it is shown"
    ]


def _shared(reason: str, group: Sequence[Member]) -> InputError:
    sections = [section for section in dict.fromkeys(member.section for member in group) if section]
    places = "; ".join(f"{member.place} ({member.images[0]})" for member in group[:_SHOWN])
    more = f"; and {len(group) - _SHOWN} more" if len(group) > _SHOWN else ""
    leaks = len(sections) > 1 and bool(_HELD_OUT & set(sections))
    fix = "Keep it in one section only." if len(sections) > 1 else "Keep one of the entries."
    if reason == _SAME_SUBJECT:
        fix = 'Keep a subject in one section only; if these are different people, give each its own "subject".'
    if leaks:
        fix = f"{fix} A figure measured on cases that were trained on, or chosen on, says nothing."
    if set(sections) == _TRANSDUCTIVE:
        fix = f"{fix} If that is meant, `semi-med validate --transductive` allows it and says so."
    where = " and ".join(sections) or group[-1].images[0]
    return InputError(f"{reason}: {places}{more}", where=where, fix=fix, code="LEAKAGE" if leaks else "DUPLICATE")
