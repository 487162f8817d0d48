"""Odd and damaged NIfTI files, each with the verdict that reading it must give.

Every file is made from one small sound scan, so that the voxels that must be read are known.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (20, 18, 16)
AFFINE = np.array([[2.0, 0, 0, -10], [0, 2, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]])
# byte offsets in the NIfTI-1 header (nifti1.h)
SIZEOF, DIM, DATATYPE, PIXDIM, VOX_OFFSET, SCL_SLOPE, UNITS, QFORM_CODE = 0, 40, 70, 76, 108, 112, 123, 252
SFORM_CODE, QOFFSET, SROW, MAGIC = 254, 268, 280, 344
HEADER = 352


def voxels() -> np.ndarray:
    """(20, 18, 16) int16, no two planes alike."""
    return np.random.default_rng(4).integers(-200, 1000, SHAPE).astype(np.int16)


def sound(array: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> bytes:
    """An uncompressed NIfTI file with sform and qform, both with code 1."""
    array = voxels() if array is None else array
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    return image.to_bytes()


def patched(offset: int, layout: str, *values: float | bytes, data: bytes | None = None) -> bytes:
    """A sound file with header fields overwritten."""
    content = bytearray(data or sound())
    struct.pack_into("<" + layout, content, offset, *values)
    return bytes(content)


def packed(data: bytes) -> bytes:
    """The same in gzip."""
    return gzip.compress(data, 6, mtime=0)


def flipped(data: bytes, place: int) -> bytes:
    """One bit changed."""
    content = bytearray(data)
    content[place] ^= 4
    return bytes(content)


def bomb() -> bytes:
    """About 4 MB of gzip that unpack to 4 GB of zeros, which the header announces truthfully."""
    count, size = 255, 2**24
    head = patched(DIM, "4h", 3, 1024, 1024, 2040, data=sound(np.zeros((4, 4, 4), np.int16)))[:HEADER]
    assert count * size == 1024 * 1024 * 2040 * 2
    return packed(head) + gzip.compress(bytes(size), 9, mtime=0) * count


def with_value(value: float, count: int) -> bytes:
    """A float32 scan with some voxels replaced."""
    array = voxels().astype(np.float32)
    array.ravel(order="K")[:count] = value
    return sound(array)


def sheared(amount: float) -> np.ndarray:
    """The affine with its third axis leaning towards the first."""
    affine = AFFINE.copy()
    affine[0, 2] = 2 * amount
    return affine


def other_qform() -> bytes:
    """sform of 2 mm voxels, qform moved by 40 mm."""
    return patched(QOFFSET, "3f", 30, -20, 30)


def typed(dtype: np.dtype) -> bytes:
    """A structured or complex type of nibabel."""
    return nib.Nifti1Image(np.zeros(SHAPE, dtype), AFFINE).to_bytes()


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@dataclass(frozen=True)
class Crafted:
    """One file of the corpus.

    Attributes:
        name: what is odd about it.
        suffix: of its file name.
        content: its bytes.
        code: of the error that must be raised; None if it must be read.
        warning: code that one of the warnings must have; "" for a scan that is read without any.
        values: what must be read; None for the voxels of the sound scan.
    """

    name: str
    suffix: str
    content: Callable[[], bytes]
    code: str | None = None
    warning: str = ""
    values: Callable[[], np.ndarray] | None = None

    def write(self, folder: Path) -> Path:
        """Write it."""
        path = folder / f"{self.name}{self.suffix}"
        path.write_bytes(self.content())
        return path


NII, GZ = ".nii", ".nii.gz"
LARGE = sound(np.arange(64, dtype=np.int64).reshape(4, 4, 4) * 2**40 + 1)

CORPUS = (
    Crafted("sound", NII, sound),
    Crafted("sound_packed", GZ, lambda: packed(sound())),
    # cut off
    Crafted("gzip_half", GZ, lambda: packed(sound())[: len(packed(sound())) // 2], "TRUNCATED"),
    Crafted("gzip_in_header", GZ, lambda: packed(sound())[:40], "TRUNCATED"),
    Crafted("gzip_without_last_byte", GZ, lambda: packed(sound())[:-1], "TRUNCATED"),
    Crafted("half", NII, lambda: sound()[: len(sound()) // 2], "TRUNCATED"),
    Crafted("without_last_byte", NII, lambda: sound()[:-1], "TRUNCATED"),
    Crafted("gzip_of_half", GZ, lambda: packed(sound()[: len(sound()) // 2]), "TRUNCATED"),
    Crafted("header_only", NII, lambda: sound()[:HEADER], "TRUNCATED"),
    Crafted("gzip_of_header_only", GZ, lambda: packed(sound()[:HEADER]), "TRUNCATED"),
    Crafted("half_header", NII, lambda: sound()[:170], "TRUNCATED"),
    # damaged
    Crafted("gzip_bit_flip", GZ, lambda: flipped(packed(sound()), len(packed(sound())) // 2), "CORRUPT"),
    Crafted("gzip_wrong_checksum", GZ, lambda: flipped(packed(sound()), -8), "CORRUPT"),
    Crafted("gzip_wrong_length", GZ, lambda: flipped(packed(sound()), -4), "CORRUPT"),
    Crafted("empty", NII, lambda: b"", "EMPTY_FILE"),
    Crafted("empty_packed", GZ, lambda: b"", "EMPTY_FILE"),
    # something else
    Crafted("wrong_magic", NII, lambda: patched(MAGIC, "4s", b"XXXX"), "FORMAT"),
    Crafted("wrong_header_size", NII, lambda: patched(SIZEOF, "i", 349), "FORMAT"),
    Crafted("plain_named_packed", GZ, sound, "FORMAT"),
    Crafted("packed_named_plain", NII, lambda: packed(sound()), "FORMAT"),
    Crafted("web_page", GZ, lambda: b"<!DOCTYPE html><html><body>404</body></html>", "FORMAT"),
    Crafted("noise", NII, lambda: np.random.default_rng(0).bytes(4000), "FORMAT"),
    # impossible headers
    Crafted("dim_zero", NII, lambda: patched(DIM + 2, "h", 0), "HEADER"),
    Crafted("dim_negative", NII, lambda: patched(DIM + 4, "h", -18), "HEADER"),
    Crafted("no_axes", NII, lambda: patched(DIM, "h", 0), "HEADER"),
    Crafted("eight_axes", NII, lambda: patched(DIM, "h", 8), "HEADER"),
    Crafted("offset_negative", NII, lambda: patched(VOX_OFFSET, "f", -100), "HEADER"),
    Crafted("offset_nan", NII, lambda: patched(VOX_OFFSET, "f", float("nan")), "HEADER"),
    Crafted("offset_huge", NII, lambda: patched(VOX_OFFSET, "f", 1e9), "HEADER"),
    Crafted("dims_huge", NII, lambda: patched(DIM, "4h", 3, 32767, 32767, 32767), "TOO_LARGE"),
    Crafted("dims_huge_packed", GZ, lambda: packed(patched(DIM, "4h", 3, 2000, 2000, 500)), "TOO_LARGE"),
    Crafted("bomb", GZ, bomb, "TOO_LARGE"),
    # values
    Crafted("one_nan", NII, lambda: with_value(np.nan, 1), "NONFINITE"),
    Crafted("one_infinite", GZ, lambda: packed(with_value(np.inf, 1)), "NONFINITE"),
    Crafted("tenth_nan", NII, lambda: with_value(np.nan, 576), "NONFINITE"),
    Crafted("all_nan", NII, lambda: with_value(np.nan, 5760), "NONFINITE"),
    Crafted("beyond_float32", NII, lambda: sound(np.full(SHAPE, 1e300)), "RANGE"),
    Crafted(
        "large_integers",
        NII,
        lambda: LARGE,
        warning="PRECISION",
        values=lambda: (
            (np.arange(64).reshape(4, 4, 4) * 2**40).astype(np.float32) + (np.arange(64).reshape(4, 4, 4) == 0)
        ),
    ),
    Crafted("slope_zero", NII, lambda: patched(SCL_SLOPE, "2f", 0, 5), warning="SCALING"),
    Crafted("slope_nan", NII, lambda: patched(SCL_SLOPE, "2f", float("nan"), 5), warning="SCALING"),
    Crafted("slope_infinite", NII, lambda: patched(SCL_SLOPE, "2f", float("inf"), 0), warning="SCALING"),
    Crafted("slope_and_intercept", NII, lambda: patched(SCL_SLOPE, "2f", 0.5, -3), values=lambda: voxels() * 0.5 - 3),
    Crafted(
        "constant",
        NII,
        lambda: sound(np.full(SHAPE, 7, np.int16)),
        warning="CONSTANT",
        values=lambda: np.full(SHAPE, 7),
    ),
    Crafted("rgb", NII, lambda: typed(RGB), "DTYPE"),
    Crafted("complex", NII, lambda: typed(np.dtype(np.complex64)), "DTYPE"),
    # axes
    Crafted("two_axes", NII, lambda: sound(voxels()[..., 0]), "NDIM"),
    Crafted("fourth_axis_of_one", NII, lambda: sound(voxels()[..., None]), warning="SQUEEZED"),
    Crafted("four_axes", NII, lambda: sound(np.stack([voxels()] * 3, -1)), "NDIM"),
    Crafted("five_axes", NII, lambda: sound(np.stack([voxels()] * 3, -1)[..., None, :]), "NDIM"),
    # place
    Crafted("sform_nan", NII, lambda: patched(SROW, "f", float("nan")), "AFFINE"),
    Crafted("sform_infinite", NII, lambda: patched(SROW + 12, "f", float("inf")), "AFFINE"),
    Crafted("sform_singular", NII, lambda: patched(SROW, "8f", 2, 0, 0, 0, 2, 0, 0, 0), "AFFINE"),
    Crafted("sheared", NII, lambda: patched(SROW, "4f", 2, 0, 1, -10), "SHEAR"),
    Crafted("sheared_a_little", NII, lambda: patched(SROW, "4f", 2, 0, 2e-4, -10), warning="SHEAR"),
    Crafted("two_frames", NII, other_qform, warning="QS_MISMATCH"),
    Crafted("no_frame", NII, lambda: patched(QFORM_CODE, "2h", 0, 0), warning="NO_ORIENTATION"),
    Crafted("pixdim_zero", NII, lambda: patched(QFORM_CODE, "h", 0, data=patched(PIXDIM + 4, "f", 0)), warning="ZOOMS"),
    Crafted(
        "pixdim_nan", NII, lambda: patched(QFORM_CODE, "h", 0, data=patched(PIXDIM + 4, "f", np.nan)), warning="ZOOMS"
    ),
    Crafted("micrometres", NII, lambda: patched(UNITS, "b", 3), "SPACING"),
    Crafted("metres_without_unit", NII, lambda: patched(SROW, "4f", 2e-4, 0, 0, 0), "SPACING"),
    Crafted("thick", NII, lambda: sound(None, np.diag([1.0, 1, 60, 1])), warning="SPACING"),
)
