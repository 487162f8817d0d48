"""Voxel grids in space: towards which sides the axes of a volume run, and turning them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semi_med.errors import InputError

MAX_DISTANCE = 1e6  # mm; no scanner reaches further
MAX_SHEAR = 1e-3  # cosine between two voxel axes, about radians
USUAL_SPACING = (0.01, 50.0)  # mm
POSSIBLE_SPACING = (0.001, 500.0)  # mm; beyond lies another unit than mm
_ROUNDING = 1e-5  # shear that float32 and quaternions leave behind
_COPY_AGAIN = "Copy or export the file again from its source."

_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


def nearest_axes(affine: np.ndarray) -> np.ndarray:
    """For each voxel axis the patient axis nearest to it (0 right, 1 anterior, 2 superior) and its sign.

    Args:
        affine: 4x4, voxel index to RAS millimetres.

    Returns:
        (3, 2) integers: axis, and 1 or -1; every patient axis occurs once.
    """
    import nibabel

    return np.asarray(nibabel.io_orientation(affine)).astype(int)


def orientation(affine: np.ndarray) -> str:
    """The sides that i, j, k run towards, for example `RAS` or `LPS`."""
    return "".join(_LETTERS[axis][int(sign > 0)] for axis, sign in nearest_axes(affine))


def to_ras(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Swaps and flips axes so that i, j, k run towards right, anterior and superior; nothing is resampled.

    Args:
        array: (i, j, k[, c]).
        affine: 4x4, voxel index to RAS millimetres.

    Returns:
        A view of the array, and its spacing in mm.
    """
    axes, signs = nearest_axes(affine).T
    order = np.argsort(axes)
    further = range(3, array.ndim)
    turned = array.transpose(*order, *further)
    turned = turned[tuple(slice(None, None, int(signs[axis])) for axis in order)]
    return turned, np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)[order]


def ras_affine(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine of what `to_ras` gives for a volume of this shape: voxel index to RAS millimetres, 4x4."""
    turned = np.array(affine, dtype=np.float64)
    axes, signs = nearest_axes(affine).T
    for column, axis in enumerate(np.argsort(axes)):
        turned[:3, column] = signs[axis] * np.asarray(affine)[:3, axis]
        if signs[axis] < 0:
            turned[:3, 3] += np.asarray(affine)[:3, axis] * (shape[axis] - 1)
    return turned


def turned(array: np.ndarray, affine: np.ndarray, *, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """A volume in RAS order, stored in another one.

    Args:
        array: (i, j, k) that run towards right, anterior and superior.
        affine: its 4x4, voxel index to RAS millimetres.
        codes: the sides that the axes of the result run towards, for example `LPS`.

    Returns:
        A view of the array, and its affine.
    """
    found = [(axis, pair.index(code)) for code in codes for axis, pair in enumerate(_LETTERS) if code in pair]
    order = [axis for axis, _ in found]
    back = np.zeros((4, 4))
    back[3, 3] = 1
    for new, (axis, upwards) in enumerate(found):
        back[axis, new] = 1 if upwards else -1
        back[axis, 3] = 0 if upwards else array.shape[axis] - 1
    view = array.transpose(order)[tuple(slice(None, None, 1 if upwards else -1) for _, upwards in found)]
    return view, affine @ back


def check_affine(affine: np.ndarray, *, path: Path, sheared: bool = False) -> list[str]:
    """Whether an affine can place a volume in space.

    Args:
        affine: 4x4, voxel index to RAS millimetres.
        path: the file it belongs to, for the error.
        sheared: allow axes that are not at right angles.

    Returns:
        Warnings about unusual voxel sizes and axes not quite at right angles.

    Raises:
        InputError: code AFFINE (not finite, singular), SPACING (no mm) or SHEAR (axes not at right angles).
    """
    # the bound also keeps the norms below finite
    if affine.shape != (4, 4) or not np.all(np.abs(affine) < MAX_DISTANCE):
        raise InputError("the affine has values that are no millimetres", where=path, fix=_COPY_AGAIN, code="AFFINE")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if np.any(spacing == 0) or not np.all(np.isfinite(spacing)):
        raise InputError(f"the affine has an axis of length 0 ({spacing})", where=path, fix=_COPY_AGAIN, code="AFFINE")
    axes = affine[:3, :3] / spacing
    if not np.allclose(affine[3], [0, 0, 0, 1]) or abs(np.linalg.det(axes)) < 1e-6:
        raise InputError("the affine is singular: two voxel axes coincide", where=path, fix=_COPY_AGAIN, code="AFFINE")
    low, high = POSSIBLE_SPACING
    if np.any((spacing < low) | (spacing > high)):
        axis = int(np.argmax((spacing < low) | (spacing > high)))
        raise InputError(
            f"voxels of {spacing[axis]:.3g} mm along axis {'ijk'[axis]} are not possible; perhaps it is no mm",
            where=path,
            fix=f"Write voxel sizes in mm, between {low:g} and {high:g}.",
            code="SPACING",
        )
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > MAX_SHEAR and not sheared:
        raise InputError(
            f"the voxel axes are not at right angles (shear {shear:.4f}, at most {MAX_SHEAR} is read)",
            where=path,
            fix="Resample the scan to a grid with right angles: `semi-med convert FILE OUTPUT --straighten`; a tilted "
            "CT gantry is the usual cause.",
            code="SHEAR",
        )
    warnings = [f"SHEAR: the voxel axes are {shear:.1g} off right angles; kept as stored"] if shear > _ROUNDING else []
    low, high = USUAL_SPACING
    return warnings + [
        f"SPACING: {size:g} mm along axis {name} is unusual"
        for name, size in zip("ijk", spacing, strict=True)
        if not low <= size <= high
    ]
