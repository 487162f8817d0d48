from __future__ import annotations

import math

import pytest
import torch
from method_samples import batches, tiny_network
from slow_equations import forward, numbers, softmax, voxels

from semi_med.methods import FixMatch
from semi_med.ops import IGNORED, mix

dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def slow_cross_entropy(logits: torch.Tensor, label: torch.Tensor, counts: torch.Tensor) -> float:
    """-log p of the label over the voxels that count, divided by all that are known."""
    probs, total, known = softmax(logits), 0.0, 0
    for b, voxel in voxels(label):
        k = int(label[(b, 0, *voxel)])
        known += k != IGNORED
        if k != IGNORED and bool(counts[(b, 0, *voxel)]):
            total -= float(probs[(b, k, *voxel)].log())
    return total / known


def slow_pseudo_label(logits: torch.Tensor, tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    probs = softmax(logits)
    return probs.argmax(1, keepdim=True), probs.amax(1, keepdim=True) >= tau


@dimensions_2_and_3
@pytest.mark.parametrize("mixing", ["none", "cutmix", "supmix"])
def test_the_losses_are_the_papers_equations(dimensions, mixing):
    network = tiny_network(dimensions, 1)
    labeled, unlabeled = batches(dimensions)
    labeled["label"][0, 0, 0] = IGNORED
    method = FixMatch(network=network, threshold=0.6, weight=0.7, mixing=mixing, mixing_chance=1.0)
    both = forward(network, torch.cat([labeled["image"], unlabeled["weak"]]), "train")
    label, sure = slow_pseudo_label(both[2:], 0.6)
    assert 0 < float(sure.float().mean()) < 1

    torch.manual_seed(0)
    strong = mix(mixing, unlabeled["image"], label=label, confident=sure, labeled=labeled, chance=1.0)
    unsupervised = slow_cross_entropy(forward(network, strong.image, "train"), strong.label, strong.confident)
    supervised = slow_cross_entropy(both[:2], labeled["label"], torch.ones_like(labeled["label"], dtype=torch.bool))

    terms = numbers(method, labeled, unlabeled)
    assert terms["supervised"] == pytest.approx(supervised, abs=1e-4)
    assert terms["unsupervised"] == pytest.approx(unsupervised, abs=1e-4)
    assert terms["loss"] == pytest.approx((supervised + 0.7 * unsupervised) / 2, abs=1e-4)
    assert terms["confident"] == pytest.approx(float(sure.float().mean()))
    assert terms["pasted"] == pytest.approx(float(strong.region.float().mean()))


def test_what_is_learnt_from_unlabelled_images_grows_over_the_ramp():
    labeled, unlabeled = batches(2)
    network = tiny_network(2, 1)
    plain = numbers(FixMatch(network=network, threshold=0.0, mixing="none"), labeled, unlabeled)
    for ramp, weight in ((10, math.exp(-1.25)), (0, 1.0)):  # at iteration 5
        terms = numbers(
            FixMatch(network=network, threshold=0.0, mixing="none", ramp_iterations=ramp), labeled, unlabeled
        )
        assert terms["unsupervised_weight"] == pytest.approx(weight)
        assert terms["loss"] == pytest.approx((plain["supervised"] + weight * plain["unsupervised"]) / 2, abs=1e-5)


def test_the_sum_is_divided_by_all_voxels_and_not_by_the_sure_ones():
    labeled, unlabeled = batches(2)
    network = tiny_network(2, 1)
    weak = forward(network, torch.cat([labeled["image"], unlabeled["weak"]]), "train")[2:]
    label, sure = slow_pseudo_label(weak, 0.6)
    found = forward(network, unlabeled["image"], "train")
    over_sure = slow_cross_entropy(found, label.masked_fill(~sure, IGNORED), sure)
    terms = numbers(FixMatch(network=network, threshold=0.6, mixing="none"), labeled, unlabeled)
    assert terms["unsupervised"] == pytest.approx(over_sure * float(sure.float().mean()), abs=1e-5)


def test_what_an_expert_drew_teaches_although_nothing_is_confident():
    labeled, unlabeled = batches(2)
    settings = {"network": tiny_network(2, 1), "threshold": 1.01, "mixing_chance": 1.0}
    assert numbers(FixMatch(mixing="cutmix", **settings), labeled, unlabeled)["unsupervised"] == 0
    assert numbers(FixMatch(mixing="supmix", **settings), labeled, unlabeled)["unsupervised"] > 0
    labeled["label"] = torch.zeros_like(labeled["label"])
    assert numbers(FixMatch(mixing="supmix", **settings), labeled, unlabeled)["unsupervised"] == 0


def test_agreement_is_that_of_the_voxels_that_were_not_pasted():
    labeled, unlabeled = batches(2)
    labeled["label"] = torch.ones_like(labeled["label"])  # everything is pasted
    terms = numbers(FixMatch(network=tiny_network(2, 1), mixing="supmix", mixing_chance=1.0), labeled, unlabeled)
    assert terms["pasted"] == 1
    assert terms["agreement"] == 1  # of no voxel


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mixing": "mixup"}, "mixing must be one of none, cutmix, classmix, supmix, not 'mixup'"),
        ({"mixing_chance": 1.5}, "mixing_chance is a share between 0 and 1, not 1.5"),
        ({"alpha": -0.1}, "alpha is a share"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        FixMatch(network=tiny_network(2, 1), **settings)


def test_dice_can_be_added_to_each_side_alone():
    labeled, unlabeled = batches(2)
    settings = {"network": tiny_network(2, 1), "threshold": 0.0, "mixing": "none"}
    plain, first, second = (
        numbers(FixMatch(**settings, **more), labeled, unlabeled)
        for more in ({}, {"alpha": 0.5}, {"alpha_unsupervised": 0.5})
    )
    assert plain["supervised"] == second["supervised"] != first["supervised"]
    assert plain["unsupervised"] == first["unsupervised"] != second["unsupervised"]
