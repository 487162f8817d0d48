"""Reading and writing scans: the only place that knows about files and frames of volumes.

Everything read here is verified whole, and every affine maps voxel indices to RAS millimetres. Neither torch nor MONAI
is imported.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from semi_med.errors import InputError, ResourceError
from semi_med.files import write_atomically
from semi_med.inference.byte_check import COPY_AGAIN, RawVolume
from semi_med.inference.itk_check import read_itk
from semi_med.inference.nifti_check import read_nifti

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")

MAX_NONFINITE = 0.05  # share of NaN and infinite voxels that is replaced at most
MAX_DISTANCE = 1e6  # mm; no scanner reaches further
MAX_SHEAR = 1e-3  # cosine between two voxel axes, about radians
USUAL_SPACING = (0.01, 50.0)  # mm
_SCALED_LABEL_TOLERANCE = 1e-4  # a float32 slope leaves a class index this close to a whole number


@dataclass(frozen=True)
class Scan:
    """One volume and where it lies.

    Attributes:
        array: (i, j, k[, c]).
        affine: 4x4 float64, voxel index to RAS millimetres.
        warnings: what was odd about the file, each beginning with a code, for example `QS_MISMATCH: ...`.
    """

    array: np.ndarray
    affine: np.ndarray
    warnings: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxel centres along i, j, k."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)


def case_name(path: str | Path) -> str:
    """File name without the suffix of its format: `a/b.c.nii.gz` is the case `b.c`."""
    name = Path(path).name
    suffix = _suffix(name)
    return name[: -len(suffix)] if suffix else name


def read_image(path: str | Path, *, nonfinite: Literal["error", "replace"] = "error") -> Scan:
    """Reads one image, verified whole and sane.

    Args:
        path: a file with one of `IMAGE_SUFFIXES`.
        nonfinite: NaN and infinite voxels are an error, or are replaced by the smallest finite value with a warning
            (still an error if they are more than 5 %).

    Returns:
        The scan in float32, with the slope and intercept of the file applied.

    Raises:
        InputError: for whatever is wrong with the file; its `code` says what.
        ResourceError: if memory does not suffice.
    """
    path = Path(path)
    if nonfinite not in ("error", "replace"):
        raise InputError(f"nonfinite must be 'error' or 'replace', not {nonfinite!r}", code="SETTING")
    raw = _read_raw(path)
    try:
        array, warnings = _to_float32(raw, path)
        warnings += _mend_nonfinite(array, path, replace=nonfinite == "replace")
    except MemoryError as error:
        raise ResourceError(
            "there is not enough memory to hold this scan", where=path, fix="Crop it, or free memory.", code="MEMORY"
        ) from error
    if array.min() == array.max():
        warnings.append(f"CONSTANT: every voxel has the value {float(array.flat[0]):g}")
    return Scan(array, raw.affine, (*raw.warnings, *warnings))


def read_label(path: str | Path) -> Scan:
    """Reads one label volume: class indices, exactly as stored.

    Args:
        path: a file with one of `IMAGE_SUFFIXES`.

    Returns:
        The label in the smallest unsigned integer type that holds its values.

    Raises:
        InputError: code LABEL_VALUES for NaN, fractions and negative values; else as `read_image`.
    """
    path = Path(path)
    raw = _read_raw(path)
    array, scaled = raw.array, (raw.slope, raw.inter) != (1.0, 0.0)
    if scaled or array.dtype.kind == "f":
        values = array.astype(np.float64) * raw.slope + raw.inter
        whole = np.rint(values)
        tolerance = _SCALED_LABEL_TOLERANCE if scaled else 0.0
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(values - whole) <= tolerance)
        _refuse_label_values(values, wrong, "are no whole numbers", path)
        array = whole
    _refuse_label_values(array, array < 0, "are negative", path)
    largest = int(array.max())
    if largest > 2**53 and array.dtype.kind == "f":
        raise InputError(f"the label {largest} is no class index", where=path, code="LABEL_VALUES")
    return Scan(array.astype(np.min_scalar_type(largest)), raw.affine, raw.warnings)


def write_label(path: str | Path, label: np.ndarray, *, affine: np.ndarray) -> None:
    """Writes class indices as NIfTI, so that the file is either complete or not there.

    Args:
        path: ends in .nii.gz or .nii; its folder is made if it is missing.
        label: (i, j, k) bool or integers from 0 to 65535; written as uint8 where it fits, else uint16.
        affine: 4x4, voxel index to RAS millimetres; becomes sform and qform, both with code 1.

    Raises:
        InputError: if the suffix, the label or the affine cannot be written.
        ResourceError: code DISK_FULL.
    """
    import nibabel

    path, label, affine = Path(path), np.asarray(label), np.asarray(affine, dtype=np.float64)
    if _suffix(path.name) not in (".nii.gz", ".nii"):
        raise InputError("a name that ends in .nii.gz or .nii is wanted", where=path, code="FORMAT")
    if label.ndim != 3 or 0 in label.shape or max(label.shape) > 32767:
        raise InputError(f"three axes of 1 to 32767 voxels are wanted, not {label.shape}", where=path, code="NDIM")
    if label.dtype.kind not in "bui" or int(label.min()) < 0 or int(label.max()) > 65535:
        raise InputError(
            f"class indices from 0 to 65535 are wanted, not {label.dtype} from {label.min()} to {label.max()}",
            where=path,
            code="LABEL_VALUES",
        )
    check_affine(affine, path=path)
    image = nibabel.Nifti1Image(label.astype(np.uint8 if int(label.max()) < 256 else np.uint16), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    data = image.to_bytes()
    # without a time stamp, the same label gives the same bytes
    write_atomically(path, gzip.compress(data, 6, mtime=0) if path.name.lower().endswith(".gz") else data)


def check_affine(affine: np.ndarray, *, path: Path) -> list[str]:
    """Whether an affine can place a volume in space.

    Args:
        affine: 4x4, voxel index to RAS millimetres.
        path: the file it belongs to, for the error.

    Returns:
        Warnings about unusual voxel sizes.

    Raises:
        InputError: code AFFINE (not finite, singular) or SHEAR (axes not at right angles).
    """
    # the bound also keeps the norms below finite
    if affine.shape != (4, 4) or not np.all(np.abs(affine) < MAX_DISTANCE):
        raise InputError("the affine has values that are no millimetres", where=path, fix=COPY_AGAIN, code="AFFINE")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if np.any(spacing == 0) or not np.all(np.isfinite(spacing)):
        raise InputError(f"the affine has an axis of length 0 ({spacing})", where=path, fix=COPY_AGAIN, code="AFFINE")
    axes = affine[:3, :3] / spacing
    if not np.allclose(affine[3], [0, 0, 0, 1]) or abs(np.linalg.det(axes)) < 1e-6:
        raise InputError("the affine is singular: two voxel axes coincide", where=path, fix=COPY_AGAIN, code="AFFINE")
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > MAX_SHEAR:
        raise InputError(
            f"the voxel axes are not at right angles (shear {shear:.4f}, at most {MAX_SHEAR} is read)",
            where=path,
            fix="Resample the scan to a grid with right angles; a tilted CT gantry is the usual cause.",
            code="SHEAR",
        )
    low, high = USUAL_SPACING
    return [
        f"SPACING: {size:g} mm along axis {name} is unusual"
        for name, size in zip("ijk", spacing, strict=True)
        if not low <= size <= high
    ]


def _suffix(name: str) -> str:
    return next((suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), "")


def _read_raw(path: Path) -> RawVolume:
    suffix = _suffix(path.name)
    if not suffix and not path.is_dir():
        raise InputError(
            f"the file name ends in none of {', '.join(IMAGE_SUFFIXES)}",
            where=path,
            fix="Convert the scan to NIfTI; a DICOM series for example with dcm2niix.",
            code="FORMAT",
        )
    raw = read_nifti(path) if suffix in (".nii.gz", ".nii") or not suffix else read_itk(path)
    warnings = check_affine(raw.affine, path=path)
    return RawVolume(raw.array, raw.affine, raw.slope, raw.inter, (*raw.warnings, *warnings))


def _to_float32(raw: RawVolume, path: Path) -> tuple[np.ndarray, list[str]]:
    values = raw.array
    if (raw.slope, raw.inter) != (1.0, 0.0):
        values = values.astype(np.float64) * raw.slope + raw.inter
    with np.errstate(over="ignore", invalid="ignore"):
        array = values.astype(np.float32)
    if values.dtype.kind == "f" and values.dtype.itemsize > 4 and np.any(np.isinf(array) & np.isfinite(values)):
        raise InputError(
            "the scan has values beyond the range of float32", where=path, fix="Rescale its values.", code="RANGE"
        )
    if values.dtype.kind in "iu" and values.dtype.itemsize > 2:
        largest = max(abs(int(values.min())), abs(int(values.max())))
        if largest > 2**24:
            return array, [f"PRECISION: integers up to {largest} are rounded to float32"]
    return array, []


def _mend_nonfinite(array: np.ndarray, path: Path, *, replace: bool) -> list[str]:
    """Replaces NaN and infinite voxels in place."""
    if np.isfinite(array.min()) and np.isfinite(array.max()):  # NaN passes through both; no second volume in memory
        return []
    finite = np.isfinite(array)
    count = int(array.size - np.count_nonzero(finite))
    share = count / array.size
    if not replace or share > MAX_NONFINITE:
        raise InputError(
            f"{count} voxels ({share:.2%}) are NaN or infinite",
            where=path,
            fix="Replace them at the source, for example by the value of air.",
            code="NONFINITE",
        )
    smallest = float(array[finite].min())
    array[~finite] = smallest
    return [f"NONFINITE: {count} NaN or infinite voxels were replaced by {smallest:g}"]


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
