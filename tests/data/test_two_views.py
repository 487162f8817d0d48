from __future__ import annotations

import pytest
import torch

from semi_med.data.augment import Augment
from semi_med.data.policies import CTAugment, RandAugment
from semi_med.data.two_views import TwoViews
from semi_med.ops import IGNORED, affine, seen, warp

CROP = {2: (12, 16), 3: (8, 12, 10)}
MARGIN = {2: (2, 3), 3: (2, 3, 1)}
dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])
EXACT = {"only": ["identity", "translate"], "ranges": {"translate": (-0.25, 0.25)}, "cutout": None}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(dimensions, *, size=4, free=None):
    """Contexts whose label is the image in whole numbers; the margin is free as far as `free` says."""
    shape = tuple(c + 2 * m for c, m in zip(CROP[dimensions], MARGIN[dimensions], strict=True))
    label = torch.randint(0, 3, (size, 1, *shape), generator=generator()).to(torch.uint8)
    margin = torch.tensor([[m if free is None else free] * 2 for m in MARGIN[dimensions]])
    return {
        "context": label.half(),
        "label_context": label,
        "margin": margin.expand(size, -1, -1).clone(),
        "case": ["a"] * size,
    }


def flips_and_shift(dimensions):
    return Augment(flip_axes=range(dimensions), translate=0.3)


@dimensions_2_and_3
@pytest.mark.parametrize("policy", [RandAugment, CTAugment])
def test_the_same_state_gives_the_same_views_and_the_batch_is_left_as_it_was(policy, dimensions):
    batch, before = batch_of(dimensions), batch_of(dimensions)
    view = TwoViews(CROP[dimensions], flips_and_shift(dimensions), policy(), probe=CTAugment())
    first, second, other = (view(batch, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["image"], other["image"])
    assert all(torch.equal(batch[key], before[key]) for key in batch if key != "case")
    assert first["image"].shape == first["weak"].shape == (4, 1, *CROP[dimensions])


@dimensions_2_and_3
def test_the_weak_view_is_flipped_and_shifted_to_the_pixel_with_its_label(dimensions):
    view = TwoViews(CROP[dimensions], flips_and_shift(dimensions))
    batch = batch_of(dimensions)
    out = view(batch, generator())
    assert torch.equal(out["image"], out["weak"])
    inside = out["label"] != IGNORED
    assert 0 < (~inside).float().mean() < 0.9
    assert torch.equal(out["weak"][inside], out["label"][inside].float())
    assert torch.equal(inside, out["seen"])
    assert (out["weak"][~inside] == 0).all()


@dimensions_2_and_3
def test_matching_is_exact_to_the_pixel_where_both_views_see_the_scan(dimensions):
    """The label of the weak view, taken to the strong one, is the strong image itself."""
    policy = RandAugment(2, only=["identity"], cutout=None)
    view = TwoViews(CROP[dimensions], flips_and_shift(dimensions), policy, strong_placing=flips_and_shift(dimensions))
    out = view(batch_of(dimensions), generator())
    match = affine.compose(affine.inverse(out["weak_matrix"]), out["strong_matrix"])
    matched = warp(out["label"], match, nearest=True, fill=IGNORED)
    valid = matched != IGNORED
    assert 0.05 < valid.float().mean() < 1
    assert torch.equal(matched[valid].float(), out["image"][valid])
    assert not torch.equal(out["weak"], out["image"])
    assert out["strong_seen"][valid].all()


@dimensions_2_and_3
def test_what_lies_beyond_the_scan_is_not_seen(dimensions):
    whole = TwoViews(CROP[dimensions], Augment(flip_axes=range(dimensions)), RandAugment(0, cutout=None))
    assert whole(batch_of(dimensions), generator())["seen"].all()
    shifted = TwoViews(CROP[dimensions], Augment(translate=0.4), RandAugment(0, cutout=None))
    much, little = (shifted(batch_of(dimensions, free=free), generator())["seen"] for free in (None, 0))
    assert (much >= little).all()
    assert little.sum() < much.sum() < much.numel()
    matrix = shifted(batch_of(dimensions), generator())["weak_matrix"]
    shape = batch_of(dimensions)["context"].shape[2:]
    assert torch.equal(much, seen(matrix, shape, output_shape=CROP[dimensions]))


@dimensions_2_and_3
def test_padding_of_a_scan_that_is_smaller_than_the_crop_is_not_seen(dimensions):
    batch = batch_of(dimensions, free=0)
    scan = torch.tensor([[m + 1, m + c - 2] for m, c in zip(MARGIN[dimensions], CROP[dimensions], strict=True)])
    whole = TwoViews(CROP[dimensions], None, RandAugment(0, cutout=None))
    out = whole({**batch, "scan": scan.expand(4, -1, -1)}, generator())
    expected = torch.zeros_like(out["seen"])
    expected[(..., *[slice(1, c - 2) for c in CROP[dimensions]])] = True
    assert torch.equal(out["seen"], expected)
    assert torch.equal(out["strong_seen"], expected)
    assert whole(batch, generator())["seen"].all()


@dimensions_2_and_3
def test_a_probe_has_its_label_and_its_bins_and_teaches_the_policy(dimensions):
    policy = CTAugment(1, only=["identity"], cutout=None)
    view = TwoViews(CROP[dimensions], flips_and_shift(dimensions), probe=policy)
    out = view(batch_of(dimensions), generator())
    assert out["probe_used"].shape == (4, 1, 2)
    middle = tuple(slice(m, m + c) for m, c in zip(MARGIN[dimensions], CROP[dimensions], strict=True))
    assert torch.equal(out["probe_label"], batch_of(dimensions)["label_context"][(slice(None), slice(None), *middle)])
    assert torch.equal(out["probe"], out["probe_label"].float())
    view.learn(out["probe_used"], torch.zeros(4))
    other = TwoViews(CROP[dimensions], None, CTAugment(1, only=["identity"], cutout=None))
    other.load_state_dict(view.state_dict())
    assert all(torch.equal(other.strong.rates[k], rates) for k, rates in policy.rates.items())
    assert any((rates < 1).any() for rates in policy.rates.values())
    assert torch.equal(out["image"], out["weak"])
    plain = TwoViews(CROP[dimensions], probe=RandAugment())(batch_of(dimensions), generator())
    assert plain["probe"].shape == plain["image"].shape
    assert "probe_used" not in plain


@dimensions_2_and_3
def test_a_second_crop_makes_the_strong_view_and_its_matrix_leads_to_the_first(dimensions):
    """The scan holds the place of each voxel, so that what a view sees tells where it looks."""
    margin, crop = MARGIN[dimensions], CROP[dimensions]
    shape = tuple(c + 2 * m for c, m in zip(crop, margin, strict=True))
    offset = torch.tensor([[3, -4, 2][:dimensions]]).expand(2, -1)
    lines = [torch.arange(size).float() for size in shape]
    context = torch.stack(torch.meshgrid(*lines, indexing="ij"))[None].repeat(2, 1, *[1] * dimensions)
    moved = context + offset.view(2, dimensions, *[1] * dimensions)
    free = torch.tensor([[m, m] for m in margin]).expand(2, -1, -1)
    batch = {"context": context, "margin": free, "context_2": moved, "margin_2": free * 0, "offset": offset}
    view = TwoViews(crop, flips_and_shift(dimensions), RandAugment(1, only=["rotate"], cutout=None))
    out, wider = view(batch, generator()), view({**batch, "margin_2": free}, generator())
    assert 0 < out["strong_seen"].sum() < wider["strong_seen"].sum()
    assert torch.equal(out["seen"], wider["seen"])
    for key, matrix, seen_key in (("weak", "weak_matrix", "seen"), ("image", "strong_matrix", "strong_seen")):
        places = torch.stack(torch.meshgrid(*[torch.arange(c) for c in crop], indexing="ij")).flatten(1).double()
        places = torch.cat([places, torch.ones(1, places.shape[1])])
        expected = (out[matrix] @ places)[:, :-1].view(2, dimensions, *crop).float()
        inside = out[seen_key].expand(-1, dimensions, *[-1] * dimensions)
        assert torch.allclose(out[key][inside], expected[inside], atol=1e-3)


def test_an_empty_batch_stays_empty():
    assert TwoViews((4, 4), None, RandAugment())({"case": []}, generator()) == {}


def test_what_cannot_be_undone_is_refused():
    with pytest.raises(ValueError, match="weak has an elastic displacement, which cannot be undone by a matrix"):
        TwoViews((4, 4), Augment(elastic=3.0))


@dimensions_2_and_3
@pytest.mark.parametrize("turn_planes", [(), ((0, 1),)])
def test_the_matrix_of_an_augmentation_is_what_it_does(dimensions, turn_planes):
    shape = (8, 8, 6)[:dimensions]
    settings = {"rotate": 25.0, "scale": (0.8, 1.2), "translate": 0.2, "label_fill": 255}
    augment = Augment(flip_axes=range(dimensions), turn_planes=turn_planes, **settings)
    label = torch.randint(0, 3, (5, 1, *shape), generator=generator()).to(torch.uint8)
    for seed in range(3):
        drawn = augment.draw(5, dimensions, generator(seed))
        moved = augment.geometry({"context": label, "label_context": label}, drawn)
        matrix = augment.matrix(drawn, shape)
        assert torch.equal(warp(label, matrix, nearest=True, fill=255), moved["label_context"])
        assert torch.allclose(warp(label, matrix, nearest=False), moved["context"], atol=1e-5)
        assert (moved["label_context"] == 255).any()


@dimensions_2_and_3
def test_a_shift_is_by_whole_voxels_up_to_its_share(dimensions):
    augment = Augment(translate=0.25)
    shape = (8, 20, 12)[:dimensions]
    matrix = augment.matrix(augment.draw(200, dimensions, generator()), shape)
    offsets = -matrix[:, :-1, -1]
    assert torch.equal(offsets, offsets.round())
    assert offsets.abs().amax(0).tolist() == [2, 5, 3][:dimensions]
    plain = Augment(rotate=10.0).draw(3, dimensions, generator())
    assert torch.equal(plain.matrix, Augment(rotate=10.0, translate=0.2).draw(3, dimensions, generator()).matrix)
