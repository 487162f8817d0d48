"""Reading and writing scans: the only place that knows about files and frames of volumes.

Everything read here is verified whole, and every affine maps voxel indices to RAS millimetres. Neither torch nor MONAI
is imported.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.errors import InputError, ResourceError
from semi_med.files import write_atomically
from semi_med.inference.axes import Wanted
from semi_med.inference.byte_check import RawVolume
from semi_med.inference.dicom import is_dicom, read_dicom
from semi_med.inference.grids import check_affine
from semi_med.inference.intensities import Nonfinite, ToFloat32
from semi_med.inference.itk_check import itk_shape, read_itk
from semi_med.inference.label_png import label_png
from semi_med.inference.nifti_check import nifti_shape, read_nifti
from semi_med.inference.picture_check import PICTURE_FORMATS, is_picture, read_picture

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
PICTURE_SUFFIXES = tuple(PICTURE_FORMATS)
READ_SUFFIXES = (*IMAGE_SUFFIXES, *PICTURE_SUFFIXES)
LABEL_PICTURE_SUFFIX = ".png"  # of a label that is written as a picture
DICOM_SUFFIXES = (".dcm", ".zip")  # of what is a whole series; most series are folders

_SCALED_LABEL_TOLERANCE = 1e-4  # a float32 slope leaves a class index this close to a whole number


@dataclass(frozen=True)
class Scan:
    """One volume and where it lies.

    Attributes:
        array: (i, j, k[, c]); a picture has one slice.
        affine: 4x4 float64, voxel index to RAS millimetres.
        warnings: what was odd about the file, each beginning with a code, for example `QS_MISMATCH: ...`.
        axes: of the file: 3, or of what is flat 2 for one slice (i, j) and 4 for frames (i, j, 1, k).
    """

    array: np.ndarray
    affine: np.ndarray
    warnings: tuple[str, ...] = ()
    axes: int = 3

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxel centres along i, j, k."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)


def case_name(path: str | Path) -> str:
    """File name without the suffix of its format: `a/b.c.nii.gz` is the case `b.c`. A DICOM folder is its own name."""
    name = Path(path).name
    suffix = _suffix(name) or next((suffix for suffix in DICOM_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: -len(suffix)] if suffix else name


def stored_shape(path: str | Path) -> tuple[int, ...] | None:
    """Numbers of voxels along the axes of a NIfTI, NRRD or MetaImage file, channels last; no voxel is read.

    Returns:
        None for other formats.

    Raises:
        InputError: the header cannot be read.
    """
    path = Path(path)
    if _suffix(path.name) in (".nii.gz", ".nii"):
        return nifti_shape(path)
    return itk_shape(path) if _suffix(path.name) in IMAGE_SUFFIXES else None


def read_image(
    path: str | Path,
    *,
    nonfinite: Nonfinite = "error",
    channels: int = 1,
    volume: int | None = None,
    strict: bool = False,
    sheared: bool = False,
    dicom: Mapping[str, Any] | None = None,
    flat: bool = False,
) -> Scan:
    """Reads one image, verified whole and sane.

    Args:
        path: a file with one of `READ_SUFFIXES`; or the folder or zip archive of a DICOM series, or a multi-frame file.
        nonfinite: NaN and infinite voxels are an error, or are replaced by the smallest finite value with a warning
            (still an error if they are more than 5 %).
        channels: a fourth axis of this length is the image's channels; without it, four axes are an error.
        volume: of several volumes or pictures in one file the one to take, from 0.
        strict: an error, not a warning, for what is probably wrong: sform and qform more than a voxel apart.
        sheared: voxel axes need not be at right angles, for a caller that resamples.
        dicom: which series is meant and what is done about gaps, see `semi_med.inference.dicom.read_dicom`.
        flat: of NIfTI and MetaImage, two axes are one slice, and a sequence of flat frames, (i, j, 1, frames), is a
            volume with a slice for each; else both are errors.

    Returns:
        The scan in float32, with the slope and intercept of the file applied.

    Raises:
        InputError: for whatever is wrong with the file; its `code` says what.
        ResourceError: if memory does not suffice.
    """
    path = Path(path)
    if nonfinite not in ("error", "replace"):
        raise InputError(f"nonfinite must be 'error' or 'replace', not {nonfinite!r}", code="SETTING")
    try:
        raw = _read_raw(path, Wanted(True, channels, volume, strict, sheared, flat), dicom)
        convert = raw.convert or ToFloat32(raw.slope, raw.inter)
        array = raw.array if raw.convert else convert(raw.array)
        if not array.flags.writeable:
            array = array.copy()
        warnings = convert.check(array, nonfinite=nonfinite, path=path)
    except MemoryError as error:
        raise _no_memory(path) from error
    return Scan(array, raw.affine, (*raw.warnings, *warnings), raw.axes)


def read_label(
    path: str | Path, *, volume: int | None = None, strict: bool = False, sheared: bool = False, flat: bool = False
) -> Scan:
    """Reads one label volume: class indices, exactly as stored.

    Args:
        path: a file with one of `READ_SUFFIXES`.
        volume: as for `read_image`.
        strict: as for `read_image`.
        sheared: as for `read_image`.
        flat: as for `read_image`.

    Returns:
        The label in the smallest unsigned integer type that holds its values.

    Raises:
        InputError: code LABEL_VALUES for NaN, fractions and negative values; else as `read_image`.
        ResourceError: if memory does not suffice.
    """
    path = Path(path)
    try:
        raw = _read_raw(path, Wanted(False, 1, volume, strict, sheared, flat))
        return Scan(_class_indices(raw, path), raw.affine, raw.warnings, raw.axes)
    except MemoryError as error:
        raise _no_memory(path) from error


def _no_memory(path: Path) -> ResourceError:
    return ResourceError(
        "there is not enough memory to hold this scan", where=path, fix="Crop it, or free memory.", code="MEMORY"
    )


def _class_indices(raw: RawVolume, path: Path) -> np.ndarray:
    array, scaled = raw.array, (raw.slope, raw.inter) != (1.0, 0.0)
    if scaled or array.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            values = array.astype(np.float64) * raw.slope + raw.inter
            whole = np.rint(values)
            wrong = ~(np.abs(values - whole) <= (_SCALED_LABEL_TOLERANCE if scaled else 0.0))
        _refuse_label_values(values, wrong, "are no whole numbers", path)
        array = whole
    lowest, largest = array.min(), array.max()
    if lowest < 0:
        _refuse_label_values(array, array < 0, "are negative", path)
    if largest > 2**53 and array.dtype.kind == "f":
        raise InputError(f"the label {largest:g} is no class index", where=path, code="LABEL_VALUES")
    return array.astype(np.min_scalar_type(int(largest)))


def write_label(path: str | Path, label: np.ndarray, *, affine: np.ndarray, axes: int = 3) -> None:
    """Writes class indices as NIfTI, or one slice as a picture, so that the file is either complete or not there.

    Args:
        path: ends in .nii.gz, .nii or .png; its folder is made if it is missing.
        label: (i, j, k) bool or integers from 0 to 65535; written as uint8 where it fits, else uint16. As a picture
            (i, j, 1) up to 255, with a palette: its numbers are the class indices, its colours are for people.
        affine: 4x4, voxel index to RAS millimetres; becomes sform and qform, both with code 1. A picture has no place
            in space and drops it.
        axes: of a NIfTI file, as `Scan.axes` found them: 2 stores one slice as (i, j), 4 all as frames (i, j, 1, k).

    Raises:
        InputError: if the suffix, the label or the affine cannot be written.
        ResourceError: code DISK_FULL.
    """
    path, label = Path(path), np.asarray(label)
    if path.name.lower().endswith(LABEL_PICTURE_SUFFIX):
        write_atomically(path, label_png(_one_slice(label, path), path=path))
        return
    _check_shape(path, label, axes=(3,))
    if label.dtype.kind not in "bui" or int(label.min()) < 0 or int(label.max()) > 65535:
        raise InputError(
            f"class indices from 0 to 65535 are wanted, not {label.dtype} from {label.min()} to {label.max()}",
            where=path,
            code="LABEL_VALUES",
        )
    label = label[:, :, np.newaxis] if axes == 4 else _one_slice(label, path) if axes == 2 else label
    _write(path, label.astype(np.uint8 if int(label.max()) < 256 else np.uint16), affine)


def write_image(path: str | Path, image: np.ndarray, *, affine: np.ndarray) -> None:
    """Writes intensities as NIfTI, so that the file is either complete or not there.

    Args:
        path: ends in .nii.gz or .nii; its folder is made if it is missing.
        image: (i, j, k[, c]) finite numbers; written as int16 if they are whole and fit, else as float32.
        affine: 4x4, voxel index to RAS millimetres; becomes sform and qform, both with code 1.

    Raises:
        InputError: if the suffix, the shape or the affine cannot be written.
        ResourceError: code DISK_FULL.
    """
    path, image = Path(path), np.asarray(image)
    _check_shape(path, image, axes=(3, 4))
    whole = bool(image.min() >= -32768 and image.max() <= 32767 and np.array_equal(image, np.rint(image)))
    _write(path, image.astype(np.int16 if whole else np.float32), affine)


def nifti_bytes(array: np.ndarray, affine: np.ndarray) -> bytes:
    """An uncompressed NIfTI file in the array's own type, in mm, with the affine as sform and qform (code 1)."""
    import nibabel

    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    return image.to_bytes()


def _one_slice(label: np.ndarray, path: Path) -> np.ndarray:
    if label.ndim != 3 or label.shape[2] != 1:
        raise InputError(
            f"one slice (i, j, 1) is wanted for this file, the label has {label.shape}",
            where=path,
            fix="Write it as .nii.gz.",
            code="NDIM",
        )
    return label[:, :, 0]


def _check_shape(path: Path, array: np.ndarray, *, axes: tuple[int, ...]) -> None:
    if not path.name.lower().endswith((".nii.gz", ".nii")):
        raise InputError("a name that ends in .nii.gz or .nii is wanted", where=path, code="FORMAT")
    if array.ndim not in axes or 0 in array.shape or max(array.shape) > 32767:
        raise InputError(f"three axes of 1 to 32767 voxels are wanted, not {array.shape}", where=path, code="NDIM")


def _write(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    affine = np.asarray(affine, dtype=np.float64)
    check_affine(affine, path=path)
    data = nifti_bytes(array, affine)
    # without a time stamp, the same array gives the same bytes
    write_atomically(path, gzip.compress(data, 6, mtime=0) if path.name.lower().endswith(".gz") else data)


def _suffix(name: str) -> str:
    return next((suffix for suffix in READ_SUFFIXES if name.lower().endswith(suffix)), "")


def check_name(path: str | Path) -> None:
    """Refuse a file whose name is none of a format that is read; nothing is opened but what may be DICOM.

    Raises:
        InputError: code FORMAT, or NOT_FOUND for what has no suffix and is not there.
    """
    path = Path(path)
    if not path.suffix and not path.exists():
        raise InputError("this file does not exist", where=path, fix="Check the path.", code="NOT_FOUND")
    if not _suffix(path.name) and not path.is_dir() and not is_dicom(path):
        raise InputError(
            f"the file name ends in none of {', '.join(READ_SUFFIXES)}, and it is no DICOM",
            where=path,
            fix="Convert the scan to NIfTI; of a DICOM series name the folder.",
            code="FORMAT",
        )


def _read_raw(path: Path, wanted: Wanted, dicom: Mapping[str, Any] | None = None) -> RawVolume:
    suffix = _suffix(path.name)
    check_name(path)
    if not suffix and wanted.image:
        raw = read_dicom(path, **(dicom or {}))
    elif is_picture(path):
        raw = read_picture(path, wanted)
    elif suffix in (".nii.gz", ".nii", ""):
        raw = read_nifti(path, wanted)
    else:
        raw = read_itk(path, wanted)
    warnings = check_affine(raw.affine, path=path, sheared=wanted.sheared)
    return replace(raw, warnings=(*raw.warnings, *warnings))


def _refuse_label_values(values: np.ndarray, wrong: np.ndarray, what: str, path: Path) -> None:
    if not wrong.any():
        return
    found = [f"{value:g}" for value in np.unique(values[wrong])[:5]]
    raise InputError(
        f"class indices 0, 1, 2, ... are wanted; {int(wrong.sum())} voxels {what}, for example {', '.join(found)}",
        where=path,
        fix="Write the label again with whole numbers; after resampling, use nearest neighbour.",
        code="LABEL_VALUES",
    )
