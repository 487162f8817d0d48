from __future__ import annotations

import itertools

import pytest
import torch

from semi_med.ops import largest_components


def label_of(rows):
    return torch.tensor(rows)[None, None]


def test_the_smaller_of_two_components_becomes_background_by_hand():
    label = label_of([[1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 1]])
    assert largest_components(label)[0, 0].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_each_class_keeps_its_own_largest_component():
    label = label_of([[1, 1, 0, 2, 0], [0, 0, 0, 0, 0], [2, 2, 0, 1, 0]])
    assert largest_components(label)[0, 0].tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [2, 2, 0, 0, 0]]


def test_two_classes_that_touch_are_two_components():
    label = label_of([[1, 2, 2, 0, 1, 1, 1]])
    assert largest_components(label)[0, 0].tolist() == [[0, 2, 2, 0, 1, 1, 1]]


def test_voxels_that_touch_at_a_corner_are_connected_in_2d_and_in_3d():
    kept = largest_components(label_of([[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 1, 0, 0]]))
    assert kept[0, 0].tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    volume = torch.zeros(1, 1, 4, 4, 4, dtype=torch.int64)
    for v in ((0, 0, 0), (1, 1, 1), (2, 2, 2), (0, 3, 3), (0, 3, 2)):
        volume[(0, 0, *v)] = 1
    assert largest_components(volume).nonzero()[:, 2:].tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


def test_of_two_components_of_one_size_the_first_stays():
    assert largest_components(label_of([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0]]))[0, 0].tolist() == [[1, 1, 0, 0, 0], [0] * 5]


def test_images_of_a_batch_do_not_see_each_other():
    label = torch.tensor([[[[1, 1, 0, 1]]], [[[1, 0, 1, 1]]], [[[0, 0, 0, 0]]]])
    assert largest_components(label)[:, 0, 0].tolist() == [[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int64])
def test_type_and_shape_stay_and_the_input_is_left_as_it_was(kind):
    label = torch.tensor([[[[1, 0, 2], [0, 0, 2]]]], dtype=kind)
    before = label.clone()
    kept = largest_components(label)
    assert (kept.dtype, kept.shape) == (kind, label.shape)
    assert torch.equal(label, before)
    assert torch.equal(kept, label)
    assert kept.data_ptr() != label.data_ptr()


@pytest.mark.parametrize("shape", [(7, 9), (5, 6, 7), (1, 8, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_is_a_component_and_no_other_of_its_class_is_larger(shape, seed):
    """Components by joining voxels that touch until nothing changes."""
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(1, 1, *shape, generator=generator)
    label = torch.where(chance < 0.2, 1, torch.where(chance > 0.85, 2, 0))
    kept = largest_components(label)
    assert torch.equal(kept[kept > 0], label[kept > 0])
    for value in (1, 2):
        number = {tuple(v): i for i, v in enumerate((label[0, 0] == value).nonzero().tolist())}
        changed = True
        while changed:
            changed = False
            for a, b in itertools.combinations(number, 2):
                if number[a] != number[b] and max(abs(x - y) for x, y in zip(a, b, strict=True)) == 1:
                    number[a] = number[b] = min(number[a], number[b])
                    changed = True
        ours = {number[tuple(v)] for v in (kept[0, 0] == value).nonzero().tolist()}
        sizes = {root: sum(n == root for n in number.values()) for root in number.values()}
        assert len(ours) == 1
        assert int((kept == value).sum()) == max(sizes.values()) == sizes[ours.pop()]
