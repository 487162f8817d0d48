"""DICOM segmentations, read back by pydicom and geometry of its own: the voxels lie where those of the label lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from semi_med.errors import InputError, ResourceError
from semi_med.inference import dicom_seg
from semi_med.inference.batch import predict
from semi_med.inference.dicom import read_dicom
from semi_med.inference.dicom_seg import SegmentationInfo, write_seg
from semi_med.inference.segment_codes import segments_of
from tests.corpus.dicom_corpus import (
    CANARY,
    ENHANCED_MR,
    IDENTITY,
    MR,
    oblique,
    plan_multiframe,
    plan_series,
    right_angles,
)

needs_highdicom = pytest.mark.skipif(not dicom_seg.has_highdicom(), reason="the extra semi-med[seg] is not installed")
SHAPE = (5, 4, 6)  # slices, rows, columns
MUST_STAND = {"PatientName", "PatientID", "PatientBirthDate", "StudyID", "AccessionNumber", "ReferringPhysicianName"}
INFO = SegmentationInfo(segments_of({1: "left atrium", 2: "thing", 4: "tumour"}), "bundle", "0" * 64)


def read_back(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(i, j, k) segment numbers on a grid, from where every pixel of every frame lies in space."""
    data = pydicom.dcmread(path)
    pixels = data.pixel_array.reshape(int(data.NumberOfFrames), data.Rows, data.Columns)
    shared = data.SharedFunctionalGroupsSequence[0]
    found = np.zeros(shape, int)
    for frame, own in zip(pixels, data.PerFrameFunctionalGroupsSequence, strict=True):
        groups = [own, shared]
        orientation = next(g for g in groups if "PlaneOrientationSequence" in g).PlaneOrientationSequence[0]
        row, column = np.array(orientation.ImageOrientationPatient, float).reshape(2, 3)
        between_rows, between_columns = (
            next(g for g in groups if "PixelMeasuresSequence" in g).PixelMeasuresSequence[0].PixelSpacing
        )
        segment = next(g for g in groups if "SegmentIdentificationSequence" in g)
        start = np.array(own.PlanePositionSequence[0].ImagePositionPatient, float)
        for r, c in np.argwhere(frame):
            lps = start + row * between_columns * c + column * between_rows * r
            place = np.linalg.inv(affine) @ [-lps[0], -lps[1], lps[2], 1]
            index = np.rint(place[:3]).astype(int)
            assert np.abs(place[:3] - index).max() < 0.02
            assert found[tuple(index)] == 0
            found[tuple(index)] = segment.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return found


def label_for(path: Path, **choices) -> tuple[np.ndarray, np.ndarray]:
    """A label without any symmetry on the grid of a series, and the affine."""
    raw = read_dicom(path, **choices)
    label = np.random.default_rng(1).choice([0, 0, 1, 2, 4], raw.array.shape).astype(np.uint8)
    return label, raw.affine


def numbered(label: np.ndarray) -> np.ndarray:
    """Segments are numbered without gaps: class 4 is the third."""
    return np.where(label == 4, 3, label).astype(int)


@needs_highdicom
def test_voxels_come_back_in_all_right_angled_orientations(tmp_path):
    count = 0
    for count, axes in enumerate(right_angles(), start=1):
        series = plan_series(shape=SHAPE, axes=axes).write(tmp_path / f"{count}")
        label, affine = label_for(series)
        write_seg(tmp_path / "seg.dcm", series, label, choices={}, info=INFO)
        np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", affine, label.shape), numbered(label))
    assert count == 24


@needs_highdicom
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_voxels_come_back_from_oblique_slices_in_any_order_of_files(tmp_path, seed):
    plan = plan_series(shape=SHAPE, axes=oblique(seed), sop_class=MR)
    series = plan.write(tmp_path / "series", names=lambda number: f"{(number * 3) % 5}.dcm")
    label, affine = label_for(series)
    write_seg(tmp_path / "seg.dcm", series, label, choices={}, info=INFO)
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", affine, label.shape), numbered(label))


@needs_highdicom
def test_voxels_come_back_from_one_object_with_many_frames(tmp_path):
    plan = plan_multiframe(plan_series(shape=SHAPE, axes=oblique(2), sop_class=MR), sop_class=ENHANCED_MR)
    series = plan.write(tmp_path / "series")
    label, affine = label_for(series)
    write_seg(tmp_path / "seg.dcm", series, label, choices={}, info=INFO)
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", affine, label.shape), numbered(label))


@needs_highdicom
def test_voxels_come_back_from_a_zip(tmp_path):
    series = plan_series(shape=SHAPE, axes=oblique(4)).write(tmp_path / "series")
    archive = Path(shutil.make_archive(str(tmp_path / "visit"), "zip", series))
    label, affine = label_for(archive)
    write_seg(tmp_path / "seg.dcm", archive, label, choices={}, info=INFO)
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", affine, label.shape), numbered(label))


@needs_highdicom
def test_slices_of_a_tilted_gantry_get_what_lies_at_their_place(tmp_path):
    plan = plan_series(shape=(6, 20, 8), lean=(0.0, 0.75), spacing=(1.5, 0.75))  # a row for each slice
    series = plan.write(tmp_path / "series")
    raw = read_dicom(series)
    # a stripe that follows the slices: row 7 of each of them
    label = np.zeros(raw.array.shape, np.uint8)
    grown = raw.array.shape[1] - 20
    for k in range(6):
        label[:, 7 + (k if raw.array.shape[1] > 20 else 0), k] = 1
    assert grown == 5
    write_seg(tmp_path / "seg.dcm", series, label, choices={}, info=INFO)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    pixels = data.pixel_array
    assert pixels.shape == (6, 20, 8)
    wanted = np.zeros((20, 8), np.uint8)
    wanted[7] = 1
    assert all((frame == wanted).all() for frame in pixels)


@needs_highdicom
def test_slices_beside_a_gap_get_what_lies_at_their_height(tmp_path):
    plan = plan_series(shape=SHAPE)
    del plan.slices[2]
    series = plan.write(tmp_path / "series")
    label = np.zeros((6, 4, 5), np.uint8)
    label[:] = [1, 2, 4, 1, 2]  # by slice of the filled grid
    write_seg(tmp_path / "seg.dcm", series, label, choices={"gaps": "resample"}, info=INFO)
    _, affine = label_for(series, gaps="resample")
    found = read_back(tmp_path / "seg.dcm", affine, label.shape)
    assert found[0, 0].tolist() == [1, 2, 0, 1, 2]


@needs_highdicom
def test_segments_have_codes_colours_and_say_who_made_them(tmp_path):
    series = plan_series(shape=SHAPE).write(tmp_path / "series")
    label, _ = label_for(series)
    write_seg(tmp_path / "seg.dcm", series, label, choices={}, info=INFO)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (data.Modality, data.SegmentationType, data.SOPClassUID.name) == ("SEG", "BINARY", "Segmentation Storage")
    types = [one.SegmentedPropertyTypeCodeSequence[0] for one in data.SegmentSequence]
    assert [(one.CodeValue, one.CodingSchemeDesignator) for one in types] == [
        ("82471001", "SCT"),
        ("CLASS2", "99SEMIMED"),
        ("108369006", "SCT"),
    ]
    assert types[1].CodeMeaning == "thing"
    categories = [one.SegmentedPropertyCategoryCodeSequence[0].CodeValue for one in data.SegmentSequence]
    assert categories == ["91723000", "123037004", "49755003"]
    assert [one.SegmentLabel for one in data.SegmentSequence] == ["left atrium", "thing", "tumour"]
    assert all(len(one.RecommendedDisplayCIELabValue) == 3 for one in data.SegmentSequence)
    algorithm = data.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "bundle"
    assert "0" * 64 in algorithm.AlgorithmParameters
    source = pydicom.dcmread(next(series.iterdir()))
    assert data.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert data.StudyInstanceUID == source.StudyInstanceUID
    assert data.SeriesInstanceUID != source.SeriesInstanceUID
    referenced = {one.ReferencedSOPInstanceUID for one in data.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced == {pydicom.dcmread(file).SOPInstanceUID for file in series.iterdir()}


@needs_highdicom
def test_of_the_patient_only_what_a_segmentation_must_refer_to_is_taken_over(tmp_path):
    series = plan_series(shape=SHAPE).write(tmp_path / "series")
    label, _ = label_for(series)
    write_seg(tmp_path / "seg.dcm", series, label, choices={}, info=INFO)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    assert {name for name in IDENTITY if name in data} == MUST_STAND
    told = {element.keyword for element in data.iterall() if CANARY in str(element.value).upper()}
    assert told <= MUST_STAND


@needs_highdicom
def test_a_series_whose_names_were_removed_still_gets_a_segmentation(tmp_path):
    plan = plan_series(shape=SHAPE)
    for one in plan.slices:
        for name in IDENTITY:
            del one[name]
    series = plan.write(tmp_path / "series")
    label, affine = label_for(series)
    write_seg(tmp_path / "seg.dcm", series, label, choices={}, info=INFO)
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", affine, label.shape), numbered(label))


@needs_highdicom
def test_what_an_object_is_may_stand_in_its_meta_information_only(tmp_path):
    plan = plan_series(shape=SHAPE)
    for one in plan.slices:
        del one.SOPClassUID
    series = plan.write(tmp_path / "series")
    label, affine = label_for(series)
    write_seg(tmp_path / "seg.dcm", series, label, choices={}, info=INFO)
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", affine, label.shape), numbered(label))


@needs_highdicom
def test_an_empty_label_is_written_as_such(tmp_path):
    series = plan_series(shape=SHAPE).write(tmp_path / "series")
    label, _ = label_for(series)
    write_seg(tmp_path / "seg.dcm", series, np.zeros_like(label), choices={}, info=INFO)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    assert not data.pixel_array.any()
    assert len(data.SegmentSequence) == 3


@needs_highdicom
def test_a_prediction_of_a_series_has_a_segmentation_beside_its_label(tmp_path, bundle):
    plan = plan_series(shape=SHAPE, axes=oblique(1))
    (row,) = predict(bundle, [plan.write(tmp_path / "visit")], tmp_path / "out", device="cpu")
    label = nib.load(tmp_path / "out" / "visit_seg.nii.gz")
    found = read_back(tmp_path / "out" / "visit_seg.dcm", label.affine, label.shape)
    np.testing.assert_array_equal(found, np.asarray(label.dataobj))
    assert sorted(row["outputs"]) == ["visit_seg.dcm", "visit_seg.nii.gz"]
    assert all(CANARY not in text for text in (str(row), (tmp_path / "out" / "run.json").read_text()))


@needs_highdicom
def test_a_series_without_a_coordinate_system_is_named_and_keeps_its_label(tmp_path, bundle):
    plan = plan_series(shape=SHAPE)
    for one in plan.slices:
        del one.FrameOfReferenceUID
    series = plan.write(tmp_path / "visit")
    (row,) = predict(bundle, [series], tmp_path / "out", device="cpu")
    assert (row["status"], list(row["outputs"])) == ("done", ["visit_seg.nii.gz"])
    assert row["warnings"][-1].startswith("NO_SEG: ")
    (row,) = predict(bundle, [series], tmp_path / "forced", device="cpu", dicom_seg=True)
    assert (row["status"], row["code"]) == ("failed", "NO_SEG")


@needs_highdicom
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("nothing came out of it for 600 seconds", code="TIMEOUT"), "TIMEOUT"),
        (InputError("the decoder crashed", code="DECODER_CRASH"), "DECODER_CRASH"),
        (ResourceError("there is not enough memory", code="MEMORY"), "MEMORY"),
        (RuntimeError("KeyError at dicom_seg_writer.py:1"), "UNEXPECTED"),
    ],
)
def test_a_segmentation_that_did_not_come_out_leaves_the_case_to_the_next_run(
    tmp_path, bundle, monkeypatch, error, code
):
    series = plan_series(shape=SHAPE).write(tmp_path / "visit")

    def fails(*args, **choices):
        raise error

    with monkeypatch.context() as broken:
        broken.setattr("semi_med.inference.batch.write_seg", fails)
        (row,) = predict(bundle, [series], tmp_path / "out", device="cpu")
    assert (row["status"], row["code"], row["output"]) == ("failed", code, "visit_seg.nii.gz")
    assert list(row["outputs"]) == ["visit_seg.nii.gz"]
    assert (tmp_path / "out" / "visit_seg.nii.gz").exists()
    (row,) = predict(bundle, [series], tmp_path / "out", device="cpu", skip_existing=True)
    assert (row["status"], row["skipped"], len(row["outputs"])) == ("done", False, 2)
    (row,) = predict(bundle, [series], tmp_path / "out", device="cpu", skip_existing=True)
    assert row["skipped"]


@needs_highdicom
def test_a_full_folder_for_temporary_files_costs_the_segmentation_and_not_the_label(tmp_path, bundle, monkeypatch):
    series = plan_series(shape=SHAPE).write(tmp_path / "visit")

    def full(*args, **choices):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dicom_seg.np, "save", full)
    (row,) = predict(bundle, [series], tmp_path / "out", device="cpu")
    assert (row["status"], row["code"], row["output"]) == ("failed", "TEMPORARY", "visit_seg.nii.gz")
    assert "TMPDIR" in row["error"]
    assert nib.load(tmp_path / "out" / "visit_seg.nii.gz").shape == tuple(reversed(SHAPE))


def test_without_the_library_it_is_said_what_to_install(tmp_path, bundle, monkeypatch):
    monkeypatch.setattr(dicom_seg, "has_highdicom", lambda: False)
    series = plan_series(shape=SHAPE).write(tmp_path / "visit")
    with pytest.raises(ResourceError, match=r"pip install 'semi-med\[seg\]'") as caught:
        predict(bundle, [series], tmp_path / "out", device="cpu", dicom_seg=True)
    assert caught.value.code == "NO_HIGHDICOM"
    assert not (tmp_path / "out").exists()


# ---- codes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("Left_Atrium", "82471001", "Left atrium"),
        ("right kidney", "64033007", "Kidney"),
        ("anterior hippocampus", "5366008", "Hippocampus"),
        ("lungs", "39607008", "Lung"),
        ("oedema", "79654002", "Edema"),
    ],
)
def test_common_names_have_codes_of_snomed_ct(name, value, meaning):
    (found,) = segments_of({3: name})
    assert (found.number, found.name, found.type) == (3, name, (value, "SCT", meaning))


def test_every_code_is_one_that_dicom_knows_by_that_meaning():
    from pydicom.sr._concepts_dict import concepts

    from semi_med.inference import segment_codes

    known = {value for entry in concepts["SCT"].values() for value in entry}
    table = {**segment_codes._ANATOMY, **segment_codes._ABNORMAL}
    assert {value for value, _ in table.values()} <= known
    assert {code[0] for code in (segment_codes.ANATOMY, segment_codes.ABNORMAL, segment_codes.BODY)} <= known
    assert set(segment_codes._OTHER_WORDS.values()) <= set(table)


def test_what_is_not_known_gets_no_code_of_anything_else():
    (found,) = segments_of({2: "thing of ours"})
    assert found.type == ("CLASS2", "99SEMIMED", "thing of ours")
    assert found.category[0] == "123037004"


def test_a_bundle_may_name_its_codes():
    given = {"thing": {"category": ["1", "X", "kind"], "type": ["2", "Y", "what"], "colour": [1, 2, 3]}}
    (found,) = segments_of({1: "thing"}, given)
    assert (found.category, found.type, found.colour) == (("1", "X", "kind"), ("2", "Y", "what"), (1, 2, 3))


@pytest.mark.parametrize("entry", [{"type": ["2", "Y", "what"]}, {"category": ["1"], "type": ["2"]}, "text"])
def test_codes_of_a_bundle_that_cannot_be_read_are_an_error(entry):
    with pytest.raises(InputError, match="segment_codes of 'thing' wants category and type"):
        segments_of({1: "thing"}, {"thing": entry})
