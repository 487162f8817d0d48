"""Records of runs as lines for a page: nested settings get dotted names, places on a machine are left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np


def flattened(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Name and value of each setting as text; nested mappings get dotted names."""
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += flattened(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)))
    return found


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without absolute paths, whose folders may bear the name of a person; relative to nothing else."""
    kept: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            kept[name] = without_places(value)
        elif not any(_is_place(one) for one in (value if isinstance(value, list | tuple) else [value])):
            kept[name] = value
    return kept


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and (Path(value).is_absolute() or PureWindowsPath(value).is_absolute())


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file, or it holds none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def texts(values: Any) -> Sequence[str]:
    """A list of a record as texts; empty if it is none."""
    return [str(value) for value in values] if isinstance(values, list | tuple) else []
