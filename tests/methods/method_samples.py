"""Tiny networks and batches with unequal axes and three classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from semi_med.networks import VNet
from semi_med.ops import affine

CLASSES = 3
CROP = {2: (6, 8), 3: (4, 6, 8)}
MARGIN = {2: (2, 3), 3: (2, 3, 1)}


def tiny_network(dimensions: int, seed: int, **settings: Any) -> VNet:
    """A V-Net of two levels without dropout that predicts every class somewhere, at any confidence.

    Its batch-norm statistics are not those of a new network.
    """
    torch.manual_seed(seed)
    defaults = {"out_channels": CLASSES, "spatial_dims": dimensions, "base_filters": 2, "levels": 2, "dropout": 0.0}
    network = VNet(**{**defaults, **settings})
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        logits = network.eval()(torch.randn(4, 1, *CROP[dimensions])).transpose(0, 1).flatten(1)
        scale = 2 / logits.std(1)
        network.head.weight *= scale.view(-1, *[1] * (dimensions + 1))
        network.head.bias.copy_((network.head.bias - logits.mean(1)) * scale)
    return network.train()


def batches(
    dimensions: int, *, labeled: int = 2, unlabeled: int = 3, seed: int = 0, margin: int | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A labelled and an unlabelled batch as a `View` gives them; `weak`, `image` and `strong_2` differ.

    They have the matrices of two views as well, the one flipped, the other moved by a voxel; a corner is not seen.

    Args:
        dimensions: 2 or 3.
        labeled, unlabeled: batch sizes.
        seed: of everything.
        margin: free voxels on every side; None draws them.
    """
    generator = torch.Generator().manual_seed(seed)
    crop, around = CROP[dimensions], MARGIN[dimensions]

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    context = normal(unlabeled, 1, *(c + 2 * m for c, m in zip(crop, around, strict=True)))
    middle = (slice(None), slice(None), *(slice(m, m + c) for c, m in zip(crop, around, strict=True)))
    weak = context[middle].clone()
    flipped, moved = torch.zeros(2, unlabeled, dimensions)
    flipped[:, 0], moved[:, 1] = 1, 1
    seen = torch.ones(unlabeled, 1, *crop, dtype=torch.bool)
    seen[(..., *[0] * dimensions)] = False
    free = torch.stack([torch.randint(0, m + 1, (unlabeled, 2), generator=generator) for m in around], dim=1)
    return (
        {
            "image": normal(labeled, 1, *crop),
            "label": torch.randint(0, CLASSES, (labeled, 1, *crop), generator=generator).to(torch.uint8),
        },
        {
            "image": weak + 0.3 * normal(*weak.shape),
            "weak": weak,
            "context": context,
            "margin": free if margin is None else torch.full_like(free, margin),
            "strong_2": weak - 0.2 * normal(*weak.shape),
            "weak_matrix": affine.flip(flipped > 0, crop),
            "strong_matrix": affine.translation(moved),
            "seen": seen,
        },
    )


def clone(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in batch.items()}
