from __future__ import annotations

import pytest
import torch

from semi_med.ops import IGNORED, class_masks, draw_misplacements, mask_dice, mean_by_owner, misplaced


def test_each_foreground_class_that_is_there_has_a_mask_and_an_image_without_any_an_empty_one():
    label = torch.tensor([[[0, 2, 2, IGNORED]], [[0, 0, IGNORED, 0]], [[1, 3, 0, 1]]])
    masks, owner, kind = class_masks(label)
    assert owner.tolist() == [0, 1, 2, 2]
    assert kind.tolist() == [2, -1, 1, 3]
    assert masks.shape == (4, 1, 4)
    assert masks.int().tolist() == [[[0, 1, 1, 0]], [[0, 0, 0, 0]], [[1, 0, 0, 1]], [[0, 1, 0, 0]]]


def test_values_are_averaged_by_image():
    values = torch.tensor([1.0, 2.0, 4.0, 6.0], requires_grad=True)
    mean = mean_by_owner(values, torch.tensor([0, 1, 1, 2]), 3)
    assert mean.tolist() == [1.0, 3.0, 6.0]
    mean.sum().backward()
    assert values.grad.tolist() == [1.0, 0.5, 0.5, 1.0]


def test_a_mask_is_as_right_as_its_overlap_with_the_same_class():
    label = torch.tensor([[[0, 2, 2, 0]], [[0, 0, 0, 0]], [[0, 0, 0, 0]], [[1, 2, 2, 1]]])
    truth = torch.tensor([[[2, 2, 0, 1]], [[0, 0, IGNORED, 0]], [[0, 1, 0, 0]], [[1, IGNORED, 2, 0]]])
    dice = mask_dice(*class_masks(label), truth=truth)
    assert dice.tolist() == pytest.approx([2 / 4, 1.0, 0.0, 2 / 3, 1.0])


@pytest.mark.parametrize("shape", [(20, 30), (12, 20, 16)])
def test_misplaced_masks_are_drawn_from_near_to_far_and_from_the_global_generator(shape):
    label = torch.zeros(40, 1, *shape, dtype=torch.long)
    label[(slice(None), slice(None), *(slice(s // 3, 2 * s // 3) for s in shape))] = 1
    torch.manual_seed(0)
    moved = misplaced(label, draw_misplacements(40, shape))
    torch.manual_seed(0)
    assert torch.equal(moved, misplaced(label, draw_misplacements(40, shape)))
    dice = mask_dice(*class_masks(moved), truth=label)
    assert dice.min() < 0.5
    assert dice.max() > 0.8
    assert torch.equal(misplaced(label, draw_misplacements(40, shape, degrees=0, shift=0, scale=1)), label)
