"""The crafted series of which common readers take half, or the wrong one, without a word."""

from __future__ import annotations

import numpy as np
import pytest

from semi_med.errors import SemiMedError
from semi_med.inference.dicom import find_series
from semi_med.inference.io import read_image
from tests.corpus import dicom_corpus
from tests.corpus.dicom_corpus import CORPUS, Case, plan_series, save


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_every_crafted_series_gets_its_verdict(case: Case, tmp_path):
    case.write(tmp_path / "series")
    if case.code:
        with pytest.raises(SemiMedError) as caught:
            read_image(tmp_path / "series")
        assert caught.value.code == case.code
        assert case.words in str(caught.value)
    else:
        scan = read_image(tmp_path / "series")
        assert scan.array.shape[2] == (1 if case.name == "single_slice" else 12)
        assert case.words in "\n".join(scan.warnings)
        assert (scan.warnings == ()) == (case.name == "good")


def test_a_good_series_has_its_values_and_its_place(tmp_path):
    plan = plan_series()
    scan = read_image(plan.write(tmp_path / "series"))
    np.testing.assert_array_equal(scan.array, plan.real)
    np.testing.assert_allclose(scan.affine, plan.affine, atol=1e-9)
    assert scan.array.dtype == np.float32


@pytest.mark.parametrize("jitter, fine", [(0.001, True), (0.004, True), (0.05, False)])
def test_positions_may_be_rounded_but_not_more(tmp_path, jitter, fine):
    plan = plan_series()
    for k, one in enumerate(plan.slices):
        one.ImagePositionPatient[2] += jitter * (-1) ** k
    if fine:
        assert read_image(plan.write(tmp_path)).array.shape == (7, 9, 12)
    else:
        with pytest.raises(SemiMedError, match="not equally spaced"):
            read_image(plan.write(tmp_path))


def test_a_drift_that_adds_up_is_a_gap_although_no_single_step_is(tmp_path):
    plan = plan_series(shape=(60, 9, 7))
    for k, one in enumerate(plan.slices):
        one.ImagePositionPatient[2] += 0.018 * max(0, k - 30)  # steps of 2 and of 2.018 mm: within 1 %
    with pytest.raises(SemiMedError, match="not equally spaced"):
        read_image(plan.write(tmp_path))


def test_gaps_are_filled_by_interpolation_if_that_is_chosen(tmp_path):
    plan = plan_series()
    real = plan.real
    del plan.slices[5:7]
    scan = read_image(plan.write(tmp_path), dicom={"gaps": "resample"})
    assert scan.array.shape == (7, 9, 12)
    np.testing.assert_allclose(scan.array, real, atol=1e-3)  # the values rise linearly with the slices
    np.testing.assert_allclose(scan.affine, plan.affine, atol=1e-9)
    assert scan.warnings[0].startswith("SLICE_GAP: 2 slices are missing")


def test_a_gap_as_large_as_a_body_is_not_filled(tmp_path):
    plan = plan_series(shape=(3, 9, 7))
    plan.slices[2].ImagePositionPatient[2] += 500
    with pytest.raises(SemiMedError, match="too far apart to interpolate"):
        read_image(plan.write(tmp_path), dicom={"gaps": "resample"})


def test_a_tilted_stack_is_straightened_where_it_lies(tmp_path):
    _, j, i = np.indices((12, 9, 7))
    plan = plan_series(lean=(0.0, 0.4), spacing=(1.0, 1.0), values=100 + 10 * j + i)
    scan = read_image(plan.write(tmp_path))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ scan.affine
    # the stored values are 100 + 10 y + x in the frame of each slice, whose origin moves by 0.8 mm in y a slice
    for index in [(3, 6, 2), (0, 9, 11), (6, 8, 5)]:
        x, y, z = (lps @ [*index, 1])[:3] - (-10.0, 20.0, 30.0)
        expected = 100 + 10 * (y - 0.4 * z) + x - 1024
        assert scan.array[index] == pytest.approx(expected, abs=1e-3)
    assert scan.array.shape == (7, 9 + 9, 12)  # 11 slices x 0.8 mm rounded up
    np.testing.assert_allclose(scan.affine, np.diag([-1, -1, 2, 1]) @ np.eye(4) + _at(10, -20, 30), atol=1e-9)


def _at(x: float, y: float, z: float) -> np.ndarray:
    matrix = np.zeros((4, 4))
    matrix[:3, 3] = x, y, z
    return matrix


def test_a_tilt_can_be_refused(tmp_path, code_of):
    plan_series(lean=(0.0, 0.4)).write(tmp_path / "series")
    assert code_of(lambda: read_image(tmp_path / "series", dicom={"tilt": "error"})) == "GANTRY_TILT"


def test_scouts_are_left_out_with_a_word(tmp_path):
    plan = plan_series()
    scout = plan_series(shape=(1, 30, 20), axes=[(0, 1, 0), (0, 0, -1)], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    scout.slices[0].SeriesInstanceUID = plan.slices[0].SeriesInstanceUID
    plan.write(tmp_path)
    save(scout.slices[0], tmp_path / "scout.dcm")
    scan = read_image(tmp_path)
    np.testing.assert_array_equal(scan.array, plan.real)
    assert scan.warnings == ("IGNORED: 1 localizer in the folder",)


def test_exact_copies_are_left_out_with_a_word(tmp_path):
    plan = plan_series()
    plan.write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    save(plan.slices[4], tmp_path / "b" / "again.dcm")
    scan = read_image(tmp_path)
    np.testing.assert_array_equal(scan.array, plan.real)
    assert scan.warnings == ("COPY: 1 files are exact copies of others and were left out",)


@pytest.mark.parametrize("content", [b"", bytes(700), b"\x93\x1f" * 400], ids=["empty", "zeros", "noise"])
def test_what_may_have_been_a_slice_is_never_passed_over(tmp_path, content):
    plan_series().write(tmp_path)
    (tmp_path / "IM0012").write_bytes(content)
    with pytest.raises(SemiMedError, match="file 13 of 13 cannot be used") as caught:
        read_image(tmp_path)
    assert caught.value.code == ("CORRUPT" if content else "EMPTY_FILE")


@pytest.mark.parametrize("length", [0, 100, 140, 300, 700, 1000, 1200])
def test_a_last_slice_cut_off_anywhere_is_an_error(tmp_path, length):
    plan_series().write(tmp_path)
    path = tmp_path / "IM0011.dcm"
    assert path.stat().st_size > 1250
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(SemiMedError, match="file 12 of 12"):
        read_image(tmp_path)


def test_a_foreign_object_under_the_name_of_the_series_is_an_error(tmp_path, code_of):
    plan = plan_series()
    plan.slices[-1].SOPClassUID = dicom_corpus.SECONDARY_CAPTURE
    plan.slices[-1].file_meta.MediaStorageSOPClassUID = dicom_corpus.SECONDARY_CAPTURE
    plan.write(tmp_path)
    assert code_of(lambda: read_image(tmp_path)) == "MIXED_SERIES"


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_geometry_is_never_invented(tmp_path, code_of, tag, how):
    plan = plan_series()
    for one in plan.slices[:1] if how == "empty" else plan.slices:
        if how == "empty":
            setattr(one, tag, None)
        else:
            delattr(one, tag)
    assert code_of(lambda: read_image(plan.write(tmp_path))) == "NO_GEOMETRY"


@pytest.mark.parametrize(
    "tag, value, code",
    [
        ("PixelSpacing", [1.6, 0.75], "MIXED_SPACING"),
        ("PixelSpacing", [0.0, 0.75], "NO_GEOMETRY"),
        ("ImageOrientationPatient", [1, 0, 0, 0.2, 1, 0], "NO_GEOMETRY"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0], "NO_GEOMETRY"),
        ("ImagePositionPatient", [-10.0, 21.0, 34.0], "SLICE_GAP"),
        ("FrameOfReferenceUID", "1.2.3", "MIXED_SERIES"),
        ("PhotometricInterpretation", "RGB", "DTYPE"),
        ("BitsAllocated", 12, "CORRUPT"),
        ("RescaleSlope", "1e400", "CORRUPT"),
    ],
)
def test_one_odd_slice_is_an_error(tmp_path, code_of, tag, value, code):
    plan = plan_series()
    setattr(plan.slices[2], tag, value)
    assert code_of(lambda: read_image(plan.write(tmp_path))) == code


def test_two_phases_in_one_series_are_listed_apart_and_can_be_chosen(tmp_path, code_of):
    first, second = plan_series(AcquisitionNumber=1), plan_series(AcquisitionNumber=2, values=np.ones((12, 9, 7)))
    for one, other in zip(first.slices, second.slices, strict=True):
        other.SeriesInstanceUID, other.StudyInstanceUID = one.SeriesInstanceUID, one.StudyInstanceUID
        other.FrameOfReferenceUID = one.FrameOfReferenceUID
    first.write(tmp_path / "x")
    second.write(tmp_path / "y")
    assert [one.part for one in find_series(tmp_path).series] == [
        "AcquisitionNumber 1 of 2",
        "AcquisitionNumber 2 of 2",
    ]
    assert code_of(lambda: read_image(tmp_path)) == "SERIES"
    np.testing.assert_array_equal(read_image(tmp_path, dicom={"series": 2}).array, second.real)


def test_a_series_can_be_chosen_by_number_or_hash(tmp_path, code_of):
    dicom_corpus.CORPUS[4].write(tmp_path)
    found = find_series(tmp_path).series
    assert [(one.index, one.modality, one.slices, one.size) for one in found] == [
        (1, "CT", 12, (7, 9)),
        (2, "CT", 5, (7, 9)),
    ]
    assert found[0].spacing == pytest.approx((0.75, 1.5, 2.0))
    assert read_image(tmp_path, dicom={"series": 2}).array.shape[2] == 5
    assert read_image(tmp_path, dicom={"series": found[0].uid_hash[:6]}).array.shape[2] == 12
    assert code_of(lambda: read_image(tmp_path, dicom={"series": 3})) == "SERIES"
    assert code_of(lambda: read_image(tmp_path, dicom={"series": "zzzz"})) == "SERIES"


def test_a_damaged_file_of_another_series_does_not_matter(tmp_path):
    dicom_corpus.CORPUS[4].write(tmp_path)
    path = sorted((tmp_path / "b").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-40])
    assert read_image(tmp_path, dicom={"series": 1}).array.shape[2] == 12
    with pytest.raises(SemiMedError, match="cut off"):
        read_image(tmp_path, dicom={"series": 2})


def test_one_slice_named_by_itself_is_no_volume(tmp_path, code_of):
    plan_series().write(tmp_path)
    assert code_of(lambda: read_image(tmp_path / "IM0003.dcm")) == "SINGLE_SLICE"


def test_a_series_without_a_uid_is_held_together_by_its_study(tmp_path):
    plan = plan_series(SeriesInstanceUID="")
    np.testing.assert_array_equal(read_image(plan.write(tmp_path)).array, plan.real)


def test_fewer_slices_than_announced_is_a_warning(tmp_path):
    scan = read_image(plan_series(ImagesInAcquisition="20").write(tmp_path))
    assert scan.warnings == ("FEWER_SLICES: the acquisition has 20 images, 12 are here",)


@pytest.mark.parametrize("choice", [{"gaps": "fill"}, {"tilt": True}, {"burned_in": "no"}])
def test_an_unknown_choice_is_an_error(tmp_path, code_of, choice):
    plan_series().write(tmp_path)
    assert code_of(lambda: read_image(tmp_path, dicom=choice)) == "SETTING"


@pytest.mark.parametrize(
    "sop_class, code",
    [
        ("1.3.12.2.1107.5.9.1", ""),  # a scanner's own object
        ("1.2.840.10008.5.1.4.1.1.9.1.1", ""),  # a waveform, in the standard
        ("1.2.840.10008.5.1.4.1.9.2", "CORRUPT"),  # nothing known
    ],
)
def test_only_objects_of_known_kinds_are_passed_over(tmp_path, sop_class, code):
    plan_series().write(tmp_path)
    save(dicom_corpus.other_object(sop_class), tmp_path / "other.dcm")
    if code:
        with pytest.raises(SemiMedError, match="an object of an unknown kind"):
            read_image(tmp_path)
    else:
        assert read_image(tmp_path).warnings == ("IGNORED: 1 other object in the folder",)


def test_a_file_that_names_two_kinds_of_object_is_damaged(tmp_path):
    plan_series().write(tmp_path)
    path = tmp_path / "IM0011.dcm"
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.7\0", 1))
    with pytest.raises(SemiMedError, match="names two kinds of object"):
        read_image(tmp_path)
