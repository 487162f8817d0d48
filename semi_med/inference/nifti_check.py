"""NIfTI files, verified whole before they are believed.

nibabel interprets the header (data types, sform, qform); the bytes are counted here. SimpleITK is never used for
NIfTI: it reads a truncated file as zeros, turns NaN into 0 and prefers the qform where nibabel prefers the sform.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from semi_med.errors import InputError
from semi_med.inference.byte_check import (
    COPY_AGAIN,
    MAX_TRAILING,
    RawVolume,
    check_declared_size,
    check_regular_file,
    count_to_end,
    decoding,
    read_exactly,
    trailing,
    truncated,
)

# NIfTI-1 datatype codes (nifti1.h) of plain numbers, and the names of those that are no volume of numbers
_NUMBERS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_REFUSED = {1: "1-bit", 32: "complex", 128: "RGB colour", 1536: "128-bit float", 1792: "complex", 2048: "complex"}
_REFUSED[2304] = "RGBA colour"
_UNITS = {1: "metres", 3: "micrometres"}
_GZIP = b"\x1f\x8b"


def read_nifti(path: Path) -> RawVolume:
    """Voxels and geometry of one `.nii` or `.nii.gz` file.

    The affine is the sform if its code is above 0, else the qform, else made of the voxel sizes with a warning.

    Args:
        path: the file.

    Returns:
        The volume in the data type of the file; trailing axes of length 1 are dropped with a warning.

    Raises:
        InputError: code EMPTY_FILE, FORMAT, HEADER, DTYPE, NDIM, TOO_LARGE, TRUNCATED, CORRUPT, AFFINE or SPACING.
    """
    size = check_regular_file(path)
    compressed = path.name.lower().endswith(".gz")
    _check_first_bytes(path, compressed=compressed)
    with decoding(path), cast(BinaryIO, gzip.open(path, "rb") if compressed else path.open("rb")) as stream:
        header, header_size = _read_header(stream, path)
        dtype = _check_dtype(header, path)
        shape, warnings = _check_shape(header, path)
        offset = _check_offset(header, header_size, path)
        needed = check_declared_size(shape, dtype.itemsize, available=size if compressed else None, path=path)
        if not compressed and size < offset + needed:
            raise truncated(path, needed=needed, found=max(size - offset, 0))
        read_exactly(stream, needed=offset - header_size, path=path)
        data = read_exactly(stream, needed=needed, path=path)
        rest = count_to_end(stream, limit=MAX_TRAILING, path=path) if compressed else size - offset - needed
    array = np.frombuffer(data, dtype=dtype).reshape(shape, order="F")
    affine, geometry_warnings = _affine(header, shape, path)
    slope, inter, scaling_warnings = _scaling(header)
    warnings += [*trailing(rest), *geometry_warnings, *scaling_warnings]
    return RawVolume(array, affine, slope, inter, tuple(warnings))


def _check_first_bytes(path: Path, *, compressed: bool) -> None:
    with decoding(path), path.open("rb") as stream:
        start = stream.read(348)
    if compressed and not start.startswith(_GZIP):
        raise InputError(
            f"the name says gzip, the content looks like {_looks_like(start)}",
            where=path,
            fix="Give the file its true name, or export it again as compressed NIfTI.",
            code="FORMAT",
        )
    if not compressed and start.startswith(_GZIP):
        raise InputError(
            "the name says uncompressed NIfTI, the content is gzip", where=path, fix="Name it .nii.gz.", code="FORMAT"
        )


def _looks_like(start: bytes) -> str:
    text = start.lstrip().lower()
    if start[344:347] in (b"n+1", b"ni1") or start[4:7] in (b"n+2", b"ni2"):
        return "uncompressed NIfTI"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page"
    if start.startswith(b"PK"):
        return "a zip archive"
    if start.startswith(b"NRRD"):
        return "NRRD"
    if start[128:132] == b"DICM":
        return "DICOM"
    return "something else"


def _read_header(stream: BinaryIO, path: Path) -> tuple[Any, int]:
    """The nibabel header object and its size in bytes."""
    import nibabel

    start = stream.read(348)
    if len(start) < 348:
        raise InputError(
            f"the file ends inside its header ({len(start)} of 348 bytes)",
            where=path,
            fix=COPY_AGAIN,
            code="TRUNCATED",
        )
    for endianness, order in (("<", "little"), (">", "big")):
        size = int.from_bytes(start[:4], cast(Any, order))
        if size == 348 and start[344:348] == b"n+1\0":
            return nibabel.Nifti1Header(start, endianness=endianness, check=False), 348
        if size == 540 and start[4:8] == b"n+2\0":
            start += bytes(read_exactly(stream, needed=540 - 348, path=path))
            return nibabel.Nifti2Header(start, endianness=endianness, check=False), 540
    if start[344:347] == b"ni1":
        raise InputError(
            "this is one half of a two-file (.hdr and .img) NIfTI", where=path, fix="Save it as .nii.gz.", code="FORMAT"
        )
    raise InputError(
        f"this is not a NIfTI file; it looks like {_looks_like(start)}",
        where=path,
        fix="Give the file its true name, or convert it to NIfTI.",
        code="FORMAT",
    )


def _check_dtype(header: Any, path: Path) -> np.dtype:
    code = int(header["datatype"])
    if code not in _NUMBERS:
        kind = _REFUSED.get(code, f"of the unknown type {code}")
        raise InputError(
            f"one number per voxel is wanted, the voxels are {kind}",
            where=path,
            fix="Convert the scan to integers or floats.",
            code="DTYPE",
        )
    return np.dtype(header.endianness + _NUMBERS[code])


def _check_shape(header: Any, path: Path) -> tuple[tuple[int, ...], list[str]]:
    dims = [int(size) for size in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise InputError(
            f"the header gives {dims[0]} axes, NIfTI has 1 to 7", where=path, fix=COPY_AGAIN, code="HEADER"
        )
    shape = tuple(dims[1 : dims[0] + 1])
    if min(shape) < 1:
        text = " x ".join(str(size) for size in shape)
        raise InputError(f"the header gives an impossible shape ({text})", where=path, fix=COPY_AGAIN, code="HEADER")
    return squeezed_shape(shape, path=path)


def squeezed_shape(shape: tuple[int, ...], *, path: Path) -> tuple[tuple[int, ...], list[str]]:
    """The three axes of a volume; trailing axes of length 1 go with a warning, anything else is refused.

    Raises:
        InputError: code NDIM, for 2D, and for more than three axes longer than 1.
    """
    text = " x ".join(str(size) for size in shape)
    if len(shape) < 3:
        raise InputError(
            f"a volume with three axes is wanted, this has {len(shape)} ({text})",
            where=path,
            fix="Save a single slice as a volume with one slice (i x j x 1).",
            code="NDIM",
        )
    if len(shape) > 3 and any(size != 1 for size in shape[3:]):
        raise InputError(
            f"a volume with three axes is wanted, this has {len(shape)} ({text}): "
            "several time points, channels or directions",
            where=path,
            fix="Save the volume that is meant as a file of its own; channels are one file each.",
            code="NDIM",
        )
    if len(shape) > 3:
        return shape[:3], [f"SQUEEZED: trailing axes of length 1 were dropped ({text})"]
    return shape, []


def _check_offset(header: Any, header_size: int, path: Path) -> int:
    offset = float(header["vox_offset"])
    smallest = header_size + 4  # the four bytes that announce extensions
    if not smallest <= offset <= MAX_TRAILING or offset != int(offset):
        raise InputError(
            f"the header says that the voxels begin at byte {offset:g}, which cannot be",
            where=path,
            fix=COPY_AGAIN,
            code="HEADER",
        )
    return int(offset)


def _affine(header: Any, shape: tuple[int, ...], path: Path) -> tuple[np.ndarray, list[str]]:
    unit = _UNITS.get(int(header["xyzt_units"]) & 7)
    if unit:
        raise InputError(
            f"millimetres are wanted, the header says {unit}",
            where=path,
            fix="Rewrite the affine in mm and the unit code as mm.",
            code="SPACING",
        )
    sform = np.asarray(header.get_sform(), dtype=np.float64) if int(header["sform_code"]) > 0 else None
    qform = _qform(header) if int(header["qform_code"]) > 0 else None
    if sform is not None:
        return sform, _difference(sform, qform, shape)
    if qform is not None:
        return qform, []
    if int(header["qform_code"]) > 0:
        raise InputError(
            "the qform quaternion or its voxel sizes are no numbers", where=path, fix=COPY_AGAIN, code="AFFINE"
        )
    zooms = np.asarray(header["pixdim"], dtype=np.float64)[1:4]
    if not np.all(np.isfinite(zooms)) or np.any(zooms == 0):
        raise InputError(
            f"neither an orientation nor usable voxel sizes are given ({zooms.tolist()})",
            where=path,
            fix="Set the sform or the voxel sizes from the source of the scan.",
            code="SPACING",
        )
    # nibabel's reading of such a file: origin in the middle, first axis towards the left
    affine = np.diag([-abs(zooms[0]), abs(zooms[1]), abs(zooms[2]), 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine, ["NO_ORIENTATION: sform and qform are not set; left and right cannot be known from this file"]


def _qform(header: Any) -> np.ndarray | None:
    """The qform in RAS millimetres; None if its numbers do not make one."""
    from nibabel.spatialimages import HeaderDataError

    try:
        with np.errstate(all="ignore"):
            qform = np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, HeaderDataError, ArithmeticError, np.linalg.LinAlgError):
        return None
    return qform if np.all(np.isfinite(qform)) else None


def _difference(sform: np.ndarray, qform: np.ndarray | None, shape: tuple[int, ...]) -> list[str]:
    """A warning if the two frames of a header place some corner more than 0.01 mm apart."""
    if qform is None or not np.all(np.isfinite(sform)):
        return []
    corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])], dtype=float)
    distance = float(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max())
    if distance <= 0.01:
        return []
    return [f"QS_MISMATCH: sform and qform differ by up to {distance:.2f} mm; the sform is used"]


def _scaling(header: Any) -> tuple[float, float, list[str]]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isfinite(slope) and slope != 0 and np.isfinite(inter):
        return slope, inter, []
    # a slope of 0 or NaN is how "no scaling" is written
    unused = (slope == 0 or np.isnan(slope)) and (inter == 0 or np.isnan(inter))
    warnings = [] if unused else [f"SCALING: slope {slope:g} with intercept {inter:g} was ignored"]
    return 1.0, 0.0, warnings
