"""A labelling as binary masks that do not tell their class."""

from __future__ import annotations

import torch
from torch import Tensor

from semi_med.ignored import IGNORED


def class_masks(label: Tensor) -> tuple[Tensor, Tensor]:
    """One mask for each foreground class that an image has; an image without any gets one empty mask.

    Args:
        label: class indices and `IGNORED`, `(B, 1, *spatial)`; `IGNORED` is in no mask.

    Returns:
        masks bool `(N, 1, *spatial)` and int64 `(N,)`, the image each of them is of, in order.
    """
    masks, owners = [], []
    for image, single in enumerate(label):
        classes = [value for value in single.unique().tolist() if value not in (0, IGNORED)] or [-1]
        masks += [single == value for value in classes]
        owners += [image] * len(classes)
    return torch.stack(masks), torch.tensor(owners, device=label.device)


def mean_by_owner(values: Tensor, owner: Tensor, batch_size: int) -> Tensor:
    """Mean of the values of each image, `(batch_size,)`.

    Args:
        values: `(N,)`, one for each mask.
        owner: `(N,)`, as `class_masks` gives it.
        batch_size: number of images.
    """
    sums = torch.zeros(batch_size, dtype=values.dtype, device=values.device).index_add(0, owner, values)
    return sums / torch.bincount(owner, minlength=batch_size)
