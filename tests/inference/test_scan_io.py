"""Values, geometry and writing of sound files."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_samples import patched, write_nifti

from semi_med.inference.io import Scan, case_name, read_image, read_label, write_label


def rotation(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return affine


def test_reading_needs_neither_torch_nor_monai():
    code = "import sys, semi_med.inference.io; print({'torch', 'monai'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_values_and_affine_are_those_of_nibabel(tmp_path, volume, dtype, name):
    affine = rotation(20) @ np.diag([0.7, 1.1, 4.0, 1.0])
    affine[:3, 3] = [-5, 6, 7]
    path = tmp_path / name
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    nib.save(nib.Nifti1Image(volume.astype(dtype), affine, header), path)
    scan, oracle = read_image(path), nib.load(path)
    assert scan.array.dtype == np.float32
    np.testing.assert_array_equal(scan.array, oracle.get_fdata())
    np.testing.assert_array_equal(scan.affine, oracle.affine)
    np.testing.assert_allclose(scan.spacing, (0.7, 1.1, 4.0), rtol=1e-6)
    assert scan.warnings == ()


def test_nifti_2_is_read_like_nifti_1(tmp_path, volume):
    nib.save(nib.Nifti2Image(volume, np.diag([1.0, 2, 3, 1])), tmp_path / "a.nii.gz")
    scan = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(scan.array, volume)
    np.testing.assert_array_equal(scan.affine, np.diag([1.0, 2, 3, 1]))


def test_slope_and_intercept_are_applied(tmp_path, volume):
    path = patched(write_nifti(tmp_path / "a.nii", volume), 112, "2f", 0.5, -10)
    np.testing.assert_array_equal(read_image(path).array, volume * 0.5 - 10)


@pytest.mark.parametrize("scaling", [(0, 5), (float("nan"), 5), (float("inf"), 0), (2, float("nan"))])
def test_an_unusable_slope_is_ignored_with_a_warning(tmp_path, volume, scaling):
    path = patched(write_nifti(tmp_path / "a.nii", volume), 112, "2f", *scaling)
    scan = read_image(path)
    np.testing.assert_array_equal(scan.array, volume)
    assert [warning.split(":")[0] for warning in scan.warnings] == ["SCALING"]


def test_a_trailing_axis_of_length_one_is_dropped_with_a_warning(tmp_path, volume):
    scan = read_image(write_nifti(tmp_path / "a.nii", volume[..., None]))
    np.testing.assert_array_equal(scan.array, volume)
    assert scan.warnings == ("SQUEEZED: trailing axes of length 1 were dropped (4 x 5 x 6 x 1)",)


def test_a_single_slice_is_a_volume(tmp_path, volume):
    assert read_image(write_nifti(tmp_path / "a.nii", volume[..., :1])).array.shape == (4, 5, 1)


def with_forms(path: Path, array: np.ndarray, *, sform: tuple, qform: tuple) -> Path:
    image = nib.Nifti1Image(array, None)
    image.header.set_zooms((1, 2, 3))
    image.set_sform(*sform)
    image.set_qform(*qform)
    nib.save(image, path)
    return path


def test_a_qform_serves_where_there_is_no_sform(tmp_path, volume):
    path = with_forms(tmp_path / "a.nii", volume, sform=(None, 0), qform=(np.diag([1.0, 2, 3, 1]), 1))
    scan = read_image(path)
    np.testing.assert_allclose(scan.affine, np.diag([1.0, 2, 3, 1]), atol=1e-6)
    assert scan.warnings == ()


def test_the_sform_wins_and_the_distance_to_the_qform_is_told(tmp_path, volume):
    moved = np.diag([1.0, 2, 3, 1])
    moved[0, 3] = 7.5
    path = with_forms(tmp_path / "a.nii", volume, sform=(np.diag([1.0, 2, 3, 1]), 2), qform=(moved, 1))
    scan = read_image(path)
    np.testing.assert_array_equal(scan.affine, np.diag([1.0, 2, 3, 1]))
    assert scan.warnings == ("QS_MISMATCH: sform and qform differ by up to 7.50 mm; the sform is used",)


def test_without_any_form_the_voxel_sizes_serve_with_a_warning(tmp_path, volume):
    path = with_forms(tmp_path / "a.nii", volume, sform=(None, 0), qform=(None, 0))
    scan = read_image(path)
    np.testing.assert_array_equal(scan.affine, nib.load(path).affine)
    assert scan.spacing == (1, 2, 3)
    assert scan.warnings[0].startswith("NO_ORIENTATION")


def test_an_unusual_voxel_size_names_its_axis(tmp_path, volume):
    scan = read_image(write_nifti(tmp_path / "a.nii", volume, np.diag([1.0, 1, 60, 1])))
    assert scan.warnings == ("SPACING: 60 mm along axis k is unusual",)


def test_bytes_behind_the_voxels_are_told(tmp_path, volume):
    path = write_nifti(tmp_path / "a.nii", volume)
    path.write_bytes(path.read_bytes() + b"1234")
    assert read_image(path).warnings == ("TRAILING: 4 bytes follow the voxels that the header announces",)


def test_a_constant_image_is_read_with_a_warning(tmp_path):
    assert read_image(write_nifti(tmp_path / "a.nii", np.full((1, 1, 1), 3, np.int16))).warnings == (
        "CONSTANT: every voxel has the value 3",
    )


def test_large_integers_that_float32_rounds_are_told(tmp_path):
    array = np.zeros((2, 2, 2), np.int32)
    array[0, 0, 0] = 2**24 + 1
    assert read_image(write_nifti(tmp_path / "a.nii", array)).warnings[0].startswith("PRECISION")


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd"])
@pytest.mark.parametrize("compress", [False, True])
def test_itk_formats_give_the_same_scan_as_nifti(tmp_path, volume, name, compress):
    affine = rotation(30) @ np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = [10, -20, 30]
    nifti = write_nifti(tmp_path / "a.nii", volume, affine)
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(tmp_path / name), compress)
    scan, oracle = read_image(tmp_path / name), read_image(nifti)
    np.testing.assert_array_equal(scan.array, oracle.array)
    np.testing.assert_allclose(scan.affine, oracle.affine, atol=1e-5)


@pytest.mark.parametrize(("largest", "dtype"), [(1, np.uint8), (255, np.uint8), (300, np.uint16)])
def test_a_label_takes_the_smallest_type_that_holds_it(tmp_path, largest, dtype):
    array = np.zeros((2, 2, 2), np.float64)
    array[1, 1, 1] = largest
    scan = read_label(write_nifti(tmp_path / "a.nii", array))
    assert scan.array.dtype == dtype
    assert scan.array[1, 1, 1] == largest


def test_a_label_stored_with_a_slope_is_read_as_meant(tmp_path):
    array = np.array([[[0, 10, 20]]], np.int16)
    path = patched(write_nifti(tmp_path / "a.nii", array), 112, "2f", 0.1, 0)
    assert read_label(path).array.tolist() == [[[0, 1, 2]]]


@pytest.mark.parametrize(("flips", "axes"), itertools.product([(1, 1, 1), (-1, 1, -1)], [(0, 1, 2), (2, 0, 1)]))
def test_a_label_comes_back_as_written(tmp_path, flips, axes):
    affine = np.eye(4)
    affine[:3, :3] = (rotation(33)[:3, :3] @ np.diag(flips) @ np.diag([0.5, 1, 6]))[:, axes]
    affine[:3, 3] = [1, 2, 3]
    label = np.random.default_rng(0).integers(0, 3, (3, 4, 5))
    write_label(tmp_path / "a.nii.gz", label, affine=affine)
    scan, image = read_label(tmp_path / "a.nii.gz"), nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(scan.array, label)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), affine, atol=1e-5)
    assert (image.get_data_dtype(), image.header.get_xyzt_units()[0]) == (np.uint8, "mm")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert scan.warnings == ()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    spacing=st.tuples(*[st.floats(0.05, 40)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    degrees=st.floats(-180, 180),
)
def test_any_grid_survives_writing_and_reading(tmp_path_factory, shape, spacing, origin, degrees):
    path = tmp_path_factory.mktemp("grid") / "a.nii"
    affine = rotation(degrees) @ np.diag([*spacing, 1])
    affine[:3, 3] = origin
    write_label(path, np.ones(shape, np.uint8), affine=affine)
    scan = read_label(path)
    assert scan.array.shape == shape
    np.testing.assert_allclose(scan.affine, affine, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("label", [np.zeros((2, 2, 2)), np.full((2, 2, 2), -1), np.full((2, 2, 2), 65536)])
def test_what_is_no_class_index_is_not_written(tmp_path, code_of, label):
    assert code_of(lambda: write_label(tmp_path / "a.nii", label, affine=np.eye(4))) == "LABEL_VALUES"
    assert list(tmp_path.iterdir()) == []


def test_the_same_label_gives_the_same_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_label(tmp_path / name, np.ones((2, 2, 2), bool), affine=np.eye(4))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("path", "case"), [("x/a.b.nii.gz", "a.b"), ("a.NII.GZ", "a"), ("a.nrrd", "a"), ("a.mha", "a"), ("a.txt", "a.txt")]
)
def test_a_case_is_the_file_name_without_its_format(path, case):
    assert case_name(path) == case


def test_spacing_follows_the_voxel_axes_not_the_patient():
    affine = np.array([[0, 0, 3.0, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    assert Scan(np.zeros((1, 1, 1)), affine).spacing == (1, 2, 3)


@pytest.mark.real_data
@pytest.mark.skipif("SEMI_MED_REAL_DATA" not in os.environ, reason="SEMI_MED_REAL_DATA is not set")
def test_real_scans_read_as_nibabel_reads_them():
    files = sorted(Path(os.environ["SEMI_MED_REAL_DATA"]).glob("clinical_open/nifti/*.nii.gz"))
    assert files
    for path in files:
        oracle, scan = nib.load(path), read_image(path)
        np.testing.assert_array_equal(scan.array, oracle.get_fdata().astype(np.float32))
        np.testing.assert_array_equal(scan.affine, oracle.affine)
