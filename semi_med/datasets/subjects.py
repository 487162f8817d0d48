"""A table that says which cases show one subject, for data that do not say so themselves."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from semi_med.errors import InputError

_CASE, _SUBJECT, _GROUP = ("case", "id", "name"), ("subject", "subject_group", "patient"), ("group", "stratum")


@dataclass(frozen=True)
class Known:
    """What a table says of a case."""

    subject: str
    group: str | None = None


def read_subjects(path: str | Path) -> Mapping[str, Known]:
    """The table by case.

    Args:
        path: CSV with a first line; the columns `case` (or id, name) and `subject` (or subject_group, patient) are
            needed, `group` (or stratum) is taken if it is there.

    Raises:
        InputError: code FORMAT.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"this table cannot be read ({error})", where=path, fix="Write a CSV.", code="FORMAT"
        ) from error
    columns = [name for name in (rows[0] if rows else {}) if name is not None]
    case, subject, group = (_first(names, columns) for names in (_CASE, _SUBJECT, _GROUP))
    if case is None or subject is None:
        raise InputError(
            f"columns `case` and `subject` were wanted, got {', '.join(columns) or 'none'}",
            where=path,
            fix="Write a first line `case,subject`.",
            code="FORMAT",
        )
    return {
        row[case]: Known(row[subject], (row[group] or None) if group else None)
        for row in rows
        if row[case] and row[subject]
    }


def _first(names: Collection[str], columns: Collection[str]) -> str | None:
    return next((name for name in names if name in columns), None)
