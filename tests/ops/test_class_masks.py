from __future__ import annotations

import torch

from semi_med.ops import IGNORED, class_masks, mean_by_owner


def test_each_foreground_class_that_is_there_has_a_mask_and_an_image_without_any_an_empty_one():
    label = torch.tensor([[[0, 2, 2, IGNORED]], [[0, 0, IGNORED, 0]], [[1, 3, 0, 1]]])
    masks, owner = class_masks(label)
    assert owner.tolist() == [0, 1, 2, 2]
    assert masks.shape == (4, 1, 4)
    assert masks.int().tolist() == [[[0, 1, 1, 0]], [[0, 0, 0, 0]], [[1, 0, 0, 1]], [[0, 1, 0, 0]]]


def test_values_are_averaged_by_image():
    values = torch.tensor([1.0, 2.0, 4.0, 6.0], requires_grad=True)
    mean = mean_by_owner(values, torch.tensor([0, 1, 1, 2]), 3)
    assert mean.tolist() == [1.0, 3.0, 6.0]
    mean.sum().backward()
    assert values.grad.tolist() == [1.0, 0.5, 0.5, 1.0]
