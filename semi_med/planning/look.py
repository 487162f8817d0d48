"""What one case adds to the fingerprint: a sample of its intensities, the shapes of its structures, and no array."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from semi_med.inference.grids import to_ras
from semi_med.inference.io import Scan

_SAMPLE = 2000  # intensities kept of a case, and as many of its foreground
_TRIED = 40_000  # voxels looked at for the foreground of a large scan before all are
_LARGEST_BOX = 40_000_000  # voxels of a structure's box in which components are still counted
_LARGEST_MEASURED = 4_000_000  # of a box in which distances are computed voxel by voxel; larger ones more coarsely


class Form(NamedTuple):
    """Of one structure in one case: connected parts, the share that the largest has, and how thick it is in mm.

    Four times the mean depth of its voxels under the surface: of a slab its thickness, of a ball its radius.
    """

    parts: int
    largest: float
    thickness: float


@dataclass(frozen=True)
class CaseLook:
    """Of one case; axes run towards right, anterior, superior.

    Attributes:
        shape: voxels along the three axes.
        spacing: mm.
        voxels: a sample of the intensities of the first channel.
        foreground: the same inside the structures; empty without a label.
        zeros: share of voxels that are exactly 0.
        whole: whether all intensities of the sample are whole numbers.
        forms: by label value; not of boxes that are too large.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    voxels: np.ndarray
    foreground: np.ndarray
    zeros: float
    whole: bool
    forms: dict[int, Form]


def look_at(scan: Scan | None, label: Scan | None, *, ignored: int | None = None) -> CaseLook | None:
    """The look at one case; None where the image could not be read. Where the label is `ignored` nothing is known."""
    if scan is None:
        return None
    array, spacing = to_ras(scan.array, scan.affine)
    random = np.random.default_rng(zlib.crc32(repr(scan.array.shape).encode()))
    voxels = _sample(scan.array.reshape(-1), random)
    inside = np.empty(0, np.float32)
    forms: dict[int, Form] = {}
    if label is not None and label.array.shape[:3] == scan.array.shape[:3]:
        inside = _inside(scan.array, label.array, random, ignored=ignored)
        forms = _forms(label, ignored=ignored)
    return CaseLook(
        shape=(int(array.shape[0]), int(array.shape[1]), int(array.shape[2])),
        spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        voxels=voxels,
        foreground=inside,
        zeros=float(np.mean(voxels == 0)),
        whole=bool(np.array_equal(voxels, np.rint(voxels))),
        forms=forms,
    )


def _sample(flat: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return flat[random.integers(0, flat.size, _SAMPLE)].astype(np.float32)


def _inside(image: np.ndarray, label: np.ndarray, random: np.random.Generator, *, ignored: int | None) -> np.ndarray:
    """Intensities where the label is known and not the background: 0, or the smallest value of a label without a 0."""
    flat, drawn = image.reshape(label.size, -1), label.reshape(-1)
    known = np.ones(drawn.shape, bool) if ignored is None else drawn != ignored
    if not known.any():
        return np.empty(0, np.float32)
    known &= drawn > drawn[known].min()
    places = random.integers(0, label.size, _TRIED)
    places = places[known[places]]
    if len(places) < _SAMPLE // 4:
        places = np.flatnonzero(known)
    if not len(places):
        return np.empty(0, np.float32)
    return flat[random.choice(places, _SAMPLE), 0].astype(np.float32)


def _forms(label: Scan, *, ignored: int | None) -> dict[int, Form]:
    from scipy import ndimage

    found: dict[int, Form] = {}
    if label.array.dtype.itemsize > 2:
        return found
    for value, box in enumerate(ndimage.find_objects(label.array.astype(np.int32, copy=False)), start=1):
        if box is None or value == ignored:
            continue
        part = label.array[box] == value
        if part.size > _LARGEST_BOX:
            continue
        parts, count = ndimage.label(part, structure=np.ones((3,) * part.ndim))
        sizes = np.bincount(parts.reshape(-1))[1:]
        found[value] = Form(int(count), float(sizes.max() / sizes.sum()), _thickness(part, label))
    return found


def _thickness(part: np.ndarray, label: Scan) -> float:
    """Mm; in a picture or an only slice it is measured in the plane."""
    from scipy import ndimage

    step = math.ceil((part.size / _LARGEST_MEASURED) ** (1 / 3))
    part = np.pad(part[::step, ::step, ::step], [(1, 1) if size > 1 else (0, 0) for size in label.array.shape])
    if not part.any():
        return 0.0
    sizes = [step * each for each in label.spacing]
    depth = ndimage.distance_transform_edt(part, sampling=sizes)[part].mean() - min(sizes) / 2  # to a face of a voxel
    return float(4 * depth)
