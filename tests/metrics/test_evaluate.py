from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from semi_med.cli import app
from semi_med.compare.job import measure_cases
from semi_med.data.data_list import load_data_list
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import write_label
from semi_med.metrics.evaluate import evaluate
from semi_med.metrics.files import read_table

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def block(stop, value=1):
    array = np.zeros((6, 6, 6), np.uint8)
    array[1:stop, 1:5, 1:5] = value
    return array


@pytest.fixture
def folders(tmp_path):
    """Two cases, `a` predicted perfectly and `b` to two thirds (Dice 0.8)."""
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    predictions.mkdir()
    labels.mkdir()
    for case, stop in (("a", 4), ("b", 3)):
        write_label(labels / f"{case}.nii.gz", block(4), affine=AFFINE)
        write_label(predictions / f"{case}_seg.nii.gz", block(stop), affine=AFFINE)
    return predictions, labels


def test_folders_are_matched_by_case_and_measured(folders):
    result = evaluate(*folders)
    assert [(row["case"], row["dice"]) for row in result.rows] == [("a", 1.0), ("b", 0.8)]
    assert result.classes == {1: "class 1"}


def test_classes_are_called_as_the_record_of_the_predictions_has_them(folders):
    record = folders[0] / "run.json"
    record.write_text(json.dumps({"settings": {"classes": {"0": "background", "1": "atrium", "7": "other"}}}))
    assert evaluate(*folders).classes == {1: "atrium"}
    for odd in ("{}", "[", '{"settings": {"classes": {"one": "atrium"}}}'):
        record.write_text(odd)
        assert evaluate(*folders).classes == {1: "class 1"}


def test_labels_may_lie_in_folders_of_their_own(folders):
    for case in "ab":
        (folders[1] / f"patient_{case}").mkdir()
        (folders[1] / f"{case}.nii.gz").rename(folders[1] / f"patient_{case}" / f"{case}.nii.gz")
    assert [row["case"] for row in evaluate(*folders).rows] == ["a", "b"]


def test_distances_use_the_spacing_of_the_file(folders):
    row = evaluate(*folders, classes={1: "organ"}).rows[1]
    assert row["class_name"] == "organ"
    # the label's far plate (16 voxels, 1 mm away) is what the prediction lacks; voxels along i are 1 mm
    assert row["hd95_mm"] == 1.0
    assert row["label_ml"] == pytest.approx(3 * 4 * 4 * 6 / 1000)


def test_a_prediction_may_carry_the_plain_case_name_and_another_format(folders):
    import SimpleITK

    predictions, labels = folders
    image = SimpleITK.ReadImage(str(labels / "b.nii.gz"))
    (labels / "b.nii.gz").unlink()
    SimpleITK.WriteImage(image, str(labels / "b.nrrd"))
    (predictions / "a_seg.nii.gz").rename(predictions / "a.nii.gz")
    assert [row["dice"] for row in evaluate(predictions, labels).rows] == [1.0, 0.8]


def test_two_files_are_a_pair_whatever_their_names(folders):
    predictions, labels = folders
    result = evaluate(predictions / "b_seg.nii.gz", labels / "a.nii.gz")
    assert [(row["case"], row["dice"]) for row in result.rows] == [("a", 0.8)]


def test_a_missing_prediction_is_an_error_that_names_the_case(folders):
    (folders[0] / "b_seg.nii.gz").unlink()
    with pytest.raises(ProblemsError, match="b: has a label but no prediction"):
        evaluate(*folders)


def test_an_allowed_missing_prediction_is_counted_as_undefined(folders):
    (folders[0] / "b_seg.nii.gz").unlink()
    result = evaluate(*folders, allow_missing=True)
    assert result.missing == ("b",)
    assert result.rows[1]["status"] == "missing prediction" and math.isnan(result.rows[1]["dice"])
    dice = next(line for line in result.summary if line["metric"] == "dice")
    assert (dice["cases"], dice["n"], dice["n_undefined"]) == (2, 1, 1)


def test_a_prediction_without_label_is_listed_and_not_measured(folders):
    predictions, labels = folders
    (labels / "b.nii.gz").unlink()
    result = evaluate(predictions, labels)
    assert [path.name for path in result.extra] == ["b_seg.nii.gz"]
    assert [row["case"] for row in result.rows] == ["a"]


def test_another_shape_is_a_problem_that_names_both_files_and_the_others_go_on(folders):
    write_label(folders[0] / "b_seg.nii.gz", block(4)[:5], affine=AFFINE)
    result = evaluate(*folders)
    assert [row["case"] for row in result.rows] == ["a"]
    (problem,) = result.problems
    assert problem.code == "SHAPE"
    assert "b_seg.nii.gz" in str(problem) and "b.nii.gz" in str(problem)


@pytest.mark.parametrize(("shift", "problems"), [(0.05, 0), (0.3, 1)])
def test_a_grid_may_lie_a_tenth_of_a_voxel_off_and_no_more(folders, shift, problems):
    moved = AFFINE.copy()
    moved[1, 3] = shift * 2.0  # mm; a voxel along j has 2 mm
    write_label(folders[0] / "b_seg.nii.gz", block(4), affine=moved)
    found = evaluate(*folders).problems
    assert [problem.code for problem in found] == ["GEOMETRY"] * problems


def test_a_flipped_grid_is_a_problem_although_shape_and_spacing_agree(folders):
    flipped = AFFINE @ np.array([[-1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    write_label(folders[0] / "b_seg.nii.gz", block(4), affine=flipped)
    assert "5 voxels apart" in str(evaluate(*folders).problems[0])


def test_other_numbers_for_the_classes_are_a_problem_and_not_a_dice_of_zero(folders):
    write_label(folders[0] / "b_seg.nii.gz", block(4, value=255), affine=AFFINE)
    result = evaluate(*folders)
    assert [row["case"] for row in result.rows] == ["a"]
    assert result.problems[0].code == "CLASSES" and "255" in str(result.problems[0])


def test_a_class_absent_from_one_case_still_gets_its_row_there(folders):
    write_label(folders[1] / "b.nii.gz", block(4, value=2), affine=AFFINE)
    result = evaluate(*folders)
    assert [(row["case"], row["class"], row["status"]) for row in result.rows] == [
        ("a", 1, "ok"),
        ("a", 2, "both empty"),
        ("b", 1, "empty label"),
        ("b", 2, "empty prediction"),
    ]


def test_a_damaged_file_is_a_problem_and_the_others_go_on(folders):
    path = folders[0] / "a_seg.nii.gz"
    path.write_bytes(path.read_bytes()[:60])
    result = evaluate(*folders)
    assert [row["case"] for row in result.rows] == ["b"]
    assert "a_seg.nii.gz" in str(result.problems[0])


def test_when_nothing_could_be_measured_it_raises(folders):
    for path in folders[1].iterdir():
        path.write_bytes(b"no scan")
    with pytest.raises(ProblemsError, match="2 problems"):
        evaluate(*folders)


def test_table_and_summary_are_written_side_by_side(folders, tmp_path):
    result = evaluate(*folders, output=tmp_path / "results" / "table.csv")
    assert [path.name for path in result.written] == ["table.csv", "table_summary.json"]
    assert [row["dice"] for row in read_table(result.written[0])] == [1.0, 0.8]
    summary = json.loads(result.written[1].read_text())
    assert summary["cases"] == 2
    assert next(line for line in summary["summary"] if line["metric"] == "dice")["mean"] == 0.9
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["table.csv", "table_summary.json"]


def test_each_case_is_reported_in_one_line(folders):
    lines: list[str] = []
    evaluate(*folders, report=lines.append)
    assert lines[1] == "[2/2] b: class 1 Dice 0.8000, HD95 1.00 mm"


def test_a_folder_is_not_compared_with_itself(folders):
    with pytest.raises(InputError, match="same place"):
        evaluate(folders[1], folders[1])


def test_two_labels_of_one_case_are_an_error(folders):
    write_label(folders[1] / "a.nii", block(4), affine=AFFINE)
    with pytest.raises(ProblemsError, match=r"a: wanted one file, got a\.nii, a\.nii\.gz"):
        evaluate(*folders)


def test_folders_without_a_common_case_say_how_to_name_files(folders):
    for path in list(folders[0].iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(InputError, match=r"'xa' and 'a'.*<case>_seg\.nii\.gz"):
        evaluate(*folders)


def test_only_the_named_cases_are_measured(folders):
    write_label(folders[1] / "other.nii.gz", block(4), affine=AFFINE)
    result = evaluate(*folders, cases=["b"])
    assert [row["case"] for row in result.rows] == ["b"]
    assert not result.missing


def test_a_named_case_without_a_label_is_an_error(folders):
    with pytest.raises(InputError, match=r"1 are missing: z"):
        evaluate(*folders, cases=["a", "z"])


def test_what_is_ignored_in_the_label_is_no_class_and_is_not_measured(folders, tmp_path):
    labels = folders[1]
    label = block(4)
    label[3] = 255  # the plate that b's prediction lacks, and its neighbours
    write_label(labels / "b.nii.gz", label, affine=AFFINE)
    with_it = evaluate(*folders)
    assert sorted(with_it.classes) == [1, 255]
    result = evaluate(*folders, ignored=255, output=tmp_path / "table.csv")
    assert [(row["case"], row["dice"]) for row in result.rows] == [("a", 1.0), ("b", 1.0)]
    assert json.loads((tmp_path / "table_summary.json").read_text())["ignored"] == 255


def test_a_background_whose_number_is_not_0_is_not_measured(tmp_path):
    for place in ("labels/a.nii.gz", "masks/a_seg.nii.gz"):
        write_label(tmp_path / place, block(4) + 1, affine=AFFINE)
    path, table = tmp_path / "list.json", tmp_path / "t.csv"
    head = {"name": "ones", "labels": {"0": "background", "1": "organ"}, "file_values": [1, 2]}
    path.write_text(json.dumps({**head, "test": [{"image": "images/a.nii.gz", "label": "labels/a.nii.gz"}]}))
    folders = (str(tmp_path / "masks"), str(tmp_path / "labels"))
    found = CliRunner().invoke(app, ["evaluate", *folders, "--data-list", str(path), "-o", str(table)])
    assert found.exit_code == 0, found.output
    assert [(row["class"], row["class_name"]) for row in read_table(table)] == [(2, "organ")]
    assert [row["class"] for row in measure_cases(load_data_list(path), tmp_path, tmp_path / "masks")] == [2]
