"""Another voxel size, against ITK's resampling."""

import numpy as np
import pytest
import SimpleITK as sitk

from semi_med.datasets.boxes import box_of, moved
from semi_med.datasets.resampling import resample_image, resample_label

SPACING = (0.7, 0.8, 1.7)
SHAPE = (40, 37, 21)


def volume(seed=0):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def with_itk(array, *, interpolator):
    """(i, j, k) at 1 mm, the first voxels' centres together."""
    scan = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    scan.SetSpacing(SPACING)
    size = [int(n * s) for n, s in zip(SHAPE, SPACING, strict=True)]
    found = sitk.Resample(scan, size, sitk.Transform(), interpolator, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return sitk.GetArrayFromImage(found).T


@pytest.mark.parametrize(("order", "interpolator"), [(1, sitk.sitkLinear), (3, sitk.sitkBSpline)])
def test_a_box_has_the_values_that_itk_gives_the_whole(order, interpolator):
    box = [(3, 20), (5, 25), (4, 30)]
    found = resample_image(volume(), box, zoom=SPACING, order=order)
    whole = with_itk(volume(), interpolator=interpolator)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole[tuple(slice(*interval) for interval in box)], atol=1e-3)


def test_a_box_is_the_same_whatever_lies_far_from_it():
    other = volume()
    other[30:, :, :] += 100
    box = [(0, 3), (0, 28), (0, 34)]
    one, two = (resample_image(array, box, zoom=SPACING, order=3) for array in (volume(), other))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_labels_are_those_of_the_nearest_voxel():
    label = np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8)
    found = resample_label(label, (28, 29, 35), zoom=SPACING)
    np.testing.assert_array_equal(found, with_itk(label, interpolator=sitk.sitkNearestNeighbor)[:28, :29, :35])


def test_the_same_voxels_come_back_at_the_same_size():
    box = [(0, size) for size in SHAPE]
    np.testing.assert_allclose(resample_image(volume(), box, zoom=(1, 1, 1), order=3), volume(), atol=1e-5)


def test_a_box_holds_the_region_and_no_more():
    region = np.zeros((6, 7, 8), bool)
    region[2, 3, 4] = region[4, 5, 1] = True
    assert box_of(region) == ((2, 5), (3, 6), (1, 5))


def test_a_crop_keeps_its_place():
    affine = np.array([[0.0, 2, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    np.testing.assert_array_equal(moved(affine, (1, 2, 3)) @ [0, 0, 0, 1], affine @ [1, 2, 3, 1])
