"""The studies folder: which ids there may be, and that nothing is reached through them but what lies in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from semi_med.errors import InputError
from semi_med.inference.io import READ_SUFFIXES, case_name
from semi_med.label_app.guard.answers import Refused

IMAGE_SUFFIXES = tuple(suffix for suffix in READ_SUFFIXES if suffix != ".mhd")  # its voxels are in another file
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # no file names on Windows
_SHOWN = 5


def is_id(text: str) -> bool:
    """Whether this can name an image, a label, a tag, a model or a session without ever being a path."""
    return bool(_ID.fullmatch(text)) and ".." not in text and not text.endswith(".") and not _DEVICES.fullmatch(text)


def check_id(text: str, *, what: str) -> str:
    """The id, if it is one.

    Raises:
        Refused: 400.
    """
    if is_id(text):
        return text
    raise Refused(
        400,
        f"a {what} is named by 1 to 128 letters, digits and . _ - (first a letter or digit, no two dots together)",
        fix="Rename it.",
        code="ID",
    )


class Store:
    """Images in a folder, labels in `labels/<tag>/` below it, as MONAI Label's local datastore has them.

    Args:
        studies: the folder; an address such as `http://...` for a remote store, about which nothing is known here.
        outside: further folders that links in it may lead to.
    """

    def __init__(self, studies: str | Path, *, outside: Sequence[str | Path] = ()) -> None:
        self.remote = str(studies).startswith(("http://", "https://"))
        self.root = Path(studies)
        self._homes = [Path(folder).resolve() for folder in (studies, *outside)]

    def check(self) -> None:
        """Looks at a store before it is served.

        Raises:
            InputError: code ID for file names that no request can name, LINK for links that lead out of the folder.
        """
        if self.remote or not self.root.is_dir():
            return
        images = [path for path in self.root.iterdir() if path.name.lower().endswith(IMAGE_SUFFIXES)]
        odd = [path.name for path in images if not is_id(case_name(path))]
        if odd:
            raise InputError(
                f"{len(odd)} of {len(images)} images cannot be asked for by their name: {_some(odd)}",
                where=self.root,
                fix="Rename them: letters, digits and . _ - only, first a letter or digit, no two dots together.",
                code="ID",
            )
        folders = (self.root, self.root / "labels", *(self.root / "labels").glob("*"))
        paths = [path for folder in folders if folder.is_dir() for path in (folder, *folder.iterdir())]
        leading_out = [path.name for path in paths if not self._is_inside(path)]
        if leading_out:
            raise InputError(
                f"{len(leading_out)} links lead out of the folder: {_some(leading_out)}",
                where=self.root,
                fix="Copy the files, or name the folders that links may lead to.",
                code="LINK",
            )

    def check_inside(self, image: str, *, tag: str | None = None) -> None:
        """Refuses an id under which something is found, or would be written, that lies elsewhere.

        Args:
            image: a valid id.
            tag: of a label, valid too.

        Raises:
            Refused: 404, as if it were not there.
        """
        if self.remote or not self.root.is_dir():
            return
        labels = self.root / "labels"
        folders = {self.root, labels, *labels.glob("*"), *([labels / tag] if tag else [])}
        for folder in folders:
            for path in (folder, *folder.glob(f"{image}.*")):
                if not self._is_inside(path):
                    raise Refused(404, "this image is not in the datastore", code="NOT_FOUND")

    def has(self, image: str) -> bool:
        """Whether an image of this id is there; unknown of a remote store, of which the stock server is asked."""
        return any(case_name(path) == image or path.stem == image for path in self.root.glob(f"{image}.*"))

    def file_of(self, image: str) -> Path | None:
        """The file of an image, if it lies in a folder here."""
        if self.remote:
            return None
        paths = (self.root / f"{image}{suffix}" for suffix in IMAGE_SUFFIXES)
        return next((path for path in paths if path.is_file()), None)

    def _is_inside(self, path: Path) -> bool:
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError):  # a link to itself
            return False
        return any(resolved.is_relative_to(home) for home in self._homes)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:_SHOWN])
    return shown + (" ..." if len(names) > _SHOWN else "")
