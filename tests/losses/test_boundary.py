from __future__ import annotations

import pytest
import torch

from semi_med.losses import boundary_loss, dice_boundary, soft_dice
from semi_med.ops import IGNORED, signed_distance


def test_the_boundary_loss_by_hand():
    probs = torch.tensor([[0.2, 0.8], [0.6, 0.4]]).view(1, 2, 1, 2)  # class by voxel
    distance = torch.tensor([[5.0, 5.0], [2.0, -1.0]]).view(1, 2, 1, 2)
    assert boundary_loss(probs, distance).tolist() == pytest.approx([(0.6 * 2 - 0.4 * 1) / 2])


def test_images_do_not_share_a_loss():
    probs, distance = torch.rand(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    together = boundary_loss(probs, distance)
    alone = [boundary_loss(probs[b : b + 1], distance[b : b + 1]).item() for b in range(3)]
    assert together.tolist() == pytest.approx(alone)


def test_nothing_is_better_for_the_boundary_loss_than_the_label_itself():
    label = torch.zeros(1, 1, 9, 9, dtype=torch.long)
    label[..., 2:6, 3:7] = 1
    distance = signed_distance(label, 2)

    def loss(found: torch.Tensor) -> float:
        return boundary_loss(torch.cat([1 - found, found], 1).float(), distance).item()

    best = loss(label)
    assert best < 0
    assert all(loss(label.roll(shift, 3)) > best for shift in (-2, -1, 1, 2))
    assert loss(torch.zeros_like(label)) > best


def test_soft_dice_by_hand():
    label = torch.tensor([0, 1, 1, 0]).view(1, 1, 1, 4)
    found = torch.tensor([0.0, 1.0, 0.5, 0.5]).view(1, 1, 1, 4)
    expected = 1 - 2 * 1.5 / (1 + 0.25 + 0.25 + 2)
    assert soft_dice(torch.cat([1 - found, found], 1), label).tolist() == pytest.approx([expected], abs=1e-5)


def test_soft_dice_of_an_absent_class_costs_nothing_unless_it_is_predicted():
    label = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    nothing = torch.zeros(1, 2, 2, 2)
    nothing[:, 0] = 1
    assert soft_dice(nothing, label).item() == 0
    assert soft_dice(torch.full((1, 2, 2, 2), 0.5), label).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("shape", [(8, 10), (4, 6, 8)])
def test_dice_and_boundary_loss_train_a_small_network_on_one_image(shape):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d if len(shape) == 2 else torch.nn.Conv3d
    network = torch.nn.Sequential(conv(1, 4, 3, padding=1), torch.nn.ReLU(), conv(4, 3, 1))
    label = torch.zeros(1, 1, *shape, dtype=torch.long)
    label[..., : shape[-1] // 2] = 1
    label[:, :, : shape[0] // 2] *= 2
    image = label.float()
    distance = signed_distance(label, 3) / max(shape)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(60):
        probs = network(image).softmax(1)
        loss = (soft_dice(probs, label) + boundary_loss(probs, distance)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (network(image).argmax(1, keepdim=True) == label).float().mean() > 0.95


def with_ignored(shape, *, share=0.3):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, *shape, generator=generator)
    label = torch.randint(0, 3, (2, 1, *shape), generator=generator).to(torch.uint8)
    label[torch.rand(label.shape, generator=generator) < share] = IGNORED
    return logits, label


def test_ignored_voxels_are_as_if_they_were_cut_away():
    logits, label = with_ignored((1, 12), share=0.0)
    label[..., 8:] = IGNORED  # at the end of a row: the distances of the others do not depend on it
    probs = logits.softmax(1)
    assert torch.allclose(soft_dice(probs, label), soft_dice(probs[..., :8], label[..., :8]))
    whole, cut = (
        boundary_loss(p, signed_distance(y, 3), valid=y != IGNORED)
        for p, y in ((probs, label), (probs[..., :8], label[..., :8]))
    )
    assert torch.allclose(whole, cut)
    with_long_side = soft_dice(probs[..., :8], label[..., :8]) + cut / 12
    assert torch.allclose(dice_boundary(probs, label), with_long_side)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 5)])
@pytest.mark.parametrize("loss", [soft_dice, dice_boundary])
def test_ignored_voxels_change_no_loss_and_get_no_gradient(shape, loss):
    logits, label = with_ignored(shape)
    ignored = (label == IGNORED).expand_as(logits)
    other = torch.where(ignored, -3 * logits.flip(1) + 1, logits)
    assert torch.equal(loss(logits.softmax(1), label), loss(other.softmax(1), label))
    logits.requires_grad_()
    loss(logits.softmax(1), label).sum().backward()
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].abs().min() > 0


@pytest.mark.parametrize("loss", [soft_dice, dice_boundary])
def test_an_image_of_which_nothing_is_known_costs_nothing(loss):
    logits, label = with_ignored((4, 5), share=1.0)
    logits.requires_grad_()
    value = loss(logits.softmax(1), label)
    value.sum().backward()
    assert value.tolist() == [0, 0]
    assert not logits.grad.any()
