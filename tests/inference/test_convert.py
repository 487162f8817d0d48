"""Scans made sound: another format, one volume, other class numbers, another grid."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from inference_samples import write_nifti

from semi_med.errors import InputError
from semi_med.inference.convert import Conversion, convert_file, renumbered, straightened, targets_of
from semi_med.inference.io import Scan, read_image, read_label

AFFINE = np.array([[0.0, -2, 0, 30], [1, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])


def test_another_format_becomes_nifti_with_the_same_voxels_and_place(tmp_path, volume):
    write_nifti(tmp_path / "a.nii", volume, AFFINE)
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii")), str(tmp_path / "a.mha"))
    convert_file(tmp_path / "a.mha", tmp_path / "out/b.nii.gz", Conversion())
    scan = read_image(tmp_path / "out/b.nii.gz")
    np.testing.assert_array_equal(scan.array, volume)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)


def test_one_volume_of_several_is_taken_when_it_is_named(tmp_path, volume):
    source = write_nifti(tmp_path / "a.nii", np.stack([volume, volume + 1], -1), AFFINE)
    warnings = convert_file(source, tmp_path / "b.nii", Conversion(volume=1))
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii").array, volume + 1)
    assert warnings == ("VOLUME: volume 1 of 2 was taken",)


def test_class_numbers_change_all_at_once():
    label = np.array([0, 1, 2, 255])
    assert renumbered(label, {1: 2, 2: 1, 255: 3}).tolist() == [0, 2, 1, 3]


def test_a_label_is_renumbered_and_stays_a_label(tmp_path):
    array = np.zeros((3, 3, 3), np.uint8)
    array[1, 1, 1] = 255
    source = write_nifti(tmp_path / "a.nii.gz", array)
    convert_file(source, tmp_path / "b.nii.gz", Conversion(label=True, map_labels={255: 1}))
    assert read_label(tmp_path / "b.nii.gz").array.sum() == 1


def test_class_numbers_of_an_image_are_refused(tmp_path, volume):
    source = write_nifti(tmp_path / "a.nii", volume)
    with pytest.raises(InputError, match="Add --label"):
        convert_file(source, tmp_path / "b.nii", Conversion(map_labels={1: 2}))


def test_a_label_is_put_onto_the_grid_of_its_image_without_new_values(tmp_path):
    label = np.zeros((6, 6, 6), np.uint8)
    label[2:4, 2:4, 2:4] = 7
    coarse = np.diag([2.0, 2, 2, 1])
    fine = np.diag([1.0, 1, 1, 1])
    source = write_nifti(tmp_path / "l.nii", label, coarse)
    grid = write_nifti(tmp_path / "i.nii", np.arange(12**3, dtype=np.int16).reshape(12, 12, 12), fine)
    convert_file(source, tmp_path / "o.nii", Conversion(label=True, onto=grid))
    result = read_label(tmp_path / "o.nii")
    assert result.array.shape == (12, 12, 12)
    assert np.unique(result.array).tolist() == [0, 7]
    inside = np.argwhere(result.array == 7) @ np.eye(3)
    np.testing.assert_allclose((inside.min(axis=0) + inside.max(axis=0)) / 2, 5, atol=0.5)  # voxels 2 to 3, of 2 mm


def test_a_sheared_grid_is_straightened_and_what_it_shows_stays_in_place(tmp_path):
    affine = np.array([[1.0, 0, 0.5, 3], [0, 1, 0, -4], [0, 0, 2, 5], [0, 0, 0, 1]])  # as of a tilted gantry
    array = np.zeros((30, 20, 16), np.float32)
    array[14:17, 9:12, 7:10] = 100
    source = write_nifti(tmp_path / "a.nii", array, affine)
    with pytest.raises(InputError, match="--straighten") as caught:
        read_image(source)
    assert caught.value.code == "SHEAR"
    convert_file(source, tmp_path / "b.nii.gz", Conversion(straighten=True))
    scan = read_image(tmp_path / "b.nii.gz")
    weight = scan.array / scan.array.sum()
    middle = np.array([(index * weight).sum() for index in np.indices(scan.array.shape)])
    np.testing.assert_allclose((scan.affine @ [*middle, 1])[:3], (affine @ [15, 10, 8, 1])[:3], atol=0.3)
    assert not any(warning.startswith("SHEAR") for warning in scan.warnings)


def test_a_grid_at_right_angles_is_straight_already():
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    scan = straightened(Scan(array, AFFINE), label=False)
    np.testing.assert_allclose(scan.array, array, atol=1e-5)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-9)


def test_a_file_that_is_there_is_never_overwritten(tmp_path, volume):
    source = write_nifti(tmp_path / "a.nii", volume)
    with pytest.raises(InputError) as caught:
        convert_file(source, source, Conversion())
    assert caught.value.code == "OUTPUT_CLASH"


def test_several_scans_go_to_a_folder_and_clashing_names_are_refused():
    one, other = Path("x/a.nii"), Path("y/a.mha")
    assert targets_of([one], Path("o.nii.gz")) == [(one, Path("o.nii.gz"))]
    assert [target.name for _, target in targets_of([one, Path("b.png")], Path("o"))] == ["a.nii.gz", "b.nii.gz"]
    with pytest.raises(InputError, match="the same name"):
        targets_of([one, other], Path("o"))


def test_nan_is_replaced_on_request(tmp_path):
    array = np.ones((4, 5, 6), np.float32)
    array[0, 0, 0] = np.nan
    source = write_nifti(tmp_path / "a.nii", array)
    convert_file(source, tmp_path / "b.nii", Conversion(replace_nonfinite=True))
    assert read_image(tmp_path / "b.nii").array[0, 0, 0] == 1
