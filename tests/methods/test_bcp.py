from __future__ import annotations

import itertools
import math

import pytest
import torch
from method_samples import CROP, batches, clone, tiny_network
from slow_equations import Telling, foreground_overlap, forward, numbers, softmax, supervised_loss, voxels

from semi_med.methods import BCP, CopyPaste
from semi_med.ops import draw_boxes

dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def bcp(dimensions, *, network=None, normalization="batch", dropout=0.0, **settings):
    """BCP whose teacher is no longer its student."""
    kind = {"normalization": normalization, "dropout": dropout}
    method = BCP(network=network or tiny_network(dimensions, 1, **kind), **settings)
    if network is None:
        method.teacher.load_state_dict(tiny_network(dimensions, 2, **kind).state_dict())
    return method


# --- The equations of the docstring, written slowly -------------------------------------------------------------------


def slow_largest(label):
    """Of each class of each image the largest component, found by walking from voxel to neighbour."""
    kept = torch.zeros_like(label)
    steps = [step for step in itertools.product((-1, 0, 1), repeat=label.dim() - 2) if any(step)]
    for b, image in enumerate(label[:, 0]):
        for value in range(1, int(image.max()) + 1):
            left, components = {tuple(v) for v in (image == value).nonzero().tolist()}, []
            while left:
                component, border = set(), [min(left)]
                while border:
                    voxel = border.pop()
                    if voxel in left:
                        left.remove(voxel)
                        component.add(voxel)
                        border += [tuple(v + s for v, s in zip(voxel, step, strict=True)) for step in steps]
                components.append(component)
            for voxel in max(components, key=len, default=()):
                kept[(b, 0, *voxel)] = value
    return kept


def slow_terms(method, labeled, unlabeled, seed):
    """One loop over voxels fills both mixed images and their labels; only the place of the box is the package's."""
    torch.manual_seed(seed)
    probs = softmax(forward(method.teacher, unlabeled["weak"], method.teacher_mode))
    y_u = probs.argmax(1, keepdim=True)
    if method.largest_component:
        y_u = slow_largest(y_u)
    n_l, n_u = len(labeled["image"]), len(unlabeled["image"])
    count = max(n_l, n_u)
    box = draw_boxes(count, y_u.shape[2:], share=method.box_share)  # M is 0 where this is True

    x_l, x_u, y_l = labeled["image"], unlabeled["image"], labeled["label"].long()
    x_in, x_out = (torch.zeros(count, 1, *y_u.shape[2:]) for _ in range(2))
    y_in, y_out = (torch.zeros(count, 1, *y_u.shape[2:], dtype=torch.int64) for _ in range(2))
    for k, voxel in voxels(x_in):
        j, i, p = k % n_l, (k - 1) % n_l, k % n_u
        if box[(k, 0, *voxel)]:
            x_in[(k, 0, *voxel)], y_in[(k, 0, *voxel)] = x_u[(p, 0, *voxel)], y_u[(p, 0, *voxel)]
            x_out[(k, 0, *voxel)], y_out[(k, 0, *voxel)] = x_l[(i, 0, *voxel)], y_l[(i, 0, *voxel)]
        else:
            x_in[(k, 0, *voxel)], y_in[(k, 0, *voxel)] = x_l[(j, 0, *voxel)], y_l[(j, 0, *voxel)]
            x_out[(k, 0, *voxel)], y_out[(k, 0, *voxel)] = x_u[(p, 0, *voxel)], y_u[(p, 0, *voxel)]

    q_in, q_out = forward(method.network, torch.cat([x_in, x_out]), "train").split(count)
    supervised = supervised_loss(q_in, y_in, method.alpha, ~box) + supervised_loss(q_out, y_out, method.alpha, box)
    unsupervised = supervised_loss(q_in, y_in, method.alpha, box) + supervised_loss(q_out, y_out, method.alpha, ~box)
    student = torch.where(box, q_in.argmax(1, keepdim=True), q_out.argmax(1, keepdim=True))[:n_u]
    return {
        "supervised": supervised,
        "unsupervised": unsupervised,
        "loss": supervised + method.pseudo_weight * unsupervised,
        "confident": (probs.amax(1) >= 0.9).double().mean().item(),
        "foreground": (y_u > 0).double().mean().item(),
        "agreement": foreground_overlap(y_u, student),
    }


ABLATIONS = {
    "default": {},
    "instance norm": {"normalization": "instance"},
    "teacher in training mode": {"teacher_mode": "train"},
    "teacher in training mode with dropout": {"teacher_mode": "train", "dropout": 0.3},
    "all components": {"largest_component": False},
    "a small box": {"box_share": 0.4},
    "cross-entropy alone": {"alpha": 1.0},
    "Dice alone and another weight": {"alpha": 0.0, "pseudo_weight": 1.5},
}


@dimensions_2_and_3
@pytest.mark.parametrize("settings", ABLATIONS.values(), ids=ABLATIONS)
def test_the_terms_are_those_of_the_equations_written_slowly(settings, dimensions):
    batch = batches(dimensions, labeled=2, unlabeled=2)
    slow = slow_terms(bcp(dimensions, **settings), *batch, 11)
    assert numbers(bcp(dimensions, **settings), *batch, seed=11) == pytest.approx(slow, rel=1e-4)


@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 3), (3, 2), (1, 3), (4, 2), (2, 5), (1, 1)])
def test_labelled_and_unlabelled_crops_may_be_of_other_numbers(labeled, unlabeled):
    batch = batches(3, labeled=labeled, unlabeled=unlabeled)
    assert numbers(bcp(3), *batch, seed=4) == pytest.approx(slow_terms(bcp(3), *batch, 4), rel=1e-4)


def test_the_terms_of_this_comparison_are_not_alike():
    terms, apart = (
        numbers(bcp(2, largest_component=largest), *batches(2, labeled=2, unlabeled=2)) for largest in (True, False)
    )
    assert abs(terms["supervised"] - terms["unsupervised"]) > 1e-2
    assert abs(terms["unsupervised"] - apart["unsupervised"]) > 1e-2


# --- The two mixed images ---------------------------------------------------------------------------------------------


def mixed_images(labeled, unlabeled, **settings):
    """x_in and x_out as the student got them."""
    network = Telling([0.0, 1.0, 2.0])
    numbers(bcp(labeled["image"].dim() - 2, network=network, **settings), labeled, unlabeled)
    return network.inputs[0].chunk(2)


@dimensions_2_and_3
@pytest.mark.parametrize(("n_l", "n_u"), [(2, 2), (2, 3), (3, 2), (4, 1)])
def test_a_box_of_the_unlabelled_lies_in_a_labelled_crop_and_one_of_another_labelled_in_the_unlabelled(
    dimensions, n_l, n_u
):
    labeled, unlabeled = batches(dimensions, labeled=n_l, unlabeled=n_u)
    x_in, x_out = mixed_images(labeled, unlabeled)
    for k in range(max(n_l, n_u)):
        x_l, other, x_u = labeled["image"][k % n_l], labeled["image"][(k - 1) % n_l], unlabeled["image"][k % n_u]
        box = x_in[k] == x_u
        assert torch.equal(x_in[k], torch.where(box, x_u, x_l))
        assert torch.equal(x_out[k], torch.where(box, other, x_u))
        assert int(box.sum()) == math.prod(int(size * 2 / 3) for size in CROP[dimensions])


@pytest.mark.parametrize(("n_l", "n_u"), [(2, 2), (2, 3), (2, 5), (3, 4), (3, 7), (5, 2)])
def test_the_labelled_crop_in_the_box_is_never_the_one_around_it(n_l, n_u):
    labeled, unlabeled = batches(2, labeled=n_l, unlabeled=n_u)
    for k in range(n_l):
        labeled["image"][k] = float(k)
    unlabeled["image"] = torch.full_like(unlabeled["image"], -1.0)
    x_in, x_out = mixed_images(labeled, unlabeled)
    for outside, inside in zip(x_in.flatten(1).amax(1).tolist(), x_out.flatten(1).amax(1).tolist(), strict=True):
        assert outside != inside


def test_every_crop_is_used_in_both_directions_when_there_are_as_many_of_both():
    labeled, unlabeled = batches(2, labeled=3, unlabeled=3)
    for k in range(3):
        labeled["image"][k], unlabeled["image"][k] = float(k), float(10 + k)
    for mixed in mixed_images(labeled, unlabeled):
        assert mixed.unique().tolist() == [0, 1, 2, 10, 11, 12]


def test_the_student_sees_its_own_view_and_the_teacher_the_weak_one():
    network = Telling([0.0, 1.0, 2.0])
    method = bcp(2, network=network)
    labeled, unlabeled = batches(2, labeled=2, unlabeled=2)
    numbers(method, labeled, unlabeled)
    assert torch.equal(method.teacher.inputs[0], unlabeled["weak"])
    assert method.teacher.modes == [(False, False)]
    assert network.modes == [(True, True)]
    assert torch.isin(network.inputs[0], torch.cat([labeled["image"], unlabeled["image"]])).all()


# --- Pseudo-labels ----------------------------------------------------------------------------------------------------


def unlabeled_of(positive):
    """A crop of 2D whose voxels are 2 for `Telling([0, 1, 2])` where `positive` is set and 0 elsewhere."""
    image = torch.full((1, 1, *CROP[2]), -1.0)
    for voxel in positive:
        image[(0, 0, *voxel)] = 1.0
    return {"image": image, "weak": image}


@pytest.mark.parametrize(("largest", "share"), [(True, 3 / 48), (False, 5 / 48)])
def test_only_the_largest_component_is_taught(largest, share):
    labeled, _ = batches(2)
    unlabeled = unlabeled_of([(0, 0), (0, 1), (1, 2), (4, 4), (5, 4)])  # three at the corner, two apart from them
    terms = numbers(bcp(2, network=Telling([0.0, 1.0, 2.0]), largest_component=largest), labeled, unlabeled)
    assert terms["foreground"] == pytest.approx(share)


def test_a_label_for_monitoring_adds_the_overlap_with_what_is_taught():
    labeled, _ = batches(2)
    unlabeled = unlabeled_of([(0, 0), (0, 1), (1, 2), (4, 4), (5, 4)])
    monitor = torch.zeros(1, 1, *CROP[2], dtype=torch.uint8)
    monitor[0, 0, 0, :2] = 2  # two of the three voxels that are taught
    method = bcp(2, network=Telling([0.0, 1.0, 2.0]))
    terms = numbers(method, labeled, {**unlabeled, "monitor_label": monitor})
    assert terms["pseudo_label_dice"] == pytest.approx(2 * 2 / (3 + 2))


@pytest.mark.parametrize(("iteration", "kept"), [(0, 0.0), (1, 0.5), (98, 98 / 99), (10**4, 0.99)])
def test_the_teacher_follows_its_student_fast_at_first(iteration, kept):
    method = bcp(2, network=Telling([1.0, 2.0]))
    method.teacher.number.fill_(3.0)
    method.after_update(iteration)
    assert method.teacher.number.item() == pytest.approx(3.0 * kept + 1.0 * (1 - kept))


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 2}, "alpha is a share between 0 and 1, not 2"),
        ({"decay": 1.1}, "decay is a share between 0 and 1, not 1.1"),
        ({"box_share": -0.1}, "box_share is a share between 0 and 1, not -0.1"),
        ({"teacher_mode": "test"}, "teacher_mode must be one of eval, train, not 'test'"),
        ({"buffers": "mean"}, "buffers must be one of average, copy, own, not 'mean'"),
    ],
)
def test_settings_that_would_train_something_else_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        bcp(2, **settings)


# --- The pre-training -------------------------------------------------------------------------------------------------


@dimensions_2_and_3
@pytest.mark.parametrize("settings", [{}, {"alpha": 0.8, "box_share": 0.4}])
@pytest.mark.parametrize("normalization", ["batch", "instance"])
def test_the_pre_training_is_dice_and_cross_entropy_on_mixed_labelled_crops(settings, dimensions, normalization):
    method = CopyPaste(network=tiny_network(dimensions, 1, normalization=normalization), **settings)
    labeled, _ = batches(dimensions, labeled=3)
    torch.manual_seed(5)
    box = draw_boxes(3, CROP[dimensions], share=method.box_share)
    image, label = labeled["image"].clone(), labeled["label"].clone()
    for k, voxel in voxels(image):
        if box[(k, 0, *voxel)]:
            image[(k, 0, *voxel)] = labeled["image"][((k - 1) % 3, 0, *voxel)]
            label[(k, 0, *voxel)] = labeled["label"][((k - 1) % 3, 0, *voxel)]
    expected = supervised_loss(forward(method.network, image, "train"), label, method.alpha)
    assert numbers(method, labeled, {}, seed=5) == pytest.approx({"loss": expected, "supervised": expected}, rel=1e-4)


def test_the_pre_training_of_a_single_crop_is_supervised_training():
    method = CopyPaste(network=tiny_network(2, 1))
    labeled, _ = batches(2, labeled=1)
    expected = supervised_loss(forward(method.network, labeled["image"], "train"), labeled["label"], 0.5)
    assert numbers(method, clone(labeled), {})["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["alpha", "box_share"])
def test_what_is_no_share_is_refused_by_the_pre_training(name):
    with pytest.raises(ValueError, match=f"{name} is a share between 0 and 1, not 1.5"):
        CopyPaste(network=tiny_network(2, 1), **{name: 1.5})


@pytest.mark.parametrize("method", [BCP, CopyPaste])
def test_a_box_of_no_size_is_refused(method):
    with pytest.raises(ValueError, match="nothing would be pasted"):
        method(network=tiny_network(2, 1), box_share=0.0)
