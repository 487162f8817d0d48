"""Does an exported network say what the network says?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from semi_med.errors import InputError
from semi_med.export.formats import Runner

TOLERANCE = 1e-4
_MULTIPLE = 32  # that sizes of these networks must be of at most


@dataclass(frozen=True)
class Parity:
    """How far an exported network is from the network on one kind of input.

    Attributes:
        windows: that were compared.
        shape: of the first, (B, C, *spatial).
        largest: difference of the outputs before the softmax, relative to the largest output where that is above 1.
        probability: largest difference of the probabilities.
        other_class: share of the voxels that another class has the highest probability in.
    """

    windows: int
    shape: tuple[int, ...]
    largest: float
    probability: float
    other_class: float

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape)}


def compare(network: nn.Module, exported: Runner, windows: Sequence[Tensor]) -> Parity:
    """Run both on the same windows.

    Args:
        network: in evaluation mode, on the CPU.
        exported: the file's.
        windows: each (B, C, *spatial).
    """
    largest = probability = 0.0
    other = voxels = 0
    for window in windows:
        with torch.no_grad():
            wanted = network(window).float()
        found = exported(window).float()
        if found.shape != wanted.shape or not torch.isfinite(found).all():
            largest = probability = float("inf")
            other, voxels = other + wanted[:, 0].numel(), voxels + wanted[:, 0].numel()
            continue
        scale = max(1.0, float(wanted.abs().max()))
        largest = max(largest, float((found - wanted).abs().max()) / scale)
        probability = max(probability, float((found.softmax(1) - wanted.softmax(1)).abs().max()))
        other += int((found.argmax(1) != wanted.argmax(1)).sum())
        voxels += wanted[:, 0].numel()
    return Parity(len(windows), tuple(windows[0].shape), largest, probability, other / voxels)


def check(found: Mapping[str, Parity], *, tolerance: float, where: str) -> None:
    """Refuse an exported network that is further off than the tolerance.

    Raises:
        InputError: code PARITY.
    """
    for name, parity in found.items():
        if not max(parity.largest, parity.probability) <= tolerance:
            raise InputError(
                f"on {name} input the exported network's output is up to {parity.largest:.2g} away (probabilities "
                f"{parity.probability:.2g}) from the network's, at most {tolerance:g} is allowed; "
                f"{100 * parity.other_class:.3g}% of the voxels get another class. The file was not kept",
                where=where,
                fix="Leave this format out with --format; or, if so much does not matter, allow more with --tolerance.",
                code="PARITY",
            )


def random_windows(channels: int, window: Sequence[int], *, count: int = 2, seed: int = 0) -> list[Tensor]:
    """Windows of noise (1, C, *window), as standardised intensities are: mean 0, SD 1."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, channels, *window, generator=generator) for _ in range(count)]


def other_sizes(channels: int, window: Sequence[int], *, seed: int = 1) -> Tensor:
    """A batch of two of another size than the window, with unequal axes."""
    size = [_MULTIPLE * (1 + (axis + 1) % 2) for axis in range(len(window))]
    if size == list(window):
        size[0] += _MULTIPLE
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(seed))


def works_on_other_sizes(network: nn.Module, exported: Runner, batch: Tensor, *, tolerance: float) -> bool | None:
    """Whether the exported network takes sizes that it was not recorded with; None if the network itself does not."""
    try:
        with torch.no_grad():
            network(batch)
    except Exception:  # such as sizes that are not divisible
        return None
    try:
        found = compare(network, exported, [batch])
    except Exception:  # whatever a runtime raises of sizes
        return False
    return max(found.largest, found.probability) <= tolerance


def windows_of(image: Tensor, window: Sequence[int], *, slice_axis: int = -1, count: int = 3) -> Iterator[Tensor]:
    """Windows (1, C, *window) of a prepared scan: from one corner through the middle to the other.

    Args:
        image: (C, *spatial); for a window of two numbers and three axes slices are taken.
        window: voxels; where the scan is smaller it is padded with zeros.
        slice_axis: of the three, the one that runs through the slices.
        count: how many.
    """
    if image.ndim == len(window) + 2:
        axis = 1 + slice_axis % 3
        places = [round(share * (image.shape[axis] - 1)) for share in _shares(count)]
        slices = [image.select(axis, place) for place in places]
    else:
        slices = [image] * count
    for share, part in zip(_shares(count), slices, strict=True):
        missing = [max(0, wanted - size) for wanted, size in zip(window, part.shape[1:], strict=True)]
        sides = [side for lack in reversed(missing) for side in (lack // 2, lack - lack // 2)]
        padded = torch.nn.functional.pad(part, sides)
        starts = [round(share * (size - wanted)) for wanted, size in zip(window, padded.shape[1:], strict=True)]
        inside = tuple(slice(start, start + wanted) for start, wanted in zip(starts, window, strict=True))
        yield padded[(slice(None), *inside)][None].contiguous()


def _shares(count: int) -> list[float]:
    return [number / max(count - 1, 1) for number in range(count)] if count > 1 else [0.5]
