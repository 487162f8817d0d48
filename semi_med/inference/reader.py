"""The MONAI reader through which every image of this project enters a transform chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from semi_med.errors import InputError
from semi_med.inference.dicom import is_dicom
from semi_med.inference.io import READ_SUFFIXES, Scan, read_image, read_label

_SAME_PLACE = 0.1  # voxels by which the corners of two channels may lie apart


class ScanReader(ImageReader):
    """Reads scans for `LoadImaged`, verified whole and with an affine in RAS millimetres.

    One file, or one folder with a DICOM series, is a volume without a channel axis; a list of them is one channel each,
    `(C, i, j, k)`. A file that holds all channels, as a picture in colour does, gives `(C, i, j, k)` too.
    The metadata has `affine`, `original_affine`, `spatial_shape`, `space`, `original_channel_dim`, `warnings` (one
    text, empty if nothing was odd, so that cases with and without warnings make a batch) and `axes` (of the file,
    see `semi_med.inference.io.Scan`).

    Args:
        nonfinite: what happens to NaN and infinite voxels, see `semi_med.inference.io.read_image`.
        dicom: choices for DICOM series, see `semi_med.inference.dicom.read_dicom`.
        channels: a fourth axis of this length in one file is the channels; without it, four axes are an error.
        flat: two axes are one slice, (i, j, 1, frames) a slice for each frame; for 2D networks.
    """

    def __init__(
        self,
        nonfinite: Literal["error", "replace"] = "error",
        dicom: Mapping[str, Any] | None = None,
        channels: int = 1,
        flat: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.flat = flat
        self.nonfinite = nonfinite
        self.dicom = dict(dicom or {})

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether every file name ends in one of `READ_SUFFIXES`, or is DICOM."""
        return all(str(name).lower().endswith(READ_SUFFIXES) or is_dicom(name) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> tuple[Path, ...]:
        """The paths as they are.

        The files are opened in `get_data`: `LoadImage` answers an exception raised here by trying its other readers,
        which would take a file that was refused.
        """
        return tuple(Path(name) for name in ensure_tuple(data))

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Reads the files.

        Args:
            img: what `read` returned.

        Returns:
            The voxels, float32, and the metadata.

        Raises:
            InputError: if a file is not sound, or the channels do not lie on one grid.
        """
        scans = [self._scan(path, alone=len(img) == 1) for path in img]
        for path, scan in zip(img[1:], scans[1:], strict=True):
            _check_same_grid(scans[0], scan, path)
        array = scans[0].array if len(scans) == 1 else np.stack([scan.array for scan in scans])
        if len(scans) == 1 and array.ndim == 4:
            array = np.moveaxis(array, 3, 0)
        meta: dict[str, Any] = {
            MetaKeys.AFFINE: scans[0].affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: scans[0].affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(scans[0].array.shape[:3]),
            MetaKeys.SPACE: SpaceKeys.RAS,
            # MONAI's sign for "there is no channel axis" is NaN
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if array.ndim == 3 else 0,
            "axes": scans[0].axes,
            "warnings": "\n".join(dict.fromkeys(warning for scan in scans for warning in scan.warnings)),
        }
        return array, meta

    def _scan(self, path: Path, *, alone: bool) -> Scan:
        channels = self.channels if alone else 1
        return read_image(path, nonfinite=self.nonfinite, channels=channels, dicom=self.dicom, flat=self.flat)


class LabelReader(ScanReader):
    """Reads labels for `LoadImaged`: class indices as stored, of a picture with a palette the numbers, not the colours.

    Args:
        flat: as of `ScanReader`.
    """

    def __init__(self, flat: bool = False) -> None:
        super().__init__(flat=flat)

    def _scan(self, path: Path, *, alone: bool) -> Scan:
        found = read_label(path, flat=self.flat)
        return replace(found, array=found.array.astype(np.float32))


def _check_same_grid(first: Scan, other: Scan, path: Path) -> None:
    if other.array.shape != first.array.shape:
        raise InputError(
            f"all channels of a case must have one shape, {first.array.shape} is wanted and {other.array.shape} came",
            where=path,
            fix="Resample the channels to one grid.",
            code="GEOMETRY",
        )
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * [*first.array.shape, 1]
    apart = np.linalg.norm((corners @ (other.affine - first.affine).T)[:, :3], axis=1).max()
    if apart > _SAME_PLACE * min(first.spacing):
        raise InputError(
            f"all channels of a case must lie on one grid, this one is up to {apart:.2f} mm away from the first",
            where=path,
            fix="Resample the channels to one grid.",
            code="GEOMETRY",
        )
