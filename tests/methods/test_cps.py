from __future__ import annotations

import copy

import pytest
import torch
from method_samples import batches, tiny_network
from slow_equations import Telling, foreground_overlap, forward, numbers, ramp, softmax, supervised_loss

from semi_med.methods import CPS

dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def cps(dimensions, *, networks=None, normalization="batch", dropout=0.0, **settings):
    kind = {"normalization": normalization, "dropout": dropout}
    network, peer = networks or (tiny_network(dimensions, 1, **kind), tiny_network(dimensions, 2, **kind))
    return CPS(network=network, peer=peer, **{"ramp_iterations": 10, **settings})


# --- The equation of the docstring, written slowly --------------------------------------------------------------------


def slow_terms(method, labeled, unlabeled, iteration, seed):
    torch.manual_seed(seed)
    count = len(labeled["image"])
    networks = method.network, method.peer
    taught = [softmax(forward(network, unlabeled["weak"], method.teacher_mode)) for network in networks]
    y_1, y_2 = (probs.argmax(1, keepdim=True) for probs in taught)
    images = torch.cat([labeled["image"], unlabeled["image"]])
    p_1, p_2 = (forward(network, images, "train") for network in networks)

    supervised = sum(supervised_loss(p[:count], labeled["label"], method.alpha) for p in (p_1, p_2))
    cross_1 = supervised_loss(p_1[count:], y_2, method.alpha_unsupervised)
    cross_2 = supervised_loss(p_2[count:], y_1, method.alpha_unsupervised)
    weight = method.weight * ramp(iteration, method.ramp_iterations)
    sure = [(probs.amax(1) >= 0.9).double().mean().item() for probs in taught]
    return {
        "supervised": supervised,
        "cross_1": cross_1,
        "cross_2": cross_2,
        "unsupervised_weight": weight,
        "loss": supervised + weight * (cross_1 + cross_2),
        "confident": sum(sure) / 2,
        "foreground": (y_1 > 0).double().mean().item(),
        "agreement": foreground_overlap(y_1, y_2),
    }


ABLATIONS = {
    "default": {},
    "instance norm": {"normalization": "instance"},
    "teachers in training mode": {"teacher_mode": "train"},
    "teachers in training mode with dropout": {"teacher_mode": "train", "dropout": 0.4},
    "dropout in the students alone": {"dropout": 0.4},
    "cross-entropy alone on pseudo-labels, as in the paper": {"alpha": 1.0, "alpha_unsupervised": 1.0},
    "two alphas and another weight": {"alpha": 0.2, "alpha_unsupervised": 0.9, "weight": 1.5},
    "after the ramp": {"ramp_iterations": 7},
}


@dimensions_2_and_3
@pytest.mark.parametrize("settings", ABLATIONS.values(), ids=ABLATIONS)
def test_the_terms_are_those_of_the_equation_written_slowly(settings, dimensions):
    slow = slow_terms(cps(dimensions, **settings), *batches(dimensions), 7, 11)
    fast = numbers(cps(dimensions, **settings), *batches(dimensions), iteration=7, seed=11)
    assert fast == pytest.approx(slow, rel=1e-4)


def test_the_terms_of_this_comparison_are_not_alike():
    terms = numbers(cps(3), *batches(3))
    assert abs(terms["cross_1"] - terms["cross_2"]) > 1e-3


# --- Who teaches whom -------------------------------------------------------------------------------------------------


def test_each_learns_the_others_label_and_not_its_own(monkeypatch):
    calls = []

    def spy(logits, label, *, alpha):
        calls.append(label)
        return logits.sum() * 0

    monkeypatch.setattr("semi_med.methods.cps.dice_ce", spy)
    labeled, unlabeled = batches(3)
    # a positive voxel is 2 to the network and 1 to its peer; a negative one is 0 to both
    numbers(cps(3, networks=(Telling([0.0, 1.0, 2.0]), Telling([0.0, 2.0, 1.0]))), labeled, unlabeled)
    positive = (unlabeled["weak"] > 0).long()
    assert torch.equal(calls[0], labeled["label"])
    assert torch.equal(calls[1], labeled["label"])
    assert torch.equal(calls[2], positive)
    assert torch.equal(calls[3], 2 * positive)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_labels_are_made_on_the_weak_view_in_the_mode_asked_for_and_learnt_on_the_students(mode):
    networks = Telling([0.0, 1.0, 2.0]), Telling([0.0, 2.0, 1.0])
    labeled, unlabeled = batches(2)
    numbers(cps(2, networks=networks, teacher_mode=mode), labeled, unlabeled)
    for network in networks:
        assert network.modes == [(mode == "train", False), (True, True)]
        assert torch.equal(network.inputs[0], unlabeled["weak"])
        assert torch.equal(network.inputs[1], torch.cat([labeled["image"], unlabeled["image"]]))


@dimensions_2_and_3
def test_teachers_in_evaluation_mode_leave_the_running_statistics_to_the_students_pass(dimensions):
    method = cps(dimensions)
    labeled, unlabeled = batches(dimensions)
    expected = [copy.deepcopy(network) for network in (method.network, method.peer)]
    numbers(method, labeled, unlabeled)
    for network, twin in zip((method.network, method.peer), expected, strict=True):
        twin.train()(torch.cat([labeled["image"], unlabeled["image"]]))
        assert all(torch.equal(a, b) for a, b in zip(network.buffers(), twin.buffers(), strict=True))


def test_a_label_for_monitoring_adds_the_overlap_with_the_label_of_the_first_network():
    networks = Telling([0.0, 1.0, 2.0]), Telling([0.0, 2.0, 1.0])
    labeled, unlabeled = batches(3)
    positive = (unlabeled["weak"] > 0).to(torch.uint8)
    for expert, expected in ((2 * positive, 1.0), (positive, 0.0)):
        terms = numbers(cps(3, networks=networks), labeled, {**unlabeled, "monitor_label": expert})
        assert terms["pseudo_label_dice"] == expected
        assert terms["agreement"] == 0


# --- Settings ---------------------------------------------------------------------------------------------------------


def test_one_network_cannot_be_its_own_peer():
    network = tiny_network(2, 1)
    with pytest.raises(ValueError, match="build the peer anew, equal twins never disagree"):
        cps(2, networks=(network, network))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.01}, "alpha is a share between 0 and 1, not 1.01"),
        ({"alpha_unsupervised": -0.5}, "alpha_unsupervised is a share between 0 and 1, not -0.5"),
        ({"teacher_mode": "off"}, "teacher_mode must be one of eval, train, not 'off'"),
    ],
)
def test_settings_that_would_train_something_else_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        cps(2, **settings)


def test_the_networks_of_the_recipe_are_alike_and_start_apart():
    from monai.bundle import ConfigParser

    from semi_med.recipes.compose import compose_config

    parser = ConfigParser(compose_config("train", method="cps", task="phantom"))
    assert parser["network_def"] == parser["peer_def"]
    parser["imports"] = ["$import semi_med.bundle as bundle"]
    parser["device"] = "cpu"
    network, peer = (parser.get_parsed_content(name) for name in ("network", "peer"))
    pairs = list(zip(network.parameters(), peer.parameters(), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    assert not any(torch.equal(a, b) for a, b in pairs if a.dim() > 1)
