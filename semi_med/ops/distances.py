"""Distances to the outline of a class."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from semi_med.ops.known import known

_AT_ONCE = 2**26  # numbers held by one step of the transform on a GPU


def signed_distance(label: Tensor, classes: int) -> Tensor:
    """Signed Euclidean distance of each voxel to the outline of each class: below 0 inside, above 0 outside.

    As in the code of Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019, arXiv:1812.07032:
    outside, the distance to the nearest voxel of the class; inside, 1 minus the distance to the nearest voxel that is
    not of it. A class that is absent, or fills its image, has no outline: all its distances are 0. An `IGNORED` voxel
    is neither of a class nor not of it, and its own distances are 0.

    Args:
        label: class indices and `IGNORED`, `(B, 1, *spatial)`, any integer type.
        classes: K.

    Returns:
        float32 `(B, K, *spatial)`, in voxels, on the label's device. On a CPU by scipy, on a GPU there.
    """
    onehot = label.long() == torch.arange(classes, device=label.device).view(1, -1, *[1] * (label.dim() - 2))
    seen = known(label)
    if label.device.type == "cpu":
        out = np.zeros(onehot.shape, dtype=np.float32)
        for maps, there, targets in zip(onehot.numpy(), seen.numpy()[:, 0], out, strict=True):
            for inside, target in zip(maps, targets, strict=True):
                if inside.any() and (there & ~inside).any():
                    target[:] = _signed(inside) if there.all() else _signed_where_known(inside, there)
        return torch.from_numpy(out)
    return signed_distance_on_device(onehot, seen)


def _signed_where_known(inside: np.ndarray, there: np.ndarray) -> np.ndarray:
    outside = there & ~inside
    signed = ndimage.distance_transform_edt(~inside) * outside
    return (signed - np.where(inside, ndimage.distance_transform_edt(~outside) - 1, 0)).astype(np.float32)


def _signed(inside: np.ndarray) -> np.ndarray:
    """Of one map that has both; the transform is only taken where it can be other than 0."""
    outside = ndimage.distance_transform_edt(~inside)
    box = tuple(
        slice(max(0, place.start - 1), place.stop + 1) for place in ndimage.find_objects(inside.astype(np.uint8))[0]
    )
    out = outside.astype(np.float32)
    out[box] -= np.where(inside[box], ndimage.distance_transform_edt(inside[box]) - 1, 0).astype(np.float32)
    return out


def signed_distance_on_device(inside: Tensor, seen: Tensor | None = None) -> Tensor:
    """The same by tensor operations alone, for a GPU.

    Args:
        inside: bool `(B, K, *spatial)`.
        seen: bool `(B, 1, *spatial)`, False where the label is `IGNORED`; None for everywhere.
    """
    outside = ~inside if seen is None else ~inside & seen
    signed = torch.where(inside, 1 - _distance(outside).sqrt(), _distance(inside).sqrt())
    both = inside.flatten(2).any(2) & outside.flatten(2).any(2)
    both = both.view(*both.shape, *[1] * (inside.dim() - 2))
    return torch.where(both & (inside | outside), signed, torch.zeros_like(signed))


def _distance(targets: Tensor) -> Tensor:
    """Squared distance of each voxel to the nearest target, axis by axis: min over k of f(k) + (i - k)^2."""
    large = float(sum(size**2 for size in targets.shape[2:]) + 1)
    squared = torch.where(targets, 0.0, large).float()
    for axis in range(2, targets.dim()):
        lines = squared.movedim(axis, -1)
        shape, size = lines.shape, lines.shape[-1]
        place = torch.arange(size, device=targets.device, dtype=torch.float32)
        cost = (place.view(-1, 1) - place).square()
        parts = lines.reshape(-1, size).split(max(1, _AT_ONCE // size**2))
        squared = torch.cat([(part.unsqueeze(1) + cost).amin(2) for part in parts]).view(shape).movedim(-1, axis)
    return squared
