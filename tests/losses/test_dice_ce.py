from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from semi_med.losses import dice_ce
from semi_med.ops import IGNORED

SHAPES = {2: (3, 5), 3: (3, 2, 4)}


def sample(dimensions, *, batch=2, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = SHAPES[dimensions]
    logits = 2 * torch.randn(batch, classes, *shape, generator=generator)
    label = torch.randint(0, classes, (batch, 1, *shape), generator=generator)
    valid = torch.rand(batch, 1, *shape, generator=generator) < 0.6
    return logits, label, valid


def slow_dice_ce(logits, label, valid, alpha):
    """The docstring's formula in Python numbers, one voxel at a time."""
    batch, classes = logits.shape[:2]
    ce, count = 0.0, 0
    shared, squares, present = [0.0] * classes, [0.0] * classes, [0.0] * classes
    for b in range(batch):
        rows = logits[b].flatten(1).T.double().tolist()
        for row, g, counts in zip(rows, label[b].flatten().tolist(), valid[b].flatten().tolist(), strict=True):
            if not counts:
                continue
            total = sum(math.exp(z) for z in row)
            p = [math.exp(z) / total for z in row]
            ce, count = ce - math.log(p[g]), count + 1
            for k in range(classes):
                shared[k] += p[k] * (k == g)
                squares[k] += p[k] ** 2
                present[k] += k == g
    terms = [1 - (2 * shared[k] + 1e-5) / (squares[k] + present[k] + 1e-5) for k in range(1, classes)]
    return alpha * ce / max(count, 1) + (1 - alpha) * sum(terms) / len(terms)


def by_hand():
    """Foreground probabilities .5 .5 / .9 .1 against the label 1 0 / 1 0."""
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    return torch.stack([1 - p, p]).log()[None], torch.tensor([[1, 0], [1, 0]])[None, None]


def test_cross_entropy_by_hand_on_a_2x2():
    logits, label = by_hand()
    assert float(dice_ce(logits, label, alpha=1)) == pytest.approx(-(2 * math.log(0.5) + 2 * math.log(0.9)) / 4)


def test_dice_by_hand_on_a_2x2():
    logits, label = by_hand()
    expected = 1 - 2 * 1.4 / (0.25 + 0.25 + 0.81 + 0.01 + 2)
    assert float(dice_ce(logits, label, alpha=0)) == pytest.approx(expected, abs=1e-5)


def test_ignoring_a_column_by_hand_on_a_2x2():
    logits, label = by_hand()
    valid = torch.tensor([[True, False], [True, False]])[None, None]
    ce = -(math.log(0.5) + math.log(0.9)) / 2
    dice = 1 - 2 * 1.4 / (0.25 + 0.81 + 2)
    assert float(dice_ce(logits, label, alpha=0.25, valid=valid)) == pytest.approx(0.25 * ce + 0.75 * dice, abs=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("ignoring", [False, True])
def test_the_loss_equals_a_plain_loop_over_voxels(dimensions, alpha, ignoring):
    logits, label, valid = sample(dimensions)
    fast = dice_ce(logits, label, alpha=alpha, valid=valid if ignoring else None)
    slow = slow_dice_ce(logits, label, valid if ignoring else torch.ones_like(valid), alpha)
    assert float(fast) == pytest.approx(slow, rel=1e-5)


def test_alpha_is_half_unless_given_and_mixes_linearly():
    logits, label, _ = sample(2)
    ce, dice = (float(dice_ce(logits, label, alpha=alpha)) for alpha in (1.0, 0.0))
    assert ce != pytest.approx(dice, rel=0.05)
    assert float(dice_ce(logits, label)) == pytest.approx((ce + dice) / 2, rel=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_what_lies_in_ignored_voxels_does_not_matter(dimensions):
    logits, label, valid = sample(dimensions)
    garbage = torch.where(valid, logits, 1e4 * torch.randn_like(logits))
    other = torch.where(valid, label, (label + 1) % 3)
    assert float(dice_ce(garbage, other, valid=valid)) == pytest.approx(float(dice_ce(logits, label, valid=valid)))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_ignored_voxels_get_no_gradient_and_every_other_voxel_gets_one(dimensions):
    logits, label, valid = sample(dimensions)
    logits.requires_grad_()
    dice_ce(logits, label, valid=valid).backward()
    touched = (logits.grad != 0).any(1, keepdim=True)
    assert torch.equal(touched, valid)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_nothing_valid_costs_zero_and_moves_nothing(alpha):
    logits, label, valid = sample(3)
    logits.requires_grad_()
    loss = dice_ce(logits, label, alpha=alpha, valid=torch.zeros_like(valid))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_perfect_prediction_of_the_valid_voxels_costs_nothing_whatever_is_outside(alpha):
    logits, label, valid = sample(3)
    perfect = 40.0 * torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1)
    assert float(dice_ce(torch.where(valid, perfect, logits), label, alpha=alpha, valid=valid)) < 1e-5


def test_an_absent_class_is_finite_and_costs_nothing_where_nothing_is_predicted_of_it():
    logits, label, _ = sample(3)
    label[label == 2] = 1
    loss = dice_ce(logits.requires_grad_(), label, alpha=0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    perfect = 40.0 * torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1)
    assert float(dice_ce(perfect, label, alpha=0)) < 1e-5


def test_an_absent_class_costs_its_whole_share_of_dice_once_something_is_predicted_of_it():
    label = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    logits = torch.zeros(1, 3, 4, 4)  # a third of each
    assert float(dice_ce(logits, label, alpha=0)) == pytest.approx(1, abs=1e-4)


def test_the_mean_of_dice_is_over_foreground_classes():
    label = torch.tensor([1, 1, 2, 2, 0, 0, 0, 0]).reshape(1, 1, 2, 4)
    logits = 40.0 * torch.nn.functional.one_hot(torch.where(label == 2, 0, label)[:, 0], 3).movedim(-1, 1)
    assert float(dice_ce(logits, label, alpha=0)) == pytest.approx(0.5, abs=1e-4)  # class 1 perfect, class 2 missed


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64])
def test_any_integer_label_gives_the_same_loss(kind):
    logits, label, _ = sample(2)
    assert float(dice_ce(logits, label.to(kind))) == float(dice_ce(logits, label))


def test_half_precision_logits_are_summed_in_single_precision():
    label = torch.ones(1, 1, 300, 300, dtype=torch.int64)
    logits = torch.zeros(1, 2, 300, 300, dtype=torch.float16)
    loss = dice_ce(logits, label, alpha=0)  # sums of 90,000 do not fit float16
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(1 - 2 * 0.5 / 1.25, abs=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_loss_trains_a_two_layer_network_on_one_image(dimensions, alpha):
    torch.manual_seed(0)
    conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
    network = nn.Sequential(conv(1, 8, 3, padding=1), nn.ReLU(), conv(8, 3, 1))
    shape = (8, 10) if dimensions == 2 else (6, 5, 7)
    label = torch.zeros(1, 1, *shape, dtype=torch.int64)
    label[:, :, 2:4], label[:, :, 4:] = 1, 2
    image = label.float() - 1
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        dice_ce(network(image), label, alpha=alpha).backward()
        optimizer.step()
    assert (network(image).argmax(1, keepdim=True) == label).float().mean() > 0.97


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_ignored_labels_are_as_if_they_were_not_valid(dimensions, alpha):
    logits, label, valid = sample(dimensions)
    ignoring = label.masked_fill(~valid, IGNORED).to(torch.uint8)
    assert torch.equal(dice_ce(logits, ignoring, alpha=alpha), dice_ce(logits, label, alpha=alpha, valid=valid))
    assert float(dice_ce(logits, ignoring, alpha=alpha)) == pytest.approx(
        slow_dice_ce(logits, label, valid, alpha), rel=1e-5
    )


def test_both_ways_of_leaving_voxels_out_go_together():
    logits, label, valid = sample(2)
    other = torch.rand(valid.shape, generator=torch.Generator().manual_seed(3)) < 0.6
    both = dice_ce(logits, label.masked_fill(~other, IGNORED), valid=valid)
    assert torch.equal(both, dice_ce(logits, label, valid=valid & other))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_ignored_voxels_change_no_loss_and_get_no_gradient(dimensions):
    logits, label, valid = sample(dimensions)
    label = label.masked_fill(~valid, IGNORED)
    ignored = (~valid).expand_as(logits)
    assert torch.equal(dice_ce(torch.where(ignored, 7 - logits, logits), label), dice_ce(logits, label))
    logits.requires_grad_()
    dice_ce(logits, label).backward()
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].abs().min() > 0


def test_a_batch_of_which_nothing_is_known_costs_nothing():
    logits, label, _ = sample(2)
    logits.requires_grad_()
    loss = dice_ce(logits, torch.full_like(label, IGNORED))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()
