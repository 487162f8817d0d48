"""The operations that RandAugment and CTAugment draw from, on normalised images of any range, in 2D and 3D alike.

Photometric ones see an image as a picture with values from 0 to 1: each channel of each image is put on its own range,
from its least to its greatest value, and back after the last operation; what leaves that range on the way is cut off.
Geometric ones become one matrix, so that a chain of them costs one resampling and can be undone exactly.

Left out where they have no meaning: `color` wherever the channels are not red, green and blue (contrasts of MR are
three channels and no colours). In volumes the plane of a rotation is drawn, and shears and shifts have a third axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semi_med.ops import affine, gaussian_blur

_BINS = 256  # of histograms


@dataclass(frozen=True)
class Step:
    """One operation as drawn for one image.

    Attributes:
        name: of the operation, such as "contrast" or "shear_0".
        amount: in the unit of the operation, see `AMOUNTS`.
        axes: the plane of a rotation or the two axes of a shear; (axis, axis) of a shift.
        place: of a cutout: where its box lies along each axis, 0 (first possible place) to 1 (last).
        bin: of the amount in CTAugment.
    """

    name: str
    amount: float
    axes: tuple[int, int] = (0, 0)
    place: tuple[float, ...] = ()
    bin: int = 0


@dataclass(frozen=True)
class Amounts:
    """What an amount can be: `none` changes nothing, `low` and `high` are the ends for RandAugment at M = 10.

    Where `full`, RandAugment does the whole of it: its amount is always `high`.
    """

    none: float
    low: float
    high: float
    full: bool = False


AMOUNTS: dict[str, Amounts] = {
    "identity": Amounts(0, 0, 0),
    "autocontrast": Amounts(0, 0, 1, full=True),  # share of the changed image; stretched so that 1 % is cut at each end
    "brightness": Amounts(1, 0.1, 1.9),  # factor
    "color": Amounts(1, 0.1, 1.9),  # factor of the differences to grey
    "contrast": Amounts(1, 0.1, 1.9),  # factor of the differences to the mean
    "equalize": Amounts(0, 0, 1, full=True),  # share of the image with a flat histogram
    "invert": Amounts(0, 0, 1, full=True),  # share of 1 - image
    "posterize": Amounts(8, 4, 8),  # bits: 2^bits values are left
    "solarize": Amounts(1, 0, 1),  # what is at least as bright becomes 1 - it
    "smooth": Amounts(0, 0, 1),  # share of the image blurred by 1 voxel
    "blur": Amounts(0, 0, 1),  # share of the image blurred by 2 voxels
    "sharpness": Amounts(1, 0.1, 1.9),  # factor of the differences to the image blurred by 1 voxel
    "rotate": Amounts(0, -30, 30),  # degrees
    "shear": Amounts(0, -17, 17),  # degrees
    "translate": Amounts(0, -0.15, 0.15),  # share of the axis
    "rescale": Amounts(1, 0.8, 1.25),  # magnification
    "cutout": Amounts(0, 0.1, 0.3),  # share of the image
}
"""Of each operation; the ends are those of Dense FixMatch (Martí i Rabadán et al., arXiv:2210.09919)."""

GEOMETRIC = ("rotate", "shear", "translate", "rescale")


def kind(name: str) -> str:
    """The key in `AMOUNTS`: "shear" of "shear_0"."""
    return name.rstrip("0123456789").rstrip("_")


def is_geometric(name: str) -> bool:
    """Whether it moves things."""
    return kind(name) in GEOMETRIC


def operations(dimensions: int, *, colors: bool = False, only: Sequence[str] | None = None) -> list[str]:
    """Names of the operations that have a meaning, with one shear and one shift for each axis.

    Args:
        dimensions: 2 or 3.
        colors: the channels are red, green and blue.
        only: kinds to choose from, `AMOUNTS` by default.

    Raises:
        ValueError: one of `only` is not known, or none is left.
    """
    unknown = sorted(set(only or ()) - AMOUNTS.keys())
    if unknown:
        raise ValueError(f"there is no operation {', '.join(unknown)}; there are {', '.join(AMOUNTS)}")
    names: list[str] = []
    for name in AMOUNTS if only is None else only:
        if name in ("shear", "translate"):
            names += [f"{name}_{axis}" for axis in range(dimensions)]
        elif name != "color" or colors:
            names.append(name)
    if not names:
        raise ValueError(f"none of the operations {', '.join(only or ())} has a meaning for these images")
    return names


def draw_axes(name: str, dimensions: int, generator: torch.Generator) -> tuple[int, int]:
    """Plane of a rotation, axes of a shear; drawn where there is a choice."""
    axis = int(name[-1]) if name[-1].isdigit() else 0
    if kind(name) == "rotate":
        planes = [(a, b) for a in range(dimensions) for b in range(a + 1, dimensions)]
        return planes[int(torch.randint(0, len(planes), (), generator=generator))]
    if kind(name) == "shear":
        step = int(torch.randint(1, dimensions, (), generator=generator))
        return axis, (axis + step) % dimensions
    return axis, axis


def geometry(steps: Sequence[Step], shape: Sequence[int]) -> Tensor:
    """The geometric ones among the steps, in their order, as one matrix `(1, n + 1, n + 1)`, see `ops.affine`."""
    matrices = [affine.identity(1, len(shape))]
    for step in steps:
        amount = torch.tensor([step.amount], dtype=torch.float64)
        if kind(step.name) == "rotate":
            matrices.append(affine.rotation(amount, step.axes, shape))
        elif kind(step.name) == "shear":
            matrices.append(affine.shear(amount, step.axes, shape))
        elif kind(step.name) == "translate":
            offset = torch.zeros(1, len(shape), dtype=torch.float64)
            offset[0, step.axes[0]] = step.amount * shape[step.axes[0]]
            matrices.append(affine.translation(offset))
        elif kind(step.name) == "rescale":
            matrices.append(affine.magnification(amount.expand(1, len(shape)), shape))
    return affine.compose(*matrices)


def photometric(image: Tensor, steps: Sequence[Step]) -> Tensor:
    """The others among the steps, in their order.

    Args:
        image: one image `(1, C, *spatial)`, floating.
        steps: as drawn.
    """
    steps = [step for step in steps if not is_geometric(step.name) and step.name != "identity"]
    if not steps:
        return image
    axes = tuple(range(2, image.dim()))
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    span = (high - low).clamp(min=1e-6)
    picture = (image - low) / span
    for step in steps:
        if step.name == "cutout":
            picture = _cutout(picture, step)
        else:
            picture = _PHOTOMETRIC[step.name](picture, step.amount).clamp(0, 1)
    return picture * span + low


def _cutout(picture: Tensor, step: Step) -> Tensor:
    """A box of the middle grey; it has the proportions of the image."""
    side = step.amount ** (1 / (picture.dim() - 2))
    box = [slice(None), slice(None)]
    for size, place in zip(picture.shape[2:], step.place, strict=True):
        length = round(side * size)
        start = round(place * (size - length))
        box.append(slice(start, start + length))
    picture = picture.clone()
    picture[tuple(box)] = 0.5
    return picture


def _blend(picture: Tensor, changed: Tensor, share: float) -> Tensor:
    """`changed` for a share of 1; beyond it, or below 0, away from the other one."""
    return picture + share * (changed - picture)


def _mean(picture: Tensor) -> Tensor:
    return picture.mean(tuple(range(2, picture.dim())), keepdim=True)


def _blurred(picture: Tensor, sigma: float) -> Tensor:
    return gaussian_blur(picture, torch.full((len(picture),), sigma))


def _histogram(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Bin of each voxel, `(B, C, voxels)`, and how many voxels lie in each bin or a lower one, `(B, C, bins)`."""
    index = (picture.flatten(2) * (_BINS - 1)).round().long()
    counts = torch.zeros(*index.shape[:2], _BINS, dtype=torch.long, device=picture.device)
    return index, counts.scatter_add_(2, index, torch.ones_like(index)).cumsum(2)


def _equalized(picture: Tensor) -> Tensor:
    """Each value becomes the share of the voxels that are darker, counted without those in the darkest bin."""
    index, below = _histogram(picture)
    first = below.gather(2, index.amin(2, keepdim=True))
    share = (below - first).clamp(min=0) / (below[..., -1:] - first).clamp(min=1)
    return share.to(picture.dtype).gather(2, index).view_as(picture)


def _stretched(picture: Tensor) -> Tensor:
    """From 0 to 1 between the first and the last percent of the voxels."""
    _, below = _histogram(picture)
    total = below[..., -1:].double()
    shape = (*picture.shape[:2], *[1] * (picture.dim() - 2))
    low, high = (((below < share * total).sum(2) / (_BINS - 1)).to(picture.dtype).view(shape) for share in (0.01, 0.99))
    return torch.where(high > low, (picture - low) / (high - low).clamp(min=1e-6), picture)


_PHOTOMETRIC: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "autocontrast": lambda picture, share: _blend(picture, _stretched(picture), share),
    "brightness": lambda picture, factor: picture * factor,
    "color": lambda picture, factor: _blend(picture.mean(1, keepdim=True).expand_as(picture), picture, factor),
    "contrast": lambda picture, factor: _blend(_mean(picture).expand_as(picture), picture, factor),
    "equalize": lambda picture, share: _blend(picture, _equalized(picture), share),
    "invert": lambda picture, share: _blend(picture, 1 - picture, share),
    "posterize": lambda picture, bits: (
        (picture * 2 ** round(bits)).floor().clamp(max=2 ** round(bits) - 1) / max(1, 2 ** round(bits) - 1)
    ),
    "solarize": lambda picture, level: torch.where((picture >= level) & (level < 1), 1 - picture, picture),
    "smooth": lambda picture, share: _blend(picture, _blurred(picture, 1.0), share),
    "blur": lambda picture, share: _blend(picture, _blurred(picture, 2.0), share),
    "sharpness": lambda picture, factor: _blend(_blurred(picture, 1.0), picture, factor),
}
