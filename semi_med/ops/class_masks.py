"""A labelling as binary masks that do not tell their class, and how far each of them is right."""

from __future__ import annotations

import torch
from torch import Tensor

from semi_med.ignored import IGNORED
from semi_med.ops.known import known

_NONE = -1


def class_masks(label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One mask for each foreground class that an image has; an image without any gets one empty mask.

    Args:
        label: class indices and `IGNORED`, `(B, 1, *spatial)`; `IGNORED` is in no mask.

    Returns:
        masks bool `(N, 1, *spatial)`; the image each is of, int64 `(N,)`, in order; its class, -1 of an empty one.
    """
    masks, owners, kinds = [], [], []
    for image, single in enumerate(label):
        classes = [value for value in single.unique().tolist() if value not in (0, IGNORED)] or [_NONE]
        masks += [single == value for value in classes]
        owners += [image] * len(classes)
        kinds += classes
    owner, kind = (torch.tensor(values, device=label.device) for values in (owners, kinds))
    return torch.stack(masks), owner, kind


def mean_by_owner(values: Tensor, owner: Tensor, batch_size: int) -> Tensor:
    """Mean of the values of each image, `(batch_size,)`.

    Args:
        values: `(N,)`, one for each mask.
        owner: `(N,)`, as `class_masks` gives it.
        batch_size: number of images.
    """
    sums = torch.zeros(batch_size, dtype=values.dtype, device=values.device).index_add(0, owner, values)
    return sums / torch.bincount(owner, minlength=batch_size)


def mask_dice(masks: Tensor, owner: Tensor, kind: Tensor, *, truth: Tensor) -> Tensor:
    """Dice of each mask with that of the same class in another labelling, `(N,)`.

    An empty mask is right (1) where that labelling has no foreground, and wrong (0) where it has some.

    Args:
        masks: as `class_masks` gives them.
        owner: the image each is of.
        kind: its class.
        truth: class indices and `IGNORED`, `(B, 1, *spatial)`; where it is `IGNORED` masks do not count.
    """
    theirs, shape = truth.long()[owner], (-1, *[1] * (truth.dim() - 1))
    counted = known(theirs)
    wanted = torch.where(kind.view(shape) == _NONE, (theirs > 0) & counted, theirs == kind.view(shape))
    given = masks & counted
    total = (given.flatten(1).sum(1) + wanted.flatten(1).sum(1)).float()
    shared = (given & wanted).flatten(1).sum(1)
    return torch.where(total > 0, 2 * shared / total.clamp(min=1), torch.ones_like(total))
