"""The folder that a data set is prepared into: opened, gone on with, or refused because it holds something else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semi_med.datasets.record import RECORD, About, new_record, read_record, write_record
from semi_med.datasets.stored import SUFFIXES
from semi_med.errors import InputError
from semi_med.files import TEMPORARY_NAMES

_IDLE = (".DS_Store", "Thumbs.db")


def some(names: Sequence[str]) -> str:
    """The first five of these names, for a sentence."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def check_source(source: str | Path, target: str | Path) -> tuple[Path, Path]:
    """Both as paths, the source being a folder and not the target.

    Raises:
        InputError: code NOT_FOUND or TARGET.
    """
    source, target = Path(source), Path(target)
    if not source.is_dir():
        raise InputError("this folder does not exist", where=source, fix="Check the path.", code="NOT_FOUND")
    if source.resolve() == target.resolve():
        raise InputError(
            "source and target are the same folder", where=target, fix="Choose an empty folder.", code="TARGET"
        )
    return source, target


def open_target(target: Path, about: About, recipe: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The record of a target that is ready to be written to."""
    if target.exists() and not target.is_dir():
        raise InputError("a folder was wanted, this is a file", where=target, fix="Choose another.", code="TARGET")
    record = new_record(about, recipe)
    if (target / RECORD).is_file():
        found = read_record(target)
        _refuse_other(target, found, record, names)
        record = {**record, "cases": found["cases"], "versions": _both(found["versions"], record["versions"])}
    elif target.exists() and (others := [p.name for p in sorted(target.iterdir()) if p.name not in _IDLE]):
        raise InputError(
            f"the folder is not empty and holds no {RECORD}, but {some(others)}",
            where=target,
            fix="Choose an empty folder.",
            code="TARGET",
        )
    for folder in ("images", "labels"):
        try:
            (target / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the folder cannot be made ({error.strerror})",
                where=target / folder,
                fix="Choose another.",
                code="TARGET",
            ) from error
    for left in (*target.glob(TEMPORARY_NAMES), *target.glob(f"*/{TEMPORARY_NAMES}")):  # of a call that was killed
        left.unlink()
    # planned cases are entered first: a file whose entry was not written yet is then known as this call's own
    record["cases"] = {**dict.fromkeys(names), **record["cases"]}
    write_record(target, record, order=names)
    return record


def _both(earlier: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Versions that a folder was made with, where calls differ each of them."""
    return {
        name: version if version in earlier.get(name, version).split(", ") else f"{earlier[name]}, {version}"
        for name, version in now.items()
    }


def _refuse_other(target: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], names: Sequence[str]) -> None:
    for what in ("about", "recipe"):
        ours, theirs = (({"name": r["about"].get("name")} if what == "about" else r[what]) for r in (wanted, found))
        if ours != theirs:
            raise InputError(
                f"the folder was prepared by another recipe ({theirs}, wanted {ours})",
                where=target,
                fix="Choose an empty folder.",
                code="TARGET",
            )
    others = sorted(name for name, entry in found["cases"].items() if entry and name not in names)
    known = {*found["cases"], *names}
    for folder in ("images", *(p.name for p in sorted(target.glob("labels*")) if p.is_dir())):
        files = (target / folder).iterdir() if (target / folder).is_dir() else ()
        others += sorted(p.name for p in files if not p.name.startswith(".") and _case_of(p.name, known) is None)
    if others:
        raise InputError(
            f"the folder holds {len(others)} cases that the source does not have: {some(others)}",
            where=target,
            fix="Choose an empty folder, or the source that it was prepared from.",
            code="TARGET",
        )


def _case_of(file: str, names: set[str]) -> str | None:
    """The case that a file's name belongs to, with or without the number of a channel."""
    for suffix in SUFFIXES:
        stem = file.removesuffix(suffix)
        if stem != file:
            return next((name for name in (stem, re.sub(r"_\d{4}$", "", stem)) if name in names), None)
    return None
