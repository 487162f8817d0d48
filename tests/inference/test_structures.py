"""What is measured of a structure, on labels that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semi_med.inference.structures import Structure, measure
from semi_med.inference.summary import most_probable

SHAPE = (6, 5, 7)


def measured(label: np.ndarray) -> Structure:
    image = np.arange(label.size).reshape(label.shape)
    return measure(label, image, values={"thing": 2}, millilitres=0.5, confidence={})["thing"]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("place", "touches"), [(0, True), (1, False), (-2, False), (-1, True)])
def test_the_border_is_the_first_and_the_last_voxel_of_each_axis(axis, place, touches):
    label = np.zeros(SHAPE, np.uint8)
    index = [2, 2, 2]
    index[axis] = place
    label[tuple(index)] = 2
    label[0, 0, 0] = label[-1, -1, -1] = 1  # another structure
    assert measured(label).touches_border is touches


@pytest.mark.parametrize(
    ("second", "components"),
    [((3, 2, 2), 1), ((3, 3, 2), 1), ((3, 3, 3), 1), ((4, 2, 2), 2), ((4, 3, 3), 2)],
    ids=["face", "edge", "corner", "gap", "gap aside"],
)
def test_parts_that_touch_at_a_corner_are_one(second, components):
    label = np.zeros(SHAPE, np.uint8)
    label[2, 2, 2] = label[second] = 2
    found = measured(label)
    assert (found.components, found.voxels, found.millilitres) == (components, 2, 1.0)


def test_of_equal_probabilities_the_first_class_is_taken():
    probs = torch.tensor([[0.4, 0.2, 0.3], [0.4, 0.4, 0.3], [0.2, 0.4, 0.4]])[..., None]
    assert most_probable(probs)[:, 0].tolist() == [0, 1, 2]
