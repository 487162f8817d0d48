"""Volumes on a grid of another spacing, a few planes at a time: MONAI holds the coordinates of every voxel in float64.

Linear between voxels, and beyond the outermost ones as these are: what `Spacingd` does by default, and its inversion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd
from monai.utils import LazyAttr
from torch import Tensor

from semi_med.inference.stitching import Slab

_AT_ONCE = 2**24  # numbers that are made at a time
_EXACT = 1e-4  # of a voxel, over the whole of an axis
_LINEAR = {"mode": "bilinear", "padding_mode": "border", "align_corners": False}
_CLASS = "SpatialResample"  # as MONAI calls what Spacingd did


@dataclass(frozen=True)
class Stretch:
    """From one grid to another with the same axes: a voxel t lies at `starts + steps * t` of the other.

    Attributes:
        size: voxels of the grid that is wanted.
        starts: where its first voxel lies on the grid that is given, on each axis.
        steps: from one of its voxels to the next.
    """

    size: tuple[int, ...]
    starts: tuple[float, ...]
    steps: tuple[float, ...]

    @classmethod
    def between(cls, given: Any, wanted: Any, size: Sequence[int]) -> Stretch | None:
        """From the affines of the two grids; None if their axes are not the same."""
        given, wanted = (np.asarray(one, dtype=np.float64) for one in (given, wanted))
        place = np.linalg.solve(given, wanted)
        steps = np.diag(place)[:3]
        aside = (place[:3, :3] - np.diag(steps)) * np.asarray(size)
        if np.abs(aside).max() > _EXACT or steps.min() <= 0:
            return None
        return cls(tuple(size), tuple(map(float, place[:3, 3])), tuple(map(float, steps)))

    def places(self, axis: int, length: int) -> Tensor:
        """Of every voxel on one axis, on a grid of this length."""
        found = self.starts[axis] + self.steps[axis] * torch.arange(self.size[axis], dtype=torch.float64)
        return found.clamp_(0, length - 1)


class Stretcher:
    """Takes slabs of the given grid in their order, and gives those of the wanted one as soon as they are known.

    Args:
        stretch: between the grids.
        size: of the given one.
        axis: that the slabs are counted along.
    """

    def __init__(self, stretch: Stretch, size: Sequence[int], axis: int) -> None:
        self._stretch, self._axis, self._length = stretch, axis, size[axis]
        self._across = [number for number in range(3) if number != axis]
        self._places = stretch.places(axis, size[axis])
        self._done = 0
        self._first = 0  # plane that is held first
        self._held: Tensor | None = None

    def add(self, slab: Slab) -> Iterator[Slab]:
        """Slabs of the wanted grid, float32, whose planes lie among those that came."""
        along = 1 + self._axis
        values = slab.values.float()
        self._held = values if self._held is None else torch.cat([self._held, values], along)
        last = self._first + self._held.shape[along] - 1
        upto = len(self._places) if last == self._length - 1 else int((self._places < last).sum())
        plane = len(values) * int(np.prod([self._stretch.size[number] for number in self._across]))
        at_once = max(_AT_ONCE // plane, 1)
        for start in range(self._done, upto, at_once):
            places = self._places[start : min(start + at_once, upto)] - self._first
            found = _interpolated(self._held, along, places)
            for number in self._across:
                reach = self._stretch.places(number, found.shape[1 + number])
                found = _interpolated(found, 1 + number, reach)
            yield Slab(self._axis, start, found)
        self._done = upto
        kept = int(self._places[upto]) if upto < len(self._places) else last
        kept = min(kept, last)
        self._held = self._held.narrow(along, kept - self._first, last - kept + 1).clone()
        self._first = kept


def _interpolated(values: Tensor, axis: int, places: Tensor) -> Tensor:
    lower = places.floor().long().clamp_(max=values.shape[axis] - 1)
    upper = (lower + 1).clamp_(max=values.shape[axis] - 1)
    share = (places - lower).float().to(values.device)
    share = share.reshape([-1 if number == axis else 1 for number in range(values.ndim)])
    lower, upper = lower.to(values.device), upper.to(values.device)
    if torch.equal(lower, torch.arange(values.shape[axis], device=lower.device)) and not share.any():
        return values
    return values.index_select(axis, lower).lerp_(values.index_select(axis, upper), share)


def spaced(transform: Any, data: Mapping[Any, Any]) -> dict[Any, Any] | None:
    """What `Spacingd` makes of data["image"] (C, i, j, k), with its trace; None if this is something else.

    Differs from MONAI: computed in float32.
    """
    if not isinstance(transform, Spacingd) or tuple(transform.keys) != ("image",) or data["image"].ndim != 4:
        return None
    image = data["image"]
    planned: Any = transform(dict(data), lazy=True)["image"]
    waiting = planned.pending_operations
    if len(waiting) != 1 or waiting[0].get("class") != _CLASS:
        return None
    trace = dict(waiting[0])
    change, size = trace.get(LazyAttr.AFFINE), trace.get(LazyAttr.SHAPE)
    if change is None or size is None or not _is_linear(trace):
        return None
    before = torch.as_tensor(np.asarray(image.affine, dtype=np.float64))
    affine, size = before @ torch.as_tensor(np.asarray(change, dtype=np.float64)), tuple(int(one) for one in size)
    stretch = Stretch.between(before, affine, size)
    if stretch is None:
        return None
    made = torch.empty((image.shape[0], *size))
    axis = size.index(max(size))
    for slab in Stretcher(stretch, image.shape[1:], axis).add(Slab(axis, 0, image.as_tensor())):
        made[(slice(None), *slab.place)] = slab.values
    found = MetaTensor(made, meta=dict(image.meta), applied_operations=[*image.applied_operations])
    found.affine = affine
    for attribute in LazyAttr:
        trace.pop(attribute, None)
    found.push_applied_operation({**trace, "lazy": False})
    return {**data, "image": found}


def stretch_back(image: MetaTensor, operations: Sequence[Mapping[str, Any]]) -> Stretch | None:
    """From the grid of a prepared image to that before its spacing was changed; None if more than that was done.

    Only the order and direction of axes may have been changed before.
    """
    classes = [str(one.get("class")) for one in operations]
    if not classes or classes[-1] != _CLASS or not set(classes[:-1]) <= {"Orientation"}:
        return None
    trace = operations[-1]
    if not _is_linear(trace):
        return None
    return Stretch.between(image.affine, trace["extra_info"]["src_affine"], trace["orig_size"])


def _is_linear(trace: Mapping[str, Any]) -> bool:
    extra = trace.get("extra_info", {})
    return all(extra.get(name) == value for name, value in _LINEAR.items())


def reoriented(values: Tensor, affine: Any, wanted: Any) -> Tensor:
    """(C, *spatial) with the axes in the order and direction of another affine that has the same ones."""
    turn = np.linalg.solve(np.asarray(affine, np.float64)[:3, :3], np.asarray(wanted, np.float64)[:3, :3])
    order = [int(np.argmax(np.abs(turn[:, axis]))) for axis in range(3)]
    flips = [1 + axis for axis in range(3) if turn[order[axis], axis] < 0]
    return values.permute(0, *(1 + axis for axis in order)).flip(flips)
