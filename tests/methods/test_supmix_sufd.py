from __future__ import annotations

import copy
import math

import pytest
import torch
from method_samples import batches, tiny_network
from slow_equations import numbers, voxels
from test_unimatch import slow_weak_pass

from semi_med.methods import SupMixSUFD, UniMatch
from semi_med.networks import FeatureDiscriminator
from semi_med.ops import IGNORED, mix

dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def discriminator(dimensions: int, channels: int = 2) -> FeatureDiscriminator:
    torch.manual_seed(4)
    return FeatureDiscriminator(channels, spatial_dims=dimensions, widths=(4, 8))


def method(dimensions: int, **settings) -> SupMixSUFD:
    network = tiny_network(dimensions, 1)
    defaults = {"threshold": 0.6, "mixing_chance": 1.0}
    return SupMixSUFD(network=network, discriminator=discriminator(dimensions), **{**defaults, **settings})


def slow_entropy(logits: torch.Tensor, said: float) -> float:
    """Binary cross-entropy, place by place."""
    terms = []
    for b, place in voxels(logits):
        p = 1 / (1 + math.exp(-float(logits[(b, 0, *place)])))
        terms.append(-(said * math.log(p) + (1 - said) * math.log(1 - p)))
    return sum(terms) / len(terms)


def decoded(network, labeled, weak):
    """p_l and p_w of the pass in which labelled images, weak views and views with dropped channels are together."""
    network, count = copy.deepcopy(network).train(), len(labeled["image"])
    maps = []
    network.dropout_last.register_forward_hook(lambda module, given, out: maps.append(out))
    torch.manual_seed(0)
    slow_weak_pass(network, labeled["image"], weak, 0.5)
    del maps[1:]
    return maps[0][:count].detach(), maps[0][count : count + len(weak)].detach()


# --- SUFD ---------------------------------------------------------------------------------------------------------


@dimensions_2_and_3
def test_the_losses_are_equation_12(dimensions):
    found, (labeled, unlabeled) = method(dimensions, adversarial_weight=0.3), batches(dimensions)
    plain = UniMatch(network=copy.deepcopy(found.network), threshold=0.6, mixing="supmix", mixing_chance=1.0)
    p_l, p_w = decoded(found.network, labeled, unlabeled["weak"])
    with torch.no_grad():
        o_l, o_u = found.discriminator(p_l), found.discriminator(p_w)

    terms, base = numbers(found, labeled, unlabeled), numbers(plain, labeled, unlabeled)
    assert terms["adversarial"] == pytest.approx(slow_entropy(o_u, 1), abs=1e-4)
    assert terms["loss"] == pytest.approx(base["loss"] + 0.3 * slow_entropy(o_u, 1), abs=1e-4)
    theirs = found.discriminator_losses({"labeled": p_l, "unlabeled": p_w}, 5)
    wanted = 0.5 * (slow_entropy(o_u, 0) + slow_entropy(o_l, 1))
    assert float(theirs["discriminator_loss"].detach()) == pytest.approx(wanted, abs=1e-4)
    right = (float((o_l > 0).float().mean()) + float((o_u < 0).float().mean())) / 2
    assert float(theirs["discriminator_right"]) == pytest.approx(right)


@dimensions_2_and_3
def test_the_discriminator_is_shown_the_maps_that_the_classes_are_read_from(dimensions):
    found, (labeled, unlabeled) = method(dimensions), batches(dimensions)
    torch.manual_seed(0)
    _, shown = found.losses_and_shown(labeled, unlabeled, 5)
    p_l, p_w = decoded(found.network, labeled, unlabeled["weak"])
    assert torch.allclose(shown["labeled"], p_l, atol=1e-5)
    assert torch.allclose(shown["unlabeled"], p_w, atol=1e-5)
    assert shown["labeled"].shape[1] == found.network.decoded_channels


@dimensions_2_and_3
def test_the_networks_term_reaches_encoder_and_decoder_through_the_discriminator_and_not_the_head(dimensions):
    found, (labeled, unlabeled) = method(dimensions), batches(dimensions)
    torch.manual_seed(0)
    term = found.losses(labeled, unlabeled, 5)["adversarial"]
    names, parameters = zip(*found.network.named_parameters(), strict=True)
    grads = torch.autograd.grad(term, parameters, allow_unused=True, retain_graph=True)
    reached = {name for name, grad in zip(names, grads, strict=True) if grad is not None and grad.abs().sum() > 1e-9}
    assert "encoders.0.0.weight" in reached
    assert "decoders.0.0.weight" in reached
    assert not any(name.startswith("head") for name in reached)


@dimensions_2_and_3
def test_the_discriminators_loss_teaches_it_from_both_kinds_of_maps_and_nothing_else(dimensions):
    found, (labeled, unlabeled) = method(dimensions), batches(dimensions)
    _, shown = found.losses_and_shown(labeled, unlabeled, 5)
    shown = {name: value.detach().requires_grad_() for name, value in shown.items()}
    found.discriminator_losses(shown, 5)["discriminator_loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in found.discriminator.parameters())
    assert all(p.grad is None for p in found.network.parameters())
    assert all(value.grad is not None and value.grad.any() for value in shown.values())


def test_the_network_learns_to_look_like_labelled_images_and_the_discriminator_to_tell_them_apart():
    found, (labeled, unlabeled) = method(2), batches(2)
    ours = torch.optim.Adam(found.network.parameters(), lr=0.01)
    theirs = torch.optim.Adam(found.discriminator.parameters(), lr=0.01)
    _, shown = found.losses_and_shown(labeled, unlabeled, 0)
    shown = {name: value.detach() for name, value in shown.items()}
    first = float(found.discriminator_losses(shown, 0)["discriminator_loss"].detach())
    for _ in range(60):
        theirs.zero_grad()
        found.discriminator_losses(shown, 0)["discriminator_loss"].backward()
        theirs.step()
    assert float(found.discriminator_losses(shown, 0)["discriminator_loss"].detach()) < 0.5 * first
    before = numbers(found, labeled, unlabeled)["adversarial"]
    for _ in range(20):
        ours.zero_grad()
        found.losses(labeled, unlabeled, 0)["adversarial"].backward()
        ours.step()
    assert numbers(found, labeled, unlabeled)["adversarial"] < 0.5 * before


def test_with_a_weight_of_zero_it_is_unimatch_with_supmix():
    found, (labeled, unlabeled) = method(2, adversarial_weight=0.0), batches(2)
    plain = UniMatch(network=copy.deepcopy(found.network), threshold=0.6, mixing="supmix", mixing_chance=1.0)
    assert numbers(found, labeled, unlabeled)["loss"] == pytest.approx(numbers(plain, labeled, unlabeled)["loss"])


def test_the_discriminator_is_not_among_the_networks_that_are_deployed():
    found = method(2)
    assert list(found.networks()) == ["network"]
    assert list(found.discriminators()) == ["discriminator"]


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="adversarial_weight is a weight of at least 0, not -1"):
        method(2, adversarial_weight=-1.0)


# --- SupMix -------------------------------------------------------------------------------------------------------


@dimensions_2_and_3
def test_supmix_is_equations_9_to_11_with_the_misprint_mended(dimensions):
    labeled, unlabeled = batches(dimensions)
    y_a, x_a, x_b = labeled["label"].long(), labeled["image"], unlabeled["image"]
    y_b = torch.randint(0, 3, x_b.shape, generator=torch.Generator().manual_seed(1))
    sure = torch.rand(x_b.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    out = mix("supmix", x_b, label=y_b, confident=sure, labeled=labeled, chance=1.0)
    for b in range(len(x_b)):
        a = b % len(x_a)
        drawn = set(y_a[a][out.region[b]].tolist())
        assert len(drawn) == 1  # floor(2 / 2) of the classes 1 and 2
        assert drawn <= {1, 2}
        for _, place in voxels(x_b[:1]):
            m = int(int(y_a[(a, 0, *place)]) in drawn)
            x = m * float(x_a[(a, 0, *place)]) + (1 - m) * float(x_b[(b, 0, *place)])
            y = m * int(y_a[(a, 0, *place)]) + (1 - m) * int(y_b[(b, 0, *place)])
            assert float(out.image[(b, 0, *place)]) == pytest.approx(x)
            assert int(out.label[(b, 0, *place)]) == y
            assert bool(out.confident[(b, 0, *place)]) == (m == 1 or bool(sure[(b, 0, *place)]))


def test_what_is_not_known_of_a_labelled_image_changes_no_unsupervised_term():
    labeled, unlabeled = batches(2)
    hidden = torch.rand(labeled["label"].shape, generator=torch.Generator().manual_seed(1)) < 0.4
    labeled["label"] = labeled["label"].masked_fill(hidden, IGNORED)
    other = {**labeled, "image": torch.where(hidden, labeled["image"] + 5, labeled["image"])}
    network = tiny_network(2, 1, normalization="none")
    terms = [
        numbers(UniMatch(network=network, mixing="supmix", mixing_chance=1.0), batch, unlabeled)
        for batch in (labeled, other)
    ]
    for name in ("strong_1", "strong_2", "feature"):
        assert terms[0][name] == terms[1][name]
    assert terms[0]["pasted"] > 0
