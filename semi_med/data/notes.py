"""Oddities of a set of cases that may be meant: said, and no reason to stop.

Everywhere `ignored` is the value that labels may hold where nothing is known; None for none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from semi_med.data.case_files import CaseContent
from semi_med.data.members import Member
from semi_med.ignored import IGNORED

_SINGLY = 5  # notes of one kind that are shown one by one


def label_notes(member: Member, content: CaseContent, ignored: int | None) -> Iterator[str]:
    """What is odd about the values of a label."""
    counts = content.counts.get(member.label) if member.label is not None else None
    if counts is None:
        return
    if not any(number for value, number in counts.items() if value not in (0, ignored)):
        yield "EMPTY_LABEL: no voxel of any class but the background"
    values = sorted(value for value, number in counts.items() if number)
    if not member.section and values and values[-1] >= 2 * len(values) and values[-1] > 1:
        either = (
            f"; or, if nothing is known at {IGNORED}, the list says so" if values[-1] == IGNORED and values[2:] else ""
        )
        yield (
            f"LABEL_NUMBERS: the values are {', '.join(str(value) for value in values[:8])}; a data list counts "
            "classes 0, 1, 2, ...: `semi-med convert LABELS OUTPUT --label --map-labels "
            f"{','.join(f'{value}={number}' for number, value in enumerate(values) if value != number)}`{either}"
        )


def ignored_note(
    members: Sequence[Member], contents: Mapping[tuple[str, ...], CaseContent], ignored: int | None
) -> Iterator[str]:
    """How much of the labels is not known."""
    files = {member.label: contents[member.key].counts.get(member.label, {}) for member in members if member.label}
    found = [(counts[ignored], sum(counts.values())) for counts in files.values() if ignored in counts]
    number, whole = sum(part for part, _ in found), sum(size for _, size in found)
    if number:
        labels = f"{sum(part > 0 for part, _ in found)} of {len(found)} labels"
        yield f"IGNORED: {number} voxels ({number / whole:.2%}) in {labels} are {ignored} and count nowhere"


def all_notes(
    members: Sequence[Member], contents: Mapping[tuple[str, ...], CaseContent], ignored: int | None
) -> list[str]:
    """Notes on files and labels; many of one kind become one line."""
    kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)
    told: set[tuple[str, str]] = set()
    for member in members:
        content = contents[member.key]
        for file in (*content.image_errors, *([member.label] if member.label else [])):
            if (member.place, file) in told:
                continue
            told.add((member.place, file))
            for text in content.warnings.get(file, ()):
                kinds[text.partition(":")[0]].append((f"{member.place}: {Path(file).name}", text))
        for text in label_notes(member, content, ignored):
            kinds[text.partition(":")[0]].append((member.place, text))
    notes = []
    for found in kinds.values():
        if len(found) <= _SINGLY:
            notes += [f"{place}: {text}" for place, text in found]
        else:
            notes.append(f"{found[0][1]} ({len(found)} files, the first is {found[0][0]})")
    return notes
