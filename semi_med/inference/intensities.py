"""Stored voxels to float32 intensities, with what that loses or cannot do said."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from semi_med.errors import InputError, ResourceError

Nonfinite = Literal["error", "replace"]

MAX_NONFINITE = 0.05  # share of NaN and infinite voxels that is replaced at most
_EXACT = 2**24  # integers up to here are exact in float32
_SAMPLES = 997  # voxels looked at before a whole volume is compared


class ToFloat32:
    """Converts a scan piece by piece: stored values times slope plus intercept, rounded to float32 once.

    Args:
        slope: factor from stored to real values.
        inter: added after the factor.

    Attributes:
        suspect: some value may not be finite; looked for by one sum of squares while the piece is in the cache.
        beyond: some value is finite and beyond the range of float32.
        largest: magnitude of the largest integer that was not scaled.
    """

    def __init__(self, slope: float = 1.0, inter: float = 0.0) -> None:
        self.slope, self.inter = slope, inter
        self.suspect = self.beyond = False
        self.largest = 0

    def __call__(self, stored: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Voxels of any shape to float32, into `out` if it is given, which may be `stored` itself."""
        values = stored
        found = np.empty_like(stored, dtype=np.float32) if out is None else out
        with np.errstate(over="ignore", invalid="ignore"):
            if (self.slope, self.inter) != (1.0, 0.0):
                values = stored.astype(np.float64) * self.slope + self.inter
            if found is not values:
                np.copyto(found, values, casting="unsafe")
            if values.dtype.kind == "f":
                # a finite sum of squares has finite terms; one that overflows is looked at later
                flat = found.ravel(order="K")
                if not np.isfinite(np.dot(flat, flat)):
                    self.suspect = True
                    self.beyond |= bool(np.any(np.isinf(found) & np.isfinite(values)))
            elif values.dtype.itemsize > 2:
                self.largest = max(self.largest, abs(int(values.min())), abs(int(values.max())))
        return found

    def check(self, array: np.ndarray, *, nonfinite: Nonfinite, path: Path) -> list[str]:
        """Mends in place what may be mended in the volume that was converted, and tells.

        Args:
            array: float32.
            nonfinite: "replace" puts the smallest finite value where NaN and infinity were, up to 5 % of the voxels.
            path: the file, for the errors.

        Raises:
            InputError: code RANGE or NONFINITE.
        """
        if self.beyond:
            raise InputError(
                "the scan has values beyond the range of float32", where=path, fix="Rescale its values.", code="RANGE"
            )
        warnings = []
        if self.largest > _EXACT:
            warnings.append(f"PRECISION: integers up to {self.largest} are rounded to float32")
        if self.suspect:
            warnings += _mend_nonfinite(array, path, replace=nonfinite == "replace")
        if _is_constant(array):
            warnings.append(f"CONSTANT: every voxel has the value {float(array.flat[0]):g}")
        return warnings


def _mend_nonfinite(array: np.ndarray, path: Path, *, replace: bool) -> list[str]:
    """Replaces NaN and infinite voxels in place."""
    try:
        finite = np.isfinite(array)
    except MemoryError as error:
        raise ResourceError(
            "there is not enough memory to hold this scan", where=path, fix="Crop it, or free memory.", code="MEMORY"
        ) from error
    count = int(array.size - np.count_nonzero(finite))
    if not count:
        return []
    share = count / array.size
    if not replace or share > MAX_NONFINITE:
        limit = f"; up to {MAX_NONFINITE:.0%} are replaced in a prediction" if replace else ""
        raise InputError(
            f"{count} voxels ({share:.2%}) are NaN or infinite{limit}",
            where=path,
            fix="Replace them at the source, for example by the value of air.",
            code="NONFINITE",
        )
    smallest = float(array[finite].min())
    array[~finite] = smallest
    return [f"NONFINITE: {count} NaN or infinite voxels were replaced by {smallest:g}"]


def _is_constant(array: np.ndarray) -> bool:
    flat = array.ravel(order="K")
    first = flat[0]
    if np.any(flat[:: max(1, flat.size // _SAMPLES)] != first):
        return False
    return bool(np.all(flat == first))
