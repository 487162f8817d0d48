from __future__ import annotations

import math

import pytest
import torch

from semi_med.losses import cross_entropy
from semi_med.ops import IGNORED

SHAPES = {2: (3, 4), 3: (2, 3, 4)}
dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def slow(logits, label, valid, taught):
    powers = logits.double().exp()
    probs, found = powers / powers.sum(1, keepdim=True), []
    for b in range(len(logits)):
        total = count = 0.0
        for place in torch.ones(logits.shape[2:]).nonzero().tolist():
            at = tuple(place)
            if valid[b, 0][at] and label[b, 0][at] != IGNORED:
                count += 1
                total -= math.log(probs[(b, int(label[b, 0][at]), *at)]) if taught[b, 0][at] else 0
        found.append(total / max(count, 1))
    return found


@dimensions_2_and_3
def test_it_is_the_mean_over_the_valid_voxels_of_each_image(dimensions):
    generator = torch.Generator().manual_seed(0)
    shape = SHAPES[dimensions]
    logits = torch.randn(3, 3, *shape, generator=generator)
    label = torch.randint(0, 3, (3, 1, *shape), generator=generator).to(torch.uint8)
    valid, taught, hidden = (torch.rand(3, 1, *shape, generator=generator) < 0.6 for _ in range(3))
    label = label.masked_fill(hidden, IGNORED)
    everywhere = torch.ones_like(valid)
    assert cross_entropy(logits, label).tolist() == pytest.approx(slow(logits, label, everywhere, everywhere))
    both = cross_entropy(logits, label, valid=valid, taught=taught)
    assert both.tolist() == pytest.approx(slow(logits, label, valid, taught))


def test_nothing_valid_costs_nothing_and_what_is_not_taught_gets_no_gradient():
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    label = torch.zeros(2, 1, 4, 5, dtype=torch.long)
    label[1] = IGNORED
    taught = torch.zeros_like(label, dtype=torch.bool)
    taught[:, :, 0] = True
    loss = cross_entropy(logits, label, taught=taught)
    assert float(loss[1].detach()) == 0
    loss.sum().backward()
    assert (logits.grad[0, :, 0] != 0).all()
    assert (logits.grad[0, :, 1:] == 0).all()
    assert (logits.grad[1] == 0).all()


def test_it_trains_a_two_layer_network():
    torch.manual_seed(0)
    image = torch.randn(2, 1, 6, 7)
    label = (image > 0).long() + (image > 0.7)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 1), torch.nn.Tanh(), torch.nn.Conv2d(8, 3, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = cross_entropy(network(image), label).mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2
