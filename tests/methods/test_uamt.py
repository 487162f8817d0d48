from __future__ import annotations

import math

import pytest
import torch
from method_samples import CROP, batches, tiny_network
from slow_equations import Telling, forward, numbers, ramp, softmax, supervised_loss, voxels
from torch import nn

from semi_med.methods import UAMT, MeanTeacher

dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def uamt(dimensions, *, network=None, classes=3, normalization="batch", **settings):
    """UA-MT whose teacher is no longer its student."""
    kind = {"dropout": 0.4, "normalization": normalization, "out_channels": classes}
    method = UAMT(
        network=network or tiny_network(dimensions, 1, **kind), **{"ramp_iterations": 10, "passes": 3, **settings}
    )
    if network is None:
        method.teacher.load_state_dict(tiny_network(dimensions, 2, **kind).state_dict())
    return method


def samples(dimensions, classes=3):
    labeled, unlabeled = batches(dimensions)
    labeled["label"] = labeled["label"] % classes
    return labeled, unlabeled


# --- The equations of the docstring, written slowly -------------------------------------------------------------------


def slow_pass(method, image):
    noise = (method.noise * torch.randn(image.shape)).clip(-method.noise_limit, method.noise_limit)
    return softmax(forward(method.teacher, image + noise, "train"))


def slow_terms(method, labeled, unlabeled, iteration, seed, *, published=False):
    """One loop over voxels; `published`: as the code of the paper has it, for two classes."""
    torch.manual_seed(seed)
    target = slow_pass(method, unlabeled["weak"])
    classes = target.shape[1]
    mean = sum(slow_pass(method, unlabeled["weak"]) for _ in range(method.passes)) / method.passes
    count = len(labeled["image"])
    logits = forward(method.network, torch.cat([labeled["image"], unlabeled["image"]]), "train")
    probs = softmax(logits[count:])

    rise = ramp(iteration, method.ramp_iterations)
    if published:
        assert classes == 2
        threshold = (0.75 + 0.25 * rise) * math.log(2)
    else:
        threshold = (method.first_threshold + (1 - method.first_threshold) * rise) * math.log(classes)
    total, certain, number = 0.0, 0, 0
    for b, voxel in voxels(target):
        mu = [mean[(b, k, *voxel)].item() for k in range(classes)]
        number += 1
        if -sum(p * math.log(p) for p in mu) < threshold:
            certain += 1
            total += sum((probs[(b, k, *voxel)] - target[(b, k, *voxel)]).item() ** 2 for k in range(classes))
    consistency = total / (2 * certain + 1e-16) if published else total / classes / max(1, certain)
    supervised = supervised_loss(logits[:count], labeled["label"], method.alpha)
    return {
        "supervised": supervised,
        "consistency": consistency,
        "certain": certain / number,
        "unsupervised_weight": method.weight * rise,
        "loss": supervised + method.weight * rise * consistency,
    }


ABLATIONS = {
    "default": {},
    "two classes": {"classes": 2},
    "five classes": {"classes": 5},
    "instance norm": {"normalization": "instance"},
    "eight passes": {"passes": 8},
    "one pass": {"passes": 1, "first_threshold": 0.1, "ramp_iterations": 50},
    "another first threshold": {"first_threshold": 0.4, "ramp_iterations": 50},
    "without noise and with another weight": {"noise": 0.0, "weight": 2.0, "alpha": 0.2},
}


@dimensions_2_and_3
@pytest.mark.parametrize("settings", ABLATIONS.values(), ids=ABLATIONS)
def test_the_terms_are_those_of_the_equations_written_slowly(settings, dimensions):
    batch = samples(dimensions, settings.get("classes", 3))
    slow = slow_terms(uamt(dimensions, **settings), *batch, 4, 11)
    fast = numbers(uamt(dimensions, **settings), *batch, iteration=4, seed=11)
    assert {name: fast[name] for name in slow} == pytest.approx(slow, rel=1e-4)
    assert 0.05 < fast["certain"] < 0.95
    assert fast["consistency"] > 0.01


@dimensions_2_and_3
def test_for_two_classes_the_terms_are_those_of_the_papers_code_with_log_2_and_a_factor_of_2(dimensions):
    batch = samples(dimensions, classes=2)
    published = slow_terms(uamt(dimensions, classes=2), *batch, 4, 3, published=True)
    fast = numbers(uamt(dimensions, classes=2), *batch, iteration=4, seed=3)
    assert {name: fast[name] for name in published} == pytest.approx(published, rel=1e-4)


# --- Which voxels are certain -----------------------------------------------------------------------------------------


def image_of(odds, dimensions):
    """An image of one crop whose voxels hold the logarithms of these odds, again and again."""
    size = math.prod(CROP[dimensions])
    values = torch.tensor(odds).log().repeat(size // len(odds) + 1)[:size]
    return values.reshape(1, 1, *CROP[dimensions])


@dimensions_2_and_3
@pytest.mark.parametrize(
    ("iteration", "share"), [(0, 0.75 + 0.25 * math.exp(-5)), (50, 0.75 + 0.25 * math.exp(-1.25)), (100, 1.0)]
)
def test_the_threshold_rises_from_three_quarters_of_the_largest_entropy_to_all_of_it(iteration, share, dimensions):
    def entropy(odds):  # of three classes with the odds 1 : 1 : odds, as a share of log 3
        p = [1 / (2 + odds), 1 / (2 + odds), odds / (2 + odds)]
        return -sum(x * math.log(x) for x in p) / math.log(3)

    odds = [1.5, 2.0, 3.0, 3.6, 4.2, 5.0, 5.05, 5.2, 6.0, 9.0]
    assert min(abs(entropy(o) - share) for o in odds) > 1e-4
    method = uamt(dimensions, network=Telling([0.0, 0.0, 1.0]), noise=0.0, ramp_iterations=100)
    labeled, unlabeled = samples(dimensions)
    unlabeled = {**unlabeled, "weak": image_of(odds, dimensions), "image": image_of(odds, dimensions)}
    size = math.prod(CROP[dimensions])
    expected = sum(entropy(odds[i % len(odds)]) < share for i in range(size)) / size
    assert numbers(method, labeled, unlabeled, iteration=iteration)["certain"] == pytest.approx(expected)
    assert (expected == 1) == (iteration == 100)


def test_with_three_classes_voxels_above_log_2_can_be_certain():
    labeled, unlabeled = samples(2)
    unlabeled["weak"] = image_of([1.5, 2.0, 3.0], 2)  # entropies of 1.08, 1.04 and 0.95; log 2 is 0.69, log 3 is 1.10
    unlabeled["image"] = unlabeled["weak"]
    method = uamt(2, network=Telling([0.0, 0.0, 1.0]), noise=0.0)
    assert numbers(method, labeled, unlabeled, iteration=10)["certain"] == 1


class Wavering(Telling):
    """Sure of one class in every other pass, and of the other class in the rest."""

    def forward(self, image):
        sign = 1.0 if len(self.inputs) % 2 else -1.0
        return sign * super().forward(torch.ones_like(image))


@pytest.mark.parametrize(("passes", "certain"), [(1, 1.0), (2, 0.0), (4, 0.0)])
def test_a_voxel_is_uncertain_where_the_passes_disagree_however_sure_each_is(passes, certain):
    labeled, unlabeled = samples(2, classes=2)
    method = uamt(2, network=Wavering([-20.0, 20.0]), passes=passes)
    assert numbers(method, labeled, unlabeled, iteration=10)["certain"] == certain


def test_a_voxel_that_is_uncertain_costs_nothing_and_one_that_is_certain_costs_the_whole():
    labeled, unlabeled = samples(2, classes=2)
    half = CROP[2][0] // 2
    unlabeled["weak"] = torch.zeros(1, 1, *CROP[2])
    unlabeled["weak"][:, :, :half] = 20.0  # certain; the rest has the largest entropy
    unlabeled["image"] = torch.zeros_like(unlabeled["weak"])
    terms = numbers(uamt(2, network=Telling([0.0, 1.0]), noise=0.0), labeled, unlabeled)
    assert terms["certain"] == 0.5
    assert terms["consistency"] == pytest.approx(0.5**2, rel=1e-4)  # (1/2, 1/2) against (0, 1)


def test_the_target_is_one_pass_and_the_uncertainty_is_from_so_many_more():
    method = uamt(2, network=Telling([0.0, 1.0, 2.0]), passes=5)
    labeled, unlabeled = samples(2)
    numbers(method, labeled, unlabeled)
    seen = method.teacher.inputs
    assert len(seen) == 6
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])  # each with a noise of its own
    assert method.teacher.modes == [(True, False)] * 6
    assert len(method.network.inputs) == 1


def test_a_label_for_monitoring_adds_the_overlap_of_the_teachers_label_over_all_voxels():
    method = uamt(2, network=Telling([0.0, 1.0, 2.0]), noise=0.0, first_threshold=0.0, ramp_iterations=10**9)
    labeled, unlabeled = samples(2)
    monitor = 2 * (unlabeled["weak"] > 0).to(torch.uint8)
    terms = numbers(method, labeled, {**unlabeled, "monitor_label": monitor})
    assert terms["certain"] == 0
    assert terms["pseudo_label_dice"] == 1


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network",
    [
        tiny_network(2, 1, dropout=0.0),
        nn.Conv2d(1, 3, 1),
        nn.Sequential(nn.Dropout(0.0), nn.Conv2d(1, 3, 1)),
    ],
    ids=["dropout of 0", "no module of dropout", "dropout of 0 elsewhere"],
)
def test_a_network_without_dropout_is_refused(network):
    with pytest.raises(ValueError, match="the network has none: set network_def#dropout above 0"):
        UAMT(network=network)


@pytest.mark.parametrize("dropout", [nn.Dropout(0.1), nn.Dropout2d(0.1), nn.Dropout3d(0.1), nn.AlphaDropout(0.1)])
def test_any_kind_of_dropout_is_enough(dropout):
    assert UAMT(network=nn.Sequential(nn.Conv2d(1, 3, 1), dropout)).passes == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"passes": 0}, "passes must be at least 1, not 0"),
        ({"teacher_mode": "eval"}, "in evaluation mode there is no Monte-Carlo dropout"),
        ({"teacher_mode": "test"}, "teacher_mode must be one of eval, train, not 'test'"),
        ({"first_threshold": 1.2}, "first_threshold is a share between 0 and 1, not 1.2"),
        ({"alpha": -1}, "alpha is a share between 0 and 1, not -1"),
    ],
)
def test_settings_that_would_train_something_else_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        uamt(2, **settings)


def test_where_everything_is_certain_it_is_the_mean_teacher():
    """With one draw of noise and no randomness in the networks, at a threshold that no voxel reaches."""
    labeled, unlabeled = samples(2)
    networks = Telling([0.0, 1.0, 2.0]), Telling([0.0, 1.0, 2.0])
    plain = MeanTeacher(network=networks[0], ramp_iterations=0, noise=0.0)
    careful = uamt(2, network=networks[1], ramp_iterations=0, noise=0.0)
    expected = numbers(plain, labeled, unlabeled)
    terms = numbers(careful, labeled, unlabeled)
    assert terms.pop("certain") == 1
    assert terms == pytest.approx(expected)
