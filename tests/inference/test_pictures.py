"""Photographs, drawings, raw pixels and flat scans, exactly as stored."""

import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from semi_med.errors import InputError
from semi_med.inference import pictures

COLOURS = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)  # 4 columns, 3 rows


def save(path, array, mode=None, palette=None):
    """A picture of an array (i, j[, c])."""
    picture = Image.fromarray(np.ascontiguousarray(array.swapaxes(0, 1)), mode)
    if palette:
        picture.putpalette(palette)
    picture.save(path)
    return path


# ---- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_a_photograph_is_read_by_column_and_row_in_its_own_type(tmp_path, suffix):
    array, warnings = pictures.read_photograph(save(tmp_path / f"a{suffix}", COLOURS))
    assert (array.dtype, warnings) == (np.uint8, ())
    np.testing.assert_array_equal(array, COLOURS)


def test_a_grey_photograph_has_three_equal_colours_and_a_warning(tmp_path):
    array, warnings = pictures.read_photograph(save(tmp_path / "a.png", COLOURS[..., 0]))
    np.testing.assert_array_equal(array, COLOURS[..., [0, 0, 0]])
    assert warnings[0].startswith("GREY")


def test_a_photograph_of_16_bits_is_refused(tmp_path):
    with pytest.raises(InputError, match="8 bits is wanted") as caught:
        pictures.read_photograph(save(tmp_path / "a.png", COLOURS[..., 0].astype(np.uint16) * 300))
    assert caught.value.code == "DTYPE"


def test_a_drawing_is_what_a_person_sees_not_the_numbers_of_its_palette(tmp_path):
    numbers = np.array([[0, 1], [1, 0], [1, 1]], np.uint8)
    path = save(tmp_path / "a.gif", numbers, palette=[255, 255, 255, 0, 0, 0])  # 0 is drawn white
    np.testing.assert_array_equal(pictures.read_drawing(path)[0], np.where(numbers == 0, 255, 0))


def test_class_indices_are_the_numbers_of_the_palette_not_its_colours(tmp_path):
    numbers = np.array([[0, 15], [255, 0]], np.uint8)
    path = save(tmp_path / "a.png", numbers, palette=[part for n in range(256) for part in (n // 2, 255 - n, 7)])
    np.testing.assert_array_equal(pictures.read_indices(path)[0], numbers)


def test_a_drawing_in_colour_is_refused(tmp_path):
    with pytest.raises(InputError, match="this has colours"):
        pictures.read_drawing(save(tmp_path / "a.png", COLOURS))


def test_a_file_that_is_no_picture_by_its_name_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="a picture is wanted"):
        pictures.read_drawing(tmp_path / "a.txt")


@pytest.mark.parametrize(("values", "expected"), [([0, 255], [0, 1]), ([0, 1], [0, 1]), ([0, 0], [0, 0])])
def test_one_structure_is_1_where_it_is_drawn(values, expected):
    assert pictures.two_valued(np.array([values], np.uint8), where="x")[0].tolist() == expected


@pytest.mark.parametrize("values", [[0, 254], [0, 1, 255], [0, 2]])
def test_other_values_of_one_structure_are_refused(values):
    with pytest.raises(InputError, match="0 and 255, or 0 and 1, was wanted, this has 0"):
        pictures.two_valued(np.array([values], np.uint8), where="x")


def test_another_size_than_the_image_is_refused_with_both_sizes():
    with pytest.raises(InputError, match=r"its size is 3 x 4 \(columns x rows\), that of a.jpg is 4 x 3"):
        pictures.check_same_size(np.zeros((3, 4)), COLOURS, where="x", reference="a.jpg")


# ---- raw pixels ----------------------------------------------------------------------------------------------------


def test_raw_pixels_are_read_row_after_row_with_the_high_byte_first(tmp_path):
    (tmp_path / "a.IMG").write_bytes(struct.pack(">6H", 1, 2, 3, 256, 512, 4095))
    array = pictures.read_raw_pixels(tmp_path / "a.IMG", shape=(3, 2), dtype=">u2")
    assert array.T.tolist() == [[1, 2, 3], [256, 512, 4095]]


@pytest.mark.parametrize(("size", "code"), [(10, "TRUNCATED"), (14, "HEADER")])
def test_raw_pixels_of_another_size_are_refused(tmp_path, size, code):
    (tmp_path / "a.IMG").write_bytes(bytes(size))
    with pytest.raises(InputError, match="12 bytes were wanted") as caught:
        pictures.read_raw_pixels(tmp_path / "a.IMG", shape=(3, 2), dtype=">u2")
    assert caught.value.code == code


# ---- flat scans ----------------------------------------------------------------------------------------------------


def flat_nifti(path, array):
    """A NIfTI file of two axes, as ITK writes it."""
    picture = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    picture.SetSpacing((0.3, 0.15))
    sitk.WriteImage(picture, str(path))
    assert nib.load(path).header["dim"][0] == 2
    return path


def test_a_nifti_file_of_two_axes_is_one_slice_with_its_spacing(tmp_path):
    array = np.arange(12, dtype=np.uint8).reshape(4, 3)
    scan = pictures.read_flat_image(flat_nifti(tmp_path / "a.nii.gz", array))
    np.testing.assert_array_equal(scan.array, array)
    assert scan.spacing[:2] == pytest.approx((0.3, 0.15))


def test_a_flat_label_keeps_its_classes(tmp_path):
    array = np.array([[0, 3], [1, 2]], np.uint8)
    np.testing.assert_array_equal(pictures.read_flat_label(flat_nifti(tmp_path / "a.nii", array)).array, array)


def test_a_third_column_of_zeros_in_the_sform_becomes_the_normal_of_the_slice(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_shape((4, 3))
    header.set_data_dtype(np.uint8)
    header.set_sform(np.diag([0.3, 0.15, 0, 1]), code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4) + bytes(12))
    scan = pictures.read_flat_image(tmp_path / "a.nii")
    np.testing.assert_allclose(scan.affine[:3, 2], [0, 0, 1])


def test_a_slice_of_a_volume_file_is_read_as_it_is(tmp_path):
    array = np.arange(12, dtype=np.int16).reshape(4, 3, 1)
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 3, 4, 1])), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(pictures.read_flat_image(tmp_path / "a.nii.gz").array, array[..., 0])


def test_several_slices_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="one slice is wanted, this has 4 x 3 x 2"):
        pictures.read_flat_image(tmp_path / "a.nii.gz")


def test_a_flat_file_that_is_cut_off_is_refused_by_its_own_name(tmp_path):
    path = flat_nifti(tmp_path / "a.nii", np.ones((40, 30), np.uint8))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="cut off") as caught:
        pictures.read_flat_image(path)
    assert (caught.value.code, caught.value.where) == ("TRUNCATED", path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 255], "uint8"), ([-1, 255], "int16"), ([0, 256], "int16"), ([0, 0.5], "float32"), ([0, 40000], "float32")],
)
def test_whole_numbers_take_the_smallest_type(values, expected):
    assert pictures.smallest_type(np.array(values, np.float32)).dtype == expected


# ---- another size --------------------------------------------------------------------------------------------------


def test_an_image_of_half_the_size_has_the_mean_of_what_a_pixel_covers_away_from_the_border():
    columns = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[:, None], 16, axis=1)
    made = pictures.resize_image(columns, (8, 8))
    assert made.dtype == np.uint8
    assert made[1:-1, 3].tolist() == [25, 45, 65, 85, 105, 125]  # between columns 2 and 3, 4 and 5 ...


def test_colours_are_resized_each_by_itself_and_not_turned():
    made = pictures.resize_image(np.stack([np.full((6, 4), value, np.uint8) for value in (10, 20, 30)], axis=2), (3, 8))
    assert made.shape == (3, 8, 3)
    assert made[1, 2].tolist() == [10, 20, 30]


def test_a_resized_label_has_no_new_class_and_is_not_turned():
    label = np.zeros((8, 4), np.uint8)
    label[4:] = 3
    made = pictures.resize_label(label, (4, 4))
    assert made.tolist() == [[0] * 4, [0] * 4, [3] * 4, [3] * 4]


def test_the_edges_of_a_resized_slice_stay_where_they_were():
    affine = np.diag([2.0, 3.0, 1.0, 1.0])
    affine[:3, 3] = 10, 20, 30
    made = pictures.resized_affine(affine, (8, 6), (4, 3))
    for corner in ([-0.5, -0.5, 0, 1], [7.5, 5.5, 0, 1]):
        there = [(corner[0] + 0.5) / 2 - 0.5, (corner[1] + 0.5) / 2 - 0.5, 0, 1]
        np.testing.assert_allclose(made @ there, affine @ corner)
