"""What the papers' equations are made of, written slowly: double precision, plain loops, nothing of the package."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def softmax(logits: torch.Tensor) -> torch.Tensor:
    powers = logits.detach().double().exp()
    return powers / powers.sum(1, keepdim=True)


def supervised_loss(
    logits: torch.Tensor, label: torch.Tensor, alpha: float, valid: torch.Tensor | None = None
) -> float:
    """alpha CE + (1 - alpha) Dice over the foreground classes, from the voxels that count."""
    probs, classes = softmax(logits), logits.shape[1]
    counts = torch.ones_like(probs[:, :1]) if valid is None else valid.double()
    own = sum(probs[:, k : k + 1] * (label == k) for k in range(classes))
    ce = -(torch.log(own) * counts).sum() / max(1.0, float(counts.sum()))
    dice = 0.0
    for k in range(1, classes):
        p, g = probs[:, k : k + 1], (label == k).double()
        shared, total = float((p * g * counts).sum()), float(((p**2 + g) * counts).sum())
        dice += (1 - (2 * shared + 1e-5) / (total + 1e-5)) / (classes - 1)
    return alpha * float(ce) + (1 - alpha) * dice


def ramp(iteration: int, length: int) -> float:
    return math.exp(-5 * (1 - iteration / length) ** 2) if iteration < length else 1.0


def voxels(batch: torch.Tensor) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Every (image of the batch, voxel)."""
    return itertools.product(range(len(batch)), itertools.product(*(range(n) for n in batch.shape[2:])))


def forward(network: nn.Module, image: torch.Tensor, mode: str) -> torch.Tensor:
    """Logits of a copy of the network, which stays as it is."""
    with torch.no_grad():
        return copy.deepcopy(network).train(mode == "train")(image)


def foreground_overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    """Dice of two labellings over the voxels with the same class, background left out."""
    pairs = list(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    total = sum(x > 0 for x, _ in pairs) + sum(y > 0 for _, y in pairs)
    return 2 * sum(x == y > 0 for x, y in pairs) / total if total else 1.0


def numbers(method: Any, labeled: Any, unlabeled: Any, *, iteration: int = 5, seed: int = 0) -> dict[str, float]:
    """The terms of a method as numbers."""
    torch.manual_seed(seed)
    return {name: float(term.detach()) for name, term in method.losses(labeled, unlabeled, iteration).items()}


class Telling(nn.Module):
    """A network of one trainable number: the logits of a voxel are its value once for each of some directions.

    It remembers what it was given, and in which mode.
    """

    def __init__(self, directions: list[float], dropout: float = 0.5) -> None:
        super().__init__()
        self.directions = torch.tensor(directions)
        self.number = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(dropout)
        self.inputs: list[torch.Tensor] = []
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.inputs.append(image.detach().clone())
        self.modes.append((self.training, torch.is_grad_enabled()))
        shape = (1, -1, *[1] * (image.dim() - 2))
        return self.number * image[:, :1] * self.directions.view(shape)
