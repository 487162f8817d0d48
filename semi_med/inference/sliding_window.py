"""Segmenting a volume window by window, or slice by slice, on average probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn

from semi_med.errors import InputError
from semi_med.inference.ladder import Ladder, Rung
from semi_med.inference.members import Members
from semi_med.inference.stitching import Place, Slab, Sums, WindowGrid, batches

Network: TypeAlias = Callable[..., Any]  # an nn.Module, as MONAI types it


class ProbabilityWindowInferer(Inferer):
    """Mean softmax probabilities over overlapping windows and over networks.

    Every window counts the same. Volumes smaller than the window are padded with zeros on both sides and the result is
    cropped back. This is the scheme of the field's left-atrium benchmarks (Yu et al., MICCAI 2019, arXiv:1907.07034,
    and those that compare with it), there with a window of 112 x 112 x 80 and strides of 18 and 4 voxels.

    With a window of two numbers the networks are 2D. A picture (B, C, i, j) is segmented as it is, and a volume, a
    stack or a sequence (B, C, i, j, k) slice by slice, as many slices at a time as windows.

    A call gives the probabilities of the whole volume; `slabs` gives them plane by plane, so that a volume of any size
    takes little more memory than itself.

    Args:
        roi_size: window in voxels, one number per axis of the networks: three or two; -1 for the whole of an axis.
        stride: voxels from one window to the next, per axis; from 1 to the window itself. It does not matter where the
            window is the whole axis.
        sw_batch_size: windows that go through a network at once.
        amp: networks run in reduced precision (bfloat16 on a CPU, float16 elsewhere); sums stay in float32.
        device: where the stitched probabilities are kept; by default where the input is.
        slice_axis: of a volume given to 2D networks the axis that runs through the slices: 0, 1 or 2; -1 for the last.

    Raises:
        InputError: if window and stride do not fit together, or there is no such axis.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        stride: Sequence[int],
        *,
        sw_batch_size: int = 1,
        amp: bool = False,
        device: torch.device | str | None = None,
        slice_axis: int = -1,
    ) -> None:
        roi_size, stride = tuple(roi_size), tuple(stride)
        if len(roi_size) != len(stride) or any(
            size != -1 and not 1 <= step <= size for size, step in zip(roi_size, stride, strict=True)
        ):
            raise InputError(
                f"each axis wants a stride from 1 to the window size, window {roi_size} and stride {stride} came",
                where="inferer",
                fix="Give both one number per axis.",
                code="SETTING",
            )
        if sw_batch_size < 1:
            raise InputError(
                f"at least one window at a time is wanted, not {sw_batch_size}", where="sw_batch_size", code="SETTING"
            )
        if slice_axis not in (-1, 0, 1, 2):
            raise InputError(
                f"an axis of the volume is wanted, 0, 1, 2 or -1, not {slice_axis}", where="slice_axis", code="SETTING"
            )
        super().__init__()
        self.window = roi_size
        self.stride = stride
        self.at_once = sw_batch_size
        self.amp = amp
        self.device = None if device is None else torch.device(device)
        self.slice_axis = slice_axis

    def __call__(self, inputs: Tensor, network: Network | Sequence[Network], *args: Any, **kwargs: Any) -> Tensor:
        """Probabilities of the whole volume.

        Modes and gradients are left as they are: put the networks into `eval()` and call this under `torch.no_grad()`.

        Args:
            inputs: (B, C, *spatial); for a window of two numbers (B, C, i, j) or (B, C, i, j, k).
            network: one network or several; each maps (B, C, *window) to logits (B, classes, *window).
            args: passed on to the networks.
            kwargs: passed on to the networks.

        Returns:
            (B, classes, *spatial), float32; sums to 1 over the classes.
        """
        networks: list[Any] = list(network) if isinstance(network, Sequence | nn.ModuleList) else [network]
        members = Members(networks, reduced=_reduced(inputs.device, amp=self.amp), args=args, kwargs=kwargs)
        probs: Tensor | None = None
        for number, image in enumerate(inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs):
            for slab in self.slabs(image, members):
                if probs is None:
                    shape = (inputs.shape[0], slab.values.shape[0], *inputs.shape[2:])
                    probs = torch.empty(shape, device=self.device or inputs.device)
                probs[number][(slice(None), *slab.place)] = slab.values.to(probs.device)
        if probs is None:
            raise ValueError(f"one image or more is wanted, came {tuple(inputs.shape)}")
        return MetaTensor(probs).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else probs

    def slabs(
        self,
        image: Tensor,
        members: Members,
        *,
        rungs: Sequence[Rung] | None = None,
        say: Callable[[str], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Slab]:
        """What the members say about one image on average, each slab of planes as soon as it is known.

        Args:
            image: (C, *spatial).
            members: networks, and what is wanted of them.
            rungs: where to compute; the next one is taken when memory runs out, and nothing is computed twice. By
                default the image's device, and no way out.
            say: called with a sentence each time that memory ran out.
            progress: called after each group of windows with how many are done, and of how many.

        Raises:
            MemoryError, torch.OutOfMemoryError: as they came, when there is no further rung.
        """
        flat = len(self.window) == 2 and image.ndim == 4
        window, stride, axis = self.window, self.stride, None
        if flat:  # slices are windows that are one voxel thick
            axis = self.slice_axis % 3
            window, stride = ((*one[:axis], 1, *one[axis:]) for one in (window, stride))
        window = tuple(length if size == -1 else size for size, length in zip(window, image.shape[1:], strict=True))
        grid = WindowGrid.over(image.shape[1:], window, stride, axis=axis)
        device = image.device
        ladder = Ladder(rungs or [Rung(self.at_once, self.device or device, device)], members, say=say)
        volume = grid.pad(image)
        sums: Sums | None = None
        done = 0
        try:
            for group in batches(grid, lambda: ladder.rung.at_once):
                for place, result in _results(group, volume, grid, ladder, thin=axis if flat else None):
                    sums = sums or Sums(grid, result)
                    yield from _finished(sums, place[grid.axis], ladder)
                    ladder.attempt(partial(_add, sums, place, result, ladder))
                done += len(group)
                if progress is not None:
                    progress(done, len(grid))
            if sums is not None:
                yield from _finished(sums, grid.padded[grid.axis], ladder)
        finally:
            ladder.close()


def _finished(sums: Sums, upto: int, ladder: Ladder) -> Iterator[Slab]:
    """The slabs before a plane, each made again one rung lower where memory runs out."""

    def attempt() -> Slab | None:
        sums.to(ladder.rung.stitch)
        return sums.finish(upto)

    while (slab := ladder.attempt(attempt)) is not None:
        yield slab


def _add(sums: Sums, place: Place, result: Tensor, ladder: Ladder) -> None:
    sums.to(ladder.rung.stitch)
    sums.add(place, result)


def _results(
    group: Sequence[Place], volume: Tensor, grid: WindowGrid, ladder: Ladder, *, thin: int | None
) -> Iterator[tuple[Place, Tensor]]:
    """(channels, *window) of every window of a group, in smaller groups once memory has run out."""
    done = 0
    while done < len(group):

        def attempt(done: int = done) -> tuple[Sequence[Place], Tensor]:
            part = group[done : done + ladder.rung.at_once]
            windows = torch.cat([grid.cut(volume, place) for place in part]).to(ladder.rung.network).float()
            if thin is None:
                return part, ladder.members(windows)
            return part, ladder.members(windows.squeeze(2 + thin)).unsqueeze(2 + thin)

        part, results = ladder.attempt(attempt)
        yield from zip(part, results, strict=True)
        done += len(part)


def _reduced(device: torch.device, *, amp: bool) -> torch.dtype | None:
    if not amp:
        return None
    return torch.bfloat16 if device.type == "cpu" else torch.float16
