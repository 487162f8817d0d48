from __future__ import annotations

import math

import pytest
import torch
from method_samples import CLASSES, CROP, batches, tiny_network
from slow_equations import foreground_overlap, forward, numbers, softmax

from semi_med.methods import FixMatchSeg
from semi_med.ops import draw_cutmix_regions, signed_distance

dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def slow_loss(logits: torch.Tensor, label: torch.Tensor, boundary: float) -> list[float]:
    """DL + BL of each image, class by class."""
    probs = softmax(logits)
    distance = signed_distance(label, CLASSES).double() / max(label.shape[2:])
    found = []
    for b in range(len(probs)):
        dice = bound = 0.0
        for k in range(1, CLASSES):
            p, g = probs[b, k], (label[b, 0] == k).double()
            dice += 1 - float((2 * (p * g).sum() + 1e-5) / ((p**2).sum() + g.sum() + 1e-5))
            bound += float((p * distance[b, k]).mean())
        found.append((dice + boundary * bound) / (CLASSES - 1))
    return found


@dimensions_2_and_3
@pytest.mark.parametrize("boundary", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_losses_are_the_papers_equations(dimensions, boundary, mode):
    network = tiny_network(dimensions, 1)
    labeled, unlabeled = batches(dimensions)
    weak = softmax(forward(network, unlabeled["weak"], mode))
    sure = [float(image.amax(0).mean()) for image in weak]
    tau = sorted(sure)[1]  # of three images two pass
    method = FixMatchSeg(network=network, threshold=tau - 1e-4, weight=0.7, boundary=boundary, teacher_mode=mode)

    logits = forward(network, torch.cat([labeled["image"], unlabeled["image"]]), "train")
    count = len(labeled["image"])
    supervised = sum(slow_loss(logits[:count], labeled["label"], boundary)) / count
    each = slow_loss(logits[count:], weak.argmax(1, keepdim=True), boundary)
    unsupervised = sum(loss for loss, s in zip(each, sure, strict=True) if s >= tau - 1e-4) / len(each)

    terms = numbers(method, labeled, unlabeled)
    assert terms["supervised"] == pytest.approx(supervised, abs=1e-4)
    assert terms["unsupervised"] == pytest.approx(unsupervised, abs=1e-4)
    assert terms["loss"] == pytest.approx(supervised + 0.7 * unsupervised, abs=1e-4)
    assert terms["accepted"] == pytest.approx(2 / 3)
    assert terms["confidence"] == pytest.approx(sum(sure) / 3, abs=1e-5)


def test_the_sum_is_divided_by_all_images_and_not_by_those_that_pass():
    labeled, unlabeled = batches(2)
    network = tiny_network(2, 1, normalization="instance")
    sure = softmax(forward(network, unlabeled["weak"], "train")).amax(1).flatten(1).mean(1)
    only_best = FixMatchSeg(network=network, threshold=float(sure.max()) - 1e-5)
    best = int(sure.argmax())
    alone = {key: value[best : best + 1] for key, value in unlabeled.items()}
    assert numbers(only_best, labeled, unlabeled)["unsupervised"] == pytest.approx(
        numbers(only_best, labeled, alone)["unsupervised"] / 3, abs=1e-5
    )


@dimensions_2_and_3
def test_the_gate_can_be_over_the_predicted_foreground(dimensions):
    network = tiny_network(dimensions, 1, normalization="instance")
    labeled, unlabeled = batches(dimensions)
    weak = softmax(forward(network, unlabeled["weak"], "eval"))
    sure = [float(image.amax(0)[image.argmax(0) > 0].mean()) for image in weak]
    low, middle, high = sorted(sure)
    for threshold, passing in ((low + middle) / 2, 2), ((middle + high) / 2, 1):
        method = FixMatchSeg(network=network, gate="foreground", threshold=threshold, teacher_mode="eval")
        assert numbers(method, labeled, unlabeled)["accepted"] == pytest.approx(passing / 3)


@dimensions_2_and_3
def test_a_mixture_of_two_strong_views_counts_if_both_pictures_pass(dimensions):
    network = tiny_network(dimensions, 1, normalization="instance")
    labeled, unlabeled = batches(dimensions)
    weak = softmax(forward(network, unlabeled["weak"], "eval"))
    sure = [float(image.amax(0).mean()) for image in weak]
    worst = sure.index(min(sure))  # its mixture and that of the picture after it, which it is pasted into, are out
    threshold = sorted(sure)[:2]
    torch.manual_seed(0)
    region = draw_cutmix_regions(3, CROP[dimensions])
    label = weak.argmax(1, keepdim=True)
    image, target = (torch.where(region, one.roll(1, 0), one) for one in (unlabeled["image"], label))
    each = slow_loss(forward(network, image, "train"), target, 1.0)

    method = FixMatchSeg(network=network, cutmix=True, threshold=sum(threshold) / 2, teacher_mode="eval")
    terms = numbers(method, labeled, unlabeled, seed=0)
    assert terms["accepted"] == pytest.approx(2 / 3)
    assert terms["unsupervised"] == pytest.approx(each[(worst + 2) % 3] / 3, abs=1e-4)


def test_the_weight_of_the_unlabelled_images_can_be_ramped_up():
    labeled, unlabeled = batches(2)
    method = FixMatchSeg(network=tiny_network(2, 1), threshold=0.0, weight=0.5, ramp_iterations=10)
    for iteration, weight in ((0, 0.5 * math.exp(-5)), (5, 0.5 * math.exp(-1.25)), (10, 0.5), (99, 0.5)):
        terms = numbers(method, labeled, unlabeled, iteration=iteration)
        assert terms["loss"] == pytest.approx(terms["supervised"] + weight * terms["unsupervised"], abs=1e-5)


def test_at_a_threshold_of_one_only_a_saturated_image_passes():
    labeled, unlabeled = batches(2)
    assert numbers(FixMatchSeg(network=tiny_network(2, 1), threshold=1.0), labeled, unlabeled)["accepted"] == 0
    network = tiny_network(2, 1, normalization="instance")
    with torch.no_grad():
        network.head.bias[1] += 1000
    assert numbers(FixMatchSeg(network=network, threshold=1.0), labeled, unlabeled)["accepted"] == 1


def test_monitoring_gives_the_overlap_of_the_pseudo_label_with_the_hidden_label():
    network = tiny_network(2, 1)
    labeled, unlabeled = batches(2)
    hidden = torch.randint(0, CLASSES, (3, 1, *CROP[2]), generator=torch.Generator().manual_seed(1))
    label = softmax(forward(network, unlabeled["weak"], "train")).argmax(1, keepdim=True)
    terms = numbers(FixMatchSeg(network=network), labeled, {**unlabeled, "monitor_label": hidden})
    assert terms["pseudo_label_dice"] == pytest.approx(foreground_overlap(label, hidden))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"gate": "edge"}, "gate must be one of image, foreground, not 'edge'"),
        ({"teacher_mode": "test"}, "teacher_mode must be one of eval, train, not 'test'"),
        ({"boundary": -1.0}, "boundary is a weight of at least 0, not -1.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        FixMatchSeg(network=tiny_network(2, 1), **settings)
