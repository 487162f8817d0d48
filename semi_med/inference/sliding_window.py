"""Segmenting a volume window by window, or slice by slice, on average probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from semi_med.errors import InputError

Network: TypeAlias = Callable[..., Any]  # an nn.Module, as MONAI types it


class ProbabilityWindowInferer(SlidingWindowInferer):
    """Mean softmax probabilities over overlapping windows and over networks.

    Every window counts the same. Volumes smaller than the window are padded with zeros on both sides and the result is
    cropped back. This is the scheme of the field's left-atrium benchmarks (Yu et al., MICCAI 2019, arXiv:1907.07034,
    and those that compare with it), there with a window of 112 x 112 x 80 and strides of 18 and 4 voxels.

    With a window of two numbers the networks are 2D. A picture (B, C, i, j) is segmented as it is, and a volume, a
    stack or a sequence (B, C, i, j, k) slice by slice, as many slices at a time as windows, so that a volume of any
    length takes no more memory than its probabilities.

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
        overlap = [_overlap(size, step) for size, step in zip(roi_size, stride, strict=True)]
        super().__init__(
            roi_size=roi_size, sw_batch_size=sw_batch_size, overlap=overlap, mode="constant", device=device
        )
        self.window = roi_size
        self.stride = stride
        self.amp = amp
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
        networks: list[Network] = list(network) if isinstance(network, Sequence | nn.ModuleList) else [network]
        if not networks:
            raise InputError("at least one network is wanted, none came", where="inferer", code="SETTING")

        def mean_probs(window: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            probs = self._probs(networks[0], window, *args, **kwargs)
            for peer in networks[1:]:
                probs += self._probs(peer, window, *args, **kwargs)
            return probs / len(networks)

        if len(self.window) == 2 and inputs.ndim == 5:
            return self._by_slices(inputs, mean_probs, *args, **kwargs)
        return cast(Tensor, super().__call__(inputs.float(), mean_probs, *args, **kwargs))

    def _by_slices(self, inputs: Tensor, mean_probs: Network, *args: Any, **kwargs: Any) -> Tensor:
        """Probabilities of every slice of (B, C, i, j, k), together (B, classes, i, j, k)."""
        axis = 2 + self.slice_axis % 3
        stack = (inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs).movedim(axis, 2)
        batch, _, slices = stack.shape[:3]
        at_once = max(1, self.sw_batch_size // batch)
        probs: Tensor | None = None
        for start in range(0, slices, at_once):
            part = stack[:, :, start : start + at_once].transpose(1, 2)  # (B, n, C, i, j)
            found = cast(Tensor, super().__call__(part.flatten(0, 1).float(), mean_probs, *args, **kwargs))
            found = found.unflatten(0, (batch, -1)).transpose(1, 2)
            if probs is None:
                shape = list(inputs.shape)
                shape[1] = found.shape[1]
                probs = found.new_empty(shape)
            probs.movedim(axis, 2)[:, :, start : start + at_once] = found
        if probs is None:
            raise ValueError(f"one slice or more is wanted, came {tuple(inputs.shape)}")
        return MetaTensor(probs).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else probs

    def _probs(self, network: Network, window: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kind = window.device.type
        dtype = torch.bfloat16 if kind == "cpu" else torch.float16
        with torch.autocast(kind, dtype=dtype, enabled=self.amp):
            logits = network(window, *args, **kwargs)
        if not isinstance(logits, Tensor):
            raise TypeError(f"a network must return its logits as one tensor here, not {type(logits).__name__}")
        if logits.shape[1] < 2:
            raise ValueError("two channels or more are wanted (background and classes), one came: its softmax is 1")
        return torch.softmax(logits.float(), dim=1)


def _overlap(size: int, step: int) -> float:
    """The overlap from which MONAI computes this very stride.

    MONAI truncates `int(size * (1 - overlap))`, which for the plain `1 - step / size` may come out one voxel short
    (a window of 112 with a stride of 16 moves by 15); half a voxel more is safe for every window.
    """
    return 0.0 if size in (-1, step) else 1 - (step + 0.5) / size
