from __future__ import annotations

import math

import pytest
import torch
from method_samples import CLASSES, CROP, batches, tiny_network
from slow_equations import forward, numbers, softmax

from semi_med.methods import SegMatch, segmatch
from semi_med.networks import MaskDiscriminator
from semi_med.ops import IGNORED, affine

dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])
every_gate = pytest.mark.parametrize("gate", ["discriminator", "identity", "confidence", "confidence_map"])


def discriminator_of(dimensions, seed=3):
    torch.manual_seed(seed)
    discriminator = MaskDiscriminator(spatial_dims=dimensions, base_filters=4, levels=2)
    with torch.no_grad():
        discriminator.head.weight *= 10  # scores that differ
    return discriminator


def method_of(dimensions, **settings):
    network = tiny_network(dimensions, 1)
    return SegMatch(network=network, discriminator=discriminator_of(dimensions), **settings)


def moved(dimensions, *, seed=0):
    """Batches whose strong view is flipped and shifted by whole voxels against the weak one, which is shifted too."""
    labeled, unlabeled = batches(dimensions, seed=seed)
    shape, size = CROP[dimensions], len(unlabeled["weak"])
    offset = torch.tensor([[1, 0, -1], [0, -2, 1], [0, 0, 0]])[:, :dimensions]
    axes = torch.tensor([[True, False, False], [False, True, False], [False, False, False]])[:, :dimensions]
    unlabeled["weak_matrix"] = affine.translation(offset)
    unlabeled["strong_matrix"] = affine.flip(axes, shape)
    unlabeled["seen"] = torch.ones(size, 1, *shape, dtype=torch.bool)
    unlabeled["seen"][0, :, 0] = False
    return labeled, unlabeled


def slow_score(discriminator, image, label):
    """Class by class; an empty mask where there is no class."""
    scores = []
    for b in range(len(image)):
        present = [k for k in range(1, CLASSES) if (label[b] == k).any()]
        masks = [(label[b : b + 1] == k).float() for k in present] or [torch.zeros_like(label[b : b + 1]).float()]
        scores.append([float(discriminator(image[b : b + 1], mask).detach()) for mask in masks])
    return scores


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def slow_cross_entropy(probs, label, valid, taught):
    """Mean over the valid voxels of each image, voxel by voxel."""
    found = []
    for b in range(len(probs)):
        total = count = 0.0
        for place in valid[b, 0].nonzero().tolist():
            at = tuple(place)
            if label[b, 0][at] == IGNORED:
                continue
            count += 1
            if taught[b, 0][at]:
                total -= math.log(float(probs[(b, int(label[b, 0][at]), *at)]))
        found.append(total / max(count, 1))
    return found


def brought_back(maps, unlabeled):
    """T1 T2^-1 by indexing, voxel by voxel, for flips and shifts; and where the strong view has the voxel."""
    out, valid = torch.zeros_like(maps), torch.zeros_like(maps[:, :1], dtype=torch.bool)
    for b in range(len(maps)):
        strong_back = torch.linalg.inv(unlabeled["strong_matrix"][b])
        for place in torch.ones(maps.shape[2:]).nonzero():
            point = unlabeled["weak_matrix"][b] @ torch.cat([place.double(), torch.ones(1, dtype=torch.float64)])
            there = (strong_back @ point)[:-1].round().long().tolist()
            if all(0 <= t < s for t, s in zip(there, maps.shape[2:], strict=True)):
                out[(b, slice(None), *place.tolist())] = maps[(b, slice(None), *there)]
                valid[(b, 0, *place.tolist())] = True
    return out, valid & unlabeled["seen"]


@dimensions_2_and_3
@every_gate
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_losses_are_those_of_algorithm_1(dimensions, gate, mode):
    labeled, unlabeled = moved(dimensions)
    method = method_of(dimensions)
    weak = softmax(forward(method.network, unlabeled["weak"], mode))
    label = weak.argmax(1, keepdim=True).masked_fill(~unlabeled["seen"], IGNORED)
    sure, seen = weak.amax(1, keepdim=True), unlabeled["seen"]
    scores = {
        "discriminator": [
            sum(map(sigmoid, each)) / len(each) for each in slow_score(method.discriminator, unlabeled["weak"], label)
        ],
        "identity": [1.0] * 3,
        "confidence": [float(sure[b][seen[b]].mean()) for b in range(3)],
    }
    tau = 0.6 if gate == "confidence_map" else sorted(scores[gate])[1] - 1e-3
    scores["confidence_map"] = [float((sure[b][seen[b]] > 0.6).double().mean()) for b in range(3)]
    if gate == "confidence_map":
        taught = sure > tau
    else:
        taught = torch.tensor([s > tau for s in scores[gate]]).view(-1, *[1] * (dimensions + 1)).expand_as(sure)
    method = method_of(dimensions, gate=gate, threshold=tau, weight=0.7, teacher_mode=mode)

    logits = forward(method.network, labeled["image"], "train")
    count = len(labeled["image"])
    everywhere = torch.ones_like(labeled["label"], dtype=torch.bool)
    supervised = slow_cross_entropy(softmax(logits), labeled["label"], everywhere, everywhere)
    back, valid = brought_back(softmax(forward(method.network, unlabeled["image"], "train")), unlabeled)
    unsupervised = slow_cross_entropy(back, label, valid, taught)

    terms = numbers(method, labeled, unlabeled)
    assert terms["supervised"] == pytest.approx(sum(supervised) / count, abs=1e-4)
    assert terms["unsupervised"] == pytest.approx(sum(unsupervised) / 3, abs=1e-4)
    assert terms["loss"] == pytest.approx(terms["supervised"] + 0.7 * terms["unsupervised"], abs=1e-5)
    assert terms["score"] == pytest.approx(sum(scores[gate]) / 3, abs=1e-4)
    assert terms["accepted"] == pytest.approx(float(taught.float().mean()), abs=1e-5)
    if gate in ("discriminator", "confidence"):
        assert terms["accepted"] == pytest.approx(2 / 3)


@dimensions_2_and_3
@pytest.mark.parametrize("form", ["bce", "literal"])
def test_the_discriminators_loss_is_the_equation(dimensions, form):
    labeled, unlabeled = moved(dimensions)
    labeled["label"][0] = 0  # no class: an empty mask
    method = method_of(dimensions, discriminator_loss=form)
    _, shown = method.losses_and_shown(labeled, unlabeled, 0)

    def logits(image, label):
        return [sum(each) / len(each) for each in slow_score(method.discriminator, image, label)]

    real = [sigmoid(x) for x in logits(labeled["image"], labeled["label"])]
    made = [sigmoid(x) for x in logits(unlabeled["weak"], shown["made_label"])]
    if form == "bce":
        first, second = [-math.log(d) for d in real], [-math.log(1 - d) for d in made]
    else:
        first, second = [math.log(1 - d) for d in real], [math.log(d) for d in made]
    terms = {name: float(term.detach()) for name, term in method.discriminator_losses(shown, 0).items()}
    wanted = sum(first) / len(first) + sum(second) / len(second)
    assert terms["discriminator_loss"] == pytest.approx(wanted, abs=1e-4)
    assert terms["discriminator_labeled"] == pytest.approx(sum(real) / len(real), abs=1e-4)
    assert terms["discriminator_unlabeled"] == pytest.approx(sum(made) / len(made), abs=1e-4)


@dimensions_2_and_3
def test_the_graded_loss_asks_for_the_dice_of_right_and_wrong_masks_of_labelled_images(dimensions, monkeypatch):
    monkeypatch.setattr(segmatch, "misplaced", lambda label, matrix: label.flip(-1))  # a known wrong place
    labeled, unlabeled = moved(dimensions)
    labeled["label"][0] = 0
    labeled["label"][1, :, 0] = IGNORED
    labeled["probe"], labeled["probe_label"] = labeled["image"] + 0.5, labeled["label"].long().flip(-2)
    method = method_of(dimensions)
    _, shown = method.losses_and_shown(labeled, unlabeled, 0)
    made_up, own = [], []
    # the first image has no mask to move: it is lent the other's, and so is its probe
    for picture, truth, given in (
        (labeled["image"], labeled["label"].long(), shown["real_found"]),
        (labeled["probe"], labeled["probe_label"], shown["tried_found"]),
    ):
        expert = torch.where(truth == IGNORED, 0, truth)
        made_up += [(picture, mask, truth) for mask in (expert, expert.flip(0), expert[[1, 1]].flip(-1))]
        own.append((picture, given, truth))
    loss = float(method.discriminator_losses(shown, 0)["discriminator_loss"].detach())
    wanted = [slow_dice_error(method.discriminator, pairs) for pairs in (made_up, own)]
    assert loss == pytest.approx(sum(wanted) / 2, abs=1e-4)


def slow_dice_error(discriminator, pairs):
    found = []
    for picture, given, truth in pairs:
        for b in range(2):
            counted = truth[b] != IGNORED
            classes = [k for k in range(1, CLASSES) if ((given[b] == k) & counted).any()]
            for k in classes or [None]:
                mask = (given[b] == k) & counted if k else torch.zeros_like(counted)
                wanted = ((truth[b] == k) if k else (truth[b] > 0)) & counted
                total = int(mask.sum() + wanted.sum())
                dice = 2 * int((mask & wanted).sum()) / total if total else 1.0
                d = sigmoid(float(discriminator(picture[b : b + 1], mask[None].float()).detach()))
                found.append(-dice * math.log(d) - (1 - dice) * math.log(1 - d))
    return sum(found) / len(found)


def test_a_discriminator_that_is_graded_learns_to_tell_how_far_a_mask_is_right():
    torch.manual_seed(0)
    method = method_of(2)
    method.discriminator = MaskDiscriminator(base_filters=8, levels=3)
    image = torch.nn.functional.avg_pool2d(torch.randn(8, 1, 40, 48), 7, 1, 3) * 7
    label = (image > 0.6).long()
    shown = {"real_image": image, "real_truth": label, "real_found": label.roll(8, -1)}
    shown |= {"made_image": image, "made_label": label}
    optimizer = torch.optim.Adam(method.discriminator.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        method.discriminator_losses(shown, 0)["discriminator_loss"].backward()
        optimizer.step()
    sure = torch.ones_like(image)
    scores = [method.score("discriminator", image, label.roll(away, -1), sure) for away in (0, 4, 16)]
    assert scores[0].mean() > scores[1].mean() + 0.05 > scores[2].mean() + 0.1


def test_the_printed_equation_has_no_bound_and_binary_cross_entropy_has():
    method = method_of(2)
    _, shown = method.losses_and_shown(*moved(2), 0)
    found = {}
    for form in ("bce", "literal"):
        method.discriminator_loss = form
        optimizer = torch.optim.Adam(method.discriminator.parameters(), lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            loss = method.discriminator_losses(shown, 0)["discriminator_loss"]
            loss.backward()
            optimizer.step()
        found[form] = float(loss.detach())
    assert 0 <= found["bce"] < 1
    assert found["literal"] < -3


@dimensions_2_and_3
@every_gate
def test_the_discriminator_gates_and_sends_no_gradient(dimensions, gate):
    labeled, unlabeled = moved(dimensions)
    unlabeled["weak"].requires_grad_()
    method = method_of(dimensions, gate=gate, threshold=0.0)
    terms, shown = method.losses_and_shown(labeled, unlabeled, 0)
    parameters = list(method.discriminator.parameters())
    assert torch.autograd.grad(terms["loss"], parameters, retain_graph=True, allow_unused=True) == (None,) * len(
        parameters
    )
    assert torch.autograd.grad(terms["loss"], unlabeled["weak"], retain_graph=True, allow_unused=True) == (None,)
    loss = method.discriminator_losses({k: v.detach() for k, v in shown.items()}, 0)["discriminator_loss"]
    grads = torch.autograd.grad(loss, parameters)
    assert sum(float(g.abs().sum()) for g in grads) > 0


def test_the_discriminator_does_not_know_classes():
    _, unlabeled = moved(2)
    method = method_of(2)
    label = torch.randint(0, CLASSES, (3, 1, *CROP[2]), generator=torch.Generator().manual_seed(1))
    swapped = torch.tensor([0, 2, 1])[label]
    sure = torch.ones_like(label, dtype=torch.float32)
    one, other = (method.score("discriminator", unlabeled["weak"], each, sure) for each in (label, swapped))
    assert torch.allclose(one, other, atol=1e-6)
    assert one.std() > 0.001


def test_what_the_strong_view_does_not_show_is_not_learnt():
    labeled, unlabeled = moved(2)
    unlabeled["strong_matrix"] = affine.translation(torch.tensor([[100, 0]] * 3))
    terms = numbers(method_of(2, gate="identity"), labeled, unlabeled)
    assert terms["unsupervised"] == 0
    assert terms["supervised"] > 0


def test_without_matrices_both_views_are_one_frame():
    labeled, unlabeled = batches(2)
    unlabeled = {key: value for key, value in unlabeled.items() if not key.endswith(("_matrix", "seen"))}
    same = affine.identity(3, 2)
    everywhere = torch.ones_like(unlabeled["weak"], dtype=torch.bool)
    with_them = {**unlabeled, "weak_matrix": same, "strong_matrix": same, "seen": everywhere}
    method = method_of(2, gate="identity")
    assert numbers(method, labeled, unlabeled) == pytest.approx(numbers(method, labeled, with_them), abs=1e-5)


def test_monitoring_tells_what_passes_from_what_does_not():
    labeled, unlabeled = moved(2)
    method = method_of(2)
    label = softmax(forward(method.network, unlabeled["weak"], "train")).argmax(1, keepdim=True)
    scores = slow_score(method.discriminator, unlabeled["weak"], label.masked_fill(~unlabeled["seen"], IGNORED))
    score = [sum(map(sigmoid, each)) / len(each) for each in scores]
    best = score.index(max(score))
    hidden = torch.where(torch.arange(3).view(-1, 1, 1, 1) == best, label, 0)  # right where it passes
    method = method_of(2, threshold=sorted(score)[1])
    terms = numbers(method, labeled, {**unlabeled, "monitor_label": hidden})
    assert terms["accepted"] == pytest.approx(1 / 3)
    assert terms["accepted_label_dice"] == pytest.approx(1.0)
    assert terms["rejected_label_dice"] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"gate": "mean"}, "gate must be one of discriminator, identity, confidence, confidence_map, not 'mean'"),
        ({"discriminator_loss": "hinge"}, "discriminator_loss must be one of graded, bce, literal, not 'hinge'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        method_of(2, **settings)


def test_strong_views_leave_no_trace_in_the_statistics_of_batch_norm():
    labeled, unlabeled = moved(2)
    ends = []
    for factor in (1, 50):
        method = method_of(2, gate="identity", teacher_mode="eval")
        method.losses(labeled, {**unlabeled, "image": factor * unlabeled["image"]}, 0)
        ends.append({name: value for name, value in method.network.state_dict().items() if "running" in name})
    assert ends[0]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    before = {name: value for name, value in method_of(2).network.state_dict().items() if "running" in name}
    assert not all(torch.equal(before[name], ends[0][name]) for name in before)
