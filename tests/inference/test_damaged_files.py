"""What the readers must refuse, each with its own code."""

import bz2
import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from inference_samples import patched, write_nifti

from semi_med.errors import SemiMedError
from semi_med.inference.io import read_image, read_label

DIM, DATATYPE, VOX_OFFSET, SCL_SLOPE, XYZT_UNITS, QFORM_CODE, SROW = 40, 70, 108, 112, 123, 252, 280


@pytest.fixture
def packed(tmp_path, volume) -> Path:
    return write_nifti(tmp_path / "a.nii.gz", volume)


@pytest.fixture
def plain(tmp_path, volume) -> Path:
    return write_nifti(tmp_path / "a.nii", volume)


@pytest.mark.parametrize("share", np.linspace(0.02, 0.98, 20))
def test_a_gzip_cut_anywhere_is_truncated(packed, code_of, share):
    data = packed.read_bytes()
    packed.write_bytes(data[: int(len(data) * share)])
    assert code_of(lambda: read_image(packed)) == "TRUNCATED"


@pytest.mark.parametrize("size", [1, 347, 348, 352, 591])
def test_a_plain_file_cut_anywhere_is_truncated(plain, code_of, size):
    assert plain.stat().st_size == 592  # 352 of header, 120 voxels of 2 bytes
    plain.write_bytes(plain.read_bytes()[:size])
    assert code_of(lambda: read_image(plain)) == "TRUNCATED"


@pytest.mark.parametrize("size", [348, 352, 591])
def test_a_sound_gzip_of_a_cut_file_is_truncated(packed, code_of, size):
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes())[:size]))
    assert code_of(lambda: read_image(packed)) == "TRUNCATED"


@pytest.mark.parametrize("byte", [-8, -1])  # the trailer: checksum, length
def test_a_wrong_gzip_trailer_is_corrupt(packed, code_of, byte):
    data = bytearray(packed.read_bytes())
    data[byte] ^= 1
    packed.write_bytes(data)
    assert code_of(lambda: read_image(packed)) == "CORRUPT"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.nii.gz", b"<!DOCTYPE html><html>", "a web page"),
        ("a.nii.gz", b"PK\x03\x04" + bytes(400), "a zip archive"),
        ("a.nii", b"<html>" + b" " * 400, "a web page"),
        ("a.nii", bytes(128) + b"DICM" + bytes(400), "DICOM"),
        ("a.nii.gz", gzip.compress(bytes(400), mtime=0), "not a NIfTI"),
    ],
)
def test_something_else_under_a_nifti_name_is_named(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SemiMedError, match=words) as caught:
        read_image(path)
    assert caught.value.code == "FORMAT"


def test_a_plain_file_under_a_gzip_name_is_named(plain, tmp_path):
    with pytest.raises(SemiMedError, match="looks like uncompressed NIfTI"):
        read_image(plain.rename(tmp_path / "b.nii.gz"))


def test_a_gzip_under_a_plain_name_is_named(packed, tmp_path):
    with pytest.raises(SemiMedError, match=r"Name it \.nii\.gz"):
        read_image(packed.rename(tmp_path / "b.nii"))


def test_a_wrong_magic_is_no_nifti(plain, code_of):
    assert code_of(lambda: read_image(patched(plain, 344, "4s", b"XXXX"))) == "FORMAT"


def test_a_file_without_bytes_is_empty(tmp_path, code_of):
    path = tmp_path / "a.nii.gz"
    path.touch()
    assert code_of(lambda: read_image(path)) == "EMPTY_FILE"


def test_a_missing_file_a_folder_and_a_pipe_are_told_apart(tmp_path, code_of):
    (tmp_path / "folder.nii.gz").mkdir()
    os.mkfifo(tmp_path / "pipe.nii")
    assert code_of(lambda: read_image(tmp_path / "none.nii")) == "NOT_FOUND"
    assert code_of(lambda: read_image(tmp_path / "folder.nii.gz")) == "NOT_A_FILE"
    assert code_of(lambda: read_image(tmp_path / "pipe.nii")) == "NOT_A_FILE"


def test_an_unknown_suffix_lists_what_is_read(tmp_path):
    with pytest.raises(SemiMedError, match=r"\.nii\.gz, \.nii, \.nrrd"):
        read_image(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("offset", "layout", "values", "code"),
    [
        (DIM, "4h", (3, 0, 5, 6), "HEADER"),
        (DIM, "4h", (3, -4, 5, 6), "HEADER"),
        (DIM, "h", (0,), "HEADER"),
        (DIM, "h", (8,), "HEADER"),
        (DIM, "4h", (3, 32767, 32767, 32767), "TOO_LARGE"),
        (DIM, "4h", (3, 400, 400, 400), "TRUNCATED"),
        (DIM, "3h", (2, 4, 5), "NDIM"),
        (DIM, "5h", (4, 4, 5, 2, 3), "NDIM"),
        (DIM, "6h", (5, 4, 5, 2, 1, 3), "NDIM"),
        (VOX_OFFSET, "f", (-100,), "HEADER"),
        (VOX_OFFSET, "f", (0,), "HEADER"),
        (VOX_OFFSET, "f", (352.5,), "HEADER"),
        (VOX_OFFSET, "f", (float("nan"),), "HEADER"),
        (VOX_OFFSET, "f", (1e9,), "HEADER"),
        (DATATYPE, "h", (128,), "DTYPE"),
        (DATATYPE, "h", (1792,), "DTYPE"),
        (DATATYPE, "h", (77,), "DTYPE"),
        (SROW, "f", (float("nan"),), "AFFINE"),
        (SROW, "8f", (1, 0, 0, 0, 1, 0, 0, 0), "AFFINE"),
        (SROW, "4f", (0, 0, 0, 0), "AFFINE"),
        (SROW, "4f", (1, 0.2, 0, 0), "SHEAR"),
        (XYZT_UNITS, "b", (3,), "SPACING"),
    ],
)
def test_an_impossible_header_field_is_refused(plain, code_of, offset, layout, values, code):
    assert code_of(lambda: read_image(patched(plain, offset, layout, *values))) == code


def test_a_gzip_that_cannot_hold_what_it_announces_is_refused_unread(packed, code_of):
    assert code_of(lambda: read_image(patched(packed, DIM, "4h", 3, 1000, 1000, 1000))) == "TOO_LARGE"


def test_more_axes_are_refused_with_the_shape_and_the_way_out(tmp_path):
    path = write_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6, 3), np.int16))
    with pytest.raises(SemiMedError, match=r"4 x 5 x 6 x 3.*file of its own"):
        read_image(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_voxel_that_is_not_finite_is_an_error_or_replaced(tmp_path, code_of, value):
    array = np.arange(2.0, 122, dtype=np.float32).reshape(4, 5, 6)
    array[3, 0, 0] = value
    path = write_nifti(tmp_path / "a.nii", array)
    assert code_of(lambda: read_image(path)) == "NONFINITE"
    scan = read_image(path, nonfinite="replace")
    assert scan.array[3, 0, 0] == 2
    assert scan.warnings == ("NONFINITE: 1 NaN or infinite voxels were replaced by 2",)


def test_too_many_voxels_that_are_not_finite_are_an_error(tmp_path, code_of):
    array = np.ones((4, 5, 6), np.float32)
    array.flat[:7] = np.nan  # 5.8 %
    path = write_nifti(tmp_path / "a.nii", array)
    assert code_of(lambda: read_image(path, nonfinite="replace")) == "NONFINITE"


@pytest.mark.parametrize("value", [np.nan, 0.999, -1.0])
def test_a_value_that_is_no_class_index_is_listed(tmp_path, value):
    array = np.zeros((2, 2, 2), np.float32)
    array[0, 0, 0] = value
    with pytest.raises(SemiMedError, match=f"for example {value:g}") as caught:
        read_label(write_nifti(tmp_path / "a.nii", array))
    assert caught.value.code == "LABEL_VALUES"


def test_a_value_beyond_float32_is_an_error_not_infinity(tmp_path, code_of):
    path = write_nifti(tmp_path / "a.nii", np.full((2, 2, 2), 1e300))
    assert code_of(lambda: read_image(path)) == "RANGE"


def write_itk(path: Path, volume: np.ndarray, *, compress: bool) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(volume.T.copy()), str(path), compress)
    return path


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_cut_nrrd_or_metaimage_is_truncated(tmp_path, volume, code_of, name, compress):
    path = write_itk(tmp_path / name, volume, compress=compress)
    path.write_bytes(path.read_bytes()[:-9])
    assert code_of(lambda: read_image(path)) == "TRUNCATED"


def test_a_cut_payload_beside_its_header_is_truncated(tmp_path, volume, code_of):
    path = write_itk(tmp_path / "a.mhd", volume, compress=False)
    (tmp_path / "a.raw").write_bytes(bytes(239))
    assert code_of(lambda: read_image(path)) == "TRUNCATED"


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_a_flipped_bit_in_a_compressed_payload_is_corrupt(tmp_path, volume, code_of, name):
    path = write_itk(tmp_path / name, volume, compress=True)
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    assert code_of(lambda: read_image(path)) == "CORRUPT"


@pytest.mark.parametrize(
    ("name", "old", "new", "code"),
    [
        ("a.mha", b"CompressedDataSize", b"CompressedDataSizf", "HEADER"),
        ("a.mha", b"DimSize = 4 5 6", b"DimSize = 4 5 5", "CORRUPT"),
        ("a.mha", b"DimSize = 4 5 6", b"DimSize = 4 5 0", "HEADER"),
        ("a.mha", b"MET_SHORT", b"MET_SHAPE", "DTYPE"),
        ("a.nrrd", b"NRRD000", b"NOPE000", "FORMAT"),
        ("a.nrrd", b"sizes: 4 5 6", b"sizes: 4 5 x", "HEADER"),
        ("a.nrrd", b"encoding: gzip", b"encoding: ascii", "FORMAT"),
        ("a.nrrd", b"encoding: gzip", b"data file: a.raw\nencoding: gzip", "FORMAT"),
    ],
)
def test_a_header_that_contradicts_its_payload_is_refused(tmp_path, volume, code_of, name, old, new, code):
    path = write_itk(tmp_path / name, volume, compress=True)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    assert code_of(lambda: read_image(path)) == code


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/hostname", "sub/a.raw"])
def test_a_header_cannot_point_outside_its_folder(tmp_path, volume, code_of, name):
    path = write_itk(tmp_path / "a.mhd", volume, compress=False)
    path.write_text(path.read_text().replace("a.raw", name))
    assert code_of(lambda: read_image(path)) == "PATH_ESCAPE"


def test_a_bzip2_payload_is_read_whole(tmp_path, volume):
    header = "NRRD0004\ntype: short\ndimension: 3\nspace: RAS\nsizes: 4 5 6\nendian: little\nencoding: {}\n"
    header += "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
    voxels = volume.tobytes(order="F")
    (tmp_path / "a.nrrd").write_bytes(header.format("raw").encode() + voxels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nrrd").array, volume)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nrrd").affine, np.eye(4))
    (tmp_path / "b.nrrd").write_bytes(header.format("bzip2").encode() + bz2.compress(voxels)[:-3])
    with pytest.raises(SemiMedError, match="cut off"):
        read_image(tmp_path / "b.nrrd")


def test_a_colour_image_is_refused(tmp_path, code_of):
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(image, str(tmp_path / name))
        assert code_of(lambda name=name: read_image(tmp_path / name)) == "NDIM"


def test_damaged_files_raise_nothing_but_typed_errors(tmp_path, volume):
    random = np.random.default_rng(7)
    originals = [write_nifti(tmp_path / "s.nii", volume), write_nifti(tmp_path / "s.nii.gz", volume)]
    originals += [
        write_itk(tmp_path / name, volume, compress=compress)
        for name, compress in [("s.nrrd", True), ("t.nrrd", False), ("s.mha", True), ("t.mha", False)]
    ]
    refused = 0
    for turn in range(400):
        source = originals[turn % len(originals)]
        data = bytearray(source.read_bytes())
        for _ in range(random.integers(1, 5)):
            data[random.integers(min(len(data), 400))] = random.integers(256)
        path = tmp_path / f"x{''.join(source.suffixes)}"
        path.write_bytes(data)
        try:
            scan = read_image(path, nonfinite="replace")
        except SemiMedError:
            refused += 1
        else:
            assert np.isfinite(scan.array).all() and abs(np.linalg.det(scan.affine)) > 0
    assert 100 < refused < 400


def test_the_oracle_reads_the_files_these_tests_damage(packed, plain, volume):
    for path in (packed, plain):
        np.testing.assert_array_equal(nib.load(path).get_fdata(), volume)
        np.testing.assert_array_equal(read_image(path).array, volume)
