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

MAX_VOXELS = 2**31
MAX_TRAILING = 64 * 2**20  # bytes tolerated before and after the voxels, for header extensions and padding
GZIP_RATIO = 1100  # deflate cannot pack tighter than about 1032 : 1
_CHUNK = 2**22

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
    """

    array: np.ndarray
    affine: np.ndarray
    slope: float = 1.0
    inter: float = 0.0
    warnings: tuple[str, ...] = ()


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


def check_declared_size(shape: Sequence[int], itemsize: int, *, available: int | None, path: Path) -> int:
    """Bytes that a header of this shape announces, refused when no sane file of this size can hold them.

    Args:
        shape: voxels along every axis, as the header says.
        itemsize: bytes of one voxel.
        available: size of the compressed data in bytes; None if the data is not compressed.
        path: the file, for the error.

    Raises:
        InputError: with code HEADER or TOO_LARGE.
    """
    text = " x ".join(str(size) for size in shape)
    if not shape or min(shape) < 1:
        raise InputError(f"the header gives an impossible shape ({text})", where=path, fix=COPY_AGAIN, code="HEADER")
    voxels = math.prod(shape)
    if voxels > MAX_VOXELS:
        raise InputError(
            f"the header announces {text} voxels, more than the {MAX_VOXELS} that are read",
            where=path,
            fix="The header is damaged, or the scan must be cropped or resampled first.",
            code="TOO_LARGE",
        )
    needed = voxels * itemsize
    if available is not None and needed > available * GZIP_RATIO:
        raise InputError(
            f"the header announces {needed} bytes of voxels ({text}), more than {available} compressed bytes can hold",
            where=path,
            fix=f"The file is cut off or its header is damaged. {COPY_AGAIN}",
            code="TOO_LARGE",
        )
    return needed


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
