"""The command `semi-med report`."""

from __future__ import annotations

import json
import sys

import pytest
from review_samples import write_folders

from semi_med import cli


@pytest.fixture
def folders(tmp_path):
    return write_folders(tmp_path)


@pytest.fixture
def report(monkeypatch, capsys):
    """Run `semi-med report` in this process: exit code, stdout, stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["semi-med", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capsys.readouterr()

    return call


def test_the_page_is_written_into_the_folder_of_the_predictions_and_named(report, folders):
    code, out, err = report(folders.predictions, "--images", folders.images, "--labels", folders.labels)
    assert code == 0
    assert out == f"{folders.predictions / 'report.html'}\n"
    assert "[2/3] fair: heart Dice 0.7500" in err
    assert "Predictions of hearts" in (folders.predictions / "report.html").read_text()


def test_fewer_cases_are_drawn_on_request_and_the_page_says_so(report, folders, tmp_path):
    assert report(folders.predictions, "-o", tmp_path / "a.html", "--drawn", 1)[0] == 0
    text = (tmp_path / "a.html").read_text()
    assert text.count('<article class="card"') == 1
    assert "1 case is drawn, the worst first; the others are in the table only" in text


def test_a_data_list_names_scans_labels_and_classes(report, folders, tmp_path):
    names = {"0": "background", "1": "ventricle", "2": "atrium"}
    cases = [{"image": f"scans/{case}.nii.gz", "label": f"labels/{case}.nii.gz"} for case in ("good", "fair")]
    content = {"name": "x", "labels": names, "labeled": [], "unlabeled": [], "validation": [], "test": cases}
    (tmp_path / "list.json").write_text(json.dumps(content))
    code, _, err = report(folders.predictions, "--data-list", tmp_path / "list.json", "-o", tmp_path / "a.html")
    assert code == 0, err
    text = (tmp_path / "a.html").read_text()
    assert "ventricle" in text
    assert "Mean Dice 0.854" in text  # of 1 and (3/4 + 2/3) / 2
    assert "poor" in text


def test_a_wrong_name_is_refused_before_any_work(report, folders, tmp_path):
    code, _, err = report(folders.predictions, "-o", tmp_path / "a.pdf")
    assert code == 2
    assert "a name that ends in .html was wanted" in err
