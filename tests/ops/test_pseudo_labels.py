from __future__ import annotations

import math

import pytest
import torch

from semi_med.ops import IGNORED, class_agreement, entropy, image_confidence, overlap, pseudo_label


def logits_of(*probs):
    """(1, K, 1, voxels) logits whose softmax is these probabilities, one tuple a voxel."""
    return torch.tensor(probs).log().T.reshape(1, -1, 1, len(probs))


def test_the_label_is_the_most_probable_class():
    label, _, confidence = pseudo_label(logits_of((0.2, 0.5, 0.3), (0.6, 0.1, 0.3), (0.1, 0.2, 0.7)))
    assert label.tolist() == [[[[1, 0, 2]]]]
    assert confidence.flatten().tolist() == pytest.approx([0.5, 0.6, 0.7])


def test_a_voxel_is_confident_from_the_threshold_on():
    logits = torch.zeros(1, 2, 1, 1)  # one half each, exactly
    for threshold, expected in ((0.49, True), (0.5, True), (0.51, False)):
        assert bool(pseudo_label(logits, threshold)[1]) is expected


def test_without_threshold_every_voxel_counts():
    assert pseudo_label(torch.randn(2, 3, 4, 5))[1].all()


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_shapes_and_types_are_as_promised(shape):
    label, confident, confidence = pseudo_label(torch.randn(2, 3, *shape).half(), 0.5)
    assert label.shape == confident.shape == confidence.shape == (2, 1, *shape)
    assert (label.dtype, confident.dtype, confidence.dtype) == (torch.int64, torch.bool, torch.float32)


def test_no_gradient_comes_out():
    parts = pseudo_label(torch.randn(1, 2, 2, 2, requires_grad=True))
    assert not any(part.requires_grad for part in parts)


def test_overlap_counts_equal_foreground_classes_only():
    a = torch.tensor([0, 1, 1, 2, 2, 0])
    b = torch.tensor([0, 1, 2, 2, 0, 1])
    assert float(overlap(a, b)) == pytest.approx(2 * 2 / (4 + 4))


def test_overlap_leaves_out_what_is_ignored_in_either():
    a = torch.tensor([0, 1, 1, 2, 2, 0], dtype=torch.uint8)
    b = torch.tensor([0, 1, 2, IGNORED, 0, IGNORED], dtype=torch.uint8)
    expected = overlap(a[[0, 1, 2, 4]], b[[0, 1, 2, 4]])
    assert float(overlap(a, b)) == float(overlap(b, a)) == float(expected) == pytest.approx(2 / 5)
    assert float(overlap(a, torch.full_like(a, IGNORED))) == 1


def test_overlap_is_one_where_neither_has_foreground_and_zero_where_one_has():
    empty, full = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)
    assert float(overlap(empty, empty)) == 1
    assert float(overlap(empty, full)) == 0
    assert float(overlap(full, full)) == 1


def test_entropy_by_hand():
    probs = torch.tensor([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]]).T.reshape(1, 3, 1, 2)
    half = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    sure = 0.8 * math.log(1.25) + 2 * 0.1 * math.log(10)
    assert entropy(probs).shape == (1, 1, 1, 2)
    assert entropy(probs).flatten().tolist() == pytest.approx([half, sure])


def test_a_class_of_probability_zero_adds_nothing_to_the_entropy():
    probs = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]).T.reshape(1, 3, 2)
    assert entropy(probs).flatten().tolist() == pytest.approx([0.0, math.log(2)])


@pytest.mark.parametrize("classes", [2, 3, 5, 14])
def test_entropy_is_largest_where_all_classes_are_alike_and_then_the_log_of_their_number(classes):
    assert entropy(torch.full((1, classes, 1, 1), 1 / classes)).item() == pytest.approx(math.log(classes))
    other = torch.softmax(torch.randn(2, classes, 4, 5, 3, generator=torch.Generator().manual_seed(0)), 1)
    assert ((entropy(other) > 0) & (entropy(other) < math.log(classes))).all()


def test_agreement_counts_each_class_of_a_label_alike():
    probs = torch.tensor([[0.9, 0.8, 0.7, 0.2], [0.1, 0.1, 0.2, 0.5], [0.0, 0.1, 0.1, 0.3]]).reshape(1, 3, 4)
    label = torch.tensor([0, 0, 0, 1]).reshape(1, 1, 4)
    unknown = torch.full_like(label, IGNORED)
    partly = torch.tensor([0, IGNORED, 0, 1]).reshape(1, 1, 4)
    found = class_agreement(probs.expand(3, -1, -1), torch.cat([label, partly, unknown]))
    assert found[:2].tolist() == pytest.approx([(0.8 + 0.5) / 2, (0.8 + 0.5) / 2])
    assert found[2].isnan()


# ---- confidence of an image ----------------------------------------------------------------------------------------

CONFIDENCE = torch.tensor([[0.9, 0.5, 0.7, 0.9], [0.9, 0.6, 0.8, 0.9]])[:, None, None]
LABEL = torch.tensor([[0, 1, 2, 0], [0, 0, 0, 0]])[:, None, None]


def test_an_image_is_as_sure_as_its_mean_voxel():
    assert image_confidence(CONFIDENCE, LABEL).tolist() == pytest.approx([0.75, 0.8])


def test_or_as_sure_as_the_mean_of_its_foreground_and_without_any_as_its_least_confident_voxel():
    assert image_confidence(CONFIDENCE, LABEL, gate="foreground").tolist() == pytest.approx([0.6, 0.6])


def test_a_sure_background_says_nothing_about_the_foreground():
    label = torch.zeros(1, 1, 10, 10, dtype=torch.int64)
    label[..., :1, :3] = 1
    confidence = torch.where(label > 0, 0.55, 1.0)
    assert float(image_confidence(confidence, label)) > 0.98
    assert float(image_confidence(confidence, label, gate="foreground")) == pytest.approx(0.55)
