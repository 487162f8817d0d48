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
from semi_med.inference.axes import Wanted, plan_axes
from semi_med.inference.byte_check import (
    COPY_AGAIN,
    MAX_TRAILING,
    RawVolume,
    check_declared_size,
    check_regular_file,
    count_to_end,
    decoding,
    read_exactly,
    read_voxels,
    trailing,
    truncated,
)
from semi_med.inference.intensities import ToFloat32

# NIfTI-1 datatype codes (nifti1.h) of plain numbers, and the names of those that are no volume of numbers
_NUMBERS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_REFUSED = {1: "1-bit", 32: "complex", 128: "RGB colour", 1536: "128-bit float", 1792: "complex", 2048: "complex"}
_REFUSED[2304] = "RGBA colour"
_UNITS = {1: "metres", 3: "micrometres"}
_GZIP = b"\x1f\x8b"


def read_nifti(path: Path, wanted: Wanted) -> RawVolume:
    """Voxels and geometry of one `.nii` or `.nii.gz` file.

    The affine is the sform if its code is above 0, else the qform, else made of the voxel sizes with a warning.

    Args:
        path: the file.
        wanted: an image is converted to float32 while it is read; a label keeps the data type of the file.

    Returns:
        The volume; trailing axes of length 1 are dropped with a warning.

    Raises:
        InputError: code EMPTY_FILE, FORMAT, HEADER, DTYPE, NDIM, VOLUME, TOO_LARGE, TRUNCATED, CORRUPT, AFFINE,
            SPACING, or if `wanted.strict` QS_MISMATCH.
        ResourceError: code MEMORY.
    """
    size = check_regular_file(path)
    compressed = path.name.lower().endswith(".gz")
    _check_first_bytes(path, compressed=compressed)
    with decoding(path), _opened(path, compressed=compressed) as stream:
        header, header_size = _read_header(stream, path)
        dtype = _check_dtype(header, path)
        stored = _check_shape(header, path)
        plan = plan_axes(stored, wanted, path=path)
        offset = _check_offset(header, header_size, path)
        packed = size if compressed else None
        needed = check_declared_size(stored, dtype.itemsize, available=packed, path=path, image=wanted.image)
        if not compressed and size < offset + needed:
            raise truncated(path, needed=needed, found=max(size - offset, 0))
        if len(stored) == 2:
            _add_third_axis(header)
        affine, geometry_warnings = _affine(header, plan.shape[:3], path, strict=wanted.strict)
        slope, inter, scaling_warnings = _scaling(header)
        read_exactly(stream, needed=offset - header_size, path=path)
        convert = ToFloat32(slope, inter) if wanted.image else None
        array = read_voxels(stream, stored, dtype, convert=convert, path=path)
        rest = count_to_end(stream, limit=MAX_TRAILING, path=path) if compressed else size - offset - needed
    warnings = (*plan.warnings, *trailing(rest), *geometry_warnings, *scaling_warnings)
    if convert is not None:
        return RawVolume(plan.apply(array), affine, warnings=warnings, convert=convert, axes=plan.axes)
    return RawVolume(plan.apply(array), affine, slope, inter, warnings, axes=plan.axes)


def nifti_shape(path: Path) -> tuple[int, ...]:
    """Numbers of voxels along the axes as the header of a file has them; no voxel is read.

    Raises:
        InputError: code EMPTY_FILE, FORMAT, HEADER, NDIM or TOO_LARGE.
    """
    check_regular_file(path)
    compressed = path.name.lower().endswith(".gz")
    _check_first_bytes(path, compressed=compressed)
    with decoding(path), _opened(path, compressed=compressed) as stream:
        return _check_shape(_read_header(stream, path)[0], path)


def _opened(path: Path, *, compressed: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if compressed else path.open("rb", buffering=0))


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


def _check_shape(header: Any, path: Path) -> tuple[int, ...]:
    dims = [int(size) for size in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise InputError(
            f"the header gives {dims[0]} axes, NIfTI has 1 to 7", where=path, fix=COPY_AGAIN, code="HEADER"
        )
    shape = tuple(dims[1 : dims[0] + 1])
    if min(shape) < 1:
        text = " x ".join(str(size) for size in shape)
        raise InputError(f"the header gives an impossible shape ({text})", where=path, fix=COPY_AGAIN, code="HEADER")
    return shape


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


def _affine(header: Any, shape: tuple[int, ...], path: Path, *, strict: bool) -> tuple[np.ndarray, list[str]]:
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
    zooms = np.asarray(header["pixdim"], dtype=np.float64)[1:4]
    if sform is not None:
        return sform, [*_difference(sform, qform, shape, path, strict=strict), *_other_zooms(sform, zooms)]
    if qform is not None:
        return qform, []
    if int(header["qform_code"]) > 0:
        raise InputError(
            "the qform quaternion or its voxel sizes are no numbers", where=path, fix=COPY_AGAIN, code="AFFINE"
        )
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


def _add_third_axis(header: Any) -> None:
    """Gives the header of a flat file, which may say nothing about a third axis, one of 1 mm across the other two."""
    zooms = np.array(header["pixdim"])
    if zooms[3] == 0:
        zooms[3] = 1
        header["pixdim"] = zooms
    sform = np.asarray(header.get_sform(), dtype=np.float64)
    if int(header["sform_code"]) > 0 and not sform[:3, 2].any():
        normal = np.cross(sform[:3, 0], sform[:3, 1])
        normal /= np.linalg.norm(normal) or 1.0
        for name, value in zip(("srow_x", "srow_y", "srow_z"), normal, strict=True):
            row = np.array(header[name])
            row[2] = value
            header[name] = row


def _qform(header: Any) -> np.ndarray | None:
    """The qform in RAS millimetres; None if its numbers do not make one."""
    from nibabel.spatialimages import HeaderDataError

    try:
        with np.errstate(all="ignore"):
            qform = np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, HeaderDataError, ArithmeticError, np.linalg.LinAlgError):
        return None
    return qform if np.all(np.isfinite(qform)) else None


def _difference(
    sform: np.ndarray, qform: np.ndarray | None, shape: tuple[int, ...], path: Path, *, strict: bool
) -> list[str]:
    """A warning if the two frames of a header place some corner more than 0.01 mm apart.

    Raises:
        InputError: code QS_MISMATCH, if it is more than one voxel and `strict`.
    """
    sizes = np.linalg.norm(sform[:3, :3], axis=0)
    if qform is None or not np.all(np.isfinite(sform)) or not np.all(np.isfinite(sizes)) or np.any(sizes == 0):
        return []
    corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])], dtype=float)
    distance = float(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max())
    if distance <= 0.01:
        return []
    text = f"sform and qform differ by up to {distance:.2f} mm"
    if strict and distance > sizes.min():
        raise InputError(
            f"{text}, more than the {sizes.min():.3g} mm of a voxel: which of them is right cannot be known",
            where=path,
            fix="Look at the scan beside its label, then write one frame into both; "
            "`semi-med convert` keeps the sform.",
            code="QS_MISMATCH",
        )
    return [f"QS_MISMATCH: {text}; the sform is used"]


def _other_zooms(sform: np.ndarray, zooms: np.ndarray) -> list[str]:
    """A warning if the header gives voxel sizes beside the sform that are not the sform's."""
    sizes = np.linalg.norm(sform[:3, :3], axis=0)
    with np.errstate(invalid="ignore"):
        if np.all(np.abs(np.abs(zooms) - sizes) <= 0.01 * sizes):
            return []
    given, used = (", ".join(f"{value:.4g}" for value in values) for values in (zooms, sizes))
    return [f"ZOOMS: the header gives voxels of {given} mm beside an sform of {used} mm; the sform is used"]


def _scaling(header: Any) -> tuple[float, float, list[str]]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isfinite(slope) and slope != 0 and np.isfinite(inter):
        return slope, inter, []
    # a slope of 0 or NaN is how "no scaling" is written
    unused = (slope == 0 or np.isnan(slope)) and (inter == 0 or np.isnan(inter))
    warnings = [] if unused else [f"SCALING: slope {slope:g} with intercept {inter:g} was ignored"]
    return 1.0, 0.0, warnings
