from __future__ import annotations

import itertools
import math

import pytest
import torch

from semi_med.ops import IGNORED, known, signed_distance, signed_distance_on_device


def slow(label: torch.Tensor, classes: int) -> torch.Tensor:
    """Over all pairs of voxels."""
    out = torch.zeros(len(label), classes, *label.shape[2:])
    voxels = list(itertools.product(*(range(size) for size in label.shape[2:])))
    for b, k in itertools.product(range(len(label)), range(classes)):
        inside = {v for v in voxels if int(label[(b, 0, *v)]) == k}
        outside = {v for v in voxels if int(label[(b, 0, *v)]) not in (k, IGNORED)}
        if not inside or not outside:
            continue
        for v in inside | outside:
            others = outside if v in inside else inside
            nearest = min(math.dist(v, other) for other in others)
            out[(b, k, *v)] = 1 - nearest if v in inside else nearest
    return out


def onehot(label: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.stack([label[:, 0] == k for k in range(classes)], 1)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 5)])
def test_both_ways_of_computing_agree_with_all_pairs_of_voxels(shape):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (2, 1, *shape), generator=generator).to(torch.uint8)
    expected = slow(label, 4)
    assert torch.allclose(signed_distance(label, 4), expected, atol=1e-5)
    assert torch.allclose(signed_distance_on_device(onehot(label, 4)), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 5)])
@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_ignored_voxels_belong_to_no_side_and_have_distance_0(shape, share):
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, 3, (2, 1, *shape), generator=generator).to(torch.uint8)
    label[torch.rand(label.shape, generator=generator) < share] = IGNORED
    expected = slow(label, 4)
    assert torch.allclose(signed_distance(label, 4), expected, atol=1e-5)
    assert torch.allclose(signed_distance_on_device(onehot(label, 4), known(label)), expected, atol=1e-5)


def test_the_nearest_known_voxel_decides_by_hand():
    label = torch.tensor([0, IGNORED, 1, 1, IGNORED, IGNORED, 0]).view(1, 1, 1, 7)
    assert signed_distance(label, 2)[0, 1, 0].tolist() == [2, 0, -1, -2, 0, 0, 3]


def test_a_block_in_a_row_by_hand():
    label = torch.tensor([0, 0, 1, 1, 1, 0]).view(1, 1, 1, 6)
    assert signed_distance(label, 2)[0, 1, 0].tolist() == [2, 1, 0, -1, 0, 1]


@pytest.mark.parametrize("value", [0, 1])
def test_a_class_that_is_absent_or_everywhere_has_distance_0(value):
    label = torch.full((1, 1, 4, 5), value)
    assert not signed_distance(label, 2).any()
    assert not signed_distance_on_device(onehot(label, 2)).any()
