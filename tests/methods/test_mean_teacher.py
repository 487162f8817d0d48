from __future__ import annotations

import copy

import pytest
import torch
from method_samples import CLASSES, CROP, batches, tiny_network
from slow_equations import Telling, foreground_overlap, forward, numbers, ramp, softmax, supervised_loss, voxels

from semi_med.methods import MeanTeacher

dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def mean_teacher(dimensions, *, network=None, **settings):
    """A mean teacher whose teacher is no longer its student."""
    normalization = settings.pop("normalization", "batch")
    student = network or tiny_network(dimensions, 1, dropout=0.3, normalization=normalization)
    method = MeanTeacher(network=student, **{"ramp_iterations": 10, **settings})
    if network is None:
        other = tiny_network(dimensions, 2, dropout=0.3, normalization=normalization)
        method.teacher.load_state_dict(other.state_dict())
    return method


# --- The equation of the docstring, written slowly --------------------------------------------------------------------


def slow_terms(method, labeled, unlabeled, iteration, seed):
    torch.manual_seed(seed)
    weak = unlabeled["weak"]
    noise = method.noise * torch.randn(weak.shape)
    for index in range(noise.numel()):
        value = noise.view(-1)[index].item()
        noise.view(-1)[index] = max(-method.noise_limit, min(method.noise_limit, value))
    target = softmax(forward(method.teacher, weak + noise, method.teacher_mode))
    logits = forward(method.network, torch.cat([labeled["image"], unlabeled["image"]]), "train")
    probs = softmax(logits[len(labeled["image"]) :])

    squares, count = 0.0, 0
    for b, voxel in voxels(weak):
        for k in range(CLASSES):
            squares += (probs[(b, k, *voxel)] - target[(b, k, *voxel)]).item() ** 2
            count += 1
    weight = method.weight * ramp(iteration, method.ramp_iterations)
    supervised = supervised_loss(logits[: len(labeled["image"])], labeled["label"], method.alpha)
    return {
        "supervised": supervised,
        "consistency": squares / count,
        "unsupervised_weight": weight,
        "loss": supervised + weight * squares / count,
        "confident": (target.amax(1) >= 0.9).double().mean().item(),
        "foreground": (target.argmax(1) > 0).double().mean().item(),
        "agreement": foreground_overlap(target.argmax(1), probs.argmax(1)),
    }


ABLATIONS = {
    "default": {},
    "teacher in evaluation mode": {"teacher_mode": "eval"},
    "instance norm": {"normalization": "instance"},
    "instance norm in evaluation mode": {"normalization": "instance", "teacher_mode": "eval"},
    "much noise, tightly limited": {"noise": 1.0, "noise_limit": 0.05},
    "no noise": {"noise": 0.0},
    "cross-entropy alone and another weight": {"alpha": 1.0, "weight": 3.0, "ramp_iterations": 30},
    "Dice alone after the ramp": {"alpha": 0.0, "ramp_iterations": 7},
}


@dimensions_2_and_3
@pytest.mark.parametrize("settings", ABLATIONS.values(), ids=ABLATIONS)
def test_the_terms_are_those_of_the_equation_written_slowly(settings, dimensions):
    slow = slow_terms(mean_teacher(dimensions, **settings), *batches(dimensions), 7, 11)
    fast = numbers(mean_teacher(dimensions, **settings), *batches(dimensions), iteration=7, seed=11)
    assert fast == pytest.approx(slow, rel=1e-4)
    assert fast["consistency"] > 0.01


@pytest.mark.parametrize(("iteration", "expected"), [(0, 0.3 * 0.006738), (5, 0.3 * 0.286505), (10, 0.3), (99, 0.3)])
def test_the_weight_is_ramped_up(iteration, expected):
    terms = numbers(mean_teacher(2, weight=0.3), *batches(2), iteration=iteration)
    assert terms["unsupervised_weight"] == pytest.approx(expected, rel=1e-4)


# --- What the teacher sees and does -----------------------------------------------------------------------------------


@dimensions_2_and_3
def test_the_teacher_sees_the_weak_view_with_noise_and_the_student_its_own_without(dimensions):
    student = Telling([0.0, 1.0, 2.0])
    method = mean_teacher(dimensions, network=student, noise=0.1, noise_limit=0.15)
    labeled, unlabeled = batches(dimensions)
    numbers(method, labeled, unlabeled)
    assert torch.equal(student.inputs[0], torch.cat([labeled["image"], unlabeled["image"]]))
    noise = method.teacher.inputs[0] - unlabeled["weak"]
    assert float(noise.abs().max()) == pytest.approx(0.15, abs=1e-6)
    assert (noise.abs() < 0.14).float().mean() > 0.7
    assert float(noise.std()) == pytest.approx(0.1, rel=0.3)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_teacher_works_in_the_mode_asked_for_without_gradient_and_the_student_trains(mode):
    method = mean_teacher(2, network=Telling([0.0, 1.0, 2.0]), teacher_mode=mode)
    numbers(method, *batches(2))
    assert method.teacher.modes == [(mode == "train", False)]
    assert method.network.modes == [(True, True)]


@pytest.mark.parametrize(("mode", "differs"), [("train", True), ("eval", False)])
def test_dropout_acts_in_a_teacher_in_training_mode_only(mode, differs):
    first, second = (
        numbers(mean_teacher(2, teacher_mode=mode, noise=0.0), *batches(2), seed=seed)["foreground"] for seed in (0, 1)
    )
    assert (first != second) is differs


def test_a_teacher_in_evaluation_mode_keeps_its_running_statistics():
    method = mean_teacher(3, teacher_mode="eval")
    before = copy.deepcopy(method.teacher)
    numbers(method, *batches(3))
    assert all(torch.equal(a, b) for a, b in zip(before.buffers(), method.teacher.buffers(), strict=True))


# --- How it moves -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("iteration", "kept"), [(0, 0.0), (1, 0.5), (3, 0.75), (9, 0.9), (98, 98 / 99), (10**4, 0.99)])
def test_a_young_teacher_forgets_fast(iteration, kept):
    method = mean_teacher(2, network=Telling([1.0, 2.0]))
    method.teacher.number.fill_(3.0)
    method.after_update(iteration)
    assert method.teacher.number.item() == pytest.approx(3.0 * kept + 1.0 * (1 - kept))
    assert method.network.number.item() == 1.0


@pytest.mark.parametrize(("buffers", "expected"), [("average", 0.75 * 4.0 + 0.25 * 8.0), ("copy", 8.0), ("own", 4.0)])
def test_the_statistics_of_batch_norm_follow_the_policy(buffers, expected):
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Conv2d(1, 2, 1))
    method = mean_teacher(2, network=network, buffers=buffers)
    method.teacher[0].running_mean.fill_(4.0)
    network[0].running_mean.fill_(8.0)
    method.after_update(3)  # three quarters are kept
    assert method.teacher[0].running_mean.item() == pytest.approx(expected)


# --- Curves and settings ----------------------------------------------------------------------------------------------


@dimensions_2_and_3
def test_a_label_for_monitoring_adds_the_overlap_with_the_teachers_label(dimensions):
    method = mean_teacher(dimensions, network=Telling([0.0, 1.0, 2.0]), noise=0.0)
    labeled, unlabeled = batches(dimensions)
    foreground = (unlabeled["weak"] > 0).to(torch.uint8)
    assert "pseudo_label_dice" not in numbers(method, labeled, unlabeled)
    # the teacher says 2 wherever the voxel is positive, 0 elsewhere
    for expert, expected in ((2 * foreground, 1.0), (foreground, 0.0), (torch.full_like(foreground, 2), None)):
        terms = numbers(method, labeled, {**unlabeled, "monitor_label": expert})
        if expected is None:
            ours, all_voxels = int(foreground.sum()), expert.numel()
            expected = 2 * ours / (ours + all_voxels)
        assert terms["pseudo_label_dice"] == pytest.approx(expected)


def test_all_voxels_count_so_there_is_no_curve_of_certain_ones():
    assert "certain" not in numbers(mean_teacher(2), *batches(2))


def test_a_voxel_is_confident_from_the_confidence_asked_for_on():
    method = mean_teacher(2, network=Telling([0.0, 1.0]), noise=0.0, health_confidence=0.75)
    labeled, unlabeled = batches(2, unlabeled=1)
    labeled["label"] = labeled["label"] % 2
    unlabeled["weak"] = torch.zeros(1, 1, *CROP[2])
    # odds of 2 to 1 and of 4 to 1
    unlabeled["weak"][0, 0, 0], unlabeled["weak"][0, 0, 1] = torch.tensor(2.0).log(), torch.tensor(4.0).log()
    assert numbers(method, labeled, unlabeled)["confident"] == pytest.approx(1 / CROP[2][0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.5}, "alpha is a share between 0 and 1, not 1.5"),
        ({"decay": -0.1}, "decay is a share between 0 and 1, not -0.1"),
        ({"decay": 99}, "decay is a share between 0 and 1, not 99"),
        ({"teacher_mode": "evaluation"}, "teacher_mode must be one of eval, train, not 'evaluation'"),
        ({"buffers": "none"}, "buffers must be one of average, copy, own, not 'none'"),
    ],
)
def test_settings_that_would_train_something_else_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        mean_teacher(2, **settings)


def test_the_teacher_cannot_be_given():
    with pytest.raises(TypeError, match="teacher"):
        MeanTeacher(network=tiny_network(2, 1), teacher=tiny_network(2, 2))


@pytest.mark.parametrize("name", ["noise", "noise_limit"])
def test_negative_noise_is_refused(name):
    with pytest.raises(ValueError, match="at least 0"):
        MeanTeacher(network=tiny_network(2, 1), **{name: -0.1})
