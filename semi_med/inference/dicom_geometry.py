"""Where the slices of a series lie, and whether they make one volume. Pure arithmetic, no file is opened.

DICOM gives positions in LPS millimetres (PS3.3, C.7.6.2.1.1); the affine that leaves this file is RAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semi_med.errors import InputError

MAX_ANGLE = 1e-3  # radians by which directions may differ from each other, and from right angles
MAX_SPACING = 1e-3  # relative difference of pixel spacings
STEP_TOLERANCE = 0.01  # of the step, and in mm: what rounding and table motion give
MAX_DISPLACEMENT = 0.1  # voxels by which a slice may lie beside its place in the regular grid
_MAX_FILL = 4  # a resampled volume has at most so many times the slices that are there


@dataclass(frozen=True)
class Plane:
    """Place and size of one slice.

    Attributes:
        position: centre of the first pixel, LPS mm; None if the file does not say.
        orientation: unit vectors along a row and down a column, LPS; None if the file does not say.
        spacing: mm between rows, mm between columns; None if the file does not say.
        rows: pixels down a column.
        columns: pixels along a row.
        thickness: mm from this slice to the next where there is no next, None if unknown.
    """

    position: tuple[float, float, float] | None
    orientation: tuple[float, float, float, float, float, float] | None
    spacing: tuple[float, float] | None
    rows: int
    columns: int
    thickness: float | None = None


@dataclass(frozen=True)
class Layout:
    """How slices make a volume.

    Attributes:
        order: indices of the slices, upwards along `row x column`.
        heights: mm of every slice above the first, in that order.
        step: mm between slices of the grid.
        shift: mm along rows and down columns that the slices move for each mm of height; zeros without tilt.
        regular: whether the slices are equally spaced, so that nothing has to be resampled along the height.
        affine: 4x4, (column, row, slice) to RAS mm, for a volume at right angles that begins at the first slice.
        warnings: what was odd, each beginning with a code.
    """

    order: tuple[int, ...]
    heights: np.ndarray
    step: float
    shift: np.ndarray
    regular: bool
    affine: np.ndarray
    warnings: tuple[str, ...] = ()

    @property
    def tilted(self) -> bool:
        """Whether the slices are not stacked at right angles."""
        return bool(np.any(self.shift != 0))

    @property
    def slices(self) -> int:
        """Of the regular grid."""
        return len(self.order) if self.regular else round(float(self.heights[-1]) / self.step) + 1


def arrange(planes: Sequence[Plane], *, fill_gaps: bool = False, allow_tilt: bool = True) -> Layout:
    """The one regular grid of these slices.

    Args:
        planes: at least one slice, in any order.
        fill_gaps: missing and unequally spaced slices are laid out for resampling instead of refused.
        allow_tilt: a tilted gantry is laid out for resampling instead of refused.

    Raises:
        InputError: code NO_GEOMETRY, MIXED_SIZE, MIXED_SPACING, ORIENTATION, DUPLICATE_SLICE, SLICE_GAP or GANTRY_TILT.
    """
    _check_present(planes)
    row, column = _common_orientation(planes)
    spacing = _common_spacing(planes)
    normal = np.cross(row, column)
    positions = np.array([plane.position for plane in planes], dtype=np.float64)
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    positions, heights = positions[order], heights[order]
    warnings: list[str] = []
    if len(planes) == 1:
        step, regular = _single_step(planes[0]), True
        warnings.append(f"SINGLE_SLICE: the volume has one slice, {step:g} mm thick as the file says")
    else:
        step, regular, found = _steps(heights, fill_gaps=fill_gaps)
        warnings += found
    shift, lean, found = _tilt(positions, heights, np.stack([row, column]), spacing, allow=allow_tilt)
    affine = np.eye(4)
    upwards = (normal + row * lean[0] + column * lean[1]) * step
    affine[:3, :3] = np.stack([row * spacing[1], column * spacing[0], upwards], axis=1)
    affine[:3, 3] = positions[0]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS
    return Layout(tuple(map(int, order)), heights - heights[0], step, shift, regular, affine, (*warnings, *found))


def _check_present(planes: Sequence[Plane]) -> None:
    missing = [
        f"{what} in {count} of {len(planes)} slices"
        for what in ("position", "orientation", "spacing")
        if (count := sum(getattr(plane, what) is None for plane in planes))
    ]
    if missing:
        raise InputError(
            f"the place in space is not given: {', '.join(missing)} missing",
            fix="Export the original series from the archive; a derived or anonymised copy may have lost its geometry.",
            code="NO_GEOMETRY",
        )
    sizes = sorted({(plane.columns, plane.rows) for plane in planes})
    if len(sizes) > 1:
        found = ", ".join(f"{columns} x {rows}" for columns, rows in sizes[:5])
        raise InputError(
            f"slices of one size are wanted, these are {found}",
            fix="Put the slices of each size into a folder of their own.",
            code="MIXED_SIZE",
        )


def _common_orientation(planes: Sequence[Plane]) -> np.ndarray:
    """Unit vectors along a row and down a column, exactly at right angles; (2, 3)."""
    found = np.array([plane.orientation for plane in planes], dtype=np.float64).reshape(-1, 2, 3)
    lengths = np.linalg.norm(found, axis=2)
    if np.abs(lengths - 1).max() > 10 * MAX_ANGLE or np.abs((found[:, 0] * found[:, 1]).sum(1)).max() > MAX_ANGLE:
        raise InputError(
            "the directions of rows and columns are no unit vectors at right angles",
            fix="Export the original series from the archive.",
            code="NO_GEOMETRY",
        )
    found = found / lengths[..., None]
    if np.abs(found - found[0]).max() > MAX_ANGLE:
        angles = np.degrees(np.arccos(np.clip((found * found[0]).sum(2).min(1), -1, 1)))
        raise InputError(
            f"slices of one orientation are wanted, {int((angles > np.degrees(MAX_ANGLE)).sum())} of {len(planes)} "
            f"are turned by up to {angles.max():.1f} degrees",
            fix="Put the slices of each orientation into a folder of their own.",
            code="ORIENTATION",
        )
    row, column = found.mean(0)
    row = row / np.linalg.norm(row)
    column = column - row * (row @ column)
    return np.stack([row, column / np.linalg.norm(column)])


def _common_spacing(planes: Sequence[Plane]) -> np.ndarray:
    """Mm between rows and mm between columns; (2,)."""
    found = np.array([plane.spacing for plane in planes], dtype=np.float64)
    if found.min() <= 0:
        raise InputError(
            f"the spacing of the pixels is {found.min():g} mm",
            fix="Export the original series from the archive.",
            code="NO_GEOMETRY",
        )
    if (np.abs(found - found[0]) / found[0]).max() > MAX_SPACING:
        raise InputError(
            f"slices of one pixel spacing are wanted, these lie between {found.min():g} and {found.max():g} mm",
            fix="Put the slices of each spacing into a folder of their own.",
            code="MIXED_SPACING",
        )
    return np.asarray(found.mean(0))


def _single_step(plane: Plane) -> float:
    if plane.thickness is None or plane.thickness <= 0:
        raise InputError(
            "there is one slice, and no file says how thick it is",
            fix="Name the folder of the whole series.",
            code="NO_GEOMETRY",
        )
    return plane.thickness


def _steps(heights: np.ndarray, *, fill_gaps: bool) -> tuple[float, bool, list[str]]:
    """Mm between the slices of the grid, whether they are regular, warnings."""
    steps = np.diff(heights)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])  # a median that is one of the steps
    same = steps <= max(STEP_TOLERANCE * usual, 1e-3)
    if same.any():
        raise InputError(
            f"{int(same.sum())} slices lie at the place of another one, the first at {heights[:-1][same][0]:.3f} mm; "
            "no tag of time, echo or diffusion tells them apart",
            fix="Put the slices of each volume into a folder of their own.",
            code="DUPLICATE_SLICE",
        )
    mean = float(np.mean(steps))
    if np.abs(steps - usual).max() <= max(STEP_TOLERANCE * usual, STEP_TOLERANCE):
        drift = np.abs(heights - heights[0] - mean * np.arange(len(heights))).max()
        if drift <= MAX_DISPLACEMENT * usual:
            return mean, True, []
    text = _gap_text(heights, steps, usual)
    if not fill_gaps:
        raise InputError(
            text,
            fix="Export the series again. --allow-gaps fills in by interpolation, which invents what was not scanned.",
            code="SLICE_GAP",
        )
    if round((heights[-1] - heights[0]) / usual) + 1 > _MAX_FILL * len(heights):
        raise InputError(
            f"{text}; that is too far apart to interpolate", fix="Export the series again.", code="SLICE_GAP"
        )
    return usual, False, [f"SLICE_GAP: {text}; resampled to steps of {usual:g} mm"]


def _gap_text(heights: np.ndarray, steps: np.ndarray, usual: float) -> str:
    wrong = np.flatnonzero(np.abs(steps - usual) > max(STEP_TOLERANCE * usual, STEP_TOLERANCE))
    missing = np.rint(steps / usual).astype(int) - 1
    whole = np.abs(steps - (missing + 1) * usual) <= max(STEP_TOLERANCE * usual, STEP_TOLERANCE) * (missing + 1)
    places = ", ".join(f"{heights[k]:.2f} to {heights[k + 1]:.2f} mm" for k in wrong[:5])
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    if len(wrong) and whole.all():
        return f"{int(missing.sum())} slices are missing (steps of {usual:g} mm, but {places}{more})"
    between = f"between {steps.min():.3f} and {steps.max():.3f} mm"
    return f"the slices are not equally spaced, but {between}" + (f" ({places}{more})" if len(wrong) else "")


def _tilt(
    positions: np.ndarray, heights: np.ndarray, axes: np.ndarray, spacing: np.ndarray, *, allow: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Movement of the slices along rows and down columns for each mm of height: what must be resampled, and what an
    affine may hold since it is within rounding; warnings.
    """
    nothing = np.zeros(2)
    if len(heights) == 1:
        return nothing, nothing, []
    above = heights - heights[0]
    beside = (positions - positions[0]) @ axes.T  # (n, 2) mm
    shift = above @ beside / (above @ above)
    off = np.abs(beside - above[:, None] * shift).max(0) / spacing[::-1]
    if off.max() > MAX_DISPLACEMENT:
        raise InputError(
            f"the slices do not lie on one line: one is {off.max():.2f} pixels beside its place",
            fix="Put the slices of each volume into a folder of their own.",
            code="SLICE_GAP",
        )
    if np.linalg.norm(shift) <= MAX_ANGLE:
        return nothing, shift, []
    angle = float(np.degrees(np.arctan(np.linalg.norm(shift))))
    if not allow:
        raise InputError(
            f"the slices are stacked at {angle:.1f} degrees to their normal, as by a tilted gantry",
            fix="Resample the series to right angles.",
            code="GANTRY_TILT",
        )
    text = f"GANTRY_TILT: stacked at {angle:.1f} degrees; the slices were moved in their planes to right angles"
    return shift, nothing, [text]
