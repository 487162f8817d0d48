"""Reading bytes without trusting the header that announces them.

Common readers fill a cut-off volume with zeros or allocate whatever a damaged header asks for. Here a size is compared
with the file before memory is taken, and compressed data is read to its end, so that its checksum is verified.
"""

from __future__ import annotations

import gzip
import math
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from semi_med.errors import InputError, ResourceError
from semi_med.inference.intensities import ToFloat32

MAX_VOXELS = 2**31
MAX_VOXELS_VARIABLE = "SEMI_MED_MAX_VOXELS"
MAX_TRAILING = 64 * 2**20  # bytes tolerated before and after the voxels, for header extensions and padding
GZIP_RATIO = 1100  # deflate cannot pack tighter than about 1032 : 1
IMAGE_RATIO = 300  # noise keeps scans below 10 : 1, a scan that is mostly air below 100 : 1; a label may reach 1000 : 1
LARGE = 2**29  # bytes of voxels from which on `IMAGE_RATIO` counts
_ALWAYS_THERE = 2**26  # bytes for which free memory is not asked
_CHUNK = 2**22  # bytes at a time
_PIECE = 2**18  # bytes of voxels at a time: still in the processor's cache when they are converted

COPY_AGAIN = "Copy or export the file again from its source."


@dataclass(frozen=True)
class RawVolume:
    """Voxels as they lie in a file, and what the header says about them.

    Attributes:
        array: (i, j, k) in the data type of the file.
        affine: 4x4 float64, voxel to RAS millimetres; not yet checked for sanity.
        slope: factor from stored to real values.
        inter: added after the factor.
        warnings: what was odd, each beginning with a code.
        convert: what the voxels were converted to float32 with, if they were.
        axes: of the file: 3, or 2 for one slice (i, j) and 4 for flat frames (i, j, 1, k).
    """

    array: np.ndarray
    affine: np.ndarray
    slope: float = 1.0
    inter: float = 0.0
    warnings: tuple[str, ...] = ()
    convert: ToFloat32 | None = None
    axes: int = 3


def check_regular_file(path: Path) -> int:
    """Size in bytes of a file that exists, is a plain file (no folder, pipe or device), is readable and not empty.

    Raises:
        InputError: with code NOT_FOUND, NOT_A_FILE, UNREADABLE or EMPTY_FILE.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError("this file does not exist", where=path, fix="Check the path.", code="NOT_FOUND") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"this file cannot be opened ({type(error).__name__})", where=path, fix="Check the path.", code="UNREADABLE"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise InputError(f"a file was wanted, this is {kind}", where=path, fix="Name one file.", code="NOT_A_FILE")
    if not os.access(path, os.R_OK):
        raise InputError(
            "there is no permission to read this file", where=path, fix="Change its permissions.", code="UNREADABLE"
        )
    if status.st_size == 0:
        raise InputError("the file is empty (0 bytes)", where=path, fix=COPY_AGAIN, code="EMPTY_FILE")
    return status.st_size


def most_voxels() -> int:
    """Voxels that a scan may have: `MAX_VOXELS`, or the environment variable SEMI_MED_MAX_VOXELS.

    Raises:
        InputError: code SETTING, if the variable is no number above 0.
    """
    text = os.environ.get(MAX_VOXELS_VARIABLE, "")
    if text and (not text.isascii() or not text.isdecimal() or int(text) < 1):
        raise InputError(
            f"a number above 0 was wanted, got {text!r}", where=MAX_VOXELS_VARIABLE, fix="Mend it.", code="SETTING"
        )
    return int(text) if text else MAX_VOXELS


def check_declared_size(
    shape: Sequence[int], itemsize: int, *, available: int | None, path: Path, image: bool = False
) -> int:
    """Bytes that a header of this shape announces, refused when no sane file of this size can hold them.

    Args:
        shape: voxels along every axis, as the header says.
        itemsize: bytes of one voxel.
        available: size of the compressed data in bytes; None if the data is not compressed.
        path: the file, for the error.
        image: the voxels are intensities, which cannot be packed as tightly as a label.

    Raises:
        InputError: with code HEADER or TOO_LARGE.
        ResourceError: code MEMORY, if the voxels do not fit into the memory that is free.
    """
    text = " x ".join(str(size) for size in shape)
    if not shape or min(shape) < 1:
        raise InputError(f"the header gives an impossible shape ({text})", where=path, fix=COPY_AGAIN, code="HEADER")
    voxels, most = math.prod(shape), most_voxels()
    if voxels > most:
        raise InputError(
            f"the header announces {text} voxels, more than the {most} that are read",
            where=path,
            fix="The header is damaged, or the scan must be cropped or resampled first; "
            f"{MAX_VOXELS_VARIABLE} sets another limit.",
            code="TOO_LARGE",
        )
    needed = voxels * itemsize
    ratio = IMAGE_RATIO if image and needed > LARGE else GZIP_RATIO
    if available is not None and needed > available * ratio:
        raise InputError(
            f"the header announces {needed} bytes of voxels ({text}), more than {available} compressed bytes can hold",
            where=path,
            fix=f"The file is cut off or its header is damaged. {COPY_AGAIN}",
            code="TOO_LARGE",
        )
    check_memory(max(needed, 4 * voxels) if image else needed, path=path)
    return needed


def check_memory(needed: int, *, path: Path) -> None:
    """Refuse what would not fit into the memory that is free, before any of it is taken.

    Raises:
        ResourceError: code MEMORY.
    """
    if needed <= _ALWAYS_THERE or (free := free_memory()) is None or needed <= free:
        return
    raise ResourceError(
        f"its voxels take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB of memory are free",
        where=path,
        fix="Crop or resample the scan, read fewer at a time, or free memory.",
        code="MEMORY",
    )


def free_memory() -> int | None:
    """Bytes that this process may still take: what the machine has, within the process's own limit; None if unknown."""
    found = []
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            found.append(max(limit - used, 0))
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (ImportError, OSError, ValueError, KeyError):  # other systems than Linux
        pass
    return min(found, default=None)


def truncated(path: Path, *, needed: int, found: int) -> InputError:
    """The error for a file that ends before its voxels do."""
    return InputError(
        f"the file is cut off: {needed} bytes of voxels are announced, {found} are there",
        where=path,
        fix=COPY_AGAIN,
        code="TRUNCATED",
    )


def trailing(count: int) -> list[str]:
    """A warning if bytes follow the voxels: they may mean that the shape in the header is wrong."""
    return [f"TRAILING: {count} bytes follow the voxels that the header announces"] if count > 0 else []


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turns what decompression and reading can raise into a typed error that names the file."""
    try:
        yield
    except EOFError as error:
        raise InputError("the compressed data is cut off", where=path, fix=COPY_AGAIN, code="TRUNCATED") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"the compressed data is damaged ({error})", where=path, fix=COPY_AGAIN, code="CORRUPT"
        ) from error
    except OSError as error:
        raise InputError(
            f"reading failed ({error.strerror or error})", where=path, fix=COPY_AGAIN, code="UNREADABLE"
        ) from error
    except MemoryError as error:
        raise ResourceError(
            "there is not enough memory to hold this scan", where=path, fix="Crop it, or free memory.", code="MEMORY"
        ) from error


def read_exactly(stream: BinaryIO, *, needed: int, path: Path) -> bytearray:
    """Reads `needed` bytes; memory grows with the data that is really there, never with what was announced."""
    data = bytearray()
    while len(data) < needed:
        chunk = stream.read(min(_CHUNK, needed - len(data)))
        if not chunk:
            raise truncated(path, needed=needed, found=len(data))
        data += chunk
    return data


def read_voxels(
    stream: BinaryIO,
    shape: Sequence[int],
    dtype: np.dtype,
    *,
    convert: ToFloat32 | None,
    path: Path,
) -> np.ndarray:
    """Reads a volume, first axis fastest, and converts it piece by piece.

    Args:
        stream: at the first voxel.
        shape: of the volume.
        dtype: of the voxels in the stream.
        convert: what makes float32 of the stored voxels; None keeps them.
        path: the file, for the error.

    Raises:
        InputError: code TRUNCATED.
    """
    count = math.prod(shape)
    voxels = np.empty(count, np.float32 if convert else dtype)
    straight = dtype == voxels.dtype  # read into place; else into a buffer, and converted from there
    step = _PIECE // dtype.itemsize
    buffer = np.empty(0 if straight else min(step, count), dtype)
    for begin in range(0, count, step):
        part = voxels[begin : begin + step]
        piece = part if straight else buffer[: len(part)]
        filled = _fill(stream, piece.view(np.uint8))
        if filled < piece.nbytes:
            raise truncated(path, needed=count * dtype.itemsize, found=begin * dtype.itemsize + filled)
        if convert is not None:
            convert(piece, part)
    return voxels.reshape(tuple(shape), order="F")


def _fill(stream: BinaryIO, view: np.ndarray) -> int:
    """Bytes read until the view is full or the stream ends."""
    filled = 0
    while filled < len(view) and (got := stream.readinto(view[filled:])):  # type: ignore[attr-defined]
        filled += got
    return filled


def count_to_end(stream: BinaryIO, *, limit: int, path: Path) -> int:
    """Bytes left in the stream; reading to the end verifies the checksum of compressed data.

    Raises:
        InputError: code CORRUPT, when more than `limit` bytes follow.
    """
    found = 0
    while chunk := stream.read(_CHUNK):
        found += len(chunk)
        if found > limit:
            raise InputError(
                f"more than {limit} bytes are there where the header announces fewer",
                where=path,
                fix=COPY_AGAIN,
                code="CORRUPT",
            )
    return found
