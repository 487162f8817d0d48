"""One scan to a sound NIfTI file: another format, one volume of several, other class numbers, another grid."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from semi_med.errors import InputError
from semi_med.inference.io import Scan, case_name, read_image, read_label, write_image, write_label


@dataclass(frozen=True)
class Conversion:
    """What to change on the way.

    Attributes:
        label: the scan is a label: class indices, never interpolated.
        volume: of several volumes in one file the one to take, from 0.
        map_labels: from class number to class number; others stay.
        onto: a scan whose grid the result is on.
        straighten: resample a grid whose axes are not at right angles.
        replace_nonfinite: put the smallest finite value where NaN and infinity are, up to 5 % of the voxels.
    """

    label: bool = False
    volume: int | None = None
    map_labels: Mapping[int, int] = field(default_factory=dict)
    onto: Path | None = None
    straighten: bool = False
    replace_nonfinite: bool = False


def convert_file(source: str | Path, target: str | Path, conversion: Conversion) -> tuple[str, ...]:
    """Read one scan through the project's own reader and write it as NIfTI.

    Args:
        source: any readable scan; a folder is a DICOM series.
        target: ends in .nii.gz or .nii, and is not there yet.
        conversion: what to change.

    Returns:
        What was odd about the source.

    Raises:
        InputError: the source is not sound, or the target cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise InputError("this is there already", where=target, fix="Choose another name.", code="OUTPUT_CLASH")
    if conversion.map_labels and not conversion.label:
        raise InputError("only a label has class numbers", where=source, fix="Add --label.", code="SETTING")
    if conversion.label:
        scan = read_label(source, volume=conversion.volume, sheared=conversion.straighten)
    else:
        nonfinite = "replace" if conversion.replace_nonfinite else "error"
        scan = read_image(
            source,
            volume=conversion.volume,
            sheared=conversion.straighten,
            nonfinite=nonfinite,  # type: ignore[arg-type]
        )
    if conversion.straighten:
        scan = straightened(scan, label=conversion.label)
    if conversion.onto is not None:
        grid = read_image(conversion.onto, nonfinite="replace")
        scan = resampled(scan, grid.affine, grid.array.shape[:3], label=conversion.label)
    if conversion.label:
        write_label(target, renumbered(scan.array, conversion.map_labels), affine=scan.affine)
    else:
        write_image(target, scan.array, affine=scan.affine)
    return scan.warnings


def targets_of(sources: Sequence[Path], target: Path) -> list[tuple[Path, Path]]:
    """The files to convert and what they become: one file to one file, or several to a folder.

    Raises:
        InputError: two sources would give the same name, or one file is wanted of several.
    """
    if len(sources) == 1 and target.name.lower().endswith((".nii.gz", ".nii")):
        return [(sources[0], target)]
    pairs = [(source, target / f"{case_name(source)}.nii.gz") for source in sources]
    if len({path for _, path in pairs}) < len(pairs):
        raise InputError(
            "two scans have the same name", where=target, fix="Convert them to folders of their own.", code="CASE_NAME"
        )
    return pairs


def renumbered(label: np.ndarray, numbers: Mapping[int, int]) -> np.ndarray:
    """Class indices with some numbers changed, all at once."""
    result = label.astype(np.int64)
    for old, new in numbers.items():
        result[label == old] = new
    return result


def straightened(scan: Scan, *, label: bool) -> Scan:
    """A scan on the nearest grid with right angles that covers all of it.

    The new axes are the rotation nearest to the old ones; the steps are the old ones as seen along the new axes.
    """
    matrix = scan.affine[:3, :3]
    left, _, right = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=0))
    axes = left @ right
    steps = np.abs(np.einsum("ab,ab->b", axes, matrix))
    ends = itertools.product(*((0, size - 1) for size in scan.array.shape[:3]))
    corners = axes.T @ (scan.affine @ np.array([[*end, 1] for end in ends]).T)[:3]
    low, high = corners.min(axis=1), corners.max(axis=1)
    shape = tuple(int(n) for n in np.floor((high - low) / steps + 1e-3) + 1)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * steps, axes @ low
    return resampled(scan, affine, shape, label=label)


def resampled(scan: Scan, affine: np.ndarray, shape: Sequence[int], *, label: bool) -> Scan:
    """A scan on another grid: trilinear for intensities, nearest neighbour for classes.

    Args:
        scan: what is resampled; voxels outside of it are 0 in a label, else its smallest value.
        affine: 4x4 of the grid, voxel index to RAS mm.
        shape: voxels of the grid.
        label: class indices.
    """
    from scipy import ndimage

    back = np.linalg.inv(scan.affine) @ affine
    array = scan.array if scan.array.ndim == 4 else scan.array[..., np.newaxis]
    volumes = [
        ndimage.affine_transform(
            array[..., c],
            back[:3, :3],
            back[:3, 3],
            output_shape=tuple(shape),
            order=0 if label else 1,
            cval=0 if label else float(array[..., c].min()),
        )
        for c in range(array.shape[3])
    ]
    result = np.stack(volumes, axis=-1) if scan.array.ndim == 4 else volumes[0]
    return Scan(result, affine, (*scan.warnings, "RESAMPLED: the voxels were interpolated on another grid"))
