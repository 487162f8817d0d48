"""Evaluation of pictures, regions, groups and volumes, from files to files."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from semi_med.cli import app
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import write_label
from semi_med.metrics.evaluate import evaluate
from semi_med.metrics.files import read_table


def square(stop: int, value: int = 1) -> np.ndarray:
    """(10, 8, 1): a block of 4 rows from column 2 to `stop`."""
    array = np.zeros((10, 8, 1), np.uint8)
    array[2:stop, 2:6] = value
    return array


@pytest.fixture
def folders(tmp_path):
    """Pictures of two slices of patient A and one of B, in the phases ED and ES."""
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    for case, stop in (("A_ED", 6), ("A_ES", 4), ("B_ED", 5)):
        write_label(labels / f"{case}.png", square(6), affine=np.eye(4))
        write_label(predictions / f"{case}_seg.png", square(stop), affine=np.eye(4))
    return predictions, labels


def test_pictures_are_matched_and_measured_in_pixels_only(folders):
    result = evaluate(*folders)
    # 8 of 16 pixels: 2 * 8 / 24
    assert [(row["case"], row["dice"]) for row in result.rows] == [
        ("A_ED", 1.0),
        ("A_ES", pytest.approx(2 / 3)),
        ("B_ED", pytest.approx(6 / 7)),
    ]
    row = result.rows[1]
    assert row["hd95_voxel"] == 2.0
    assert all(math.isnan(row[name]) for name in ("hd95_mm", "asd_mm", "assd_mm", "prediction_ml", "label_ml"))
    assert not any(line["metric"].endswith("_mm") for line in result.summary)


def test_slices_with_a_place_in_space_are_measured_in_mm(folders, tmp_path):
    for part in ("predictions", "labels"):
        stop = 6 if part == "labels" else 4
        write_label(tmp_path / "nifti" / part / "a.nii.gz", square(stop), affine=np.diag([0.5, 0.5, 1, 1]))
    (row,) = evaluate(tmp_path / "nifti" / "predictions", tmp_path / "nifti" / "labels").rows
    assert (row["hd95_mm"], row["hd95_voxel"]) == (1.0, 2.0)


def test_a_nifti_of_two_axes_has_mm_and_no_volume(tmp_path):
    for part, stop in (("predictions", 4), ("labels", 6)):
        write_label(tmp_path / part / "a.nii.gz", square(stop), affine=np.diag([0.5, 0.5, 1, 1]), axes=2)
    (row,) = evaluate(tmp_path / "predictions", tmp_path / "labels").rows
    assert (row["dice"], row["hd95_mm"]) == (pytest.approx(2 / 3), 1.0)
    assert math.isnan(row["label_ml"])


def test_a_sequence_of_frames_is_refused_with_a_next_step(tmp_path):
    for part in ("predictions", "labels"):
        sequence = np.repeat(square(6), 3, axis=2)
        write_label(tmp_path / part / "a.nii.gz", sequence, affine=np.eye(4), axes=4)
    with pytest.raises(ProblemsError, match=r"sequence of 3 frames.*--volume K"):
        evaluate(tmp_path / "predictions", tmp_path / "labels")


def test_a_grey_picture_of_numbers_is_as_good_as_a_palette(folders):
    path = folders[0] / "A_ES_seg.png"
    path.unlink()
    Image.fromarray(square(4)[:, :, 0].T).save(folders[0] / "A_ES.png")
    assert evaluate(*folders).rows[1]["dice"] == pytest.approx(2 / 3)


def test_a_prediction_as_nifti_and_a_label_as_picture_are_a_pair(folders):
    path = folders[0] / "A_ES_seg.png"
    path.unlink()
    write_label(folders[0] / "A_ES_seg.nii.gz", square(4), affine=np.diag([-1.0, -1, 1, 1]))
    assert evaluate(*folders).rows[1]["dice"] == pytest.approx(2 / 3)


def test_pictures_of_other_sizes_are_a_problem(folders):
    write_label(folders[0] / "A_ES_seg.png", square(4)[:9], affine=np.eye(4))
    (problem,) = evaluate(*folders).problems
    assert problem.code == "SHAPE"


def test_a_drawing_in_black_and_white_is_no_empty_label(folders):
    write_label(folders[1] / "A_ES.png", square(6, value=255), affine=np.eye(4))
    result = evaluate(*folders, classes={1: "cavity"})
    assert [row["case"] for row in result.rows] == ["A_ED", "B_ED"]
    assert "map-labels 255=1" in str(result.problems[0])


def test_groups_and_volumes_are_written_beside_the_same_table(folders, tmp_path):
    plain = evaluate(*folders, output=tmp_path / "plain.csv")
    more = evaluate(*folders, output=tmp_path / "more.csv", group_pattern="E[DS]", volume_pattern="^[A-Z]")
    assert [path.name for path in more.written] == ["more.csv", "more_volumes.csv", "more_summary.json"]
    lines, more_lines = ((tmp_path / f"{name}.csv").read_text().splitlines() for name in ("plain", "more"))
    assert [line.rpartition(",")[0] for line in more_lines] == lines
    assert [line.rpartition(",")[2] for line in more_lines] == ["group", "ED", "ES", "ED"]
    assert [row["case"] for row in read_table(more.written[0])] == ["A_ED", "A_ES", "B_ED"]
    with more.written[1].open() as stream:
        volumes = [(row["volume"], row["slices"], float(row["dice"])) for row in csv.DictReader(stream)]
    assert volumes == [("A", "2", pytest.approx(2 * 24 / 56)), ("B", "1", pytest.approx(6 / 7))]
    summary = json.loads(more.written[2].read_text())
    assert summary["summary"] == json.loads(plain.written[1].read_text())["summary"]
    found = {(row["unit"], row["group"]): row["mean"] for row in summary["breakdown"] if row["metric"] == "dice"}
    assert found["case", "ED"] == pytest.approx((1 + 6 / 7) / 2)
    assert found["volume", "all"] == pytest.approx((48 / 56 + 6 / 7) / 2)
    assert (summary["group_pattern"], summary["volume_pattern"]) == ("E[DS]", "^[A-Z]")


def test_without_these_options_nothing_more_is_written(folders, tmp_path):
    summary = json.loads(evaluate(*folders, output=tmp_path / "plain.csv").written[1].read_text())
    assert not {"breakdown", "regions", "group_pattern"} & set(summary)


def test_regions_have_a_table_of_their_own(folders, tmp_path):
    both = square(6)
    both[4:6, 2:6] = 2
    write_label(folders[1] / "A_ES.png", both, affine=np.eye(4))
    result = evaluate(*folders, output=tmp_path / "t.csv", regions=["whole=1+2", "first=1"])
    found = {(row["case"], row["class_name"]): (row["class"], row["dice"]) for row in result.region_rows}
    assert found["A_ES", "whole"] == ("1+2", pytest.approx(2 / 3))
    assert found["A_ES", "first"] == ("1", 1.0)
    assert [path.name for path in result.written] == ["t.csv", "t_regions.csv", "t_summary.json"]
    assert {row["class"] for row in read_table(result.written[0])} == {1, 2}
    assert json.loads(result.written[2].read_text())["regions"] == {"whole": [1, 2], "first": [1]}


def test_a_slice_without_prediction_makes_its_volume_incomplete(folders):
    (folders[0] / "A_ES_seg.png").unlink()
    result = evaluate(*folders, allow_missing=True, volume_pattern="^[A-Z]", regions=["one=1"])
    assert [(row["volume"], row["class_name"], row["status"]) for row in result.volume_rows] == [
        ("A", "class 1", "incomplete"),
        ("A", "one", "incomplete"),
        ("B", "class 1", "ok"),
        ("B", "one", "ok"),
    ]


def test_a_slice_that_cannot_be_read_makes_its_volume_incomplete(folders):
    path = folders[0] / "A_ES_seg.png"
    path.write_bytes(path.read_bytes()[:40])
    result = evaluate(*folders, volume_pattern="^[A-Z]")
    assert [row["status"] for row in result.volume_rows] == ["incomplete", "ok"]
    assert len(result.problems) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regions": ["whole=1+7"]}, "there is no class '7'"),
        ({"group_pattern": "E[DS"}, "no regular expression"),
        ({"volume_pattern": "B"}, "finds nothing in 2 cases: A_ED, A_ES"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(folders, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        evaluate(*folders, output=tmp_path / "t.csv", **options)
    assert not (tmp_path / "t.csv").exists()


def test_two_labels_of_one_case_in_two_formats_are_an_error(folders):
    write_label(folders[1] / "A_ED.nii.gz", square(6), affine=np.eye(4))
    with pytest.raises(ProblemsError, match=r"A_ED: wanted one file, got A_ED\.nii\.gz, A_ED\.png"):
        evaluate(*folders)


def test_the_command_shows_regions_and_groups(folders, tmp_path):
    options = ["--region", "cavity=1", "--group-pattern", "E[DS]", "--volume-pattern", "^[A-Z]"]
    done = CliRunner().invoke(app, ["evaluate", *map(str, folders), "-o", str(tmp_path / "t.csv"), *options])
    assert done.exit_code == 0, done.output
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.output.splitlines() if "│" in line]
    assert ["case", "ES", "cavity", "1", "1", "0.6667", "-", "-", "0", "2.00 pixels"] in rows
    assert any(row[:3] == ["volume", "all", "cavity"] for row in rows)
    assert "HD95 [pixels]" in done.output and "[mm]" not in done.output


# ---- class 0 as a class --------------------------------------------------------------------------------------------


def test_class_0_is_measured_where_it_counts(folders):
    plain, counted = (evaluate(*folders, count_class_0=counts) for counts in (False, True))
    assert set(plain.classes) == {1} and set(counted.classes) == {0, 1}
    rows = {(row["case"], row["class"]): row for row in counted.rows}
    # of 80 pixels 16 are the block; its prediction leaves 8 of them to class 0
    assert rows["A_ES", 0]["jaccard"] == pytest.approx(64 / 72)
    assert str([row for row in counted.rows if row["class"] == 1]) == str(plain.rows)  # NaN is not NaN
    named = {0: "road", 1: "car"}
    assert set(evaluate(*folders, classes=named).classes) == {1}
    assert evaluate(*folders, classes=named, count_class_0=True).classes == named


def test_the_command_counts_class_0_as_the_data_list_says(folders, tmp_path):
    content = {
        "name": "street",
        "labels": {"0": "road", "1": "car"},
        "test": [{"image": f"{case}.png", "label": f"{case}.png"} for case in ("A_ED", "A_ES", "B_ED")],
    }
    for counts, classes in ((True, {"0", "1"}), (None, {"1"})):
        path = tmp_path / f"{counts}.json"
        path.write_text(json.dumps(content | ({"count_class_0": True} if counts else {})))
        options = ["-o", str(tmp_path / "t.csv"), "--data-list", str(path)]
        done = CliRunner().invoke(app, ["evaluate", *map(str, folders), *options])
        assert done.exit_code == 0, done.output
        assert {row["class"] for row in csv.DictReader((tmp_path / "t.csv").open())} == classes
