from __future__ import annotations

import pytest
import torch

from semi_med.networks import FeatureDiscriminator


@pytest.mark.parametrize(("size", "coarse"), [((16, 24), (4, 6)), ((8, 13, 5), (2, 3, 1))])
def test_there_is_one_logit_for_each_place_of_a_coarser_map(size, coarse):
    network = FeatureDiscriminator(5, spatial_dims=len(size), widths=(4, 8))
    assert network(torch.randn(2, 5, *size)).shape == (2, 1, *coarse)


def test_a_logit_depends_on_its_own_image_only():
    network, maps = FeatureDiscriminator(3, widths=(4, 8)), torch.randn(2, 3, 8, 8)
    other = torch.cat([maps[:1], torch.randn(1, 3, 8, 8)])
    assert torch.equal(network(maps)[0], network(other)[0])


def test_maps_that_are_too_small_are_refused_with_the_next_step():
    with pytest.raises(ValueError, match="the maps have 16 x 8 voxels, and 16 or more are wanted"):
        FeatureDiscriminator(3)(torch.randn(1, 3, 16, 8))
