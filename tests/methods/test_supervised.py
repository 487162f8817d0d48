from __future__ import annotations

import pytest
import torch
from method_samples import batches, tiny_network

from semi_med.losses import dice_ce
from semi_med.methods import Supervised


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_the_loss_is_dice_ce_on_the_labelled_images(dimensions, alpha):
    network = tiny_network(dimensions, 1, normalization="instance")
    labeled, unlabeled = batches(dimensions)
    terms = Supervised(network=network, alpha=alpha).losses(labeled, unlabeled, 0)
    expected = dice_ce(network(labeled["image"]), labeled["label"], alpha=alpha)
    assert terms["loss"].item() == pytest.approx(expected.item())
    assert terms["supervised"].item() == terms["loss"].item()


def test_unlabelled_batches_are_not_looked_at():
    method = Supervised(network=tiny_network(2, 1))
    labeled, _ = batches(2)
    assert torch.isfinite(method.losses(labeled, {}, 0)["loss"])
