from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semi_med.ops import SHIFT_DIRECTIONS, com, crop_at, draw_offsets

SHAPES = {2: (4, 6), 3: (3, 5, 4)}


def slow_com(fixed, temporary, offset):
    """Dynamic pseudo-label, one voxel at a time."""
    dynamic = fixed.clone()
    for b in range(len(fixed)):
        for voxel in itertools.product(*(range(s) for s in fixed.shape[2:])):
            source = tuple(v - int(d) for v, d in zip(voxel, offset[b], strict=True))
            if all(0 <= v < s for v, s in zip(source, fixed.shape[2:], strict=True)):
                dynamic[(b, slice(None), *voxel)] = temporary[(b, slice(None), *source)]
    return dynamic


def coordinates(shape):
    """(n, *shape): every voxel holds its own coordinates."""
    return torch.stack(torch.meshgrid(*(torch.arange(s) for s in shape), indexing="ij"))


def test_com_takes_the_overlap_from_the_shifted_prediction_on_a_4x4_by_hand():
    fixed = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    temporary = torch.arange(1, 17).reshape(1, 1, 4, 4)
    dynamic = com(fixed, temporary, torch.tensor([[1, -2]]))
    assert dynamic[0, 0].tolist() == [[0, 0, 0, 0], [3, 4, 0, 0], [7, 8, 0, 0], [11, 12, 0, 0]]


@st.composite
def com_inputs(draw):
    shape = SHAPES[draw(st.sampled_from([2, 3]))]
    batch = draw(st.integers(1, 3))
    limit = max(shape) + 2
    offset = torch.tensor([[draw(st.integers(-limit, limit)) for _ in shape] for _ in range(batch)])
    size = (batch, 2, *shape)
    count = torch.tensor(size).prod()
    return torch.arange(count).reshape(size), -1 - torch.arange(count).reshape(size), offset


@given(com_inputs())
@settings(max_examples=80, deadline=None)
def test_com_equals_a_plain_loop_over_voxels(inputs):
    fixed, temporary, offset = inputs
    assert torch.equal(com(fixed, temporary, offset), slow_com(fixed, temporary, offset))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("beyond", [0, 1, 100])
def test_an_offset_as_large_as_the_crop_leaves_the_fixed_label(dimensions, sign, beyond):
    shape = SHAPES[dimensions]
    fixed = torch.randn(1, 1, *shape)
    for axis in range(dimensions):
        offset = torch.zeros(1, dimensions, dtype=torch.int64)
        offset[0, axis] = sign * (shape[axis] + beyond)
        assert torch.equal(com(fixed, torch.randn_like(fixed), offset), fixed)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_zero_offset_gives_the_temporary_label(dimensions):
    fixed, temporary = torch.randn(2, 2, 3, *SHAPES[dimensions])
    assert torch.equal(com(fixed, temporary, torch.zeros(2, dimensions, dtype=torch.int64)), temporary)


def test_com_leaves_its_inputs_as_they_were():
    fixed, temporary = torch.zeros(1, 1, 3, 4), torch.ones(1, 1, 3, 4)
    com(fixed, temporary, torch.tensor([[1, 1]]))
    assert fixed.sum() == 0
    assert temporary.sum() == 12


def test_com_of_bool_maps_is_bool():
    fixed = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    dynamic = com(fixed, ~fixed, torch.tensor([[1, 0]]))
    assert dynamic.dtype == torch.bool
    assert dynamic[0, 0].tolist() == [[False, False], [True, True]]


def test_com_refuses_maps_of_different_shape():
    with pytest.raises(ValueError, match=r"fixed \(1, 1, 2, 2\) and temporary \(1, 1, 2, 3\) must have one shape"):
        com(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 3), torch.zeros(1, 2, dtype=torch.int64))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_crops_of_one_context_never_disagree_about_where_a_voxel_lies(dimensions):
    size = SHAPES[dimensions]
    context = coordinates([s + 8 for s in size]).expand(7, -1, *[s + 8 for s in size])
    offset = torch.randint(-4, 5, (7, dimensions), generator=torch.Generator().manual_seed(1))
    centre = torch.full((7, dimensions), 4)
    fixed, shifted = crop_at(context, centre, size), crop_at(context, centre + offset, size)
    assert not torch.equal(fixed, shifted)
    assert torch.equal(com(fixed, shifted, offset), fixed)


def test_crop_at_cuts_each_image_at_its_own_start():
    context = coordinates((5, 6)).expand(2, -1, 5, 6)
    crops = crop_at(context, torch.tensor([[0, 4], [3, 1]]), (2, 2))
    assert crops[0].tolist() == [[[0, 0], [1, 1]], [[4, 5], [4, 5]]]
    assert crops[1].tolist() == [[[3, 3], [4, 4]], [[1, 2], [1, 2]]]


@pytest.mark.parametrize("start", [(-1, 0), (0, 5), (4, 0)])
def test_crop_at_refuses_a_crop_that_leaves_the_context(start):
    with pytest.raises(ValueError, match="leaves the context of"):
        crop_at(torch.zeros(1, 1, 5, 6), torch.tensor([start]), (2, 2))


def test_crop_at_gives_a_copy():
    context = torch.zeros(1, 1, 3, 3)
    crop_at(context, torch.zeros(1, 2, dtype=torch.int64), (2, 2)).fill_(1)
    assert context.sum() == 0


@pytest.mark.parametrize("pattern", SHIFT_DIRECTIONS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_four_directions_differ_and_cancel(pattern, dimensions):
    directions = SHIFT_DIRECTIONS[pattern][dimensions]
    assert len(set(directions)) == 4
    assert [sum(parts) for parts in zip(*directions, strict=True)] == [0] * dimensions


@st.composite
def offset_inputs(draw):
    dimensions = draw(st.sampled_from([2, 3]))
    margin = [[[draw(st.integers(0, 9)) for _ in range(2)] for _ in range(dimensions)] for _ in range(3)]
    most = [draw(st.integers(0, 6)) for _ in range(dimensions)]
    return torch.tensor(margin), most, draw(st.integers(0, 3)), draw(st.sampled_from(["corners", "faces"]))


@given(offset_inputs(), st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_offsets_stay_inside_the_margin_and_the_largest_shift_and_keep_their_direction(inputs, seed):
    margin, most, index, pattern = inputs
    torch.manual_seed(seed)
    offset = draw_offsets(margin, most, index=index, pattern=pattern)
    assert offset.dtype == torch.int64
    for row, free in zip(offset.tolist(), margin.tolist(), strict=True):
        for d, (before, after), m, sign in zip(
            row, free, most, SHIFT_DIRECTIONS[pattern][margin.shape[1]][index], strict=True
        ):
            room = min(m, after if sign > 0 else before) if sign else 0
            assert (d == 0) if room == 0 else (1 <= d * sign <= room)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_every_distance_from_one_to_the_largest_shift_is_drawn_equally_often(dimensions, index):
    torch.manual_seed(0)
    most = (3, 5, 4)[:dimensions]
    margin = torch.full((6000, dimensions, 2), 50)
    distances = draw_offsets(margin, most, index=index).abs()
    for axis, m in enumerate(most):
        counts = torch.bincount(distances[:, axis], minlength=m + 1)
        assert len(counts) == m + 1
        assert counts[0] == 0
        assert ((counts[1:] / 6000 - 1 / m).abs() < 0.03).all()


def test_a_margin_below_the_largest_shift_is_reached_and_not_passed():
    torch.manual_seed(0)
    margin = torch.tensor([[[2, 5], [7, 1]]]).expand(2000, 2, 2)
    first = draw_offsets(margin, (6, 6), index=1).unique(dim=0).tolist()
    assert first == [[i, j] for i in range(1, 6) for j in range(-6, 0)]
    assert draw_offsets(margin, (6, 6), index=2).unique(dim=0).tolist() == [[-2, 1], [-1, 1]]


@pytest.mark.parametrize("most", [(3,), (3, 3, 3), (3, -1)])
def test_a_largest_shift_of_other_length_or_below_zero_is_refused(most):
    with pytest.raises(ValueError, match="max_shift must be 2 numbers of at least 0"):
        draw_offsets(torch.zeros(1, 2, 2, dtype=torch.int64), most, index=0)
