"""Checksums of what a data set is made from and of what is written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from semi_med.errors import InputError
from semi_med.inference.byte_check import check_regular_file


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder that of its files' names and checksums."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        lines = [f"{file.relative_to(path).as_posix()} {digest(file)}\n" for file in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    check_regular_file(path)
    state = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(2**20):
                state.update(chunk)
    except OSError as error:
        raise InputError(
            f"reading failed ({error.strerror})", where=path, fix="Check the file and its permissions."
        ) from error
    return state.hexdigest()


def place(path: Path, source: Path) -> str:
    """A file's place in the source, its name if it lies elsewhere."""
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else path.name
