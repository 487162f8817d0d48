"""Masks that are wrong in a known way."""

from __future__ import annotations

import torch

from semi_med.ops import draw_misplacements, lent, misplaced


def test_a_misplaced_mask_is_the_mask_at_another_place():
    torch.manual_seed(0)
    label = torch.zeros(64, 1, 24, 20, dtype=torch.long)
    label[:, :, 8:14, 6:12] = 2
    moved = misplaced(label, draw_misplacements(64, (24, 20)))
    shared = ((moved > 0) & (label > 0)).flatten(1).sum(1) / (label > 0).flatten(1).sum(1)
    assert set(moved.unique().tolist()) == {0, 2}
    assert shared.max() > 0.9  # some are almost right
    assert shared.min() < 0.5
    assert shared.unique().numel() > 10


def test_an_empty_mask_is_lent_that_of_the_next_image_that_has_one():
    label = torch.zeros(5, 1, 3, 4, 2, dtype=torch.long)
    label[1, 0, 0] = 1
    label[3, 0, 1] = 2
    assert torch.equal(lent(label), label[[1, 1, 3, 3, 1]])
    assert torch.equal(lent(torch.zeros_like(label)), torch.zeros_like(label))
