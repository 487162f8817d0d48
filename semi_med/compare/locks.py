"""Locks between processes, so that no job runs twice at a time.

A lock ends with the last process that has its file open: the one that took it, and trainings that inherited it from
there. So it is held as long as a training lives whose job was killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semi_med.errors import InputError, ResourceError


@contextmanager
def locked(folder: Path, name: str, *, wait: bool = False) -> Iterator[int]:
    """Hold the lock `locks/<name>.lock` of a comparison's folder.

    Args:
        folder: of the comparison.
        name: of a job, or "plan".
        wait: until it is free, instead of giving up.

    Yields:
        The descriptor of the locked file, to be handed on to a process that shall hold the lock as well.

    Raises:
        ResourceError: code BUSY, somebody else holds it; who is said.
        InputError: code NOT_WRITABLE.
    """
    path = folder / "locks" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the folder cannot be written ({error.strerror})", where=folder, fix="Choose another.", code="NOT_WRITABLE"
        ) from error
    with stream:
        if not (_take(stream.fileno(), wait=wait) or _take_again(stream.fileno())):
            raise ResourceError(
                f"{name} is being run by {_holder(path)}",
                where=folder,
                fix="Wait until that has ended.",
                code="BUSY",
            )
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M')}")
        stream.flush()
        yield stream.fileno()


def is_locked(folder: Path, name: str) -> bool:
    """Whether a process holds a lock."""
    path = folder / "locks" / f"{name}.lock"
    if not path.is_file():
        return False
    with path.open("a+", encoding="utf-8") as stream:
        return not _take(stream.fileno(), wait=False)


def _take(descriptor: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # A file system without locks protects from nothing, and is no reason to stop.
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return True


def _take_again(descriptor: int) -> bool:
    """Whoever only looks whether a lock is held, holds it for a moment."""
    time.sleep(0.1)
    return _take(descriptor, wait=False)


def _holder(path: Path) -> str:
    text = path.read_text(encoding="utf-8").strip()
    found = _HOLDER.match(text)
    if found and found["node"] == platform.node() and not _lives(int(found["process"])):
        return f"a training that outlived {text}, which was killed"
    return text or "another process"


_HOLDER = re.compile(r"process (?P<process>\d+) on (?P<node>\S*) since")


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True
