from __future__ import annotations

import math

import numpy as np
import pytest

from semi_med.metrics.case import case_metrics
from semi_med.metrics.known import without_ignored


def sample(seed, shape=(6, 5, 4)):
    rng = np.random.default_rng(seed)
    return [(rng.random(shape) < share).astype(np.uint8) for share in (0.4, 0.6, 0.3)]


def test_where_nothing_is_known_neither_is_of_class_0():
    prediction, label = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 255, 255, 0]], np.uint8)
    arrays = without_ignored(prediction, label, ignored=255)
    assert [array.tolist() for array in arrays] == [[[0, 255, 255, 1]], [[0, 255, 255, 0]]]
    zero, one = case_metrics(*arrays, classes={0: "road", 1: "car"}, spacing=None, count_class_0=True)
    assert (zero["class_name"], zero["prediction_voxels"], zero["label_voxels"], zero["both_voxels"]) == (
        "road",
        1,
        2,
        1,
    )
    assert (one["prediction_voxels"], one["label_voxels"], one["both_voxels"]) == (1, 0, 0)


def measure(prediction, label, *, ignored=None):
    arrays = without_ignored(prediction, label, ignored=ignored)
    return case_metrics(*arrays, classes={1: "organ"}, spacing=(1.0, 1.0, 1.0))[0]


@pytest.mark.parametrize("seed", range(3))
def test_ignored_voxels_are_in_no_overlap_and_no_volume(seed):
    prediction, label, hidden = sample(seed)
    row = measure(prediction, np.where(hidden, 255, label).astype(np.uint8), ignored=255)
    kept = [array[hidden == 0] for array in (prediction, label)]
    assert row["dice"] == pytest.approx(2 * np.sum(kept[0] & kept[1]) / np.sum(kept))
    assert [row["prediction_ml"], row["label_ml"]] == pytest.approx([array.sum() / 1000 for array in kept])


def test_what_is_predicted_and_hidden_where_nothing_is_known_does_not_matter():
    prediction, label, hidden = sample(0)
    seen = np.where(hidden, 255, label).astype(np.uint8)
    other = np.where(hidden, 1 - prediction, prediction).astype(np.uint8)
    assert measure(prediction, seen, ignored=255) == measure(other, seen, ignored=255)
    assert measure(prediction, label) != measure(other, label)


def test_a_label_of_which_nothing_is_known_is_undefined_and_counted():
    prediction, label, _ = sample(0)
    row = measure(prediction, np.full_like(label, 255), ignored=255)
    assert (row["status"], math.isnan(row["dice"])) == ("both empty", True)


def test_without_an_ignored_value_nothing_is_changed():
    prediction, label, _ = sample(0)
    arrays = without_ignored(prediction, label, ignored=None)
    assert arrays[0] is prediction and arrays[1] is label
