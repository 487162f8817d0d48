"""Pictures (.png, .jpg, .tif, .bmp, .gif) as volumes of one slice, verified whole before they are believed.

A picture says nothing about space: a pixel counts as 1 mm, its columns run to the patient's left and its rows to the
back, as ITK has it, so that it is drawn upright. Pillow decodes; what it lets through (a PNG with a wrong checksum, a
JPEG that ends early) is looked at here first.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.errors import InputError
from semi_med.inference.axes import Wanted
from semi_med.inference.byte_check import (
    COPY_AGAIN,
    RawVolume,
    check_declared_size,
    check_regular_file,
    decoding,
)

PICTURE_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
}
MAX_PIXELS = 178_956_970  # Pillow's own limit against files that unpack to gigabytes

_NUMBERS = ("1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
_ORIENTATION_TAG = 0x0112
_PNG = b"\x89PNG\r\n\x1a\n"


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture."""
    return path.suffix.lower() in PICTURE_FORMATS


def picture_shape(path: Path) -> tuple[int, int, int]:
    """Columns and rows of a picture, and its one slice; no pixel is read.

    Raises:
        InputError: code EMPTY_FILE, UNREADABLE or TOO_LARGE.
    """
    from PIL import Image

    check_regular_file(path)
    try:
        with decoding(path), Image.open(path, formats=[PICTURE_FORMATS[path.suffix.lower()]]) as picture:
            return (*picture.size, 1)
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error


def read_picture(path: Path, wanted: Wanted) -> RawVolume:
    """Pixels of one picture.

    Args:
        path: the file.
        wanted: of an image the colours that the palette means are taken, of a label the palette's numbers.

    Returns:
        (columns, rows, 1), or (columns, rows, 1, 3) for colours; alpha is dropped with a warning.

    Raises:
        InputError: code EMPTY_FILE, FORMAT, NDIM, DTYPE, TOO_LARGE, TRUNCATED or CORRUPT.
    """
    size = check_regular_file(path)
    kind = PICTURE_FORMATS[path.suffix.lower()]
    with decoding(path):
        _check_bytes(path, kind)
    try:
        array, found = _decode(path, kind, wanted, size=size)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        if type(error).__name__ == "DecompressionBombError":
            raise _too_large(path) from error
        cut = "truncated" in str(error).lower() or isinstance(error, EOFError)
        raise InputError(
            "the picture is cut off" if cut else f"this is no whole {kind} picture ({type(error).__name__}: {error})",
            where=path,
            fix=COPY_AGAIN,
            code="TRUNCATED" if cut else "CORRUPT",
        ) from error
    if kind == "JPEG" and not wanted.image:
        found.append("LOSSY: JPEG does not keep class indices exactly")
    return RawVolume(array, _AFFINE.copy(), warnings=("PICTURE: no place in space; a pixel counts as 1 mm", *found))


def _check_bytes(path: Path, kind: str) -> None:
    with path.open("rb") as stream:
        start = stream.read(16)
        known = {"PNG": _PNG, "JPEG": b"\xff\xd8", "BMP": b"BM", "GIF": b"GIF8", "TIFF": (b"II", b"MM")}[kind]
        if not start.startswith(known):  # type: ignore[arg-type]
            raise InputError(
                f"the name says {kind}, the content does not", where=path, fix="Give it its true name.", code="FORMAT"
            )
        if kind == "PNG":
            _check_png(path)
        if kind == "JPEG":
            stream.seek(0)
            if not stream.read().rstrip(b"\0").endswith(b"\xff\xd9"):
                raise InputError("the picture is cut off", where=path, fix=COPY_AGAIN, code="TRUNCATED")


def _check_png(path: Path) -> None:
    """Walks the chunks to the end and verifies each checksum; Pillow skips those of the pixels."""
    with path.open("rb") as stream:
        stream.seek(len(_PNG))
        while True:
            head = stream.read(8)
            length, name = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
            body = stream.read(length + 4)
            if not name or len(body) < length + 4:
                raise InputError("the picture is cut off", where=path, fix=COPY_AGAIN, code="TRUNCATED")
            if zlib.crc32(body[:-4], zlib.crc32(name)) != int.from_bytes(body[-4:], "big"):
                raise InputError(
                    f"the checksum of its part {name!r} is wrong", where=path, fix=COPY_AGAIN, code="CORRUPT"
                )
            if name == b"IEND":
                return


def _decode(path: Path, kind: str, wanted: Wanted, *, size: int) -> tuple[np.ndarray, list[str]]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes and tags, which are judged below
        with Image.open(path, formats=[kind]) as picture:
            pixels = math.prod(picture.size)
            if pixels > MAX_PIXELS:
                raise _too_large(path)
            packed = size if kind == "PNG" else None
            check_declared_size((*picture.size, 1), 1, available=packed, path=path, image=wanted.image)
            found = _choose_frame(picture, wanted, path)
            if picture.getexif().get(_ORIENTATION_TAG, 1) != 1:
                found.append("EXIF: the file asks viewers to turn it; pixels are taken as they are stored")
            picture.load()
            return _pixels(picture, wanted, path, found)


def _too_large(path: Path) -> InputError:
    return InputError(
        f"the header announces more than the {MAX_PIXELS} pixels that are read",
        where=path,
        fix="The header is damaged, or the picture must be cut into parts.",
        code="TOO_LARGE",
    )


def _choose_frame(picture: Any, wanted: Wanted, path: Path) -> list[str]:
    frames = getattr(picture, "n_frames", 1)
    if frames == 1 and wanted.volume in (None, 0):
        return []
    if wanted.volume is not None and 0 <= wanted.volume < frames:
        picture.seek(wanted.volume)
        return [f"VOLUME: picture {wanted.volume} of {frames} was taken"]
    raise InputError(
        f"one picture is wanted, the file holds {frames}",
        where=path,
        fix=f"Save the one that is meant as a file of its own: `semi-med convert FILE OUTPUT --volume K`, K from 0 to "
        f"{frames - 1}.",
        code="NDIM" if wanted.volume is None else "VOLUME",
    )


def _pixels(picture: Any, wanted: Wanted, path: Path, found: list[str]) -> tuple[np.ndarray, list[str]]:
    """(columns, rows, 1[, 3]) and warnings."""
    if picture.mode in ("LA", "RGBA", "PA"):
        opaque = picture.getchannel("A").getextrema() == (255, 255)
        found = found if opaque else [*found, "ALPHA: the transparency was dropped"]
        picture = picture.convert({"LA": "L", "RGBA": "RGB", "PA": "P"}[picture.mode])
    if picture.mode == "P" and wanted.image:
        picture = picture.convert("RGB")
    array = np.asarray(picture)
    if picture.mode == "RGB":
        grey = bool(np.array_equal(array[..., 0], array[..., 1]) and np.array_equal(array[..., 0], array[..., 2]))
        if grey and (not wanted.image or wanted.channels == 1):
            array = array[..., 0]
            found = [*found, "GREY: three equal colours were taken as one"]
        elif not wanted.image:
            raise InputError(
                "class indices are wanted, this label is a picture in colour",
                where=path,
                fix="Write one number per class and pixel, for example as a grey PNG.",
                code="DTYPE",
            )
    elif picture.mode not in (*_NUMBERS, "P"):
        raise InputError(
            f"grey values or red, green and blue are wanted, the picture has the mode {picture.mode}",
            where=path,
            fix="Convert it to grey or RGB.",
            code="DTYPE",
        )
    if array.dtype == bool:
        array = array.astype(np.uint8)
    return np.asarray(array.swapaxes(0, 1))[:, :, np.newaxis], found
