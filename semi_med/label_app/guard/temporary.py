"""A folder of temporary files that nobody else can read, and that is empty when the server has stopped.

The stock server writes uploads under names that it has only looked up, into a folder that everybody writes to, and
leaves them there when a request fails.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from semi_med.label_app.guard.answers import Refused


class TemporaryFiles:
    """The folder, and what is to be removed from it.

    Args:
        kept_seconds: that a file of the stock server stays when no request is in hand.
        free: bytes that must stay free on its disk.
    """

    def __init__(self, *, kept_seconds: float, free: int) -> None:
        self._kept_seconds, self._free = kept_seconds, free
        self._root: Path | None = None
        self._before: str | None = None

    @property
    def root(self) -> Path:
        """The folder; it is made when it is first asked for, and is from then on where this process writes its own."""
        if self._root is None:
            self._before = tempfile.tempdir
            self._root = Path(tempfile.mkdtemp(prefix="semi_med_label_"))  # only for this user: mode 700
            tempfile.tempdir = str(self._root)
        return self._root

    def folder(self) -> tempfile.TemporaryDirectory[str]:
        """A folder for one request, as a context."""
        return tempfile.TemporaryDirectory(prefix="request_", dir=self.root, ignore_cleanup_errors=True)

    def check_room(self, *folders: Path, announced: int = 0) -> None:
        """Refuses an upload when a disk is nearly full, or would be.

        Args:
            folders: beside this one, where it will be written to.
            announced: bytes of the upload, if they are known.

        Raises:
            Refused: 507.
        """
        for folder in (self.root, *folders):
            if folder.is_dir() and shutil.disk_usage(folder).free < self._free + announced:
                raise Refused(507, "the server's disk is nearly full", fix="Tell its operator.", code="DISK_FULL")

    def sweep(self) -> None:
        """Removes what is old; called when no request is in hand, so that nothing in the folder is in use."""
        if self._root is None:
            return
        for path in self._root.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.lstat().st_mtime >= self._kept_seconds:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def close(self) -> None:
        """Removes the folder."""
        if self._root is not None:
            tempfile.tempdir = self._before
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None
