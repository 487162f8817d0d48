from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from semi_med.ops import (
    IGNORED,
    draw_boxes,
    draw_class_regions,
    draw_cutmix_regions,
    draw_rectangles,
    mix,
    partner,
    paste,
    repeated,
)


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


# --- Rectangles of UniMatch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axes"), [((40, 64), (0, 1)), ((40, 64, 3), (0, 1)), ((3, 40, 64), (-2, -1))])
def test_a_rectangle_has_an_area_and_a_shape_within_the_limits_and_lies_inside(shape, axes):
    torch.manual_seed(0)
    regions = draw_rectangles(60, shape, axes=axes)[:, 0]
    shares, ratios = [], []
    for region in regions:
        box = [extent(region, axis) for axis in range(len(shape))]
        assert None not in box
        (_, first), (_, second) = box[axes[0]], box[axes[1]]
        assert all(box[a] == (0, 3) for a in range(len(shape)) if shape[a] == 3)
        shares.append(first * second / (40 * 64))
        ratios.append(second / first)
    # lengths are cut to whole voxels
    assert 0.01 < min(shares) < 0.1
    assert 0.3 < max(shares) <= 0.4
    assert 0.25 < min(ratios) < 0.7 < 1.5 < max(ratios) < 4.5


def test_tiny_images_get_a_rectangle_of_a_voxel_at_least():
    torch.manual_seed(0)
    assert (draw_rectangles(50, (2, 3)).flatten(1).sum(1) >= 1).all()


# --- Classes ------------------------------------------------------------------------------------------------------


def test_half_of_the_classes_floored_and_one_at_least_is_drawn_uniformly():
    torch.manual_seed(0)
    label = torch.tensor([[0, 0, 1, 1], [2, 2, 3, IGNORED]])[None, None]
    drawn = [set(label[draw_class_regions(label, background=False)].tolist()) for _ in range(300)]
    assert {len(classes) for classes in drawn} == {1}  # floor(3 / 2)
    for k in (1, 2, 3):
        assert sum(k in classes for classes in drawn) == pytest.approx(100, abs=30)
    with_background = [set(label[draw_class_regions(label, background=True)].tolist()) for _ in range(300)]
    assert {len(classes) for classes in with_background} == {2}
    assert set.union(*with_background) == {0, 1, 2, 3}
    assert len({frozenset(classes) for classes in with_background}) == 6


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_a_region_is_all_of_its_classes_and_nothing_else(shape):
    label = torch.randint(0, 5, (3, 1, *shape), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    for own, region in zip(label, draw_class_regions(label, background=True), strict=True):
        chosen = set(own[region].tolist())
        assert torch.equal(region, torch.tensor([v in chosen for v in own.flatten().tolist()]).view_as(region))


@pytest.mark.parametrize("value", [0, IGNORED])
def test_nothing_is_cut_out_where_a_label_has_no_class(value):
    label = torch.full((2, 1, 3, 4), value)
    assert not draw_class_regions(label, background=False).any()


# --- Mixing -------------------------------------------------------------------------------------------------------


def views(shape, *, count=3, labeled=2):
    """Strong views whose value tells the image, pseudo-labels of two classes, nothing confident."""
    image = torch.arange(1.0, count + 1).view(-1, 1, *[1] * len(shape)).expand(-1, 2, *shape).clone()
    label = torch.zeros(count, 1, *shape, dtype=torch.long)
    label[:, :, : shape[0] // 2] = 1
    expert = torch.zeros(labeled, 1, *shape, dtype=torch.uint8)
    for b in range(labeled):
        expert[b, 0, b] = 2
    expert[:, :, -1] = IGNORED
    shown = 100.0 + torch.arange(float(labeled)).view(-1, 1, *[1] * len(shape)).expand(-1, 2, *shape)
    return image, label, torch.zeros_like(label, dtype=torch.bool), {"image": shown, "label": expert}


def mixed(operator, shape=(6, 5), *, count=3, labeled=2, confident=None, **settings):
    image, label, nothing, expert = views(shape, count=count, labeled=labeled)
    confident = nothing if confident is None else confident
    return mix(operator, image, label=label, confident=confident, labeled=expert, **{"chance": 1.0, **settings})


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_supmix_pastes_the_experts_pixels_and_labels_and_they_are_certain(shape):
    image, label, _, _ = views(shape)
    out = mixed("supmix", shape)
    for b, expert in enumerate((0, 1, 0)):  # two labelled images for three unlabelled ones
        inside = torch.zeros(shape, dtype=torch.bool)
        inside[expert] = True
        assert torch.equal(out.region[b, 0], inside)
        assert (out.image[b][:, inside] == 100 + expert).all()
        assert (out.label[b, 0][inside] == 2).all()
        assert torch.equal(out.image[b][:, ~inside], image[b][:, ~inside])
        assert torch.equal(out.label[b, 0][~inside], label[b, 0][~inside])
        assert torch.equal(out.confident[b, 0], inside)


def test_the_second_strong_view_gets_another_labelled_image():
    out = mixed("supmix", first=1)
    assert [int(out.image[b].max()) for b in range(3)] == [101, 100, 101]


def test_supmix_never_pastes_what_is_not_known():
    out = mixed("supmix")
    assert not out.region[:, :, -1].any()
    assert (out.label != IGNORED).all()


@pytest.mark.parametrize("operator", ["cutmix", "classmix"])
def test_cutmix_and_classmix_paste_the_partner_with_its_label_and_its_confidence(operator):
    torch.manual_seed(2)
    _, label, confident, _ = views((6, 5))
    confident[0] = True
    out = mixed(operator, confident=confident)
    partners = [2, 0, 1]
    for b, p in enumerate(partners):
        inside = out.region[b, 0]
        assert 0 < int(inside.sum()) < inside.numel()
        assert (out.image[b][:, inside] == p + 1).all()
        assert (out.image[b][:, ~inside] == b + 1).all()
        assert torch.equal(out.label[b, 0], torch.where(inside, label[p, 0], label[b, 0]))
        assert torch.equal(out.confident[b, 0], torch.where(inside, confident[p, 0], confident[b, 0]))


def test_classmix_cuts_along_the_partners_predicted_classes_background_included():
    torch.manual_seed(0)
    _, label, _, _ = views((6, 5))
    pasted = [set(label[0, 0][mixed("classmix").region[0, 0]].tolist()) for _ in range(20)]
    assert {frozenset(classes) for classes in pasted} == {frozenset({0}), frozenset({1})}


@pytest.mark.parametrize("operator", ["cutmix", "classmix", "supmix"])
def test_each_image_is_mixed_with_the_chance_asked_for(operator):
    torch.manual_seed(0)
    shares = [mixed(operator, count=8, chance=0.3).region.flatten(1).any(1).float().mean() for _ in range(60)]
    assert float(torch.stack(shares).mean()) == pytest.approx(0.3, abs=0.06)
    assert not mixed(operator, chance=0.0).region.any()


def test_without_an_operator_everything_stays():
    image, label, confident, _ = views((6, 5))
    out = mixed("none")
    assert torch.equal(out.image, image)
    assert torch.equal(out.label, label)
    assert torch.equal(out.confident, confident)
    assert not out.region.any()


def test_only_the_expert_changes_a_batch_of_one():
    assert float(mixed("cutmix", count=1).image.max()) == 1
    assert float(mixed("supmix", count=1).image.max()) == 100


def test_a_mix_leaves_what_came_in():
    image, label, confident, expert = views((6, 5))
    before = [part.clone() for part in (image, label, confident, expert["image"], expert["label"])]
    mix("supmix", image, label=label, confident=confident, labeled=expert, chance=1.0)
    after = (image, label, confident, expert["image"], expert["label"])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_batch_is_gone_through_again_and_again_from_the_first_on():
    batch = torch.tensor([10, 11, 12])
    assert repeated(batch, 5).tolist() == [10, 11, 12, 10, 11]
    assert repeated(batch, 2, first=2).tolist() == [12, 10]
