"""JSON that a person wrote: faults are named with their line, or with their place in the tree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semi_med.errors import InputError, ProblemsError
from semi_med.inference.byte_check import check_regular_file


class _Object(dict[str, Any]):
    """A JSON object that remembers which keys it was given twice."""

    repeated: tuple[str, ...] = ()


def parse_json(path: Path, *, title: str) -> Any:
    """The content of a JSON file in which no object has a key twice.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        title: what it is, for an error with several problems.

    Raises:
        InputError: if the file cannot be read, or is no JSON (with line and column).
        ProblemsError: naming each key that is given twice.
    """

    def keep_repeated(pairs: list[tuple[str, Any]]) -> _Object:
        value = _Object(pairs)
        if len(value) < len(pairs):
            keys = [key for key, _ in pairs]
            value.repeated = tuple(key for key in value if keys.count(key) > 1)
        return value

    check_regular_file(path)
    try:
        tree = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=keep_repeated)
    except UnicodeDecodeError as error:
        raise InputError(
            f"the file is not UTF-8 text (byte {error.start})", where=path, fix="Save it as UTF-8.", code="JSON"
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"this is not JSON: {error.msg} in line {error.lineno}, column {error.colno}",
            where=path,
            fix="Mend that place; a missing or superfluous comma just before it is the usual cause.",
            code="JSON",
        ) from None
    except (RecursionError, ValueError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else "a number in it is too long"
        raise InputError(f"this JSON cannot be read: {problem}", where=path, code="JSON") from None
    repeated = list(_repeated_keys(tree, ""))
    if repeated:
        raise ProblemsError(repeated, title=title)
    return tree


def _repeated_keys(value: Any, place: str) -> Iterator[InputError]:
    if isinstance(value, _Object):
        for key in value.repeated:
            yield InputError(
                "this key is given twice",
                where=join_place(place, key),
                fix="Keep the one that is meant.",
                code="REPEATED",
            )
        for key, part in value.items():
            yield from _repeated_keys(part, join_place(place, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _repeated_keys(part, join_place(place, number))


def join_place(place: str, key: str | int) -> str:
    """The place of a part: `labeled` and 3 give `labeled[3]`, `labeled[3]` and `image` give `labeled[3].image`."""
    if isinstance(key, int):
        return f"{place}[{key}]"
    return f"{place}.{key}" if place else key


def shorten(value: Any) -> str:
    """A value as JSON, cut to 80 characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
