from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semi_med.data.augment import Augment, View
from semi_med.data.cases import CachedCases
from semi_med.data.crops import CropBatches, PairedBatches
from semi_med.errors import InputError
from semi_med.ignored import IGNORED

CROP, MARGIN = (4, 6, 5), (2, 3, 1)


def coordinates(shape):
    """(n, *shape): every voxel holds its own coordinates, counted from 1, so that 0 is only outside the scan."""
    return np.stack(np.meshgrid(*(np.arange(1, s + 1) for s in shape), indexing="ij"))


def scans(*shapes, label=True):
    """Cases whose image holds the coordinates of each voxel and whose label holds their sum."""

    def transform(item):
        image = coordinates(shapes[int(item["image"])])
        return {"image": image, "label": image.sum(0, keepdims=True)} if label else {"image": image}

    data = [{"image": str(i), "case": f"case {i}"} | ({"label": ""} if label else {}) for i in range(len(shapes))]
    return CachedCases(data, transform)


def crops(*shapes, batch_size=2, crop_size=CROP, margin=MARGIN, **settings):
    return CropBatches(scans(*shapes), crop_size, batch_size, margin=margin, **settings)


def same(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a
    )


SHAPES = [(9, 8, 7), (6, 12, 9), (8, 8, 8)]


def test_a_batch_is_a_pure_function_of_seed_stream_and_iteration():
    one, other = crops(*SHAPES, seed=5), crops(*SHAPES, seed=5)
    forward = [one.batch(i) for i in range(6)]
    backward = [other.batch(i) for i in reversed(range(6))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))


def test_the_global_random_state_neither_matters_nor_moves():
    batches = crops(*SHAPES)
    np.random.seed(1)
    torch.manual_seed(1)
    first, numpy_number, torch_number = batches.batch(3), np.random.rand(), torch.rand(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert (np.random.rand(), torch.rand(1)) == (numpy_number, torch_number)
    assert same(first, batches.batch(3))


@pytest.mark.parametrize("other", [{"seed": 1}, {"stream": "unlabeled"}])
def test_another_seed_or_stream_gives_other_batches(other):
    one, two = crops(*SHAPES), crops(*SHAPES, **other)
    assert not any(torch.equal(one.batch(i)["context"], two.batch(i)["context"]) for i in range(4))


def test_batches_differ_from_iteration_to_iteration():
    batches = crops(*SHAPES)
    assert not same(batches.batch(0), batches.batch(1))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_each_pass_is_a_permutation_of_the_cases(batch_size):
    batches = crops(*[(6, 8, 7)] * 5, batch_size=batch_size)
    names = list(itertools.chain.from_iterable(batches.batch(i)["case"] for i in range(20)))
    passes = [tuple(names[i : i + 5]) for i in range(0, len(names) - 4, 5)]
    assert all(sorted(names) == [f"case {i}" for i in range(5)] for names in passes)
    assert len(set(passes)) > 1


@pytest.mark.parametrize("world_size", [2, 3])
def test_parts_of_several_processes_together_are_the_batch_of_one(world_size):
    parts = [crops(*SHAPES, batch_size=2, rank=rank, world_size=world_size) for rank in range(world_size)]
    whole = crops(*SHAPES, batch_size=2 * world_size)
    for iteration in range(4):
        together = [part.batch(iteration) for part in parts]
        expected = whole.batch(iteration)
        assert [name for part in together for name in part["case"]] == expected["case"]
        for key in ("context", "label_context", "margin"):
            assert torch.equal(torch.cat([part[key] for part in together]), expected[key])


def test_the_labelled_batches_are_the_same_whatever_the_unlabelled_are():
    def labeled(unlabeled):
        pairs = PairedBatches(crops(*SHAPES), unlabeled)
        return [pairs.pair(i)[0] for i in range(3)]

    alone = labeled(None)
    for unlabeled in (crops(*SHAPES, stream="unlabeled"), crops((9, 9, 9), batch_size=5, margin=0, stream="unlabeled")):
        assert all(same(a, b) for a, b in zip(alone, labeled(unlabeled), strict=True))


@st.composite
def scan_and_crop(draw):
    dimensions = draw(st.sampled_from([2, 3]))
    sizes = st.lists(st.integers(1, 9), min_size=dimensions, max_size=dimensions)
    margins = st.lists(st.integers(0, 4), min_size=dimensions, max_size=dimensions)
    return tuple(draw(sizes)), tuple(draw(sizes)), tuple(draw(margins)), draw(st.integers(0, 1000))


@given(scan_and_crop())
@settings(max_examples=100, deadline=None)
def test_every_voxel_of_a_context_is_the_voxel_of_the_scan_at_its_place(inputs):
    shape, crop, margin, seed = inputs
    batch = crops(shape, batch_size=1, crop_size=crop, margin=margin, seed=seed).batch(0)
    context, label = batch["context"][0].numpy().astype(int), batch["label_context"][0, 0].numpy()
    assert context.shape[1:] == tuple(c + 2 * m for c, m in zip(crop, margin, strict=True))
    inside = np.argwhere(context[0] > 0)
    assert len(inside)
    start = (
        context[(slice(None), *inside[0])] - inside[0]
    )  # one shift explains every voxel, and what it does not reach is zero
    expected = np.zeros_like(context)
    for place in np.ndindex(*context.shape[1:]):
        voxel = np.array(place) + start
        if all(1 <= v <= s for v, s in zip(voxel, shape, strict=True)):
            expected[(slice(None), *place)] = voxel
    assert np.array_equal(context, expected)
    assert np.array_equal(label, context.sum(0))
    for axis, (s, c, m) in enumerate(zip(shape, crop, margin, strict=True)):
        first = start[axis] + m - 1  # of the crop in the scan, from 0
        if s > c:
            assert 0 <= first <= s - c
            assert batch["margin"][0, axis].tolist() == [min(m, first), min(m, s - c - first)]
        else:
            assert first == -((c - s) // 2)
            assert batch["margin"][0, axis].tolist() == [0, 0]


def test_the_place_of_a_crop_is_uniform_and_reaches_both_ends():
    batches = crops((8, 6, 5), batch_size=600)
    starts = batches.batch(0)["context"][:, 0, 2, 3, 1].int() - 1
    counts = Counter(starts.tolist())
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert all(abs(count / 600 - 0.2) < 0.06 for count in counts.values())


def test_an_empty_section_raises():
    with pytest.raises(InputError, match="the labeled section has no case to draw crops from"):
        CropBatches(CachedCases([], dict), CROP, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "the labeled batch size must be at least 1, not 0"),
        ({"margin": (1, 1)}, r"margin \(1, 1\) and crop size \(4, 6, 5\) differ in length"),
        ({"margin": (1, -1, 0)}, r"crop size \(4, 6, 5\) must be at least 1 and margin \(1, -1, 0\) at least 0"),
        ({"crop_size": (4, 0, 5)}, r"crop size \(4, 0, 5\) must be at least 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        crops(*SHAPES, **settings)


def test_a_scan_with_another_number_of_axes_is_refused_by_name():
    batches = crops((9, 9), crop_size=(4, 6, 5), margin=0)
    with pytest.raises(InputError, match=r"case 0: the image has 2 axes, the crop size \(4, 6, 5\) has 3"):
        batches.batch(0)


def test_cases_of_which_only_some_have_a_key_are_refused_by_name():
    data = [{"image": "0", "monitor_label": "x", "case": "A"}, {"image": "1", "case": "B"}]
    cases = CachedCases(data, dict, keys=("image", "monitor_label"))
    with pytest.raises(
        InputError, match="B: some cases of the unlabeled section have monitor_label and others have not"
    ):
        CropBatches(cases, CROP, 2, stream="unlabeled")


def pairs_of(shapes=SHAPES):
    return PairedBatches(crops(*shapes), crops(*shapes, margin=0, stream="unlabeled"))


def test_the_preparing_thread_gives_the_pairs_in_their_order():
    pairs = pairs_of()
    for iteration, (labeled, unlabeled) in zip(range(7), pairs, strict=False):
        expected = pairs.pair(iteration)
        assert same(labeled, expected[0])
        assert same(unlabeled, expected[1])


def test_seeking_goes_on_where_another_run_would_be():
    steady = list(itertools.islice(pairs_of(), 8))
    resumed = pairs_of()
    resumed.seek(5)
    for expected, pair in zip(steady[5:], resumed, strict=False):
        assert same(expected[0], pair[0])
        assert same(expected[1], pair[1])


def test_without_unlabelled_batches_the_second_of_a_pair_is_empty():
    _, unlabeled = next(iter(PairedBatches(crops(*SHAPES))))
    assert unlabeled == {"case": []}


def test_an_error_in_a_case_reaches_the_one_who_asks_and_names_the_case():
    def transform(item):
        raise RuntimeError("no such tag")

    broken = CropBatches(CachedCases([{"image": "", "case": "Heart 7"}], transform), CROP, 1)
    with pytest.raises(InputError, match="Heart 7: the case could not be read: no such tag"):
        next(iter(PairedBatches(broken)))


# --- From the scan to the shifted crops of co-training ----------------------------------------------------------------


def zeros_from(context, crop, axis, side):
    """Free voxels beside the crop along an axis, recomputed from where the zeros of the context begin."""
    lines = [(m - c) // 2 + c // 2 for m, c in zip(context.shape[1:], crop, strict=True)]
    line = context[(0, *(slice(None) if a == axis else place for a, place in enumerate(lines)))]
    first = (context.shape[axis + 1] - crop[axis]) // 2
    beside = line[first + crop[axis] :] if side else line[:first].flip(0)
    return int((beside > 0).sum())


FLIPS = {"flip_axes": (0, 1, 2)}
TURNS = {"flip_axes": (0, 2), "turn_planes": ((0, 1),)}


@pytest.mark.parametrize(
    ("geometry", "crop", "margin"),
    [
        ({}, CROP, MARGIN),
        (FLIPS, CROP, MARGIN),
        (TURNS, (6, 6, 4), (3, 3, 2)),
        ({"flip_axes": (0, 1), "turn_planes": ((0, 1),)}, (6, 6), (4, 4)),
        ({"flip_axes": (0, 1)}, (6, 4), (1, 5)),
        ({"turn_planes": ((0, 1), (1, 2), (2, 0))}, (4, 4, 4), (3, 3, 3)),
    ],
)
def test_margins_after_flips_and_turns_are_where_the_zeros_begin(geometry, crop, margin):
    shapes = [(9, 8, 7)[: len(crop)], (6, 9, 8)[: len(crop)], (12, 7, 6)[: len(crop)]]
    batches = crops(*shapes, batch_size=4, crop_size=crop, margin=margin)
    view, generator = View(crop, Augment(**geometry)), torch.Generator().manual_seed(0)
    seen = set()
    for iteration in range(12):
        made = view(batches.batch(iteration), generator)
        for context, free in zip(made["context"], made["margin"], strict=True):
            expected = [[zeros_from(context, crop, axis, side) for side in (0, 1)] for axis in range(len(crop))]
            assert free.tolist() == expected
            seen.add(str(expected))
    assert len(seen) > 10


class Watching(torch.nn.Module):
    """Remembers its inputs; its classes depend on the place of a voxel in the scan alone."""

    def __init__(self):
        super().__init__()
        self.number, self.inputs = torch.nn.Parameter(torch.ones(())), []

    def forward(self, image):
        self.inputs.append(image.detach().clone())
        weights = torch.tensor([1, 5, 7])[: image.shape[1]].view(-1, *[1] * (image.dim() - 2))
        classes = (image * weights).sum(1).long() % 3
        return 9 * self.number * torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()


@pytest.mark.parametrize(
    ("geometry", "crop", "margin"),
    [(FLIPS, CROP, MARGIN), (TURNS, (6, 6, 4), (3, 3, 2)), ({"flip_axes": (0, 1)}, (6, 4), (1, 5))],
)
def test_shifted_crops_agree_with_the_fixed_crop_about_every_voxel_of_the_scan(geometry, crop, margin, monkeypatch):
    from semi_med.methods import CoTraining

    taught = []

    def spy(logits, label, *, alpha, valid=None):
        taught.append(label)
        return logits.sum() * 0

    monkeypatch.setattr("semi_med.methods.cotraining.dice_ce", spy)
    torch.manual_seed(0)
    shapes = [(9, 8, 7)[: len(crop)], (6, 9, 8)[: len(crop)], crop]
    batches = crops(*shapes, batch_size=3, crop_size=crop, margin=margin, stream="unlabeled")
    view, generator = View(crop, Augment(**geometry)), torch.Generator().manual_seed(0)
    shifts = set()
    for iteration in range(6):
        network = Watching()
        method = CoTraining(network=network, peer=Watching(), max_shift=margin, shifts_per_step=4)
        batch = view(batches.batch(iteration), generator)
        method.losses({"image": batch["image"], "label": batch["label"]}, batch, 0)
        weak, *shifted = network.inputs[0].split(3)
        for crop_d in shifted:
            assert (crop_d > 0).all()  # never outside the scan
            moved = (crop_d - weak).flatten(2)
            assert torch.equal(moved.amin(2), moved.amax(2))  # one shift for all voxels of a crop
            shifts.update(tuple(row) for row in moved[..., 0].int().tolist())
        for labels in (taught[2:7], taught[7:12]):  # fixed, then four dynamic: what SN_1 learns, what SN_2 learns
            assert len(labels) == 5
            assert all(torch.equal(labels[0], label) for label in labels[1:])
        taught.clear()
    assert len(shifts) > 8


def test_crops_of_two_axes_are_single_slices_of_the_last_axis():
    batches = crops((9, 8, 5), (6, 12, 1), crop_size=(4, 6), margin=(2, 3), batch_size=40, seed=3)
    batch = batches.batch(0)
    assert batch["context"].shape == (40, 3, 8, 12) and batch["label_context"].shape == (40, 1, 8, 12)
    assert batch["margin"].shape == (40, 2, 2)
    seen: dict[str, set[int]] = {}
    for case, context, label in zip(batch["case"], batch["context"], batch["label_context"], strict=True):
        inside = context[0] > 0
        (place,) = context[2][inside].unique().tolist()
        seen.setdefault(case, set()).add(int(place))
        assert torch.equal(label[0][inside].float(), context.sum(0)[inside])
    assert seen == {"case 0": {1, 2, 3, 4, 5}, "case 1": {1}}


def test_a_picture_gives_the_crops_of_an_array_of_two_axes():
    flat = crops((9, 8), (7, 7), crop_size=(4, 6), margin=(2, 3), seed=3).batch(5)
    assert flat["case"] == crops((9, 8, 1), (7, 7, 1), crop_size=(4, 6), margin=(2, 3), seed=3).batch(5)["case"]
    picture = crops((9, 8, 1), (7, 7, 1), crop_size=(4, 6), margin=(2, 3), seed=3).batch(5)
    assert torch.equal(picture["context"][:, :2], flat["context"])
    assert torch.equal(picture["margin"], flat["margin"])


def test_a_run_that_goes_on_begins_where_the_earlier_one_ended():
    def pairs(first):
        labeled, unlabeled = crops(*SHAPES), crops(*SHAPES, margin=0, stream="unlabeled")
        return PairedBatches(labeled, unlabeled, first=first)

    for mine, wanted in zip(pairs(5).pair(2), pairs(0).pair(7), strict=True):
        assert mine["case"] == wanted["case"]
        assert torch.equal(mine["context"], wanted["context"])
    assert not torch.equal(pairs(5).pair(0)[0]["context"], pairs(0).pair(0)[0]["context"])


def test_a_stream_begins_at_an_iteration_from_0():
    with pytest.raises(InputError, match="first iteration must be at least 0, not -1"):
        PairedBatches(crops(*SHAPES), first=-1)


def test_labels_outside_the_scan_are_what_was_asked_for():
    small = (3, 8, 4)
    plain, filled = crops(small).batch(0), crops(small, label_fill=255).batch(0)
    outside = plain["label_context"] == 0
    assert 0 < outside.float().mean() < 1
    assert torch.equal(filled["label_context"], plain["label_context"].masked_fill(outside, 255))
    assert torch.equal(filled["context"], plain["context"])


# --- A second crop, and implicit sampling -----------------------------------------------------------------------------


def first_voxel(context, margin=MARGIN):
    """Where the crop in a context of coordinates begins in the scan, from 0."""
    corner = tuple(margin[: context.dim() - 1])
    return [int(value) - 1 for value in context[(slice(None), *corner)]]


@pytest.mark.parametrize("second_crop", ["overlap", "any"])
def test_a_second_crop_lies_in_the_scan_at_its_offset_and_leaves_the_first_as_it_was(second_crop):
    plain, more = crops((20, 16, 5), batch_size=60), crops((20, 16, 5), batch_size=60, second_crop=second_crop)
    batch, before = more.batch(2), plain.batch(2)
    assert all(torch.equal(batch[key], before[key]) for key in before if key != "case")
    moved = []
    for context, other, offset in zip(batch["context"], batch["context_2"], batch["offset"].tolist(), strict=True):
        there = first_voxel(other)
        assert [b - a for a, b in zip(first_voxel(context), there, strict=True)] == offset
        assert all(0 <= place <= s - c for place, s, c in zip(there, (20, 16, 5), CROP, strict=True))
        moved.append(offset)
    largest = np.abs(moved).max(0)
    assert largest[2] == 0  # the crop is as long as the scan
    if second_crop == "overlap":
        assert largest[0] == CROP[0] // 2 and largest[1] == CROP[1] // 2
    else:
        assert largest[0] > CROP[0] and largest[1] > CROP[1]


@pytest.mark.parametrize("second_crop", ["same", "any"])
@pytest.mark.parametrize("shape", [(20, 16, 5), (3, 4, 3), (4, 6, 5), (3, 30, 9)])
def test_a_batch_says_where_the_scan_is_in_its_context(shape, second_crop):
    batch = crops(shape, batch_size=20, second_crop=second_crop).batch(0)
    for end in ("", "_2") if second_crop == "any" else ("",):
        for context, ends in zip(batch[f"context{end}"], batch[f"scan{end}"].tolist(), strict=True):
            inside = torch.zeros_like(context[0], dtype=torch.bool)
            inside[tuple(slice(first, last) for first, last in ends)] = True
            assert torch.equal(inside, context[0] > 0)


def test_the_free_margin_of_a_second_crop_is_its_own():
    batch = crops((20, 16, 5), batch_size=40, second_crop="any").batch(0)
    for other, free in zip(batch["context_2"], batch["margin_2"].tolist(), strict=True):
        starts = zip(first_voxel(other), (20, 16, 5), CROP, MARGIN, strict=True)
        assert free == [[min(m, a), min(m, s - c - a)] if s > c else [0, 0] for a, s, c, m in starts]


def test_of_a_scan_that_is_smaller_than_the_crop_both_crops_are_the_same():
    batch = crops((3, 5, 5), second_crop="any").batch(0)
    assert torch.equal(batch["context"], batch["context_2"])
    assert not batch["offset"].any()


def test_the_second_crop_of_a_slice_is_of_that_slice():
    batch = crops((30, 20, 9), crop_size=CROP[:2], margin=MARGIN[:2], batch_size=30, second_crop="any").batch(0)
    slices = [batch[key][:, 2, 3, 3] for key in ("context", "context_2")]
    assert torch.equal(*slices)
    assert len(set(slices[0].tolist())) > 3


@pytest.mark.parametrize("second_crop", ["twice", True])
def test_another_relation_of_crops_is_refused(second_crop):
    with pytest.raises(InputError, match="second_crop is one of same, overlap, any, not"):
        crops(*SHAPES, second_crop=second_crop)


def named(names, *, label=True, **settings):
    """Batches of two cases by these names, all of one size; the image holds the place of the name in the alphabet."""

    def transform(item):
        image = np.full((1, 4, 6, 5), ord(item["image"]) - 96)
        return {"image": image, "label": np.ones((1, 4, 6, 5))} if label else {"image": image}

    data = [{"image": name, "case": name} | ({"label": ""} if label else {}) for name in names]
    stream = "labeled" if label else "unlabeled"
    return CropBatches(CachedCases(data, transform), CROP, 2, margin=0, stream=stream, **settings)


def taught_and_unlabeled(pairs, iterations):
    """Names that come with their label, names without one, and how many labels are ignored throughout."""
    taught, unlabeled, ignored = [], [], 0
    for iteration in iterations:
        labeled, other = pairs.pair(iteration)
        for name, label in zip(labeled["case"], labeled["label_context"], strict=True):
            if bool((label == IGNORED).all()):
                assert len(labeled["case"]) == 1
                ignored += 1
            else:
                assert bool((label == 1).all())
                taught.append(name)
        unlabeled += other["case"]
    return sorted(taught), sorted(unlabeled), ignored


def test_implicit_sampling_draws_every_case_once_in_a_pass_and_sorts_them_by_their_labels():
    pairs = PairedBatches(named("ab"), named("cdefgh", label=False), sampling="implicit")
    without = 0
    for turn in range(8):  # eight cases, four in a pair
        taught, unlabeled, ignored = taught_and_unlabeled(pairs, (2 * turn, 2 * turn + 1))
        assert (taught, unlabeled) == (["a", "b"], list("cdefgh"))
        without += ignored
    assert 0 < without < 8


def test_an_unlabelled_side_without_any_gets_one_all_the_same():
    pairs = PairedBatches(named("abcdefgh"), named("i", label=False), sampling="implicit")
    found = [pairs.pair(iteration) for iteration in range(9)]
    assert {name for _, unlabeled in found for name in unlabeled["case"]} == {"i"}
    assert {len(labeled["case"]) for labeled, _ in found} == {3, 4}


def test_a_case_on_both_sides_goes_to_both():
    pairs = PairedBatches(named("ab"), named("abcd", label=False), sampling="implicit")
    for iteration in range(4):
        assert taught_and_unlabeled(pairs, [iteration]) == (["a", "b"], list("abcd"), 0)


def test_implicit_pairs_are_a_pure_function_of_seed_and_iteration_and_of_the_rank():
    def pairs(**settings):
        return PairedBatches(named("ab", **settings), named("cdefgh", label=False, **settings), sampling="implicit")

    for one, other in zip(pairs().pair(5), pairs().pair(5), strict=True):
        assert same(one, other)
    parts = [taught_and_unlabeled(pairs(rank=rank, world_size=2), [3]) for rank in (0, 1)]
    assert sorted(parts[0][0] + parts[1][0]) == ["a", "b"]
    assert sorted(parts[0][1] + parts[1][1]) == list("cdefgh")


@pytest.mark.parametrize(
    ("unlabeled", "sampling", "text"),
    [
        ("cd", "uniform", "sampling is one of explicit, implicit, not 'uniform'"),
        ("", "implicit", "there are no unlabelled ones"),
    ],
)
def test_a_sampling_that_cannot_be_is_refused(unlabeled, sampling, text):
    with pytest.raises(InputError, match=text):
        PairedBatches(named("ab"), named(unlabeled, label=False) if unlabeled else None, sampling=sampling)
