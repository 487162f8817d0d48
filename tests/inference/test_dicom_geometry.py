"""Positions and values against SimpleITK's own series reader (GDCM), for every orientation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_med.inference.dicom_geometry import Plane, arrange
from semi_med.inference.io import Scan, read_image
from tests.corpus.dicom_corpus import oblique, plan_multiframe, plan_series, right_angles


def read_with_gdcm(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(i, j, k) and the affine to RAS of an independent reader."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def assert_same(scan: Scan, array: np.ndarray, affine: np.ndarray) -> None:
    """Equal values at equal places, whatever the order of the voxels."""
    corners = np.array([[0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [2, 3, 4, 1]], dtype=float)
    there = (np.linalg.inv(affine) @ scan.affine @ corners.T)[:3]
    voxels = np.rint(there).astype(int)
    np.testing.assert_allclose(there, voxels, atol=1e-4)
    own = corners[:, :3].astype(int)
    inside = np.all((voxels >= 0) & (voxels < np.array(array.shape)[:, None]), axis=0)
    assert inside.all()
    np.testing.assert_allclose(scan.array[tuple(own.T)], array[tuple(voxels)], atol=1e-3)
    assert scan.array.shape == array.shape


@pytest.mark.parametrize("backwards", [False, True], ids=["upwards", "downwards"])
@pytest.mark.parametrize("axes", right_angles(), ids=lambda axes: "".join("xyz"[np.abs(a).argmax()] for a in axes))
def test_all_48_orientations_are_where_an_independent_reader_puts_them(tmp_path, axes, backwards):
    plan = plan_series(shape=(5, 6, 4), axes=axes, spacing=(1.5, 0.75), step=2.25)
    if backwards:  # files are numbered from the other end
        plan.write(tmp_path, names=lambda k: f"{9 - k}.dcm")
    else:
        plan.write(tmp_path)
    scan = read_image(tmp_path)
    np.testing.assert_array_equal(scan.array, plan.real)
    np.testing.assert_allclose(scan.affine, plan.affine, atol=1e-6)
    assert_same(scan, *read_with_gdcm(tmp_path))


@pytest.mark.parametrize("seed", range(20))
def test_oblique_series_are_where_an_independent_reader_puts_them(tmp_path, seed):
    plan = plan_series(shape=(5, 6, 4), axes=oblique(seed), origin=np.random.default_rng(seed).uniform(-200, 200, 3))
    scan = read_image(plan.write(tmp_path))
    np.testing.assert_array_equal(scan.array, plan.real)
    np.testing.assert_allclose(scan.affine, plan.affine, atol=1e-5)
    assert_same(scan, *read_with_gdcm(tmp_path))
    assert scan.warnings == ()


@pytest.mark.parametrize("axes", [oblique(3), ((0, 1, 0), (0, 0, -1))], ids=["oblique", "sagittal"])
def test_an_enhanced_object_is_the_series_that_it_was_made_of(tmp_path, axes):
    plan = plan_series(shape=(5, 6, 4), axes=axes)
    plan_multiframe(plan).write(tmp_path, names=lambda k: "enhanced.dcm")
    for path in (tmp_path, tmp_path / "enhanced.dcm"):
        scan = read_image(path)
        np.testing.assert_array_equal(scan.array, plan.real)
        np.testing.assert_allclose(scan.affine, plan.affine, atol=1e-5)


def planes(heights: list[float]) -> list[Plane]:
    return [Plane((1.0, 2.0, height), (1, 0, 0, 0, 1, 0), (0.5, 0.25), 8, 9) for height in heights]


def test_slices_are_sorted_by_place_not_by_order():
    layout = arrange(planes([4, 0, 6, 2]))
    assert layout.order == (1, 3, 0, 2)
    assert layout.step == 2
    np.testing.assert_allclose(layout.affine @ [1, 1, 1, 1], [-1.25, -2.5, 2, 1])


def test_a_lean_within_rounding_stays_in_the_affine():
    layout = arrange([Plane((1e-3 * k, 0.0, 2.0 * k), (1, 0, 0, 0, 1, 0), (1.0, 1.0), 8, 9) for k in range(5)])
    assert not layout.tilted
    np.testing.assert_allclose(layout.affine[:3, 2], [-1e-3, 0, 2], atol=1e-12)


@pytest.mark.real_data
@pytest.mark.skipif("SEMI_MED_REAL_DATA" not in os.environ, reason="SEMI_MED_REAL_DATA is not set")
def test_the_real_series_is_read_as_by_an_independent_reader():
    root = Path(os.environ["SEMI_MED_REAL_DATA"]) / "clinical_open" / "dicom" / "ts_ct_j2k"
    scan = read_image(root)
    array, affine = read_with_gdcm(root)
    np.testing.assert_array_equal(scan.array, array)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-6)
    assert scan.warnings == ()
