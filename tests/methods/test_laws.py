"""What every method must keep. A later method is one more row in ROWS."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import pytest
import torch
from method_samples import CLASSES, CROP, MARGIN, batches, clone, tiny_network

from semi_med.methods import (
    BCP,
    CPS,
    UAMT,
    CopyPaste,
    CoTraining,
    DenseFixMatch,
    FixMatch,
    FixMatchSeg,
    MeanTeacher,
    Method,
    SegMatch,
    Supervised,
    SupMixSUFD,
    UniMatch,
)
from semi_med.networks import FeatureDiscriminator, MaskDiscriminator
from semi_med.ops import IGNORED


@dataclass(frozen=True)
class Row:
    """A method under the laws.

    Attributes:
        build: from the number of axes and settings to a fresh method of tiny networks.
        learns: each unsupervised term and the name of the network that learns from it, and no other.
        nothing_confident: settings with which no voxel is confident; None if the method has no threshold.
        sees: the unlabelled view that a term's learner sees, where it is not `image`.
        deployed: name of the network that comes first.
    """

    build: Callable[..., Method]
    learns: Mapping[str, str] = field(default_factory=dict)
    nothing_confident: Mapping[str, Any] | None = None
    sees: Mapping[str, str] = field(default_factory=dict)
    deployed: str = "network"


def supervised(dimensions: int, **settings: Any) -> Method:
    return Supervised(network=tiny_network(dimensions, 1), **settings)


def cotraining(dimensions: int, **settings: Any) -> Method:
    peer = tiny_network(dimensions, 2, upsampling="interpolated")
    defaults = {"max_shift": MARGIN[dimensions], "ramp_iterations": 10}
    return CoTraining(network=tiny_network(dimensions, 1), peer=peer, **{**defaults, **settings})


def mean_teacher(dimensions: int, **settings: Any) -> Method:
    return MeanTeacher(network=tiny_network(dimensions, 1, dropout=0.2), **{"ramp_iterations": 10, **settings})


def uamt(dimensions: int, **settings: Any) -> Method:
    return UAMT(network=tiny_network(dimensions, 1, dropout=0.2), **{"ramp_iterations": 10, **settings})


def cps(dimensions: int, **settings: Any) -> Method:
    peer = tiny_network(dimensions, 2, upsampling="interpolated")
    return CPS(network=tiny_network(dimensions, 1), peer=peer, **{"ramp_iterations": 10, **settings})


def bcp(dimensions: int, **settings: Any) -> Method:
    return BCP(network=tiny_network(dimensions, 1), **settings)


def copy_paste(dimensions: int, **settings: Any) -> Method:
    return CopyPaste(network=tiny_network(dimensions, 1), **settings)


def fixmatchseg(dimensions: int, **settings: Any) -> Method:
    return FixMatchSeg(network=tiny_network(dimensions, 1), **{"threshold": 0.0, **settings})


def segmatch(dimensions: int, **settings: Any) -> Method:
    torch.manual_seed(3)
    discriminator = MaskDiscriminator(spatial_dims=dimensions, base_filters=2, levels=2)
    defaults = {"gate": "identity"}
    return SegMatch(network=tiny_network(dimensions, 1), discriminator=discriminator, **{**defaults, **settings})


def fixmatch(dimensions: int, **settings: Any) -> Method:
    return FixMatch(network=tiny_network(dimensions, 1), **{"threshold": 0.0, **settings})


def unimatch(dimensions: int, **settings: Any) -> Method:
    return UniMatch(network=tiny_network(dimensions, 1), **{"threshold": 0.0, **settings})


def dense_fixmatch(dimensions: int, **settings: Any) -> Method:
    return DenseFixMatch(network=tiny_network(dimensions, 1, dropout=0.2), **{"threshold": 0.0, **settings})


def dense_fixmatch_student(dimensions: int, **settings: Any) -> Method:
    return dense_fixmatch(dimensions, **{"labels_from": "student", "alpha_unsupervised": 0.5, **settings})


def supmix(dimensions: int, **settings: Any) -> Method:
    return unimatch(dimensions, **{"mixing": "supmix", "alpha": 0.5, "alpha_unsupervised": 0.5, **settings})


def supmix_sufd(dimensions: int, **settings: Any) -> Method:
    network = tiny_network(dimensions, 1)
    torch.manual_seed(4)
    discriminator = FeatureDiscriminator(network.decoded_channels, spatial_dims=dimensions, widths=(4, 8))
    return SupMixSUFD(network=network, discriminator=discriminator, **{"threshold": 0.0, **settings})


UNIMATCH = {
    "learns": {"strong_1": "network", "strong_2": "network", "feature": "network"},
    "sees": {"strong_2": "strong_2", "feature": "weak"},
}
ROWS = {
    "supervised": Row(supervised),
    "mean_teacher": Row(mean_teacher, {"consistency": "network"}),
    "uamt": Row(uamt, {"consistency": "network"}, {"first_threshold": 0.0, "ramp_iterations": 10**9}),
    "cps": Row(cps, {"cross_1": "network", "cross_2": "peer"}),
    "bcp": Row(bcp, {"unsupervised": "network"}),
    "copy_paste": Row(copy_paste),
    "segmatch": Row(segmatch, {"unsupervised": "network"}, {"gate": "confidence", "threshold": 1.01}),
    "fixmatchseg": Row(fixmatchseg, {"unsupervised": "network"}, {"threshold": 1.01}),
    "fixmatch": Row(fixmatch, {"unsupervised": "network"}, {"threshold": 1.01}),
    "dense_fixmatch": Row(dense_fixmatch, {"unsupervised": "network"}, {"threshold": 1.01}, deployed="teacher"),
    "dense_fixmatch_student": Row(
        dense_fixmatch_student, {"unsupervised": "network"}, {"threshold": 1.01}, deployed="teacher"
    ),
    "unimatch": Row(unimatch, nothing_confident={"threshold": 1.01}, **UNIMATCH),
    "unimatch_classmix": Row(lambda n, **s: unimatch(n, mixing="classmix", **s), **UNIMATCH),
    "unimatch_supmix": Row(supmix, **UNIMATCH),
    "supmix_sufd": Row(
        supmix_sufd,
        {**UNIMATCH["learns"], "adversarial": "network"},
        sees={**UNIMATCH["sees"], "adversarial": "weak"},
    ),
    "cotraining": Row(
        cotraining,
        {"fixed_1": "network", "dynamic_1": "network", "fixed_2": "peer", "dynamic_2": "peer"},
        {"threshold": 1.01},
    ),
}

pytestmark = pytest.mark.parametrize("dimensions", [2, 3])
every_method = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
every_method_with_a_threshold = pytest.mark.parametrize(
    "row", [pytest.param(row, id=name) for name, row in ROWS.items() if row.nothing_confident is not None]
)
every_method_that_learns_from_unlabelled_images = pytest.mark.parametrize(
    "row", [pytest.param(row, id=name) for name, row in ROWS.items() if row.learns]
)
every_term = pytest.mark.parametrize(
    ("row", "term", "learner"),
    [pytest.param(row, *pair, id=f"{name}-{pair[0]}") for name, row in ROWS.items() for pair in row.learns.items()],
)


def losses(method: Method, labeled: Any, unlabeled: Any, *, iteration: int = 5, seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    return method.losses(labeled, unlabeled, iteration)


def gradient(term: torch.Tensor, network: torch.nn.Module) -> float:
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not parameters:
        return 0.0
    grads = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return sum(float(g.abs().sum()) for g in grads if g is not None)


def assert_finite(method: Method, labeled: Any, unlabeled: Any) -> None:
    terms = losses(method, labeled, unlabeled)
    assert all(torch.isfinite(term) for term in terms.values()), terms
    terms["loss"].backward()
    for network in method.networks().values():
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@every_method
def test_terms_are_scalars_and_the_loss_is_the_one_to_minimise(row, dimensions):
    method = row.build(dimensions)
    terms = losses(method, *batches(dimensions))
    assert all(term.shape == () for term in terms.values())
    for name, network in method.networks().items():
        assert name == "teacher" or gradient(terms["loss"], network) > 0


@every_method
def test_the_deployed_network_is_the_first_and_all_are_trained_modules(row, dimensions):
    networks = row.build(dimensions).networks()
    assert next(iter(networks)) == row.deployed
    assert all(isinstance(network, torch.nn.Module) for network in networks.values())


@every_method
def test_the_same_seed_gives_the_same_losses(row, dimensions):
    first = losses(row.build(dimensions), *batches(dimensions))
    second = losses(row.build(dimensions), *batches(dimensions))
    assert {k: float(v.detach()) for k, v in first.items()} == {k: float(v.detach()) for k, v in second.items()}


@every_method_with_a_threshold
def test_everything_is_finite_when_nothing_is_confident(row, dimensions):
    method = row.build(dimensions, **row.nothing_confident)
    terms = losses(method, *batches(dimensions))
    assert [float(terms[name].detach()) for name in row.learns] == [0.0] * len(row.learns)
    assert_finite(method, *batches(dimensions))


@every_method
@pytest.mark.parametrize("left", [(0,), (0, 2), (1,)])
def test_everything_is_finite_when_a_class_is_absent(row, dimensions, left):
    labeled, unlabeled = batches(dimensions)
    labeled["label"] = torch.tensor(left)[labeled["label"].long() % len(left)].to(torch.uint8)
    assert_finite(row.build(dimensions), labeled, unlabeled)


@every_method
@pytest.mark.parametrize("whole", ["batch", "crop"])
def test_everything_is_finite_when_nothing_is_known_of_a_label(row, whole, dimensions):
    labeled, unlabeled = batches(dimensions)
    labeled["label"][slice(None) if whole == "batch" else 0] = IGNORED
    method = row.build(dimensions)
    assert_finite(method, labeled, unlabeled)
    if whole == "batch":
        supervised = losses(method, labeled, unlabeled)["supervised"]
        assert float(supervised.detach()) == 0


def pointwise_network(dimensions: int, seed: int, **settings: Any) -> torch.nn.Module:
    """What it predicts of a voxel depends on that voxel alone."""
    torch.manual_seed(seed)
    return Pointwise(dimensions, settings.get("dropout", 0.0))


class Pointwise(torch.nn.Module):
    decoded_channels = 8

    def __init__(self, dimensions: int, dropout: float) -> None:
        super().__init__()
        nn = torch.nn
        conv, drop = (nn.Conv2d, nn.Dropout2d) if dimensions == 2 else (nn.Conv3d, nn.Dropout3d)
        self.first, self.between = conv(1, 8, 1), nn.Sequential(nn.Tanh(), drop(dropout))
        self.last = conv(8, CLASSES, 1)

    def features(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [self.first(image)]

    def decode(self, features: Any) -> torch.Tensor:
        return self.between(features[0])

    def classify(self, decoded: torch.Tensor, size: Any) -> torch.Tensor:
        return self.last(decoded)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.first(image)))


@every_method
def test_ignored_voxels_do_not_matter(row, dimensions, monkeypatch):
    monkeypatch.setitem(globals(), "tiny_network", pointwise_network)
    method, (labeled, unlabeled) = row.build(dimensions), batches(dimensions)
    hidden = torch.rand(labeled["label"].shape, generator=torch.Generator().manual_seed(1)) < 0.3

    def supervised(image: torch.Tensor, label: torch.Tensor) -> float:
        terms = losses(method, {"image": image, "label": label}, unlabeled)
        return float(terms["supervised"].detach())

    image, label = labeled["image"], labeled["label"]
    ignoring, other = label.masked_fill(hidden, IGNORED), torch.where(hidden, 1 - image, image)
    assert supervised(other, ignoring) == supervised(image, ignoring)
    assert supervised(other, label) != supervised(image, label)
    assert supervised(image, label) != supervised(image, ignoring)


@every_method
def test_ignored_voxels_of_a_label_for_monitoring_do_not_matter(row, dimensions):
    labeled, unlabeled = batches(dimensions)
    watched = torch.randint(0, CLASSES, unlabeled["weak"].shape, generator=torch.Generator().manual_seed(1))
    known, ignoring = (
        losses(row.build(dimensions), labeled, {**unlabeled, "monitor_label": label.to(torch.uint8)})
        for label in (watched, torch.full_like(watched, IGNORED))
    )
    for name, value in ignoring.items():
        assert float(value.detach()) == (1.0 if name.endswith("label_dice") else float(known[name].detach()))


@every_method
def test_everything_is_finite_for_batches_of_one(row, dimensions):
    assert_finite(row.build(dimensions), *batches(dimensions, labeled=1, unlabeled=1))


@every_method
def test_everything_is_finite_for_a_constant_image(row, dimensions):
    labeled, unlabeled = batches(dimensions)
    for batch, keys in ((labeled, ("image",)), (unlabeled, ("image", "strong_2", "weak", "context"))):
        for key in keys:
            batch[key] = torch.zeros_like(batch[key])
    assert_finite(row.build(dimensions), labeled, unlabeled)


@every_term
def test_an_unsupervised_term_teaches_its_network_from_the_unlabelled_images(row, term, learner, dimensions):
    method, (labeled, unlabeled) = row.build(dimensions), batches(dimensions)
    image = unlabeled[row.sees.get(term, "image")].requires_grad_()
    value = losses(method, labeled, unlabeled)[term]
    assert gradient(value, method.networks()[learner]) > 0
    (grad,) = torch.autograd.grad(value, image)
    assert (grad.flatten(1).abs().sum(1) > 0).all()


@every_term
def test_no_gradient_reaches_the_teacher_of_an_unsupervised_term(row, term, learner, dimensions):
    method, (labeled, unlabeled) = row.build(dimensions), batches(dimensions)
    teachers = [unlabeled[key].requires_grad_() for key in ("weak", "context") if row.sees.get(term) != key]
    value = losses(method, labeled, unlabeled)[term]
    for name, network in method.networks().items():
        if name != learner:
            assert gradient(value, network) == 0
    assert set(torch.autograd.grad(value, teachers, allow_unused=True)) == {None}


@every_method_that_learns_from_unlabelled_images
def test_the_unsupervised_terms_count_in_the_loss(row, dimensions):
    method, (labeled, unlabeled) = row.build(dimensions), batches(dimensions)
    unlabeled["image"].requires_grad_()
    (grad,) = torch.autograd.grad(losses(method, labeled, unlabeled)["loss"], unlabeled["image"])
    assert float(grad.abs().sum()) > 0


@every_method
@pytest.mark.parametrize("training", [True, False])
def test_networks_are_left_in_the_mode_they_came_in(row, dimensions, training):
    method = row.build(dimensions)
    for network in method.networks().values():
        network.train(training)
    losses(method, *batches(dimensions))
    for network in method.networks().values():
        assert {module.training for module in network.modules()} == {training}


@every_method
def test_losses_change_no_weight(row, dimensions):
    method = row.build(dimensions)
    before = {name: copy.deepcopy(list(network.parameters())) for name, network in method.networks().items()}
    losses(method, *batches(dimensions))["loss"].backward()
    for name, network in method.networks().items():
        assert all(torch.equal(a, b) for a, b in zip(before[name], network.parameters(), strict=True))


@every_method
def test_batches_are_left_as_they_were(row, dimensions):
    labeled, unlabeled = batches(dimensions)
    before = clone(labeled), clone(unlabeled)
    losses(row.build(dimensions), labeled, unlabeled)
    for old, new in zip(before, (labeled, unlabeled), strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)


@every_method
def test_a_label_for_monitoring_changes_no_loss_and_no_random_number(row, dimensions):
    labeled, unlabeled = batches(dimensions)
    plain = losses(row.build(dimensions), labeled, unlabeled)
    after = torch.rand(1)
    watched = {**unlabeled, "monitor_label": torch.ones(3, 1, *CROP[dimensions], dtype=torch.uint8)}
    method = row.build(dimensions)
    monitored = losses(method, labeled, watched)
    assert torch.equal(torch.rand(1), after)
    assert {name: float(monitored[name].detach()) for name in plain} == {k: float(v.detach()) for k, v in plain.items()}


@every_method
def test_trained_networks_start_apart(row, dimensions):
    method, (labeled, _) = row.build(dimensions), batches(dimensions)
    networks = [
        network for name, network in method.networks().items() if name == "network" or name in row.learns.values()
    ]
    outputs = [network.eval()(labeled["image"]) for network in networks]
    for i, a in enumerate(outputs):
        assert all(float((a - b).detach().abs().mean()) > 0.01 for b in outputs[i + 1 :])


@every_method
def test_after_update_keeps_the_weights_of_what_the_optimizer_trains(row, dimensions):
    method = row.build(dimensions)
    losses(method, *batches(dimensions))["loss"].backward()
    trained = [p for network in method.networks().values() for p in network.parameters() if p.grad is not None]
    before = copy.deepcopy(trained)
    method.after_update(0)
    assert trained
    assert all(torch.equal(a, b) for a, b in zip(before, trained, strict=True))


@every_method
def test_a_method_lowers_its_supervised_term_on_one_pair_of_batches(row, dimensions):
    method, (labeled, unlabeled) = row.build(dimensions), batches(dimensions)
    labeled["label"] = (labeled["image"] > 0).to(torch.uint8)
    parameters = [p for n in method.networks().values() for p in n.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    first = float(losses(method, labeled, unlabeled)["supervised"].detach())
    for iteration in range(16):
        optimizer.zero_grad()
        terms = losses(method, labeled, unlabeled, iteration=iteration, seed=iteration)
        terms["loss"].backward()
        optimizer.step()
        method.after_update(iteration)
    assert float(terms["supervised"].detach()) < 0.9 * first


@every_method
def test_fields_are_networks_and_plain_numbers_only(row, dimensions):
    method = row.build(dimensions)
    for f in fields(method):
        value = getattr(method, f.name)
        parts = value if isinstance(value, list | tuple) else [value]
        assert all(isinstance(part, torch.nn.Module | int | float | str | type(None)) for part in parts), f.name


every_method_with_a_mean_teacher = pytest.mark.parametrize(
    "row", [pytest.param(ROWS[name], id=name) for name in ("mean_teacher", "uamt", "bcp", "dense_fixmatch")]
)


def state(network: torch.nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in network.state_dict().values()]


@every_method_with_a_mean_teacher
def test_a_teacher_is_a_copy_that_moves_after_an_update_and_not_before(row, dimensions):
    method = row.build(dimensions)
    first = state(method.teacher)
    assert all(torch.equal(a, b) for a, b in zip(first, state(method.network), strict=True))

    optimizer = torch.optim.SGD(method.network.parameters(), lr=0.1)
    losses(method, *batches(dimensions))["loss"].backward()
    optimizer.step()
    start = dict(copy.deepcopy(row.build(dimensions)).teacher.named_parameters())
    weights = [p.clone() for p in method.teacher.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(start.values(), weights, strict=True))

    method.after_update(10**6)
    for old, new, student in zip(weights, method.teacher.parameters(), method.network.parameters(), strict=True):
        assert torch.allclose(new, 0.99 * old + 0.01 * student)
    moved = [float((a - b).abs().max().detach()) for a, b in zip(weights, method.teacher.parameters(), strict=True)]
    assert max(moved) > 0


@every_method_with_a_mean_teacher
def test_no_gradient_reaches_a_teacher(row, dimensions):
    method = row.build(dimensions)
    assert not any(p.requires_grad for p in method.teacher.parameters())
    losses(method, *batches(dimensions))["loss"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())
