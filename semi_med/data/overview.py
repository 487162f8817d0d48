"""What a set of cases is like, in a few lines: sizes, voxels, orientations, classes. The odd one out shows here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from semi_med.data.case_files import Facts
from semi_med.data.validation import CaseVerdict

_MOST = 8  # kinds that are listed


def overview(verdicts: Sequence[CaseVerdict]) -> list[str]:
    """Lines on the cases that could be read.

    Args:
        verdicts: of a validation that read the files.
    """
    images = [v.facts[v.images[0]] for v in verdicts if v.images[0] in v.facts]
    labels = [v.facts[v.label] for v in verdicts if v.label is not None and v.label in v.facts]
    lines = []
    if images:
        channels = Counter(facts.shape[3] if len(facts.shape) > 3 else 1 for facts in images)
        lines.append(f"voxels: {_span([facts.shape[:3] for facts in images])}{_channels(channels)}")
        if any(facts.orientation for facts in images):
            lines.append(f"mm: {_span([facts.spacing for facts in images])}")
        lines.append(f"orientation: {_counted(facts.orientation or 'not known' for facts in images)}")
    if labels:
        lines.append(f"label values: {', '.join(_classes(labels))}")
    return lines


def _span(rows: Sequence[Sequence[float]]) -> str:
    """One text for all, or the median with the smallest and largest along each axis."""
    columns = [sorted(column) for column in zip(*rows, strict=True)]
    if all(column[0] == column[-1] for column in columns):
        return " x ".join(f"{column[0]:.4g}" for column in columns)
    middle = " x ".join(f"{column[len(column) // 2]:.4g}" for column in columns)
    ends = " x ".join(f"{c[0]:.4g}" if c[0] == c[-1] else f"{c[0]:.4g} to {c[-1]:.4g}" for c in columns)
    return f"{middle} in the median ({ends})"


def _channels(counts: Counter[int]) -> str:
    if set(counts) == {1}:
        return ""
    return "; channels: " + _counted(str(number) for number in counts.elements())


def _counted(words: Iterable[str]) -> str:
    counts = Counter(words).most_common()
    more = f", and {len(counts) - _MOST} more" if len(counts) > _MOST else ""
    return ", ".join(f"{word} ({count})" for word, count in counts[:_MOST]) + more


def _classes(labels: Sequence[Facts]) -> list[str]:
    cases: Counter[int] = Counter()
    voxels: Counter[int] = Counter()
    for facts in labels:
        for value, number in (facts.values or {}).items():
            if number:
                cases[value] += 1
                voxels[value] += number
    total = max(sum(voxels.values()), 1)
    found = [f"{value} in {cases[value]} labels ({voxels[value] / total:.3%} of all voxels)" for value in sorted(cases)]
    return found[:_MOST] + ([f"and {len(found) - _MOST} more"] if len(found) > _MOST else [])
