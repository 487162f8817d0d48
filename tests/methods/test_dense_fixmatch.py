from __future__ import annotations

import numpy as np
import pytest
import torch
from method_samples import CROP, batches, tiny_network
from scipy import ndimage
from slow_equations import Telling, foreground_overlap, forward, numbers, ramp, softmax, supervised_loss, voxels

from semi_med.data.augment import Augment
from semi_med.data.cases import CachedCases
from semi_med.data.crops import CropBatches
from semi_med.data.policies import RandAugment
from semi_med.data.two_views import TwoViews
from semi_med.methods import DenseFixMatch
from semi_med.methods.dense_fixmatch import match
from semi_med.ops import IGNORED, affine, warp

dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def dense_fixmatch(dimensions=2, *, network=None, **settings):
    """With a teacher that is no longer its student."""
    method = DenseFixMatch(network=network or tiny_network(dimensions, 1), **settings)
    if network is None:
        method.teacher.load_state_dict(tiny_network(dimensions, 2).state_dict())
    return method


# --- The equations of the docstring, written slowly -------------------------------------------------------------------


def slow_match(maps, weak_matrix, strong_matrix, fill):
    """A(alpha^-1(maps)) voxel by voxel: from the strong view to the context, and on to the weak view."""
    out, values = np.full(maps.shape, fill, dtype=maps.numpy().dtype), maps.numpy()
    back, there = np.linalg.inv(weak_matrix.numpy()), strong_matrix.numpy()
    for b, voxel in voxels(maps):
        in_context = there[b] @ (*voxel, 1)
        nearest = np.floor(np.round(back[b] @ in_context, 9) + 0.5).astype(int)[:-1]
        if (nearest >= 0).all() and (nearest < maps.shape[2:]).all():
            out[(b, 0, *voxel)] = values[(b, 0, *nearest)]
    return torch.from_numpy(out)


def slow_terms(method, labeled, unlabeled, iteration):
    count = len(labeled["image"])
    of_teacher = method.labels_from == "teacher"
    weak = softmax(
        forward(method.teacher if of_teacher else method.network, unlabeled["weak"], "eval" if of_teacher else "train")
    )
    label, confidence = weak.argmax(1, keepdim=True), weak.amax(1, keepdim=True)
    matrices = unlabeled["weak_matrix"], unlabeled["strong_matrix"]
    target = slow_match(torch.where(unlabeled["seen"], label, IGNORED), *matrices, IGNORED)
    sure = slow_match(confidence, *matrices, 0.0) >= method.threshold

    logits = forward(method.network, torch.cat([labeled["image"], unlabeled["image"]]), "train")
    probs, total, valid = softmax(logits[count:]), 0.0, 0
    for b, voxel in voxels(target):
        k = int(target[(b, 0, *voxel)])
        valid += k != IGNORED
        if k != IGNORED and bool(sure[(b, 0, *voxel)]):
            total -= float(probs[(b, k, *voxel)].log())
    weight = method.weight * ramp(iteration, method.ramp_iterations)
    supervised = supervised_loss(logits[:count], labeled["label"], method.alpha)
    found = torch.where(target == IGNORED, target, probs.argmax(1, keepdim=True))
    return {
        "supervised": supervised,
        "unsupervised": total / valid,
        "unsupervised_weight": weight,
        "loss": supervised + weight * total / valid,
        "matched": valid / target.numel(),
        "confident": float((confidence >= method.threshold).double().mean()),
        "foreground": float((label > 0).double().mean()),
        "agreement": foreground_overlap(target[target != IGNORED], found[target != IGNORED]),
    }


SETTINGS = {
    "the paper's": {"alpha": 1.0},
    "Dice beside it, another weight, no threshold": {"weight": 0.3, "threshold": 0.0},
    "labels from the student": {"labels_from": "student", "threshold": 0.8},
    "warmed up": {"ramp_iterations": 20},
}


@dimensions_2_and_3
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_terms_are_those_of_the_equations_written_slowly(settings, dimensions):
    method, (labeled, unlabeled) = dense_fixmatch(dimensions, **settings), batches(dimensions)
    slow = slow_terms(method, labeled, unlabeled, 7)
    fast = numbers(method, labeled, unlabeled, iteration=7)
    assert fast == pytest.approx(slow, rel=1e-4)
    assert 0 < fast["matched"] < 1
    assert fast["confident"] < 1 or method.threshold == 0


def row_of(*values, **more):
    """A batch of one picture of one row of pixels, whose strong view is grey."""
    weak = torch.tensor([[[values]]])
    return {"weak": weak, "image": torch.zeros_like(weak), "label": torch.zeros_like(weak).long(), **more}


def test_the_sum_is_divided_by_all_that_is_matched_and_not_by_the_sure_ones():
    """The views lie on each other; two of four voxels are sure, each costs log 2."""
    row = row_of(9.0, 9.0, 0.0, 0.0)
    terms = numbers(dense_fixmatch(network=Telling([0.0, 1.0]), threshold=0.9), row, row)
    assert terms["matched"] == 1
    assert terms["unsupervised"] == pytest.approx(np.log(2) * 2 / 4)


def test_a_voxel_that_the_scan_does_not_have_teaches_nothing():
    row = row_of(9.0, -9.0, 9.0, 9.0, seen=torch.tensor([[[[False, True, False, False]]]]))
    terms = numbers(dense_fixmatch(network=Telling([0.0, 1.0])), row, row)
    assert terms["matched"] == 0.25
    assert terms["unsupervised"] == pytest.approx(np.log(2))


# --- Geometry ---------------------------------------------------------------------------------------------------------


def label_of(shape, batch_size=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 5, (batch_size, 1, *shape), generator=generator).to(torch.uint8)


def matched(label, weak, strong):
    return match(label, {"weak_matrix": weak, "strong_matrix": strong}, fill=IGNORED)


SHAPE = {2: (7, 10), 3: (6, 9, 5)}


def drawn(kind, shape, seed):
    """A matrix of that kind for a batch of two."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*size):
        return torch.rand(*size, generator=generator) * 2 - 1

    n = len(shape)
    plane = [(0, 1), (1, 0)][seed % 2] if n == 2 else [(0, 1), (2, 1), (0, 2)][seed % 3]
    parts = {
        "flip": affine.flip(uniform(2, n) > 0, shape),
        "translation": affine.translation(3 * uniform(2, n)),
        "rotation": affine.rotation(40 * uniform(2), plane, shape),
        "shear": affine.shear(30 * uniform(2), plane, shape),
        "scale": affine.magnification(1.3 ** uniform(2, n), shape),
        "crop": affine.crop(torch.randint(-2, 3, (2, n), generator=generator)),
    }
    return parts[kind] if kind in parts else affine.compose(*parts.values())


KINDS = ("flip", "translation", "rotation", "shear", "scale", "crop", "all of them")


@dimensions_2_and_3
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_matching_a_known_image_gives_what_scipy_gives(dimensions, kind, seed):
    shape = SHAPE[dimensions]
    label, weak, strong = label_of(shape, seed=seed), drawn(kind, shape, seed), drawn("all of them", shape, seed + 50)
    expected = np.empty(label.shape)
    for b in range(len(label)):
        through = np.linalg.inv(weak[b].numpy()) @ strong[b].numpy()
        expected[b, 0] = ndimage.affine_transform(
            label[b, 0].double().numpy(),
            through[:-1, :-1],
            offset=through[:-1, -1],
            order=0,
            mode="grid-constant",
            cval=IGNORED,
        )
    assert np.array_equal(matched(label, weak, strong).numpy(), expected)
    assert torch.equal(matched(label, weak, strong), slow_match(label, weak, strong, IGNORED))


@dimensions_2_and_3
def test_a_flip_of_the_weak_view_is_undone_to_the_pixel(dimensions):
    label = label_of(SHAPE[dimensions])
    axes = torch.zeros(2, dimensions, dtype=torch.bool)
    axes[:, -1] = True
    still = affine.identity(2, dimensions)
    flip = affine.flip(axes, SHAPE[dimensions])
    assert torch.equal(matched(label, flip, still), label.flip(-1))
    assert torch.equal(matched(label, still, flip), label.flip(-1))
    assert torch.equal(matched(label, flip, flip), label)


@dimensions_2_and_3
def test_a_shift_by_whole_pixels_is_exact_and_what_comes_in_is_ignored(dimensions):
    label = label_of(SHAPE[dimensions])
    offset = torch.zeros(2, dimensions)
    offset[:, 0] = 2
    found = matched(label, affine.identity(2, dimensions), affine.translation(offset))
    assert torch.equal(found[:, :, 2:], label[:, :, :-2])
    assert (found[:, :, :2] == IGNORED).all()
    back = matched(label, affine.translation(offset), affine.identity(2, dimensions))
    assert torch.equal(back[:, :, :-2], label[:, :, 2:])
    assert (back[:, :, -2:] == IGNORED).all()


@dimensions_2_and_3
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_is_exact_to_the_pixel(dimensions, quarters):
    shape = (7, 7, 5)[:dimensions]
    label = label_of(shape)
    turn = affine.quarter_turn(torch.tensor([quarters, quarters]), (0, 1), shape)
    still = affine.identity(2, dimensions)
    assert torch.equal(matched(label, still, turn), label.rot90(quarters, (2, 3)))
    assert torch.equal(matched(label, turn, still), label.rot90(-quarters, (2, 3)))


def scan_batches(dimensions, second_crop):
    """Crops of scans whose image is a label: noise in five grey values."""
    sizes = [(30, 23, 12)[:dimensions], (25, 34, 15)[:dimensions]]

    def read(item):
        label = np.random.default_rng(int(item["image"])).integers(0, 5, (1, *sizes[int(item["image"])]))
        return {"image": label.astype(np.float32)}

    cases = CachedCases([{"image": str(i), "case": str(i)} for i in range(2)], read, keys=("image",))
    crop, margin = (12, 14, 8)[:dimensions], (4, 3, 2)[:dimensions]
    return CropBatches(cases, crop, 3, margin=margin, second_crop=second_crop), crop


@dimensions_2_and_3
@pytest.mark.parametrize("second_crop", ["same", "overlap", "any"])
def test_what_is_seen_in_the_weak_view_lies_on_the_strong_view_to_the_pixel(dimensions, second_crop):
    """The weak image, taken as its own label, is the strong image wherever both show the same place."""
    source, crop = scan_batches(dimensions, second_crop)
    flips = Augment(flip_axes=range(dimensions))
    view = TwoViews(crop, flips, RandAugment(0, cutout=None), strong_placing=flips)
    shares = []
    for iteration in range(4):
        made = view(source.batch(iteration), torch.Generator().manual_seed(iteration))
        found = match(made["weak"].long(), made, fill=IGNORED)
        valid = found != IGNORED
        assert torch.equal(found[valid].float(), made["image"][valid])
        shares += valid.float().flatten(1).mean(1).tolist()
    if second_crop == "same":
        assert set(shares) == {1.0}
    elif second_crop == "overlap":
        assert min(shares) >= 0.5**dimensions * 0.8
        assert min(shares) < 0.8
    else:
        assert min(shares) < 0.5**dimensions * 0.8


@dimensions_2_and_3
@pytest.mark.parametrize("seed", range(3))
def test_through_rotations_and_shears_the_label_is_that_of_the_place_seen(dimensions, seed):
    """Every voxel of the strong view gets the weak view's value at the nearest voxel to its place."""
    source, crop = scan_batches(dimensions, "overlap")
    flips = Augment(flip_axes=(0,))
    policy = RandAugment(2, only=["rotate", "shear"], cutout=None)
    made = TwoViews(crop, flips, policy, strong_placing=flips)(source.batch(seed), torch.Generator().manual_seed(seed))
    weak = made["weak"].long()
    found = match(weak, made, fill=IGNORED)
    assert torch.equal(found, slow_match(weak, made["weak_matrix"], made["strong_matrix"], IGNORED))
    context = source.batch(seed)["context"].float()
    direct = warp(context, made["strong_matrix"], nearest=True, fill=IGNORED, output_shape=crop)
    same = (found == direct)[(found != IGNORED) & (direct != IGNORED)]
    assert same.float().mean() > 0.99  # the weak view is flipped by whole voxels, so ties alone may differ


# --- The teacher ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("iteration", "kept"), [(0, 0.0), (1, 0.5), (3, 0.75), (500, 0.99)])
def test_the_teacher_is_a_copy_after_the_first_update_and_follows_slowly_later(iteration, kept):
    method = dense_fixmatch(network=Telling([1.0, 2.0]))
    method.teacher.number.fill_(3.0)
    method.after_update(iteration)
    assert method.teacher.number.item() == pytest.approx(3.0 * kept + 1.0 * (1 - kept))


@pytest.mark.parametrize(("buffers", "expected"), [("average", 0.99 * 4.0 + 0.01 * 8.0), ("copy", 8.0)])
def test_the_statistics_of_batch_norm_follow_too(buffers, expected):
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Conv2d(1, 2, 1))
    method = dense_fixmatch(network=network, buffers=buffers)
    method.teacher[0].running_mean.fill_(4.0)
    network[0].running_mean.fill_(8.0)
    method.after_update(500)
    assert method.teacher[0].running_mean.item() == pytest.approx(expected)


@pytest.mark.parametrize(("labels_from", "seen_by"), [("teacher", "teacher"), ("student", "network")])
def test_labels_come_from_the_weak_view_by_the_teacher_in_evaluation_mode_or_by_the_student(labels_from, seen_by):
    method = dense_fixmatch(network=Telling([0.0, 1.0, 2.0]), labels_from=labels_from)
    labeled, unlabeled = batches(2)
    numbers(method, labeled, unlabeled)
    makes = getattr(method, seen_by)
    assert torch.equal(makes.inputs[0], unlabeled["weak"])
    assert makes.modes[0] == (labels_from == "student", False)
    assert torch.equal(method.network.inputs[-1], torch.cat([labeled["image"], unlabeled["image"]]))
    assert len(method.teacher.inputs) == (labels_from == "teacher")


def test_the_teacher_is_what_is_deployed():
    method = dense_fixmatch()
    assert list(method.networks()) == ["teacher", "network"]
    assert method.networks()["teacher"] is method.teacher


def test_monitoring_compares_the_labels_in_the_weak_view():
    method = dense_fixmatch()
    labeled, unlabeled = batches(2)
    hidden = torch.randint(0, 3, (3, 1, *CROP[2]), generator=torch.Generator().manual_seed(1))
    label = softmax(forward(method.teacher, unlabeled["weak"], "eval")).argmax(1, keepdim=True)
    terms = numbers(method, labeled, {**unlabeled, "monitor_label": hidden})
    assert terms["pseudo_label_dice"] == pytest.approx(foreground_overlap(label, hidden))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"labels_from": "expert"}, "labels_from must be one of teacher, student, not 'expert'"),
        ({"buffers": "own"}, "buffers must be one of average, copy, not 'own'"),
        ({"decay": 99}, "decay is a share between 0 and 1, not 99"),
        ({"alpha": -0.1}, "alpha is a share"),
        ({"alpha_unsupervised": 2}, "alpha_unsupervised is a share"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        dense_fixmatch(**settings)
