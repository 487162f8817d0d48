from __future__ import annotations

import pytest
import torch

from semi_med.ops import drop_channels


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_whole_channels_are_dropped_and_the_others_enlarged(shape):
    torch.manual_seed(0)
    out = drop_channels(torch.ones(8, 64, *shape), 0.25).flatten(2)
    assert torch.equal(out.amin(2), out.amax(2))
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float((out == 0).float().mean()) == pytest.approx(0.25, abs=0.06)


def test_each_image_drops_channels_of_its_own():
    torch.manual_seed(0)
    assert len(drop_channels(torch.ones(4, 32, 1, 1), 0.5).flatten(1).unique(dim=0)) == 4


def test_a_share_of_zero_changes_nothing_and_draws_nothing():
    torch.manual_seed(0)
    features = torch.randn(2, 3, 4, 4)
    state = torch.get_rng_state()
    assert torch.equal(drop_channels(features, 0.0), features)
    assert torch.equal(torch.get_rng_state(), state)
