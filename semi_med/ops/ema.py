"""A teacher that is the exponential moving average of its student."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn

Buffers = Literal["average", "copy", "own"]


def ema_copy(network: nn.Module) -> nn.Module:
    """A teacher that starts equal to its student and gets no gradient.

    Args:
        network: the student; inside a DistributedDataParallel wrapper the network itself is copied.
    """
    teacher = copy.deepcopy(bare(network))
    return teacher.requires_grad_(False)


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, decay: float, *, buffers: Buffers = "average") -> None:
    """Move the teacher towards its student: teacher = decay * teacher + (1 - decay) * student.

    Args:
        teacher: changed in place.
        student: left as it is; the same architecture.
        decay: share of the old teacher that is kept, in [0, 1].
        buffers: statistics of batch norm are averaged like weights ("average"), taken from the student ("copy"), or
            left to the teacher's own forward passes ("own"). Integer buffers are copied unless "own".
    """
    student = bare(student)
    for mean, value in zip(teacher.parameters(), student.parameters(), strict=True):
        mean.lerp_(value.detach(), 1.0 - decay)
    if buffers == "own":
        return
    for kept, buffer in zip(teacher.buffers(), student.buffers(), strict=True):
        if buffers == "average" and kept.is_floating_point():
            kept.lerp_(buffer, 1.0 - decay)
        else:
            kept.copy_(buffer)


def early_decay(iteration: int, decay: float) -> float:
    """`decay`, but less in the first iterations: min(1 - 1 / (t + 1), decay), so that a young teacher forgets fast.

    Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv:1703.01780, as in their code.

    Args:
        iteration: t, 0-based count of updates done before this one.
        decay: reached after 1 / (1 - decay) iterations.
    """
    return min(1.0 - 1.0 / (iteration + 1), decay)


def bare(network: nn.Module) -> nn.Module:
    """The network inside a DistributedDataParallel wrapper, or the network itself."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
