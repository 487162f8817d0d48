from __future__ import annotations

import pytest
import torch
from method_samples import batches, tiny_network

from semi_med.losses import dice_boundary, dice_ce
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


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("boundary", [0.0, 0.5])
def test_the_floor_of_fixmatchseg_has_its_loss(dimensions, boundary):
    network = tiny_network(dimensions, 1, normalization="instance")
    labeled, unlabeled = batches(dimensions)
    terms = Supervised(network=network, loss="dice_boundary", boundary=boundary).losses(labeled, unlabeled, 0)
    probs = torch.softmax(network(labeled["image"]), dim=1)
    expected = dice_boundary(probs, labeled["label"], boundary=boundary).mean()
    assert terms["loss"].item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"loss": "dice"}, "loss must be one of dice_ce, dice_boundary, not 'dice'"),
        ({"boundary": -1.0}, "boundary is a weight of at least 0, not -1.0"),
        ({"alpha": 1.5}, "alpha"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        Supervised(network=tiny_network(2, 1), **settings)
