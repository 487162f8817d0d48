"""The same cases looked at in other ways: split into groups, and slices pooled to the volumes they are of."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from semi_med.errors import InputError
from semi_med.metrics.case import COUNTS, OVERLAPS, Row, overlaps, status_of
from semi_med.metrics.table import ALL_REGIONS, OVERALL, metrics_in, summarize

ALL = "all"
VOLUME_COLUMNS = ("volume", "slices", "class", "class_name", *OVERLAPS, *COUNTS, "status")
INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class NamePattern:
    """A regular expression that finds something in the names of cases: the part in brackets, or all it matches."""

    expression: re.Pattern[str]
    option: str

    def __call__(self, case: str) -> str:
        """What it finds in a name that is known to match."""
        found = self.expression.search(case)
        if found is None:
            raise _no_match(self, [case])
        return found[1] if self.expression.groups and found[1] is not None else found[0]

    def check(self, cases: Collection[str]) -> None:
        """Refuse it if there are names it does not match, naming some.

        Raises:
            InputError: code PATTERN.
        """
        without = [case for case in cases if self.expression.search(case) is None]
        if without:
            raise _no_match(self, without)


def name_pattern(text: str, *, option: str) -> NamePattern:
    """A pattern as it is given on the command line.

    Args:
        text: a regular expression with at most one pair of brackets.
        option: what it was given for, for the error.

    Raises:
        InputError: code PATTERN.
    """
    try:
        expression = re.compile(text)
    except re.error as error:
        raise InputError(
            f"{text!r} is no regular expression ({error})", where=option, fix="For example 'E[DS]'.", code="PATTERN"
        ) from error
    if expression.groups > 1:
        raise InputError(
            f"at most one pair of brackets is wanted, {text!r} has {expression.groups}",
            where=option,
            fix="Write (?:...) for those that only group.",
            code="PATTERN",
        )
    return NamePattern(expression, option)


def _no_match(pattern: NamePattern, cases: Sequence[str]) -> InputError:
    return InputError(
        f"{pattern.expression.pattern!r} finds nothing in {len(cases)} cases: {', '.join(sorted(cases)[:5])}",
        where=pattern.option,
        fix="Give a regular expression that matches the name of every case.",
        code="PATTERN",
    )


def pool_volumes(rows: Sequence[Row], pattern: NamePattern, *, unmeasured: Collection[str] = ()) -> list[Row]:
    """One row for each volume and class: overlaps of all its slices together, by the sums of their pixels.

    A volume in which neither the prediction nor the label has the class is "both empty", as a case is. One of which a
    slice is missing or could not be measured is "incomplete" and undefined: its other slices are another volume.
    Distances are left out: slices do not say how far apart they are.

    Args:
        rows: one for each slice and class, as from `case_metrics`, with `case`.
        pattern: finds the volume in the name of a case.
        unmeasured: cases without rows.

    Returns:
        One dict for each volume and class with `VOLUME_COLUMNS`, and the volume also as `case`.
    """
    broken = {pattern(case) for case in unmeasured}
    members: dict[tuple[str, int | str, str], list[Row]] = {}
    for row in rows:
        members.setdefault((pattern(row["case"]), row["class"], row["class_name"]), []).append(row)
    pooled = []
    for (volume, value, name), slices in members.items():
        head = {"case": volume, "volume": volume, "slices": len(slices), "class": value, "class_name": name}
        if volume in broken or any(row["status"] == "missing prediction" for row in slices):
            undefined = dict.fromkeys((*OVERLAPS, *COUNTS), math.nan)
            pooled.append({**head, **undefined, "status": INCOMPLETE})
            continue
        sums = [sum(row[count] for row in slices) for count in COUNTS]
        counts = dict(zip(COUNTS, sums, strict=True))
        pooled.append({**head, **overlaps(*sums), **counts, "status": status_of(sums[0], sums[1])})
    return pooled


def break_down(
    rows: Sequence[Row],
    regions: Sequence[Row],
    *,
    group: NamePattern | None,
    volume: NamePattern | None,
    unmeasured: Collection[str] = (),
) -> list[Row]:
    """Summaries of classes and regions, by case and by volume, of all cases and of each group.

    Args:
        rows: one for each case and class.
        regions: one for each case and region.
        group: finds the group of a case in its name.
        volume: finds the volume in the name of a slice.
        unmeasured: cases without rows.

    Returns:
        What `summarize` gives, each with `unit` ("case" or "volume"), `group` ("all" or its name) and `kind` ("class"
        or "region"). The mean over classes and that over regions are apart.
    """
    found = []
    kinds = (("class", rows, OVERALL), ("region", regions, ALL_REGIONS))
    for unit in ("case", "volume") if volume is not None else ("case",):
        for kind, table, overall in kinds:
            for name in _groups(rows, group) if table else ():
                chosen = [row for row in table if name == ALL or group is None or group(row["case"]) == name]
                metrics: Sequence[str] = metrics_in(chosen)
                if unit == "volume" and volume is not None:
                    left_out = [case for case in unmeasured if name == ALL or group is None or group(case) == name]
                    chosen, metrics = pool_volumes(chosen, volume, unmeasured=left_out), OVERLAPS
                lines = summarize(chosen, metrics=metrics, overall=overall)
                found += [{"unit": unit, "group": name, "kind": kind, **line} for line in lines]
    return found


def _groups(rows: Iterable[Row], pattern: NamePattern | None) -> list[str]:
    return [ALL, *([] if pattern is None else sorted({pattern(row["case"]) for row in rows}))]
