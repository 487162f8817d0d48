from __future__ import annotations

import pytest
import torch
from torch import nn

from semi_med.networks import VNet

SIZES = {2: (8, 16), 3: (8, 4, 12)}


def tiny(dimensions=3, **settings):
    return VNet(**{"out_channels": 3, "spatial_dims": dimensions, "base_filters": 2, "levels": 3, **settings})


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("normalization", "count"), [("batch", 9_448_866), ("instance", 9_443_266)])
def test_the_network_of_the_benchmarks_has_the_published_number_of_parameters(normalization, count):
    assert parameters(VNet(1, 2, spatial_dims=3, base_filters=16, normalization=normalization)) == count


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("normalization", ["batch", "instance", "group", "none"])
@pytest.mark.parametrize("upsampling", ["transposed", "interpolated"])
def test_logits_have_the_size_of_the_image(dimensions, normalization, upsampling):
    network = tiny(dimensions, in_channels=2, normalization=normalization, upsampling=upsampling)
    assert network(torch.randn(2, 2, *SIZES[dimensions])).shape == (2, 3, *SIZES[dimensions])


def test_the_two_upsamplings_differ_in_their_layers_only_where_they_say():
    transposed, interpolated = tiny(), tiny(upsampling="interpolated")
    assert any(isinstance(m, nn.ConvTranspose3d) for m in transposed.modules())
    assert not any(isinstance(m, nn.ConvTranspose3d) for m in interpolated.modules())
    names = {name for name, _ in transposed.named_parameters()} ^ {name for name, _ in interpolated.named_parameters()}
    assert names
    assert all(name.startswith("ups.") for name in names)


@pytest.mark.parametrize(("levels", "divisor", "size"), [(3, 4, (8, 6)), (2, 2, (7, 8)), (5, 16, (16, 24))])
def test_an_indivisible_size_is_refused_with_the_next_step(levels, divisor, size):
    message = (
        rf"VNet with {levels} levels needs sizes divisible by {divisor}, not \({size[0]}, {size[1]}\): choose another"
    )
    with pytest.raises(ValueError, match=message):
        tiny(2, levels=levels)(torch.zeros(1, 1, *size))


def test_an_unknown_upsampling_is_refused():
    with pytest.raises(ValueError, match="upsampling must be 'transposed' or 'interpolated', not 'trilinear'"):
        tiny(upsampling="trilinear")


def test_every_parameter_gets_a_gradient():
    network = tiny(dropout=0.0)
    network(torch.randn(2, 1, *SIZES[3])).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_skips_are_added():
    network = tiny(2, normalization="none", dropout=0.0).eval()
    for up in network.ups:
        for p in up.parameters():
            p.data.zero_()
    image = torch.randn(1, 1, 8, 8)
    first = network.encoders[0](image)
    assert torch.equal(network(image), network.head(network.decoders[0](first)))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_dropout_drops_whole_channels_in_training_and_nothing_in_evaluation(dimensions):
    network = tiny(dimensions, dropout=0.5)
    image = torch.randn(1, 1, *SIZES[dimensions])
    network.train()
    dropped = network.dropout_last(torch.ones(1, 64, *SIZES[dimensions])).flatten(2)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped.amin(2), dropped.amax(2))
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("place", ["dropout_deep", "dropout_last"])
def test_dropout_acts_at_both_places_with_the_share_asked_for(place):
    network, image = tiny(2, base_filters=8, dropout=0.3).train(), torch.randn(2, 1, 8, 16)
    dropouts = {"dropout_deep": network.dropout_deep, "dropout_last": network.dropout_last}
    assert dropouts.pop(place).p == 0.3
    for other in dropouts.values():
        other.p = 0.0
    torch.manual_seed(0)
    assert not torch.equal(network(image), network(image))
