from __future__ import annotations

import pytest
import torch
from torch import nn

from semi_med.errors import InputError
from semi_med.networks import DeepLabV3Plus, EfficientUNet, Stepped, UNet, VNet, stepped

NETWORKS = {
    "vnet": (VNet, {"base_filters": 2, "levels": 3}, {2: (8, 12), 3: (8, 4, 12)}),
    "deeplab": (DeepLabV3Plus, {"backbone": "resnet18", "decoder_channels": 4}, {2: (33, 40), 3: (32, 20, 17)}),
    "unet_interpolated": (UNet, {"base_filters": 2, "upsampling": "interpolated"}, {2: (32, 48), 3: (32, 32, 32)}),
    "unet": (UNet, {"base_filters": 2}, {2: (32, 48), 3: (32, 40, 32)}),
    "efficient": (EfficientUNet, {"backbone": "efficientnet-b0"}, {2: (64, 96), 3: (32, 32, 32)}),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def made(name: str, dimensions: int) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    kind, settings, sizes = NETWORKS[name]
    network = kind(1, 3, spatial_dims=dimensions, **settings)
    return network.eval(), torch.randn(2, 1, *sizes[dimensions])


@every_network
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_three_steps_are_the_forward_pass(name, dimensions):
    network, image = made(name, dimensions)
    with torch.no_grad():
        features = network.features(image)
        before = [part.clone() for part in features]
        decoded = network.decode(features)
        assert torch.equal(network.classify(decoded, image.shape[2:]), network(image))
    assert decoded.shape[:2] == (2, network.decoded_channels)
    assert len(features) > 1
    assert all(torch.equal(a, b) for a, b in zip(before, features, strict=True))


@every_network
def test_every_map_of_the_encoder_matters_to_the_logits(name):
    network, image = made(name, 2)
    features = [part.detach().requires_grad_() for part in network.features(image)]
    network.classify(network.decode(features), image.shape[2:]).square().sum().backward()
    assert all(part.grad is not None and part.grad.any() for part in features)


@every_network
def test_all_networks_of_the_package_can_be_run_in_steps(name):
    network, _ = made(name, 2)
    assert isinstance(network, Stepped)
    assert stepped(network, wanted_by="UniMatch") is network


def test_a_network_without_steps_is_refused_with_the_next_step():
    with pytest.raises(InputError, match="UniMatch reaches between encoder and decoder, and Linear cannot"):
        stepped(nn.Linear(1, 1), wanted_by="UniMatch")
