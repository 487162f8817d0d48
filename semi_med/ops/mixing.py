"""Pasting one image into another, and the same with their labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from semi_med.ignored import IGNORED

Mixing = Literal["none", "cutmix", "classmix", "supmix"]
MIXINGS: tuple[Mixing, ...] = ("none", "cutmix", "classmix", "supmix")


def draw_cutmix_regions(
    batch_size: int,
    spatial_shape: Sequence[int],
    *,
    concentration: float = 4.0,
    axes: Sequence[int] = (0, 1),
) -> Tensor:
    """One random box for each image, to be filled from its partner.

    The kept share is drawn as l ~ Beta(c, c); the box has side sqrt(1 - l) of the image along `axes` and the full
    length along the others, at a uniform place inside the image (Yun et al., "CutMix", ICCV 2019).

    Args:
        batch_size: number of boxes.
        spatial_shape: size of the images in voxels.
        concentration: c of the Beta law, above 0.
        axes: spatial axes along which the box is shorter than the image.

    Returns:
        bool `(batch_size, 1, *spatial_shape)` on the CPU, drawn from torch's global generator.
    """
    regions = torch.zeros((batch_size, 1, *spatial_shape), dtype=torch.bool)
    beta = torch.distributions.Beta(concentration, concentration)
    for region in regions:
        side = (1.0 - beta.sample().item()) ** 0.5
        box = [slice(None)] * (len(spatial_shape) + 1)
        for axis in axes:
            size = spatial_shape[axis]
            length = max(1, min(size, round(side * size)))
            start = int(torch.randint(0, size - length + 1, ()).item())
            box[axis + 1 if axis >= 0 else axis] = slice(start, start + length)
        region[tuple(box)] = True
    return regions


def draw_boxes(batch_size: int, spatial_shape: Sequence[int], *, share: float = 2 / 3) -> Tensor:
    """One box of fixed size for each image, at a uniform place inside it.

    Bai et al., "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation", CVPR 2023, arXiv:2305.00673:
    the zero-value region of their mask M, with `share` beta along every axis.

    Args:
        batch_size: number of boxes.
        spatial_shape: size of the images in voxels.
        share: length of the box as a share of the image along each axis, in (0, 1].

    Returns:
        bool `(batch_size, 1, *spatial_shape)` on the CPU, True inside, drawn from torch's global generator.
    """
    regions = torch.zeros((batch_size, 1, *spatial_shape), dtype=torch.bool)
    lengths = [max(1, int(size * share)) for size in spatial_shape]
    for region in regions:
        starts = [
            int(torch.randint(0, size - length + 1, ()).item())
            for size, length in zip(spatial_shape, lengths, strict=True)
        ]
        region[(0, *(slice(start, start + length) for start, length in zip(starts, lengths, strict=True)))] = True
    return regions


def draw_rectangles(
    batch_size: int,
    spatial_shape: Sequence[int],
    *,
    area: tuple[float, float] = (0.02, 0.4),
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
    axes: Sequence[int] = (0, 1),
) -> Tensor:
    """One rectangle of random area and shape for each image, as UniMatch cuts them (Yang et al., CVPR 2023).

    Area and side ratio are uniform; ratio and place are drawn again until the rectangle lies inside the image.

    Args:
        batch_size: number of rectangles.
        spatial_shape: size of the images in voxels.
        area: smallest and largest share of the plane of the two axes.
        ratio: smallest and largest quotient of the side along the second axis and that along the first.
        axes: the two axes of the plane; along others the rectangle is as long as the image.

    Returns:
        bool `(batch_size, 1, *spatial_shape)` on the CPU, drawn from torch's global generator.
    """
    regions = torch.zeros((batch_size, 1, *spatial_shape), dtype=torch.bool)
    sizes = [spatial_shape[axis] for axis in axes]

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand(()).item()

    for region in regions:
        voxels, inside = uniform(*area) * math.prod(sizes), False
        while not inside:
            quotient = uniform(*ratio)
            lengths = [max(1, int(math.sqrt(voxels / quotient))), max(1, int(math.sqrt(voxels * quotient)))]
            starts = [int(torch.randint(0, size, ()).item()) for size in sizes]
            inside = all(a + n <= size for a, n, size in zip(starts, lengths, sizes, strict=True))
        box = [slice(None)] * (len(spatial_shape) + 1)
        for axis, start, length in zip(axes, starts, lengths, strict=True):
            box[axis + 1 if axis >= 0 else axis] = slice(start, start + length)
        region[tuple(box)] = True
    return regions


def draw_class_regions(label: Tensor, *, background: bool) -> Tensor:
    """Where each label has one of the drawn half of its classes: what ClassMix and SupMix cut out.

    Of the n classes that a label has, max(1, floor(n / 2)) are drawn uniformly (Mano et al., equations 3 and 8).

    Args:
        label: class indices, `(B, 1, *spatial)`; `IGNORED` is no class and never cut out.
        background: whether class 0 is one of them, as in ClassMix, or not, as in SupMix.

    Returns:
        bool, the same shape, on the label's device, drawn from torch's global generator; nothing where a label has no
        such class.
    """
    regions = torch.zeros_like(label, dtype=torch.bool)
    for region, own in zip(regions, label, strict=True):
        classes = own.unique()
        classes = classes[(classes != IGNORED) & ((classes != 0) | background)]
        order = torch.randperm(len(classes)).to(classes.device)
        region.copy_(torch.isin(own, classes[order[: max(1, len(classes) // 2)]]))
    return regions


class Mixed(NamedTuple):
    """A strong view into which something was pasted, and what is to be learnt from it.

    `image` `(B, C, *spatial)`, `label` `(B, 1, *spatial)`, `confident` and `region` bool `(B, 1, *spatial)`: the voxels
    that count, and those that were pasted.
    """

    image: Tensor
    label: Tensor
    confident: Tensor
    region: Tensor


def mix(
    operator: Mixing,
    image: Tensor,
    *,
    label: Tensor,
    confident: Tensor,
    labeled: Mapping[str, Tensor],
    chance: float = 0.5,
    first: int = 0,
) -> Mixed:
    """Paste into the strong views of unlabelled images, and likewise into their pseudo-labels.

    - "cutmix": a rectangle of another unlabelled image of the batch, with its pseudo-label and confidence (Yun et al.,
      ICCV 2019; sizes as in UniMatch).
    - "classmix": the pixels of half the classes that another unlabelled image is predicted to have (Olsson et al., WACV
      2021; Mano et al., equations 3 to 6).
    - "supmix": the pixels of half the foreground classes that an expert has drawn in a labelled image, with the
      expert's label, which is certain (Mano et al., equations 8 to 11):
      x_mix = M x_A + (1 - M) x_B, y_mix = M y_A + (1 - M) y_B with M the drawn classes of the expert's label y_A,
      x_B the strong view and y_B its pseudo-label. Equation 11 prints the index of labelled images at y_B, a misprint.
    - "none": nothing is pasted.

    Args:
        operator: one of these words.
        image: strong views, `(B, C, *spatial)`.
        label: pseudo-labels, `(B, 1, *spatial)`.
        confident: bool, the same shape: where the pseudo-label counts.
        labeled: `image` and `label` of a labelled batch of any size, which is gone through again and again.
        chance: that something is pasted into an image.
        first: of the labelled batch, what is pasted into the first image; a second set of views takes another.

    Returns:
        New tensors; what came in is left as it was. A batch of one has no other image: only "supmix" changes it.
    """
    count = len(image)
    if operator == "none":
        return Mixed(image, label, confident, torch.zeros_like(confident))
    if operator == "supmix":
        patch, patch_label = (repeated(labeled[key], count, first=first) for key in ("image", "label"))
        patch_label = patch_label.to(label.dtype)
        region, certain = draw_class_regions(patch_label, background=False), torch.ones_like(confident)
    else:
        patch, patch_label, certain = (partner(part) for part in (image, label, confident))
        if operator == "cutmix":
            region = draw_rectangles(count, image.shape[2:]).to(image.device)
        else:
            region = draw_class_regions(patch_label, background=True)
    wanted = (torch.rand(count) < chance).to(image.device)
    region = region & wanted.view(-1, *[1] * (image.dim() - 1))
    return Mixed(
        paste(image, patch.to(image.dtype), region),
        paste(label, patch_label, region),
        paste(confident, certain, region),
        region,
    )


def repeated(batch: Tensor, count: int, *, first: int = 0) -> Tensor:
    """`count` images of a batch, from the one at `first` on, again and again."""
    return batch[(first + torch.arange(count, device=batch.device)) % len(batch)]


def partner(batch: Tensor) -> Tensor:
    """For each image of a batch another one of it: the batch rolled by one. A batch of one is its own partner."""
    return batch.roll(1, dims=0)


def paste(base: Tensor, patch: Tensor, region: Tensor) -> Tensor:
    """`patch` inside the region, `base` outside it.

    Args:
        base: `(B, C, *spatial)`.
        patch: the same shape.
        region: bool `(B, 1, *spatial)`.
    """
    return torch.where(region, patch, base)
