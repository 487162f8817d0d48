"""DICOM folders as cases: of a prediction, of a data list, of the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from slice_samples import write_slice_bundle
from test_dicom_safety import run_cli

from semi_med.data.validation import validate_sections
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.batch import predict
from semi_med.inference.batch_files import collect_cases
from semi_med.inference.dicom import is_dicom
from semi_med.inference.io import read_image, write_image, write_label
from semi_med.inference.reader import ScanReader
from tests.corpus.dicom_corpus import oblique, plan_series

SMALL = (5, 8, 6)


def two_series(folder: Path) -> Path:
    plan_series(shape=SMALL).write(folder / "a")
    plan_series(shape=(4, 8, 6), SeriesNumber=2).write(folder / "b")
    return folder


def test_a_prediction_lies_on_the_grid_of_its_series(tmp_path, bundle):
    plan = plan_series(shape=SMALL, axes=oblique(1))
    rows = predict(bundle, [plan.write(tmp_path / "visit.1")], tmp_path / "out")
    written = nib.load(tmp_path / "out" / "visit.1_seg.nii.gz")
    np.testing.assert_allclose(written.affine, plan.affine, atol=1e-4)
    # the bundle of the tests marks what is brighter than the mean
    np.testing.assert_array_equal(np.asarray(written.dataobj), plan.real > plan.real.mean())
    assert rows[0]["case"] == "visit.1"


def test_a_2d_network_segments_a_series_slice_by_slice_on_its_grid(tmp_path):
    plan = plan_series(shape=SMALL, axes=oblique(1))
    bundle = write_slice_bundle(tmp_path / "bundle")
    (row,) = predict(bundle, [plan.write(tmp_path / "visit")], tmp_path / "out", device="cpu")
    written = nib.load(tmp_path / "out" / "visit_seg.nii.gz")
    np.testing.assert_allclose(written.affine, plan.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(written.dataobj), plan.real > plan.real.mean())
    assert row["volumes_ml"]["vessel"] > 0


def test_a_picture_beside_dicom_is_a_preview(tmp_path):
    plan_series(shape=SMALL).write(tmp_path / "visit")
    (tmp_path / "visit" / "preview.jpg").write_bytes(b"")
    cases = collect_cases([tmp_path / "visit"], tmp_path / "out")
    assert [(case.name, case.target.name) for case in cases] == [("visit", "visit_seg.nii.gz")]


def test_a_bad_series_is_named_and_the_others_are_segmented(tmp_path, bundle):
    bad = plan_series(shape=SMALL)
    del bad.slices[2]
    folders = [bad.write(tmp_path / "bad"), plan_series(shape=SMALL).write(tmp_path / "good")]
    rows = predict(bundle, folders, tmp_path / "out")
    assert [(row["case"], row["status"], row["code"]) for row in rows] == [
        ("bad", "failed", "SLICE_GAP"),
        ("good", "done", None),
    ]
    filled = predict(bundle, folders[:1], tmp_path / "filled", dicom={"gaps": "resample"})
    assert filled[0]["status"] == "done"
    assert filled[0]["warnings"][0].startswith("SLICE_GAP: 1 slices are missing")


def test_several_series_are_listed_until_one_is_chosen(tmp_path):
    two_series(tmp_path / "visit")
    with pytest.raises(ProblemsError, match="this folder holds 2 series: 1: CT, 5 slices of 6 x 8") as caught:
        collect_cases([tmp_path / "visit"], tmp_path / "out")
    assert caught.value.problems[0].code == "SERIES"
    chosen = collect_cases([tmp_path / "visit"], tmp_path / "out", series="2")
    assert [(case.name, case.series) for case in chosen] == [("visit_series2", 2)]
    everything = collect_cases([tmp_path / "visit"], tmp_path / "out", series="all")
    assert [case.name for case in everything] == ["visit_series1", "visit_series2"]
    with pytest.raises(ProblemsError):
        collect_cases([tmp_path / "visit"], tmp_path / "out", series="3")


def test_one_series_keeps_the_name_of_its_folder_even_if_it_is_chosen(tmp_path):
    plan_series(shape=SMALL).write(tmp_path / "visit" / "deep")
    cases = collect_cases([tmp_path / "visit"], tmp_path / "out", series=1)
    assert [(case.name, case.series) for case in cases] == [("visit", 1)]


def test_dicom_beside_other_scans_is_not_guessed_at(tmp_path):
    plan_series(shape=SMALL).write(tmp_path / "visit")
    write_label(tmp_path / "visit" / "x.nii.gz", np.ones((2, 2, 2), np.uint8), affine=np.eye(4))
    with pytest.raises(ProblemsError) as caught:
        collect_cases([tmp_path / "visit"], tmp_path / "out")
    assert caught.value.problems[0].code == "MIXED_FORMATS"


def test_beside_volumes_each_zip_and_each_folder_with_dicom_is_a_case(tmp_path, bundle):
    plan = plan_series(shape=SMALL, axes=oblique(1))
    folder = tmp_path / "new"
    plan.write(folder / "deep" / "visit 1")
    shutil.make_archive(str(folder / "visit 2"), "zip", folder / "deep")
    (folder / "notes").mkdir()
    (folder / "notes" / "read me.txt").write_text("no scan")
    write_image(folder / "a.nii", plan.real, affine=plan.affine)
    out = folder / "out"  # of an earlier run too, with its DICOM
    for _ in range(2):
        rows = predict(bundle, [folder], out, device="cpu")
        assert [row["case"] for row in rows] == ["a", "visit 2", "deep"]
    labels = [np.asarray(nib.load(out / str(row["output"])).dataobj) for row in rows]
    assert all(np.array_equal(label, plan.real > plan.real.mean()) for label in labels)


def test_a_folder_of_zips_is_a_case_for_each(tmp_path):
    series = plan_series(shape=SMALL).write(tmp_path / "series")
    for name in ("two", "one"):
        shutil.make_archive(str(tmp_path / "new" / name), "zip", series)
    assert [case.name for case in collect_cases([tmp_path / "new"], tmp_path / "out")] == ["one", "two"]
    shutil.copytree(series, tmp_path / "new", dirs_exist_ok=True)  # a series, with copies of it
    assert [case.name for case in collect_cases([tmp_path / "new"], tmp_path / "out")] == ["new"]


def test_folders_of_one_name_would_share_an_output(tmp_path):
    folders = [plan_series(shape=SMALL).write(tmp_path / name / "CT") for name in "ab"]
    with pytest.raises(ProblemsError, match="would also be that of"):
        collect_cases(folders, tmp_path / "out")


def test_a_data_list_may_name_dicom_folders(tmp_path):
    plan = plan_series(shape=SMALL, axes=oblique(2))
    plan.write(tmp_path / "visit")
    write_label(tmp_path / "label.nii.gz", (plan.real > plan.real.mean()).astype(np.uint8), affine=plan.affine)
    item = {"image": str(tmp_path / "visit"), "label": str(tmp_path / "label.nii.gz")}
    assert validate_sections({"labeled": [item]}, labels=[0, 1], sections_needed=["labeled"]) == []
    write_label(tmp_path / "label.nii.gz", (plan.real > plan.real.mean()).astype(np.uint8), affine=np.eye(4))
    found = validate_sections({"labeled": [item]}, labels=[0, 1], sections_needed=["labeled"])
    assert [problem.code for problem in found] == ["GEOMETRY"]


def test_two_series_can_be_the_channels_of_a_case(tmp_path):
    folders = [plan_series(shape=SMALL).write(tmp_path / name) for name in "ab"]
    reader = ScanReader()
    assert reader.verify_suffix([str(folder) for folder in folders])
    array, meta = reader.get_data(reader.read([str(folder) for folder in folders]))
    assert array.shape == (2, 6, 8, 5)
    assert meta["original_channel_dim"] == 0


def test_folders_are_told_apart_by_what_lies_in_them(tmp_path, code_of):
    plan_series(shape=SMALL).write(tmp_path / "dicom" / "deeper")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("nothing")
    assert is_dicom(tmp_path / "dicom")
    assert not is_dicom(tmp_path / "text")
    assert not is_dicom(tmp_path / "nowhere")
    assert code_of(lambda: read_image(tmp_path / "text")) == "NO_IMAGES"
    with pytest.raises(InputError, match="only 1 text"):
        read_image(tmp_path / "text")


def test_the_command_lists_series(tmp_path, capsys):
    two_series(tmp_path / "visit")
    assert run_cli(["series", str(tmp_path / "visit"), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["index"], one["slices"], one["size"], one["problem"]) for one in listed["series"]] == [
        (1, 5, [6, 8], ""),
        (2, 4, [6, 8], ""),
    ]
    (tmp_path / "visit" / "a" / "IM0000.dcm").write_bytes(b"")
    assert run_cli(["series", str(tmp_path / "visit")]) == 2
    assert "EMPTY_FILE" in capsys.readouterr().out


def test_the_command_predicts_a_chosen_series(tmp_path, bundle, capsys):
    two_series(tmp_path / "visit")
    command = ["predict", str(bundle), str(tmp_path / "visit"), "-o", str(tmp_path / "out")]
    assert run_cli(command) == 2
    assert "--series N" in capsys.readouterr().err
    assert run_cli([*command, "--series", "2"]) == 0
    assert nib.load(tmp_path / "out" / "visit_series2_seg.nii.gz").shape == (6, 8, 4)


def test_the_command_refuses_burned_in_text_if_asked(tmp_path, bundle, capsys):
    plan_series(shape=SMALL, BurnedInAnnotation="YES").write(tmp_path / "visit")
    command = ["predict", str(bundle), str(tmp_path / "visit"), "-o", str(tmp_path / "out")]
    assert run_cli([*command, "--refuse-burned-in"]) == 1
    assert "burned into the pixels" in capsys.readouterr().err
    assert run_cli(command) == 0
