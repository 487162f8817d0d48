from __future__ import annotations

import pytest
import torch
from torch import nn

from semi_med.losses import squared_difference

SHAPES = {2: (3, 5), 3: (3, 2, 4)}
dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def sample(dimensions, *, batch=2, classes=3):
    generator = torch.Generator().manual_seed(0)
    probs, target = (
        torch.softmax(torch.randn(batch, classes, *SHAPES[dimensions], generator=generator), 1) for _ in range(2)
    )
    valid = torch.rand(batch, 1, *SHAPES[dimensions], generator=generator) < 0.6
    return probs, target, valid


def voxels_of(*probs):
    """(1, K, 1, voxels) of one tuple a voxel."""
    return torch.tensor(probs).T.reshape(1, -1, 1, len(probs))


def test_the_mean_over_voxels_and_classes_by_hand():
    probs, target = voxels_of((0.5, 0.3, 0.2), (1.0, 0.0, 0.0)), voxels_of((0.2, 0.3, 0.5), (0.0, 1.0, 0.0))
    assert float(squared_difference(probs, target)) == pytest.approx((0.09 + 0.09 + 1.0 + 1.0) / 6)


def test_only_valid_voxels_count_by_hand():
    probs, target = voxels_of((0.5, 0.5), (1.0, 0.0), (0.4, 0.6)), voxels_of((0.2, 0.8), (0.0, 1.0), (0.4, 0.6))
    valid = torch.tensor([True, False, True]).reshape(1, 1, 1, 3)
    assert float(squared_difference(probs, target, valid=valid)) == pytest.approx((0.09 + 0.09) / 4)


@dimensions_2_and_3
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_loss_equals_a_plain_loop(dimensions, classes):
    probs, target, valid = sample(dimensions, classes=classes)
    total, count = 0.0, 0
    for b in range(2):
        rows = zip(*(t[b].flatten(1).T.tolist() for t in (probs, target, valid)), strict=True)
        for p, q, (counts,) in rows:
            if counts:
                total += sum((x - y) ** 2 for x, y in zip(p, q, strict=True))
                count += classes
    assert float(squared_difference(probs, target, valid=valid)) == pytest.approx(total / count, rel=1e-5)


@dimensions_2_and_3
def test_everything_valid_is_the_same_as_no_choice(dimensions):
    probs, target, valid = sample(dimensions)
    everything = squared_difference(probs, target, valid=torch.ones_like(valid))
    assert float(everything) == pytest.approx(float(squared_difference(probs, target)), rel=1e-6)


@dimensions_2_and_3
def test_nothing_valid_costs_zero_and_moves_nothing(dimensions):
    probs, target, valid = sample(dimensions)
    probs.requires_grad_()
    loss = squared_difference(probs, target, valid=torch.zeros_like(valid))
    loss.backward()
    assert loss.item() == 0
    assert (probs.grad == 0).all()


@dimensions_2_and_3
def test_what_lies_in_ignored_voxels_does_not_matter(dimensions):
    probs, target, valid = sample(dimensions)
    other = torch.where(valid, target, 1.0 - target)
    assert torch.equal(squared_difference(probs, other, valid=valid), squared_difference(probs, target, valid=valid))


def test_equal_predictions_cost_nothing():
    probs, _, valid = sample(3)
    assert float(squared_difference(probs, probs.clone(), valid=valid)) == 0


def test_the_gradient_goes_to_the_prediction_at_valid_voxels_and_never_to_the_target():
    probs, target, valid = sample(3)
    probs.requires_grad_()
    target.requires_grad_()
    squared_difference(probs, target, valid=valid).backward()
    assert target.grad is None
    assert torch.equal((probs.grad != 0).any(1, keepdim=True), valid)


def test_half_precision_is_summed_in_single():
    probs, target = torch.full((1, 2, 300, 300), 0.75).half(), torch.full((1, 2, 300, 300), 0.25).half()
    loss = squared_difference(probs, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.25)


@dimensions_2_and_3
def test_the_loss_brings_a_two_layer_network_to_the_target_of_one_image(dimensions):
    torch.manual_seed(0)
    conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
    network = nn.Sequential(conv(1, 8, 3, padding=1), nn.ReLU(), conv(8, 3, 1))
    image = torch.randn(1, 1, *SHAPES[dimensions])
    target = torch.softmax(3 * torch.cat([image, -image, 0 * image], 1), 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        loss = squared_difference(torch.softmax(network(image), 1), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
