from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from semi_med.ops import draw_boxes, draw_cutmix_regions, partner, paste


def extent(region, axis):
    """First voxel and length of a box along an axis; None if the box has a hole there."""
    others = [a for a in range(region.dim()) if a != axis]
    hit = region.amax(others).nonzero().flatten()
    first, last = int(hit[0]), int(hit[-1])
    return (first, last + 1 - first) if len(hit) == last + 1 - first else None


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2)])
def test_paste_takes_each_voxel_from_exactly_one_side(shape):
    base, patch = torch.randn(2, 2, 3, *shape)
    region = torch.rand(2, 1, *shape) < 0.5
    out = paste(base, patch, region)
    inside = region.expand_as(out)
    assert torch.equal(out[inside], patch[inside])
    assert torch.equal(out[~inside], base[~inside])


@pytest.mark.parametrize("batch_size", [2, 3, 5])
def test_nobody_is_its_own_partner_in_a_batch_and_everybody_is_one_once(batch_size):
    batch = torch.arange(batch_size).reshape(-1, 1, 1, 1)
    assert (partner(batch) != batch).all()
    assert sorted(partner(batch).flatten().tolist()) == list(range(batch_size))


def test_pasting_the_partner_leaves_a_batch_of_one_unmixed():
    image = torch.randn(1, 1, 4, 4)
    assert torch.equal(paste(image, partner(image), draw_cutmix_regions(1, (4, 4))), image)


@given(
    st.integers(0, 2**31),
    st.sampled_from([(5, 8), (1, 7), (6, 5, 4), (9, 1, 3)]),
    st.sampled_from([(0, 1), (0,), (1,)]),
    st.sampled_from([0.2, 4.0]),
)
@settings(max_examples=120, deadline=None)
def test_a_region_is_one_box_inside_the_image_with_full_length_along_the_other_axes(seed, shape, axes, concentration):
    torch.manual_seed(seed)
    for region in draw_cutmix_regions(3, shape, axes=axes, concentration=concentration)[:, 0]:
        box = [extent(region, axis) for axis in range(len(shape))]
        assert None not in box
        assert int(region.sum()) == torch.tensor([length for _, length in box]).prod()
        for axis, (first, length) in enumerate(box):
            assert length >= 1
            assert axis in axes or (first, length) == (0, shape[axis])


@pytest.mark.parametrize("shape", [(120, 80), (120, 80, 2)])
def test_the_sides_of_a_box_are_sqrt_of_one_minus_a_beta_draw(shape):
    torch.manual_seed(3)
    regions = draw_cutmix_regions(400, shape)[:, 0]
    sides = torch.tensor([[extent(region, axis)[1] for axis in (0, 1)] for region in regions])
    assert ((sides[:, 0] / 120 - sides[:, 1] / 80).abs() <= 0.5 / 120 + 0.5 / 80 + 1e-6).all()
    kept = 1 - (sides[:, 0] / 120) ** 2
    assert stats.kstest(kept.numpy(), stats.beta(4, 4).cdf).statistic < 0.07


def test_the_side_follows_from_the_very_number_that_was_drawn(monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(0.75))
    region = draw_cutmix_regions(1, (8, 12, 3))[0, 0]
    assert [extent(region, axis)[1] for axis in range(3)] == [4, 6, 3]


def test_the_concentration_reaches_the_beta_law(monkeypatch):
    seen = []
    original = torch.distributions.Beta
    monkeypatch.setattr(torch.distributions, "Beta", lambda a, b: seen.append((a, b)) or original(a, b))
    draw_cutmix_regions(1, (4, 4), concentration=0.5)
    assert seen == [(0.5, 0.5)]


def test_the_place_of_a_box_is_uniform_inside_the_image(monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(0.75))
    torch.manual_seed(0)
    regions = draw_cutmix_regions(1500, (6, 4))[:, 0]
    for axis, places in ((0, 4), (1, 3)):
        starts = torch.bincount(torch.tensor([extent(region, axis)[0] for region in regions]), minlength=places)
        assert len(starts) == places
        assert ((starts / 1500 - 1 / places).abs() < 0.05).all()


def test_images_of_a_batch_get_different_boxes():
    torch.manual_seed(0)
    assert len(draw_cutmix_regions(6, (32, 32)).flatten(1).unique(dim=0)) > 1


def test_a_negative_axis_counts_from_the_end():
    torch.manual_seed(0)
    from_the_end = draw_cutmix_regions(4, (6, 8, 10), axes=(-1, -2))
    torch.manual_seed(0)
    assert torch.equal(from_the_end, draw_cutmix_regions(4, (6, 8, 10), axes=(2, 1)))


@given(
    st.integers(0, 2**31),
    st.sampled_from([(5, 8), (1, 7), (6, 5, 4), (9, 1, 3)]),
    st.sampled_from([0.05, 1 / 3, 0.5, 2 / 3, 1.0]),
)
@settings(max_examples=80, deadline=None)
def test_a_box_has_its_share_of_every_axis_and_lies_inside_the_image(seed, shape, share):
    torch.manual_seed(seed)
    boxes = draw_boxes(3, shape, share=share)
    assert (boxes.shape, boxes.dtype) == ((3, 1, *shape), torch.bool)
    for region in boxes[:, 0]:
        box = [extent(region, axis) for axis in range(len(shape))]
        assert None not in box
        lengths = [length for _, length in box]
        assert lengths == [max(1, int(size * share)) for size in shape]
        assert int(region.sum()) == torch.tensor(lengths).prod()


def test_the_box_of_the_la_benchmark_is_74_x_74_x_53_voxels():
    box = draw_boxes(1, (112, 112, 80))[0, 0]
    assert [extent(box, axis)[1] for axis in range(3)] == [74, 74, 53]


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3)])
def test_the_place_of_a_box_of_fixed_size_is_uniform_and_can_touch_every_border(shape):
    torch.manual_seed(0)
    boxes = draw_boxes(1500, shape, share=0.5)[:, 0]
    for axis, size in enumerate(shape):
        places = size - size // 2 + 1
        starts = torch.bincount(torch.tensor([extent(box, axis)[0] for box in boxes]), minlength=places)
        assert len(starts) == places
        assert ((starts / 1500 - 1 / places).abs() < 0.05).all()


def test_places_along_the_axes_are_drawn_apart():
    torch.manual_seed(0)
    starts = {tuple(extent(box, axis)[0] for axis in (0, 1)) for box in draw_boxes(200, (4, 4), share=0.5)[:, 0]}
    assert starts == {(i, j) for i in range(3) for j in range(3)}


def test_a_box_of_the_whole_image_has_one_place():
    assert draw_boxes(2, (3, 4, 5), share=1.0).all()
