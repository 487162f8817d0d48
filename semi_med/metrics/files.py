"""Metric rows to files and back, written so that a reader never meets half a file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semi_med.errors import InputError
from semi_med.files import write_atomically
from semi_med.metrics.case import METRICS, STATUSES, Row

TABLE_COLUMNS = ("case", "class", "class_name", *METRICS, "prediction_ml", "label_ml", "status")
_TEXT = ("case", "class_name", "status")


def write_csv(path: Path, rows: Sequence[Row], *, columns: Sequence[str] = TABLE_COLUMNS) -> Path:
    """Write rows as CSV; an undefined number is the word `nan`, never an empty cell."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    write_atomically(path, stream.getvalue())
    return Path(path)


def write_json(path: Path, content: Any) -> Path:
    """Write JSON that any parser reads: an undefined number becomes `null`."""
    write_atomically(path, json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return Path(path)


def recorded_classes(predictions: Path) -> dict[int, str]:
    """Names of the numbers in masks, as `run.json` beside them has them; none where nothing is recorded."""
    record = (predictions if predictions.is_dir() else predictions.parent) / "run.json"
    try:
        classes = json.loads(record.read_text(encoding="utf-8"))["settings"]["classes"]
        return {int(value): str(name) for value, name in classes.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def read_table(path: Path) -> list[Row]:
    """Read the rows that `evaluate` wrote.

    Raises:
        InputError: the file is missing, is not such a table, or holds a cell that is not a number where one belongs.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in TABLE_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"wanted a table of metrics, but the columns {', '.join(missing)} are missing",
                    where=path,
                    fix="Give the CSV of the rows by case, not the summary",
                    code="TABLE",
                )
            return [_parsed(row, where=f"{path}, line {reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read ({error})", where=path, fix="Check the path", code="TABLE") from error


def _parsed(row: dict[str, str], *, where: str) -> Row:
    try:
        if row["status"] not in STATUSES:
            raise ValueError(f"status {row['status']!r}")
        return {
            name: row[name] if name in _TEXT else int(row[name]) if name == "class" else float(row[name])
            for name in TABLE_COLUMNS
        }
    except (TypeError, ValueError) as error:
        raise InputError(
            f"a cell does not hold what its column names ({error})", where=where, fix="Evaluate again", code="TABLE"
        ) from error


def _cell(value: Any) -> Any:
    return format(value, ".9g") if isinstance(value, float) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
