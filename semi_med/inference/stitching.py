"""Windows over a volume, and the mean of what they say, finished slab by slab so that little of it is held at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Place: TypeAlias = tuple[int, ...]  # first voxel of a window, on each axis
_AT_ONCE = 2**24  # numbers of a slab; what is made of it then takes little memory and stays near the processor


@dataclass(frozen=True)
class Slab:
    """Finished planes of a result.

    Attributes:
        axis: of the volume that the planes are counted along, from 0.
        start: the first of them.
        values: (channels, *spatial); as long as the volume on every axis but this one.
    """

    axis: int
    start: int
    values: Tensor

    @property
    def place(self) -> tuple[slice, ...]:
        """Where it belongs in a volume (*spatial)."""
        inside = [slice(None)] * (self.values.ndim - 1)
        inside[self.axis] = slice(self.start, self.start + self.values.shape[1 + self.axis])
        return tuple(inside)


@dataclass(frozen=True)
class WindowGrid:
    """Overlapping windows that cover a volume; one that is smaller than the window is padded on both sides.

    Attributes:
        size: of the volume.
        window: voxels on each axis.
        stride: voxels from one window to the next; the last one ends with the volume.
        axis: that slabs are counted along.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    axis: int

    @classmethod
    def over(
        cls, size: Sequence[int], window: Sequence[int], stride: Sequence[int], *, axis: int | None = None
    ) -> WindowGrid:
        """The grid of a volume; without an axis, slabs lie across that on which the least has to be held at once."""
        shares = [reach / max(length, reach) for length, reach in zip(size, window, strict=True)]
        return cls(tuple(size), tuple(window), tuple(stride), shares.index(min(shares)) if axis is None else axis)

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Voxels that are added before and behind on each axis."""
        missing = [max(reach - length, 0) for length, reach in zip(self.size, self.window, strict=True)]
        return tuple((voxels // 2, voxels - voxels // 2) for voxels in missing)

    @property
    def padded(self) -> tuple[int, ...]:
        """The size with its padding."""
        return tuple(max(length, reach) for length, reach in zip(self.size, self.window, strict=True))

    def starts(self, axis: int) -> list[int]:
        """First voxels of the windows on one axis of the padded volume."""
        last = self.padded[axis] - self.window[axis]
        return [*range(0, last, self.stride[axis]), last]

    def places(self) -> Iterator[Place]:
        """Every window, slab by slab."""
        order = [self.axis, *(axis for axis in range(len(self.size)) if axis != self.axis)]
        for found in itertools.product(*(self.starts(axis) for axis in order)):
            yield tuple(found[order.index(axis)] for axis in range(len(self.size)))

    def __len__(self) -> int:
        return math.prod(len(self.starts(axis)) for axis in range(len(self.size)))

    def counts(self, axis: int) -> Tensor:
        """How many windows reach each voxel of one axis; the product over the axes is that of a voxel."""
        counts = torch.zeros(self.padded[axis])
        for start in self.starts(axis):
            counts[start : start + self.window[axis]] += 1
        return counts

    def cut(self, volume: Tensor, place: Place) -> Tensor:
        """A window of (channels, *padded) with an axis of one before it."""
        inside = (slice(start, start + reach) for start, reach in zip(place, self.window, strict=True))
        return volume[(slice(None), *inside)][None]

    def pad(self, volume: Tensor) -> Tensor:
        """(channels, *size) with zeros round it; the volume itself where none are wanted."""
        if self.padded == self.size:
            return volume
        return functional.pad(volume, [voxels for pair in reversed(self.padding) for voxels in pair])


class Sums:
    """Sums over windows of the planes that further windows may still reach.

    Args:
        grid: the windows.
        like: a result of a window, (channels, *window), for the number of channels and how they lie in memory.
    """

    def __init__(self, grid: WindowGrid, like: Tensor) -> None:
        self._grid = grid
        self._start = 0  # plane of the padded volume that the sums begin with
        self._given = 0  # planes from there on whose means have been handed out
        self._channels = len(like)
        self._side_by_side = like.stride(0) == 1 and len(like) > 1  # as channels lie in memory is how they are added
        self._counts = [grid.counts(axis) for axis in range(len(grid.size))]
        self._values: Tensor | None = None

    def to(self, device: torch.device) -> None:
        """Keeps the sums here from now on."""
        if self._values is None:
            shape = [*self._grid.padded]
            shape[self._grid.axis] = self._grid.window[self._grid.axis]
            if self._side_by_side:
                self._values = torch.zeros((*shape, self._channels), device=device).movedim(-1, 0)
            else:
                self._values = torch.zeros((self._channels, *shape), device=device)
        self._values = self._values.to(device)
        self._counts = [counts.to(device) for counts in self._counts]

    def add(self, place: Place, result: Tensor) -> None:
        """Adds (channels, *window); windows come in the order of the grid, and none before `to`."""
        assert self._values is not None
        inside = [slice(start, start + reach) for start, reach in zip(place, self._grid.window, strict=True)]
        inside[self._grid.axis] = slice(None)
        self._values[(slice(None), *inside)] += result.to(self._values.device)

    def finish(self, upto: int) -> Slab | None:
        """The next means of the planes before this one of the padded volume, which no further window reaches.

        Asked again and again, it gives all of them in slabs of a few planes, and None when there are no more.
        """
        while self._values is not None and (planes := upto - self._start - self._given) > 0:
            plane = self._values.select(1 + self._grid.axis, 0).numel()
            slab = self._means(min(planes, max(_AT_ONCE // plane, 1)))
            if slab is not None:
                return slab
        if self._values is not None and self._given:
            self._forget(self._values, self._given)
        return None

    def _means(self, planes: int) -> Slab | None:
        axis, first = self._grid.axis, self._start + self._given
        assert self._values is not None
        means = self._values.narrow(1 + axis, self._given, planes).clone()
        for number, counts in enumerate(self._counts):
            if number == axis:
                counts = counts[first : first + planes]
            means /= counts.reshape([-1 if place == number else 1 for place in range(len(self._counts))])
        self._given += planes
        return self._unpadded(means, first)

    def _forget(self, values: Tensor, planes: int) -> None:
        axis = 1 + self._grid.axis
        left = values.shape[axis] - planes
        for plane in range(left):  # one by one, since what moves overlaps with where it goes
            values.select(axis, plane).copy_(values.select(axis, plane + planes))
        values.narrow(axis, left, planes).zero_()
        self._start += planes
        self._given = 0

    def _unpadded(self, means: Tensor, start: int) -> Slab | None:
        """Without what lies in the padding; `start` is the first plane of the padded volume."""
        for number, (length, (before, _)) in enumerate(zip(self._grid.size, self._grid.padding, strict=True)):
            if number == self._grid.axis:
                first = max(before - start, 0)
                planes = min(start + means.shape[1 + number], before + length) - start - first
                if planes <= 0:
                    return None
                means = means.narrow(1 + number, first, planes)
                start += first - before
            else:
                means = means.narrow(1 + number, before, length)
        return Slab(self._grid.axis, start, means)


def batches(grid: WindowGrid, at_once: Callable[[], int]) -> Iterator[list[Place]]:
    """The windows in groups, whose size is asked for anew each time."""
    places = grid.places()
    while group := list(itertools.islice(places, at_once())):
        yield group
