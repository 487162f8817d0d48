from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semi_med.errors import InputError
from semi_med.metrics.case import METRICS, case_metrics, surface, surface_distances

ONE = {1: "organ"}
SPACING = (0.5, 0.75, 3.0)


def measure(prediction, label, *, spacing=(1.0, 1.0, 1.0), classes=ONE):
    return case_metrics(prediction, label, classes=classes, spacing=spacing)[0]


def cube(shape, *corner_and_size):
    array = np.zeros(shape, np.uint8)
    array[tuple(slice(start, start + size) for start, size in corner_and_size)] = 1
    return array


def slow_surface(obj):
    found = []
    for index in np.argwhere(obj):
        for axis in range(obj.ndim):
            for step in (-1, 1):
                other = index.copy()
                other[axis] += step
                outside = not 0 <= other[axis] < obj.shape[axis]
                if outside or not obj[tuple(other)]:
                    found.append(tuple(index))
    return sorted(set(found))


def slow_distances(from_points, to_points, spacing):
    return [min(math.dist(np.multiply(p, spacing), np.multiply(q, spacing)) for q in to_points) for p in from_points]


def random_pair(seed, shape=(6, 5, 4)):
    rng = np.random.default_rng(seed)
    return [(rng.random(shape) < share).astype(np.uint8) for share in (0.4, 0.6)]


@pytest.mark.parametrize("seed", range(4))
def test_distances_equal_a_loop_over_all_pairs_of_surface_voxels(seed):
    prediction, label = random_pair(seed)
    p, q = slow_surface(prediction), slow_surface(label)
    there, back = slow_distances(p, q, SPACING), slow_distances(q, p, SPACING)
    row = measure(prediction, label, spacing=SPACING)
    assert row["asd_mm"] == pytest.approx(np.mean(there), abs=1e-9)
    assert row["assd_mm"] == pytest.approx((np.mean(there) + np.mean(back)) / 2, abs=1e-9)
    assert row["hd95_mm"] == pytest.approx(np.percentile(there + back, 95), abs=1e-9)


def test_voxel_distances_ignore_the_spacing_and_mm_distances_do_not():
    prediction, label = random_pair(7)
    p, q = slow_surface(prediction), slow_surface(label)
    row = measure(prediction, label, spacing=SPACING)
    assert row["asd_voxel"] == pytest.approx(np.mean(slow_distances(p, q, (1, 1, 1))), abs=1e-9)
    assert row["asd_voxel"] != pytest.approx(row["asd_mm"], rel=0.01)


def test_surface_is_the_object_minus_its_inner_voxels():
    obj = np.zeros((5, 5, 5), bool)
    obj[1:4, 1:4, 1:4] = True
    expected = obj.copy()
    expected[2, 2, 2] = False
    np.testing.assert_array_equal(surface(obj), expected)


def test_asd_agrees_with_monai_in_one_direction():
    from monai.metrics import compute_average_surface_distance
    from torch import from_numpy

    prediction, label = random_pair(3, shape=(9, 8, 7))
    onehot = [from_numpy(np.stack([1 - a, a])[None].astype(np.float32)) for a in (prediction, label)]
    theirs = compute_average_surface_distance(*onehot, symmetric=False, spacing=SPACING)
    assert measure(prediction, label, spacing=SPACING)["asd_mm"] == pytest.approx(float(theirs), rel=1e-5)


def test_hd95_pools_both_directions_and_is_not_the_larger_of_two_percentiles():
    label, prediction = np.zeros((2, 40, 3), np.uint8)
    label[[0, 20], 1] = 1
    prediction[[1, 20, 30], 1] = 1
    there, back = [1, 0, 10], [1, 0]  # from 1, 20, 30 to the nearest of 0, 20; and from 0, 20
    row = case_metrics(prediction, label, classes=ONE, spacing=(1.0, 1.0))[0]
    assert row["hd95_voxel"] == pytest.approx(8.2)  # rank 3.8 of 0, 0, 1, 1, 10
    assert max(np.percentile(there, 95), np.percentile(back, 95)) == pytest.approx(9.1)


def test_a_cube_shifted_by_two_voxels_has_known_overlap():
    label = cube((20, 20, 20), (5, 8), (5, 8), (5, 8))
    prediction = cube((20, 20, 20), (7, 8), (5, 8), (5, 8))
    row = measure(prediction, label)
    assert row["dice"] == 0.75  # 6 of 8 layers
    assert row["jaccard"] == pytest.approx(0.6)  # 6 / (8 + 8 - 6)


@pytest.mark.parametrize(("axis", "millimetres"), [(0, 2.0), (1, 3.0), (2, 12.0)])
def test_two_plates_apart_along_one_axis_have_every_distance_equal(axis, millimetres):
    label, prediction = np.zeros((2, 12, 12, 12), np.uint8)
    label[(slice(None),) * axis + (3,)] = 1
    prediction[(slice(None),) * axis + (7,)] = 1
    row = measure(prediction, label, spacing=SPACING)
    assert [row[name] for name in ("hd95_mm", "asd_mm", "assd_mm")] == pytest.approx([millimetres] * 3)
    assert [row[name] for name in ("hd95_voxel", "asd_voxel", "assd_voxel")] == [4.0, 4.0, 4.0]


def test_asd_is_measured_from_the_prediction_only():
    label = np.zeros((12, 3, 3), np.uint8)
    label[[2, 10], 1, 1] = 1
    prediction = np.zeros_like(label)
    prediction[2, 1, 1] = 1
    row = measure(prediction, label)
    assert (row["asd_mm"], row["assd_mm"]) == (0.0, 2.0)  # back: (0 + 8) / 2 = 4


def test_an_object_at_the_border_has_its_surface_there():
    whole = np.ones((6, 6, 6), np.uint8)
    inner = cube((6, 6, 6), (1, 4), (1, 4), (1, 4))
    row = measure(inner, whole)
    assert row["asd_mm"] == 1.0  # each face of the inner cube lies one voxel from the border


def test_where_the_object_lies_in_the_volume_does_not_matter():
    prediction, label = random_pair(11)
    padded = [np.pad(array, ((3, 2), (0, 4), (5, 1))) for array in (prediction, label)]
    assert measure(*padded, spacing=SPACING) == measure(prediction, label, spacing=SPACING)


@pytest.mark.parametrize(
    ("in_prediction", "in_label", "dice", "status"),
    [
        (False, True, 0.0, "empty prediction"),
        (True, False, 0.0, "empty label"),
        (False, False, math.nan, "both empty"),
    ],
)
def test_an_empty_side_leaves_the_distances_undefined_with_a_status(in_prediction, in_label, dice, status):
    full, empty = cube((5, 5, 5), (1, 3), (1, 3), (1, 3)), np.zeros((5, 5, 5), np.uint8)
    row = measure(full if in_prediction else empty, full if in_label else empty)
    assert row["status"] == status
    assert row["dice"] == pytest.approx(dice, nan_ok=True)
    assert all(math.isnan(row[name]) for name in METRICS[2:])


def test_a_perfect_prediction_is_one_and_zero():
    label = random_pair(5)[1]
    row = measure(label, label, spacing=SPACING)
    assert [row[name] for name in METRICS] == [1.0, 1.0] + [0.0] * 6


def test_volumes_are_in_millilitres():
    label = cube((20, 20, 20), (0, 10), (0, 10), (0, 10))
    row = measure(label, label, spacing=(2.0, 1.0, 0.5))
    assert row["label_ml"] == row["prediction_ml"] == pytest.approx(1.0)


def test_each_class_is_measured_alone():
    label = np.zeros((4, 4, 8), np.uint8)
    label[..., :4], label[..., 4:] = 1, 3
    prediction = label.copy()
    prediction[..., 4:] = 0
    rows = case_metrics(prediction, label, classes={0: "background", 1: "a", 3: "b"}, spacing=(1, 1, 1))
    assert [(row["class"], row["class_name"], row["dice"]) for row in rows] == [(1, "a", 1.0), (3, "b", 0.0)]


def test_a_slice_stored_as_a_volume_is_measured_as_the_slice():
    rng = np.random.default_rng(2)
    prediction, label = (rng.random((2, 9, 8)) < 0.5).astype(np.uint8)
    flat = case_metrics(prediction, label, classes=ONE, spacing=(0.7, 0.9))[0]
    thick = case_metrics(prediction[..., None], label[..., None], classes=ONE, spacing=(0.7, 0.9, 8.0))[0]
    assert [thick[name] for name in METRICS] == [flat[name] for name in METRICS]
    assert thick["label_ml"] == pytest.approx(label.sum() * 0.7 * 0.9 * 8 / 1000)


def test_a_flat_object_in_a_thick_volume_keeps_its_third_axis():
    label, prediction = np.zeros((2, 5, 5, 9), np.uint8)
    label[1:4, 1:4, 2] = 1
    prediction[1:4, 1:4, 2] = 1
    assert measure(prediction, label)["hd95_mm"] == 0.0
    inner = surface_distances(surface(label == 1), surface(prediction == 1), spacing=(1, 1, 1))
    assert len(inner) == 9  # all nine voxels are surface: each has a face neighbour above it that is background


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 5.0))
def test_distances_grow_in_proportion_to_an_isotropic_spacing(seed, size):
    prediction, label = random_pair(seed, shape=(4, 5, 3))
    row = measure(prediction, label, spacing=(size,) * 3)
    assert row["hd95_mm"] == pytest.approx(row["hd95_voxel"] * size, nan_ok=True)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_all_but_asd_are_the_same_with_prediction_and_label_swapped(seed):
    prediction, label = random_pair(seed, shape=(4, 5, 3))
    there = measure(prediction, label, spacing=SPACING)
    back = measure(label, prediction, spacing=SPACING)
    for name in ("dice", "jaccard", "hd95_mm", "assd_mm"):
        assert there[name] == pytest.approx(back[name], nan_ok=True)


@pytest.mark.parametrize(
    ("prediction", "spacing", "text"),
    [
        (np.zeros((3, 3, 4), np.uint8), (1, 1, 1), r"shape \(3, 3, 3\), got \(3, 3, 4\)"),
        (np.zeros((3, 3, 3), np.float32), (1, 1, 1), "prediction of float32"),
        (np.zeros((3, 3, 3), np.uint8), (1, 1), "wanted 3 voxel sizes"),
        (np.zeros((3, 3, 3), np.uint8), (1, 0, 1), "wanted 3 voxel sizes"),
    ],
)
def test_what_cannot_be_measured_raises(prediction, spacing, text):
    with pytest.raises(InputError, match=text):
        measure(prediction, np.zeros((3, 3, 3), np.uint8), spacing=spacing)


def test_metrics_need_no_torch():
    code = "import sys, semi_med.metrics; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
