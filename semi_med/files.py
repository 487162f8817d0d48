"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from semi_med.errors import InputError, ResourceError

TEMPORARY_NAMES = ".semi_med_*.tmp"  # what a call that was killed while it wrote leaves behind


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Put `data` at `path` at once: a temporary file of the same folder, flushed to the disk, then renamed over it.

    The folder is made if it is missing. The file gets the permissions that `open` would give it. On any failure the
    old file stays and the temporary one goes.

    Args:
        path: the file; an older one is replaced only when the new one is complete.
        data: its content; text is written as UTF-8.

    Raises:
        InputError: code NOT_WRITABLE.
        ResourceError: code DISK_FULL.
    """
    path, temporary = Path(path), ""
    content = data.encode("utf-8") if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix, suffix = TEMPORARY_NAMES.split("*")
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=suffix)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp makes files that nobody else may read
        Path(temporary).replace(path)
    except OSError as error:
        raise _explained(error, path, len(content)) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
    _sync_folder(path.parent)


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a journal, and see that it is on the disk. A crash can cut off this line, but none before it.

    Args:
        path: the file; made if it is missing.
        line: without its end.

    Raises:
        InputError: code NOT_WRITABLE.
        ResourceError: code DISK_FULL.
    """
    path = Path(path)
    content = f"{line}\n".encode()
    try:
        with path.open("ab+") as stream:
            if stream.tell() > 0:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":  # the line that a crash cut off
                    content = b"\n" + content
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise _explained(error, path, len(content)) from error


def _explained(error: OSError, path: Path, size: int) -> InputError | ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(
            f"the disk is full, {size} bytes were to be written",
            where=path,
            fix="Free some space.",
            code="DISK_FULL",
        )
    return InputError(
        f"this file cannot be written ({error.strerror})",
        where=path,
        fix="Choose another output folder.",
        code="NOT_WRITABLE",
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Let the new name survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
