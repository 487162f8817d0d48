from __future__ import annotations

import pytest
import torch

from semi_med.networks import MaskDiscriminator, UNet

SHAPE = {2: (32, 48), 3: (32, 48, 32)}
dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


@dimensions_2_and_3
@pytest.mark.parametrize("normalization", ["batch", "instance"])
def test_logits_have_the_size_of_the_image(dimensions, normalization):
    network = UNet(3, 4, spatial_dims=dimensions, base_filters=2, normalization=normalization)
    assert network(torch.randn(2, 3, *SHAPE[dimensions])).shape == (2, 4, *SHAPE[dimensions])


def test_with_32_filters_it_has_the_size_of_budas():
    """7,763,041 parameters there; 2 classes and the last up-sampling make the difference."""
    count = sum(p.numel() for p in UNet(3, 2).parameters())
    last_upsampling = 64 * 32 * 4 + 32 * 9 * 32 + 32  # what keeping its channels adds
    assert count == 7_763_041 + 33 + last_upsampling


def test_dropout_makes_two_passes_differ_and_its_absence_does_not():
    image = torch.randn(1, 1, *SHAPE[2])
    for share, same in ((0.0, True), (0.3, False)):
        network = UNet(base_filters=2, dropout=share)
        assert torch.equal(network(image), network(image)) == same


@dimensions_2_and_3
def test_a_discriminator_gives_each_pair_a_number_that_depends_on_image_mask_and_nothing_else(dimensions):
    torch.manual_seed(0)
    discriminator = MaskDiscriminator(2, spatial_dims=dimensions, base_filters=4, levels=3)
    image = torch.randn(4, 2, *SHAPE[dimensions])
    mask = torch.randn(4, 1, *SHAPE[dimensions]) > 0
    logits = discriminator(image, mask)
    assert logits.shape == (4,)
    alone = torch.cat([discriminator(image[b : b + 1], mask[b : b + 1]) for b in range(4)])
    assert torch.allclose(logits, alone, atol=1e-6)
    assert not torch.allclose(discriminator(image, ~mask), logits, atol=1e-5)
    assert not torch.allclose(discriminator(image.flip(0), mask), logits, atol=1e-5)


def test_a_discriminator_learns_which_mask_fits():
    torch.manual_seed(0)
    discriminator = MaskDiscriminator(base_filters=8, levels=3, dropout=0.1)
    image = torch.nn.functional.avg_pool2d(torch.randn(8, 1, 64, 64), 5, 1, 2) * 5
    fitting, other = image > 0.5, (image > 0.5).roll(3, 0)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        real, made = discriminator(image, fitting), discriminator(image, other)
        (torch.nn.functional.softplus(-real) + torch.nn.functional.softplus(made)).mean().backward()
        optimizer.step()
    discriminator.eval()
    assert (discriminator(image, fitting) > discriminator(image, other)).float().mean() > 0.8
