"""Which form of the networks computes: as they are, made fast, or in reduced precision where that changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from semi_med.errors import InputError
from semi_med.inference.bundle import Bundle
from semi_med.inference.fast_network import prepared

Precision: TypeAlias = Literal["bundle", "float32", "bfloat16", "auto"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_SAME = 0.995  # Dice of the foreground of a window in both precisions, from which "auto" trusts bfloat16

Networks: TypeAlias = list[Callable[..., Any]]


class Precisions:
    """Chooses once and stays with it: "auto" with the first scan whose middle window shows a foreground.

    Args:
        bundle: its networks, in float32, and its window.
        device: where they are.
        wanted: see `semi_med.inference.predictor.Predictor.load`.

    Raises:
        InputError: code SETTING.
    """

    def __init__(self, bundle: Bundle, device: torch.device, wanted: Precision) -> None:
        if wanted not in PRECISIONS:
            raise InputError(
                f"one of {', '.join(PRECISIONS)} is wanted, not {wanted!r}", where="precision", code="SETTING"
            )
        self._bundle, self._device = bundle, device
        self.wanted = wanted
        self.chosen = ""  # "float32", "bfloat16" or "float16", once there was a scan: that of the last one
        self._decided = False
        self._networks: Networks = []
        self._reduced: torch.dtype | None = None

    def networks_for(self, image: Tensor) -> tuple[Networks, torch.dtype | None, list[str]]:
        """The networks, the type of autocast if it is theirs, and notes about the choice.

        Args:
            image: (C, *spatial), what the networks will see.
        """
        notes: list[str] = []
        if not self._decided:
            chosen = self._choose(image, notes)
            self._decided = chosen is not None
            chosen = chosen or "float32"
            if chosen != self.chosen:
                self.chosen = chosen
                self._networks, self._reduced = self._made(chosen)
        return self._networks, self._reduced, notes

    def _choose(self, image: Tensor, notes: list[str]) -> str | None:
        """The precision; None, which is float32, if this image cannot tell."""
        if self.wanted == "bundle":
            return ("bfloat16" if self._device.type == "cpu" else "float16") if self._bundle.inferer.amp else "float32"
        if self.wanted != "auto":
            return self.wanted
        if not _computes_bfloat16(self._device):
            return "float32"
        agreement = self._agreement(image)
        if math.isnan(agreement):
            notes.append("PRECISION: float32 for this case, whose middle window shows no foreground to compare")
            return None
        if agreement < _SAME:
            notes.append(f"PRECISION: float32, since bfloat16 agrees with it on a window at Dice {agreement:.3f} only")
            return "float32"
        return "bfloat16"

    def _made(self, precision: str) -> tuple[Networks, torch.dtype | None]:
        networks: list[nn.Module] = self._bundle.networks
        reduced = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
        if self._device.type != "cpu":
            return list(networks), reduced
        window, channels = self._bundle.inferer.window, self._bundle.channels or 1
        fast = [prepared(one, window=window, channels=channels, reduced=reduced is not None) for one in networks]
        made = [one for one in fast if one is not None]
        return (list(made), None) if len(made) == len(networks) else (list(networks), reduced)

    def _agreement(self, image: Tensor) -> float:
        """Dice of the foreground of the middle window in both precisions; NaN where both see none."""
        sizes = self._bundle.inferer.window
        middle = (
            image if len(sizes) == image.ndim - 1 else _middle_slice(image, 1 + self._bundle.inferer.slice_axis % 3)
        )
        window = [whole if size == -1 else size for size, whole in zip(sizes, middle.shape[1:], strict=True)]
        for axis, length in enumerate(window, start=1):
            start = max((middle.shape[axis] - length) // 2, 0)
            middle = middle.narrow(axis, start, min(length, middle.shape[axis]))
        padding = [max(length - size, 0) for length, size in zip(window, middle.shape[1:], strict=True)]
        middle = nn.functional.pad(middle, [voxels for last in reversed(padding) for voxels in (0, last)])
        found = []
        for precision in ("float32", "bfloat16"):
            (network, *_), reduced = self._made(precision)
            with torch.autocast(self._device.type, dtype=reduced, enabled=reduced is not None):
                found.append(network(middle[None].to(self._device).float()).float().argmax(1) > 0)
        both = found[0].sum() + found[1].sum()
        return 2 * float((found[0] & found[1]).sum()) / float(both) if both else math.nan


def _middle_slice(image: Tensor, axis: int) -> Tensor:
    return image.select(axis, image.shape[axis] // 2)


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether the processor has instructions for it; without them it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in checks)
