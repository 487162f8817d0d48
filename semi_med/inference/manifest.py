"""What was segmented already: which content gave which files, so that a batch can go on where it ended."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from semi_med.errors import InputError
from semi_med.files import TEMPORARY_NAMES, append_line

NAME = "manifest.jsonl"
_CHUNK = 2**20
_HEADER = 2**16  # bytes, more than a header has
_LOCKED_BYTE = 2**30


class Manifest:
    """The journal of an output folder: one line of JSON for each segmented case, added when its files are complete.

    While it is open no other run may write to the folder, and what a killed run left half-written is removed.

    Args:
        folder: of the results; must be there.
        settings: all that the results depend on beside the scan.

    Raises:
        InputError: code LOCKED, if another run is writing there.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path = folder / NAME
        self._folder = folder
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._descriptor = _lock(self.path)
        for place in ("", "maps/", "sub-*/**/"):  # where this run writes; other folders below may be somebody else's
            for left in folder.glob(place + TEMPORARY_NAMES):
                left.unlink(missing_ok=True)
        lines = _lines(self.path)
        self._done = {(line["case"], line["settings"]): line for line in lines}
        self._written = {(line["case"], name) for line in lines for name in line["outputs"]}

    def close(self) -> None:
        """Lets other runs write to the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def find(self, case: str, checksum: str) -> dict[str, Any] | None:
        """What was said of a case that was segmented before: from the same input, and all its files are unharmed."""
        line = self._done.get((case, self._settings))
        if line is None or line["input"] != checksum:
            return None
        files: dict[str, str] = line["outputs"]
        if any(sha256(self._folder / name) != wanted for name, wanted in files.items()):
            return None
        row: dict[str, Any] = line["row"]
        return row

    def wrote(self, case: str, name: str) -> bool:
        """Whether an earlier run wrote this file, by its name relative to the folder, for the case."""
        return (case, name) in self._written

    def add(self, case: str, checksum: str, row: Mapping[str, Any]) -> None:
        """Notes a case whose files are written; `row["outputs"]` has their checksums."""
        line = {
            "case": case,
            "input": checksum,
            "settings": self._settings,
            "outputs": row["outputs"],
            "row": dict(row),
        }
        append_line(self.path, json.dumps(line, ensure_ascii=False))


def sha256(path: Path) -> str:
    """Of a file; "" if it is not there, or is no regular one: a pipe could be read for ever."""
    digest = hashlib.sha256()
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


def input_checksum(paths: Sequence[Path]) -> str:
    """Of the content of a case's files, of folders the files at any depth; their names do not count.

    A name can be that of a patient. The voxels of a `.mhd` lie in another file, which counts too.
    """
    digest = hashlib.sha256()
    for path in paths:
        files = [path]
        if path.is_dir():
            files = [Path(place) / name for place, _, names in os.walk(path) for name in names]
        elif path.suffix.lower() in (".mhd", ".nhdr"):
            named = _values(path)
            files += [
                one for one in path.parent.iterdir() if one != path and (one.stem == path.stem or one.name in named)
            ]
        for found in sorted(sha256(file) for file in files):
            digest.update(found.encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _values(header: Path) -> set[str]:
    """What stands behind `=` or `:` in the lines of a header, the name of the voxels' file among it."""
    if not header.is_file():
        return set()
    with header.open("rb") as stream:
        lines = stream.read(_HEADER).splitlines()
    return {os.fsdecode(line.partition(sign)[2].strip()) for line in lines for sign in (b"=", b":")}


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; one that was cut off by a crash is as good as none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        with suppress(ValueError):
            content = json.loads(line)
            if isinstance(content, dict) and {"case", "input", "settings", "outputs", "row"} <= content.keys():
                found.append(content)
    return found


def _lock(path: Path) -> int | None:
    """Keeps other runs away; the system gives the lock back when this process ends, however it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _hold(descriptor)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        raise InputError(
            "another run is writing to this folder",
            where=path.parent,
            fix="Wait for it, or choose another output folder.",
            code="LOCKED",
        ) from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def _hold(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:
        _hold_on_windows(descriptor)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _hold_on_windows(descriptor: int) -> None:
    """Locks one byte, far behind the lines: nobody else may read or write what is locked there."""
    import msvcrt

    windows: Any = msvcrt
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    windows.locking(descriptor, windows.LK_NBLCK, 1)
