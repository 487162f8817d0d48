"""Which axes of a stored array are a volume, and what becomes of the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semi_med.errors import InputError


@dataclass(frozen=True)
class Wanted:
    """What a caller wants of a file.

    Attributes:
        image: intensities; else a label.
        channels: a fourth axis of this length is the image's channels; 1 for none.
        volume: of several volumes in one file the one to take, from 0.
        strict: what is probably wrong, such as two frames more than a voxel apart, is an error and no warning.
        sheared: voxel axes need not be at right angles.
        flat: what is flat is a volume too: two axes are one slice, and (i, j, 1, frames) a slice for each frame.
    """

    image: bool = True
    channels: int = 1
    volume: int | None = None
    strict: bool = False
    sheared: bool = False
    flat: bool = False


@dataclass(frozen=True)
class AxisPlan:
    """How a stored array becomes a volume.

    Attributes:
        shape: (i, j, k) or (i, j, k, c), the stored array without its axes of length 1 beyond the third.
        volume: index along the fourth axis, None to keep it.
        warnings: what was odd.
        axes: of the file: 3, or 2 for one slice and 4 for frames if what is flat was wanted.
    """

    shape: tuple[int, ...]
    volume: int | None = None
    warnings: tuple[str, ...] = ()
    axes: int = 3

    def apply(self, array: np.ndarray) -> np.ndarray:
        """The volume of a stored array whose first axis is the fastest in memory."""
        array = array.reshape(self.shape, order="F")
        return array if self.volume is None else array[..., self.volume]


def plan_axes(shape: Sequence[int], wanted: Wanted, *, path: Path) -> AxisPlan:
    """What to do with the axes of a stored array; never "the first volume" without being asked.

    Args:
        shape: as stored, three axes in space first.
        wanted: channels or a volume, if the caller knows of them.
        path: the file, for the error.

    Raises:
        InputError: code NDIM, for 2D, and for more axes than are wanted; code VOLUME, if that volume is not there.
    """
    text = " x ".join(str(size) for size in shape)
    if wanted.flat and len(shape) == 2:
        return AxisPlan((shape[0], shape[1], 1), axes=2)
    if len(shape) < 3:
        raise InputError(
            f"a volume with three axes is wanted, this has {len(shape)} ({text})",
            where=path,
            fix="Save a single slice as a volume with one slice (i x j x 1).",
            code="NDIM",
        )
    space, further = tuple(shape[:3]), [size for size in shape[3:] if size != 1]
    count = math.prod(further)
    if wanted.volume is not None and not 0 <= wanted.volume < count:
        raise InputError(
            f"volume {wanted.volume} was asked for, there are {count} ({text}), counted from 0",
            where=path,
            fix=f"Ask for one from 0 to {count - 1}.",
            code="VOLUME",
        )
    if not further:
        squeezed = f"SQUEEZED: trailing axes of length 1 were dropped ({text})"
        return AxisPlan(space, warnings=(squeezed,) if len(shape) > 3 else ())
    if wanted.volume is not None:
        return AxisPlan((*space, count), wanted.volume, (f"VOLUME: volume {wanted.volume} of {count} was taken",))
    if wanted.channels > 1 and further == [wanted.channels]:
        return AxisPlan((*space, count))
    if wanted.flat and space[2] == 1 and len(further) == 1:
        taken = f"FRAMES: {count} flat pictures along the fourth axis were taken as slices ({text})"
        return AxisPlan((*space[:2], count), warnings=(taken,), axes=4)
    channels = f"{wanted.channels} channels" if wanted.channels > 1 else "one number per voxel"
    raise InputError(
        f"a volume with three axes and {channels} is wanted, this has {len(shape)} axes ({text}): "
        "several time points, channels or directions",
        where=path,
        fix="Save the volume that is meant as a file of its own: `semi-med convert FILE OUTPUT --volume K`, K from 0 "
        f"to {count - 1}. Channels are one file each, or as many as the data list's `modality` names.",
        code="NDIM",
    )
