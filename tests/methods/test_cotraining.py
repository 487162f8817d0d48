from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from method_samples import CLASSES, CROP, MARGIN, batches, tiny_network
from torch import nn

from semi_med.methods import CoTraining
from semi_med.ops import SHIFT_DIRECTIONS, draw_cutmix_regions, draw_offsets

dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def cotraining(dimensions, *, networks=None, **settings):
    network, peer = networks or (tiny_network(dimensions, 1), tiny_network(dimensions, 2, upsampling="interpolated"))
    defaults = {"max_shift": MARGIN[dimensions], "ramp_iterations": 10}
    return CoTraining(network=network, peer=peer, **{**defaults, **settings})


def numbers(method, labeled, unlabeled, *, iteration=5, seed=0):
    torch.manual_seed(seed)
    return {name: term.item() for name, term in method.losses(labeled, unlabeled, iteration).items()}


# --- The equations of the docstring, written slowly -------------------------------------------------------------------


def slow_loss(logits, label, valid, alpha):
    """alpha CE + (1 - alpha) Dice from softmax probabilities in double precision, class by class."""
    probs = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
    counts = valid.double()
    own = sum(probs[:, k : k + 1] * (label == k) for k in range(CLASSES))
    ce = -(own.log() * counts).sum() / max(1.0, counts.sum().item())
    dice = 0.0
    for k in range(1, CLASSES):
        p, g = probs[:, k : k + 1], (label == k).double()
        shared, total = (p * g * counts).sum(), ((p**2 + g) * counts).sum()
        dice += (1 - (2 * shared + 1e-5) / (total + 1e-5)) / (CLASSES - 1)
    return (alpha * ce + (1 - alpha) * dice).item()


def slow_teach(teacher, weak, context, offsets, threshold, mode):
    """Labels and counting voxels: the fixed pair and one dynamic pair a shift, COM by a loop over voxels."""
    teacher = copy.deepcopy(teacher).train(mode == "train")
    size = weak.shape[2:]
    shifted = torch.empty(len(offsets), *weak.shape)
    for s, offset in enumerate(offsets):
        for b in range(len(weak)):
            start = [(c - n) // 2 + int(d) for c, n, d in zip(context.shape[2:], size, offset[b], strict=True)]
            shifted[s, b] = context[(b, slice(None), *(slice(f, f + n) for f, n in zip(start, size, strict=True)))]
    with torch.no_grad():
        probs = torch.softmax(teacher(torch.cat([weak, *shifted])), 1).split(len(weak))
    label, valid = zip(*((p.argmax(1, keepdim=True), p.amax(1, keepdim=True) >= threshold) for p in probs), strict=True)
    lessons = [(label[0], valid[0])]
    for s, offset in enumerate(offsets):
        pair = label[0].clone(), valid[0].clone()
        for b, voxel in itertools.product(range(len(weak)), itertools.product(*(range(n) for n in size))):
            source = tuple(v - int(d) for v, d in zip(voxel, offset[b], strict=True))
            if all(0 <= v < n for v, n in zip(source, size, strict=True)):
                pair[0][(b, 0, *voxel)] = label[s + 1][(b, 0, *source)]
                pair[1][(b, 0, *voxel)] = valid[s + 1][(b, 0, *source)]
        lessons.append(pair)
    return lessons


def slow_cut(maps, region):
    mixed = maps.clone()
    for b in range(len(maps)):
        inside = region[b].expand_as(maps[b])
        mixed[b][inside] = maps[b - 1][inside]
    return mixed


def slow_terms(method, labeled, unlabeled, iteration, seed):
    """The terms of `CoTraining.losses`; only the drawn numbers come from the package."""
    torch.manual_seed(seed)
    image, count = unlabeled["image"], len(labeled["image"])
    order = torch.randperm(len(method.shifts))[: method.shifts_per_step].tolist() if method.dynamic else []
    offsets = [
        draw_offsets(unlabeled["margin"], method.max_shift, index=method.shifts[i], pattern=method.shift_pattern)
        for i in order
    ]
    region = torch.zeros(len(image), 1, *image.shape[2:], dtype=torch.bool)
    if method.cutmix:
        region = draw_cutmix_regions(len(image), image.shape[2:], axes=method.cutmix_axes)
    taught = {}
    for name, teacher in (("1", method.network), ("2", method.peer)):
        taught[name] = slow_teach(
            teacher, unlabeled["weak"], unlabeled["context"], offsets, method.threshold, method.teacher_mode
        )
    cut = [tuple(slow_cut(part, region) for part in pair) for pair in taught["1"]]
    students = copy.deepcopy(method.network), copy.deepcopy(method.peer)
    terms = {"supervised": 0.0}
    mixed = slow_cut(image, region)
    for name, student, inputs, lessons in zip("12", students, (image, mixed), (taught["2"], cut), strict=True):
        logits = student.train()(torch.cat([labeled["image"], inputs])).detach()
        everywhere = torch.ones_like(labeled["label"], dtype=torch.bool)
        terms["supervised"] += slow_loss(logits[:count], labeled["label"], everywhere, method.alpha)
        costs = [slow_loss(logits[count:], *pair, method.alpha_unsupervised) for pair in lessons]
        terms[f"fixed_{name}"] = costs[0]
        terms[f"dynamic_{name}"] = sum(costs[1:]) / len(costs[1:]) if costs[1:] else 0.0
    fixed, dynamic = (terms[f"{kind}_1"] + terms[f"{kind}_2"] for kind in ("fixed", "dynamic"))
    terms["unsupervised"] = method.fixed * fixed + method.dynamic * dynamic
    terms["unsupervised_weight"] = method.weight * math.exp(-5 * (1 - min(1, iteration / method.ramp_iterations)) ** 2)
    terms["loss"] = terms["supervised"] + terms["unsupervised_weight"] * terms["unsupervised"]
    return terms


ABLATIONS = {
    "default": {},
    "fixed only": {"dynamic": 0},
    "dynamic only": {"fixed": 0},
    "other weights": {"fixed": 0.3, "dynamic": 2.0, "weight": 0.1},
    "no CutMix": {"cutmix": False},
    "CutMix along the last axis": {"cutmix_axes": (-1,)},
    "Dice only": {"alpha": 0.0, "alpha_unsupervised": 0.0},
    "CE only": {"alpha": 1.0, "alpha_unsupervised": 1.0},
    "two alphas": {"alpha": 0.2, "alpha_unsupervised": 0.9},
    "all four shifts": {"shifts_per_step": 4},
    "two of three shifts": {"shifts": (3, 0, 1), "shifts_per_step": 2},
    "faces": {"shift_pattern": "faces"},
    "threshold": {"threshold": 0.5, "shifts_per_step": 2},
    "teachers in training mode": {"teacher_mode": "train"},
    "no ramp": {"ramp_iterations": 0},
}


@dimensions_2_and_3
@pytest.mark.parametrize("settings", ABLATIONS.values(), ids=ABLATIONS)
def test_the_terms_are_those_of_the_equations_written_slowly(settings, dimensions):
    if settings.get("ramp_iterations") == 0:
        slow_settings = {"ramp_iterations": 1}  # at iteration 7 the ramp is over
    else:
        slow_settings = settings
    slow = slow_terms(cotraining(dimensions, **slow_settings), *batches(dimensions), 7, 11)
    fast = numbers(cotraining(dimensions, **settings), *batches(dimensions), iteration=7, seed=11)
    assert {name: fast[name] for name in slow} == pytest.approx(slow, rel=1e-4)


def test_the_terms_of_this_comparison_are_not_alike():
    terms = numbers(cotraining(3), *batches(3), iteration=7)
    values = sorted(terms[name] for name in ("supervised", "fixed_1", "dynamic_1", "fixed_2", "dynamic_2"))
    assert all(b - a > 1e-3 for a, b in itertools.pairwise(values))


# --- Networks that reveal what they are given -------------------------------------------------------------------------


class Revealing(nn.Module):
    """Remembers its inputs; answers with a rule of (input, which forward this is) and one trainable number."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.inputs, self.modes = rule, [], []
        self.number = nn.Parameter(torch.ones(()))

    def forward(self, image):
        self.inputs.append(image.detach().clone())
        self.modes.append((self.training, torch.is_grad_enabled()))
        label = self.rule(image)
        return self.number * 10.0 * nn.functional.one_hot(label, CLASSES).movedim(-1, 1).float()


def class_of(image):
    """A class that depends on the value of a voxel and on nothing else."""
    return (image[:, 0] * 1000).long().remainder(CLASSES)


def spy_on_losses(monkeypatch):
    """(label, valid) of each call: supervised_1, supervised_2, then what is learnt, in the order of the terms."""
    calls = []

    def spy(logits, label, *, alpha, valid=None):
        calls.append((label, valid))
        return logits.sum() * 0

    monkeypatch.setattr("semi_med.methods.cotraining.dice_ce", spy)
    return calls


@dimensions_2_and_3
def test_images_and_labels_are_mixed_by_the_same_region(dimensions, monkeypatch):
    calls = spy_on_losses(monkeypatch)
    labeled, unlabeled = batches(dimensions, margin=0)
    unlabeled["image"] = unlabeled["weak"]
    peer = Revealing(class_of)
    numbers(cotraining(dimensions, networks=(Revealing(class_of), peer)), labeled, unlabeled)
    mixed = peer.inputs[1][2:]
    assert not torch.equal(mixed, unlabeled["image"])
    (fixed_2, _), (dynamic_2, _) = calls[4:]
    assert torch.equal(fixed_2[:, 0], class_of(mixed))
    assert torch.equal(dynamic_2[:, 0], class_of(mixed))  # without a margin there is no shift


@dimensions_2_and_3
def test_the_mixed_image_holds_two_different_images_each_voxel_from_one_of_them(dimensions):
    labeled, unlabeled = batches(dimensions)
    peer = Revealing(class_of)
    numbers(cotraining(dimensions, networks=(Revealing(class_of), peer)), labeled, unlabeled)
    image, mixed = unlabeled["image"], peer.inputs[1][2:]
    own, other = mixed == image, mixed == image.roll(1, 0)
    assert (own ^ other).all()
    assert own.flatten(1).any(1).all()
    assert other.flatten(1).any(1).all()


def test_the_voxels_that_count_are_mixed_with_the_labels(monkeypatch):
    calls = spy_on_losses(monkeypatch)
    labeled, unlabeled = batches(3)
    network, peer = tiny_network(3, 1), Revealing(class_of)
    with torch.no_grad():
        confident = network.eval()(unlabeled["weak"]).softmax(1).amax(1, keepdim=True) >= 0.5
    numbers(cotraining(3, networks=(network, peer), threshold=0.5), labeled, unlabeled)
    image, mixed = unlabeled["image"], peer.inputs[1][2:]
    assert confident.any()
    assert not confident.all()
    assert torch.equal(calls[4][1], torch.where(mixed == image, confident, confident.roll(1, 0)))


@dimensions_2_and_3
def test_sn_1_and_the_teachers_see_unmixed_crops_and_a_batch_of_one_is_not_mixed(dimensions):
    networks = Revealing(class_of), Revealing(class_of)
    labeled, unlabeled = batches(dimensions)
    numbers(cotraining(dimensions, networks=networks), labeled, unlabeled)
    assert torch.equal(networks[0].inputs[1], torch.cat([labeled["image"], unlabeled["image"]]))
    assert torch.equal(networks[0].inputs[0][:3], unlabeled["weak"])
    assert torch.equal(networks[1].inputs[0], networks[0].inputs[0])

    alone = Revealing(class_of), Revealing(class_of)
    labeled, unlabeled = batches(dimensions, unlabeled=1)
    numbers(cotraining(dimensions, networks=alone), labeled, unlabeled)
    assert torch.equal(alone[1].inputs[1], torch.cat([labeled["image"], unlabeled["image"]]))


@dimensions_2_and_3
def test_a_network_that_knows_each_voxel_gives_equal_fixed_and_dynamic_labels(dimensions, monkeypatch):
    """The prediction depends on the voxel alone, so any disagreement would be one about its place."""
    calls = spy_on_losses(monkeypatch)
    networks = Revealing(class_of), Revealing(class_of)
    labeled, unlabeled = batches(dimensions)
    numbers(cotraining(dimensions, networks=networks, shifts_per_step=4), labeled, unlabeled)
    weak, *shifted = networks[0].inputs[0].split(3)
    assert not any(torch.equal(weak, crop) for crop in shifted)
    learnt_1, learnt_2 = calls[2:7], calls[7:]
    for learnt in (learnt_1, learnt_2):
        assert len(learnt) == 5
        assert all(torch.equal(learnt[0][0], label) for label, _ in learnt[1:])


@dimensions_2_and_3
@pytest.mark.parametrize("pattern", SHIFT_DIRECTIONS)
def test_the_dynamic_label_is_new_exactly_where_the_shifted_crop_lies(dimensions, pattern, monkeypatch):
    calls = spy_on_losses(monkeypatch)

    def one_on_shifted_crops(image):
        label = torch.zeros_like(image[:, 0], dtype=torch.int64)
        label[3:] = 1
        return label

    labeled, unlabeled = batches(dimensions, margin=1)
    networks = Revealing(one_on_shifted_crops), Revealing(one_on_shifted_crops)
    method = cotraining(dimensions, networks=networks, max_shift=(1,) * dimensions, shifts=(2,), shift_pattern=pattern)
    numbers(method, labeled, unlabeled)
    expected = torch.ones(CROP[dimensions], dtype=torch.int64)
    for axis, d in enumerate(SHIFT_DIRECTIONS[pattern][dimensions][2]):
        if d:
            expected.select(axis, 0 if d > 0 else -1).zero_()
    assert torch.equal(calls[2][0], torch.zeros(3, 1, *CROP[dimensions], dtype=torch.int64))
    assert all(torch.equal(label[0], expected) for label in calls[3][0])


@dimensions_2_and_3
def test_without_a_free_margin_nothing_is_shifted(dimensions):
    network = Revealing(class_of)
    labeled, unlabeled = batches(dimensions, margin=0)
    numbers(cotraining(dimensions, networks=(network, Revealing(class_of))), labeled, unlabeled)
    weak, shifted = network.inputs[0].split(3)
    assert torch.equal(weak, shifted)


@dimensions_2_and_3
def test_all_four_shifts_cost_the_mean_of_each_alone(dimensions):
    settings = {"max_shift": (1,) * dimensions, "cutmix": False}  # the only distance is 1: nothing is left to chance
    labeled, unlabeled = batches(dimensions, margin=1)
    together = numbers(cotraining(dimensions, shifts_per_step=4, **settings), labeled, unlabeled)
    alone = [numbers(cotraining(dimensions, shifts=(i,), **settings), labeled, unlabeled) for i in range(4)]
    for name in ("dynamic_1", "dynamic_2"):
        assert len({round(terms[name], 6) for terms in alone}) > 1
        assert together[name] == pytest.approx(sum(terms[name] for terms in alone) / 4, rel=1e-5)


def test_every_shift_is_drawn_in_the_course_of_training():
    labeled, unlabeled = batches(2, margin=1)
    network = Revealing(class_of)
    method = cotraining(2, networks=(network, Revealing(class_of)), max_shift=(1, 1))
    seen = set()
    for seed in range(30):
        network.inputs.clear()
        numbers(method, labeled, unlabeled, seed=seed)
        seen.add(tuple(network.inputs[0][3:].flatten().tolist()))
    assert len(seen) == 4


# --- Modes, statistics, curves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_teachers_work_in_the_mode_asked_for_without_gradient_and_students_train(mode):
    networks = Revealing(class_of), Revealing(class_of)
    numbers(cotraining(2, networks=networks, teacher_mode=mode), *batches(2))
    for network in networks:
        assert network.modes == [(mode == "train", False), (True, True)]


@dimensions_2_and_3
def test_teachers_in_evaluation_mode_leave_the_running_statistics_alone(dimensions):
    method = cotraining(dimensions)
    labeled, unlabeled = batches(dimensions)
    before = copy.deepcopy(method.network)
    numbers(method, labeled, unlabeled)
    before.train()(torch.cat([labeled["image"], unlabeled["image"]]))  # the student's own pass is all that counts
    for (name, a), b in zip(before.named_buffers(), method.network.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_dropout_is_off_in_the_teachers_and_on_in_the_students():
    def once(seed):
        method = cotraining(
            2, networks=(tiny_network(2, 1, dropout=0.5), tiny_network(2, 2, dropout=0.5)), cutmix=False
        )
        terms = numbers(method, *batches(2, margin=0), seed=seed)
        return terms["agreement"], terms["foreground"], terms["fixed_1"]

    first, second = once(0), once(1)
    assert first[:2] == second[:2]
    assert first[2] != second[2]


@dimensions_2_and_3
def test_curves_tell_confidence_foreground_and_agreement_of_the_fixed_labels(dimensions):
    method = cotraining(dimensions)
    labeled, unlabeled = batches(dimensions)
    with torch.no_grad():
        probs = [network.eval()(unlabeled["weak"]).softmax(1) for network in (method.network, method.peer)]
    method.network.train()
    method.peer.train()
    terms = numbers(method, labeled, unlabeled)
    one, two = (p.argmax(1) for p in probs)
    shared = ((one == two) & (one > 0)).sum().item()
    share = [(p.amax(1) >= 0.9).float().mean().item() for p in probs]
    assert terms["confident"] == pytest.approx(sum(share) / 2)
    assert terms["foreground"] == pytest.approx((one > 0).float().mean().item())
    assert terms["agreement"] == pytest.approx(2 * shared / ((one > 0).sum() + (two > 0).sum()).item())


@pytest.mark.parametrize("settings", [{}, {"dynamic": 0}, {"shifts_per_step": 4}])
def test_with_a_monitor_label_the_overlap_of_pseudo_labels_with_it_is_told(settings):
    labeled, unlabeled = batches(3)
    network = Revealing(class_of)
    unlabeled["monitor_label"] = class_of(unlabeled["weak"])[:, None].to(torch.uint8)
    terms = numbers(cotraining(3, networks=(network, Revealing(class_of)), **settings), labeled, unlabeled)
    assert terms["pseudo_label_dice"] == 1
    assert terms.get("dynamic_label_dice") == (None if "dynamic" in settings else 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shifts": (0, 4)}, r"shifts must be among 0\.\.3 .* not \[0, 4\]"),
        ({"shifts_per_step": 5}, "shifts_per_step between 1 and their number"),
        ({"shifts_per_step": 0}, "shifts_per_step between 1 and their number"),
        ({"shifts": (1, 2), "shifts_per_step": 3}, "shifts_per_step between 1 and their number"),
        ({"shifts": ()}, "shifts is empty.* set dynamic to 0"),
        ({"fixed": 0, "dynamic": 0}, "nothing is learnt from unlabelled scans; use Supervised"),
        ({"teacher_mode": "evaluation"}, "teacher_mode must be one of eval, train, not 'evaluation'"),
        ({"shift_pattern": "edges"}, "shift_pattern must be one of corners, faces, not 'edges'"),
        ({"alpha": 1.5}, "alpha is a share between 0 and 1, not 1.5"),
        ({"alpha_unsupervised": -0.1}, "alpha_unsupervised is a share between 0 and 1, not -0.1"),
    ],
)
def test_settings_that_would_train_something_else_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        cotraining(2, **settings)


def test_one_network_cannot_be_its_own_peer():
    network = tiny_network(2, 1)
    with pytest.raises(ValueError, match="network and peer are one and the same"):
        cotraining(2, networks=(network, network))


def test_monais_own_v_net_can_be_a_network_of_co_training():
    from monai.networks.nets import VNet as MonaiVNet

    torch.manual_seed(0)
    peer = MonaiVNet(spatial_dims=2, in_channels=1, out_channels=CLASSES, dropout_dim=2)
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(2, 1, 20, 36, generator=generator)
    middle = context[..., 2:18, 2:34]
    unlabeled = {"image": middle, "weak": middle, "context": context, "margin": torch.full((2, 2, 2), 2)}
    labeled = {"image": middle + 1, "label": (middle > 0).to(torch.uint8)}
    method = cotraining(2, networks=(tiny_network(2, 1), peer))
    torch.manual_seed(0)
    terms = method.losses(labeled, unlabeled, 5)
    terms["fixed_2"].backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert any(p.grad is not None and p.grad.any() for p in peer.parameters())


def test_the_networks_of_the_composed_bundle_start_apart(tiny_bundle):
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(tiny_bundle / "configs" / "train.json"))
    for name in ("network_def", "peer_def"):
        parser[f"{name}#base_filters"], parser[f"{name}#levels"] = 2, 2
    parser["device"] = "cpu"
    network, peer = (parser.get_parsed_content(name) for name in ("network", "peer"))
    shared = {n: p for n, p in network.named_parameters() if not n.startswith("ups.") and p.dim() > 1}
    assert len(shared) > 3
    assert all(not torch.equal(shared[n], p) for n, p in peer.named_parameters() if n in shared)
