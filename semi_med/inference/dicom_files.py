"""Where the files of a DICOM series lie: in a folder, in a list, or in a zip archive that is never unpacked to a disk.

Names of DICOM files often hold the patient's name. They are used for opening and sorting only: everywhere else a file
is a number, its place in the order of names.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn

from semi_med.errors import InputError
from semi_med.inference.byte_check import COPY_AGAIN

MAX_FILES = 100_000
MAX_ARCHIVE = 16 * 2**30  # bytes of a zip archive when unpacked
MAX_MEMBER = 4 * 2**30  # bytes of one of its members
MAX_DIRECTORY = 512 * MAX_FILES  # bytes of the list of its members
MAX_RATIO = 200  # unpacked to packed bytes of a whole archive; CT and MR pack 2 to 4 : 1
_SMALL_ARCHIVE = 64 * 2**20  # bytes below which the ratio does not matter
HEAD = 256  # bytes that tell what a file is

_DICOM_NAMES = (".dcm", ".dicom", ".ima")
_MAGIC = {
    b"PK\x03\x04": "zip archive",
    b"PK\x05\x06": "zip archive",
    b"%PDF": "PDF",
    b"\x89PNG": "picture",
    b"\xff\xd8\xff": "picture",
    b"GIF8": "picture",
    b"BM": "picture",
    b"II*\x00": "picture",
    b"MM\x00*": "picture",
    b"\x1f\x8b": "compressed file",
    b"MZ": "program",
    b"\x7fELF": "program",
    b"SQLite": "database",
}
# first elements of a data set without preamble: (0002,0000), (0008,0000), 0001, 0005, 0008, 0012, 0016
_BARE = {
    bytes([group, 0, element, 0]) for group, element in ((2, 0), (8, 0), (8, 1), (8, 5), (8, 8), (8, 0x12), (8, 0x16))
}


class FileSet(ABC):
    """Files in the order of their names; a file is known by its index.

    Attributes:
        names: paths relative to the folder or archive, for sorting and opening; never shown unless asked for.
        unpacked: bytes of the largest file that opening takes into memory.
    """

    names: Sequence[str]
    unpacked: int = 0

    @abstractmethod
    def open(self, index: int) -> BinaryIO:
        """A stream of the file's bytes from its beginning; `OSError` if that fails."""

    def label(self, index: int) -> str:
        """What a file is called in messages: its number, since its name may be a person's."""
        return f"file {index + 1} of {len(self.names)}"


class DiskFiles(FileSet):
    """Files below a folder, or files that were listed.

    Args:
        root: the folder that the names are relative to.
        names: the files.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, sorted(names)
        if len(self.names) > MAX_FILES:
            raise InputError(
                f"there are more than {MAX_FILES} files", fix="Name the folder of one series.", code="TOO_LARGE"
            )

    @classmethod
    def below(cls, folder: Path) -> DiskFiles:
        """All files below a folder; links to folders are not followed, hidden folders not entered."""
        names = []
        for place, folders, files in os.walk(folder, onerror=_refuse_folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            names += [(Path(place) / name).relative_to(folder).as_posix() for name in files]
            if len(names) > MAX_FILES:
                break
        return cls(folder, names)

    def open(self, index: int) -> BinaryIO:
        """Opens the file; pipes and devices are refused, which would block."""
        path = self.root / self.names[index]
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("no regular file")
        return path.open("rb")


class ZipFiles(FileSet):
    """Members of a zip archive, read into memory one at a time; nothing is written, so nothing can be left behind.

    Args:
        path: the archive.

    Raises:
        InputError: code ARCHIVE, for members that point outside, links, encryption, and archives that unpack to more
            than can be meant.
    """

    def __init__(self, path: Path) -> None:
        try:
            _check_directory(path)
            self._archive = zipfile.ZipFile(path)
            infos = [info for info in self._archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
            _refuse_archive("this zip archive is damaged")
        _check_members(infos, path.stat().st_size)
        self._infos = sorted(infos, key=lambda info: info.filename)
        self.names = [info.filename for info in self._infos]
        self.unpacked = max((info.file_size for info in infos), default=0)

    def open(self, index: int) -> BinaryIO:
        """Unpacks one member; its checksum is verified."""
        try:
            return io.BytesIO(self._archive.read(self._infos[index]))
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise OSError("damaged in the archive") from error


def open_files(path: Path | Sequence[Path]) -> FileSet:
    """The files of a folder, a zip archive, one file, or a list of files."""
    if not isinstance(path, Path):
        return DiskFiles(Path(path[0]).parent, [os.path.relpath(file, Path(path[0]).parent) for file in path])
    if path.is_dir():
        return DiskFiles.below(path)
    return ZipFiles(path) if is_zip(path) else DiskFiles(path.parent, [path.name])


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip archive does and is named so."""
    with path.open("rb") as stream:
        return path.suffix.lower() == ".zip" and stream.read(2) == b"PK"


def looks_like_dicom(head: bytes) -> bool:
    """Whether these first bytes are those of a DICOM file, with or without the preamble of 128 bytes."""
    return head[128:132] == b"DICM" or head[:4] in _BARE


def kind_of(name: str, head: bytes) -> str | None:
    """What a file is, from its name and first bytes.

    Args:
        name: only its ending and a leading dot count.
        head: its first `HEAD` bytes.

    Returns:
        "DICOM", a word for what can be passed over, or None if it is neither: then it may be a damaged slice.
    """
    if looks_like_dicom(head):
        return "DICOM"
    last = PurePosixPath(name).name.lower()
    if last.startswith(".") or last in ("thumbs.db", "desktop.ini"):
        return "hidden file"
    if last.endswith(_DICOM_NAMES) or not head:
        return None
    magic = next((word for start, word in _MAGIC.items() if head.startswith(start)), None)
    return magic or ("text" if _is_text(head) else None)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # the cut may have split the last character
            return False
        text = head[: error.start].decode("utf-8-sig")
    return all(character.isprintable() or character in "\t\n\r\f" for character in text)


def _check_directory(path: Path) -> None:
    """Refuses a list of members that would fill the memory, before it is read."""
    with path.open("rb") as stream:
        end = zipfile._EndRecData(stream)  # type: ignore[attr-defined]  # what ZipFile itself goes by
    if end and end[zipfile._ECD_SIZE] > MAX_DIRECTORY:  # type: ignore[attr-defined]
        _refuse_archive(f"the archive has more than {MAX_FILES} members")


def _check_members(infos: Sequence[zipfile.ZipInfo], packed: int) -> None:
    if len(infos) > MAX_FILES:
        _refuse_archive(f"the archive has more than {MAX_FILES} members")
    unpacked = sum(info.file_size for info in infos)
    if max((info.file_size for info in infos), default=0) > MAX_MEMBER or unpacked > MAX_ARCHIVE:
        _refuse_archive(f"the archive would unpack to {unpacked} bytes")
    if unpacked > _SMALL_ARCHIVE and unpacked > packed * MAX_RATIO:
        _refuse_archive(f"the archive of {packed} bytes would unpack to {unpacked} bytes")
    if len({info.filename for info in infos}) < len(infos):
        _refuse_archive("two members of the archive have one name")
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if ".." in parts or info.filename[:1] in ("/", "\\") or info.filename[1:2] == ":" or "\0" in info.filename:
            _refuse_archive("a member of the archive points outside of it")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            _refuse_archive("a member of the archive is a link or a device")
        if info.flag_bits & 1:
            _refuse_archive("the archive is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            _refuse_archive("the archive uses a rare compression")


def _refuse_archive(problem: str) -> NoReturn:
    raise InputError(problem, fix=f"Unpack it where it is safe and name the folder. {COPY_AGAIN}", code="ARCHIVE")


def _refuse_folder(error: OSError) -> NoReturn:
    raise InputError(
        f"a folder in it cannot be opened ({error.strerror})", fix="Change its permissions.", code="UNREADABLE"
    )
