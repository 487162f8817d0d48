from __future__ import annotations

import copy
import math

import pytest
import torch
from method_samples import batches, tiny_network
from slow_equations import forward, numbers
from test_fixmatch import slow_cross_entropy, slow_pseudo_label

from semi_med.errors import InputError
from semi_med.methods import UniMatch
from semi_med.networks import VNet
from semi_med.ops import drop_channels, mix

dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def slow_weak_pass(network: VNet, labeled: torch.Tensor, weak: torch.Tensor, share: float) -> list[torch.Tensor]:
    """Logits of labelled images, of weak views, and of weak views with channels dropped by the next random numbers."""
    network, count = copy.deepcopy(network).train(), len(labeled)
    with torch.no_grad():
        maps = network.features(torch.cat([labeled, weak]))
        dropped = [drop_channels(part[count:], share) for part in maps]
        logits, changed = (network.classify(network.decode(each), labeled.shape[2:]) for each in (maps, dropped))
    return [*logits.split([count, len(weak)]), changed]


@dimensions_2_and_3
@pytest.mark.parametrize("mixing", ["cutmix", "classmix", "supmix"])
def test_the_losses_are_the_papers_equations(dimensions, mixing):
    network = tiny_network(dimensions, 1)
    labeled, unlabeled = batches(dimensions)
    method = UniMatch(network=network, threshold=0.6, mixing=mixing, mixing_chance=1.0, feature_dropout=0.3)

    torch.manual_seed(0)
    logits, weak, dropped = slow_weak_pass(network, labeled["image"], unlabeled["weak"], 0.3)
    label, sure = slow_pseudo_label(weak, 0.6)
    assert 0 < float(sure.float().mean()) < 1
    strong = [
        mix(mixing, unlabeled[key], label=label, confident=sure, labeled=labeled, chance=1.0, first=first)
        for first, key in enumerate(("image", "strong_2"))
    ]
    found = forward(network, torch.cat([view.image for view in strong]), "train").chunk(2)

    x = slow_cross_entropy(logits, labeled["label"], torch.ones_like(labeled["label"], dtype=torch.bool))
    s1, s2 = (slow_cross_entropy(f, v.label, v.confident) for f, v in zip(found, strong, strict=True))
    fp = slow_cross_entropy(dropped, label, sure)

    terms = numbers(method, labeled, unlabeled)
    for name, value in {"supervised": x, "strong_1": s1, "strong_2": s2, "feature": fp}.items():
        assert terms[name] == pytest.approx(value, abs=1e-4)
    assert terms["loss"] == pytest.approx((x + 0.25 * s1 + 0.25 * s2 + 0.5 * fp) / 2, abs=1e-4)


def test_all_that_is_learnt_from_unlabelled_images_grows_over_the_ramp():
    labeled, unlabeled = batches(2)
    network = tiny_network(2, 1)
    terms = numbers(UniMatch(network=network, threshold=0.0, mixing="none", ramp_iterations=10), labeled, unlabeled)
    learnt = 0.25 * terms["strong_1"] + 0.25 * terms["strong_2"] + 0.5 * terms["feature"]
    assert terms["unsupervised_ramp"] == pytest.approx(math.exp(-1.25))
    assert terms["loss"] == pytest.approx((terms["supervised"] + math.exp(-1.25) * learnt) / 2, abs=1e-5)


def test_only_labelled_images_and_weak_views_are_in_the_statistics_of_batch_norm():
    """A network would misread clean images by statistics of jittered and pasted ones."""
    network = tiny_network(2, 1, normalization="batch").train()
    alone = copy.deepcopy(network)
    labeled, unlabeled = batches(2)
    UniMatch(network=network, threshold=0.0).losses(labeled, unlabeled, 0)
    alone(torch.cat([labeled["image"], unlabeled["weak"]]))
    seen = {name: value for name, value in alone.state_dict().items() if "running" in name}
    assert seen
    for name, wanted in seen.items():
        assert torch.equal(network.state_dict()[name], wanted), name


def test_both_strong_views_are_mixed_by_draws_of_their_own():
    labeled, unlabeled = batches(2)
    unlabeled["strong_2"] = unlabeled["image"].clone()
    terms = numbers(UniMatch(network=tiny_network(2, 1), threshold=0.0, mixing_chance=1.0), labeled, unlabeled)
    assert terms["strong_1"] != terms["strong_2"]
    terms = numbers(UniMatch(network=tiny_network(2, 1), threshold=0.0, mixing="none"), labeled, unlabeled)
    assert terms["strong_1"] == pytest.approx(terms["strong_2"])


def test_without_dropped_channels_the_feature_view_is_the_weak_view():
    labeled, unlabeled = batches(2)
    network = tiny_network(2, 1, normalization="none")
    terms = numbers(UniMatch(network=network, threshold=0.0, feature_dropout=0.0), labeled, unlabeled)
    weak = forward(network, unlabeled["weak"], "train")
    label, sure = slow_pseudo_label(weak, 0.0)
    assert terms["feature"] == pytest.approx(slow_cross_entropy(weak, label, sure), abs=1e-4)
    dropped = numbers(UniMatch(network=network, threshold=0.0), labeled, unlabeled)
    assert dropped["feature"] > terms["feature"]


def test_a_view_without_a_second_strong_one_is_refused_with_the_next_step():
    labeled, unlabeled = batches(2)
    del unlabeled["strong_2"]
    with pytest.raises(ValueError, match="set strong_views of the unlabeled view to 2"):
        UniMatch(network=tiny_network(2, 1)).losses(labeled, unlabeled, 0)


def test_a_network_that_cannot_be_run_in_steps_is_refused():
    with pytest.raises(InputError, match="UniMatch reaches between encoder and decoder, and Conv2d cannot"):
        UniMatch(network=torch.nn.Conv2d(1, 3, 1))


def test_a_dropout_of_everything_is_refused():
    with pytest.raises(ValueError, match="feature_dropout is a share of at least 0 and below 1"):
        UniMatch(network=tiny_network(2, 1), feature_dropout=1.0)
