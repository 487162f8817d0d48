"""`semi-med validate` of folders and lists, its contact sheet, and `semi-med convert`."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from semi_med.inference.io import read_image, write_image, write_label


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line as a shell does; gives exit code, output and errors."""
    import sys

    from semi_med import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["semi-med", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three scans with labels; the third label lies elsewhere."""
    random = np.random.default_rng(0)
    for number, name in enumerate("abc"):
        affine = np.eye(4)
        write_image(tmp_path / f"data/images/{name}.nii.gz", random.normal(size=(8, 9, 7)), affine=affine)
        affine[0, 3] = 5 if number == 2 else 0
        label = np.zeros((8, 9, 7), np.uint8)
        label[2:5, 2:5, 2:5] = 1
        write_label(tmp_path / f"data/labels/{name}.nii.gz", label, affine=affine)
    return tmp_path / "data"


def write_list(folder: Path, **more) -> Path:
    listed = {"name": "x", "labels": {"0": "background", "1": "organ"}}
    for section, name in (("labeled", "a"), ("test", "b")):
        listed[section] = [{"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"}]
    listed["unlabeled"] = [{"image": "images/c.nii.gz"}]
    (folder / "list.json").write_text(json.dumps({**listed, **more}))
    return folder / "list.json"


def test_a_folder_is_validated_with_its_pairs(command, folder):
    code, out, err = command("validate", folder)
    assert code == 2
    assert "GEOMETRY" in out and "5.00 voxels" in out
    assert "label values: 0 in 3 labels" in out
    assert out.splitlines()[-1] == "1 problem; cases read: 3 scans"
    assert "reading 3/3, 0:00:00 left" in err


def test_a_folder_is_validated_for_machines(command, folder):
    code, out, _ = command("validate", folder, "--json")
    content = json.loads(out)
    assert [problem["code"] for problem in content["problems"]] == ["GEOMETRY"]
    assert [(v["case"], v["verdict"], v["codes"]) for v in content["verdicts"]] == [
        ("a", "sound", []),
        ("b", "sound", []),
        ("c", "refused", ["GEOMETRY"]),
    ]
    facts = content["verdicts"][0]["files"][str(folder / "images/a.nii.gz")]
    assert (facts["shape"], facts["orientation"]) == ([8, 9, 7], "RAS")
    assert code == 2


@pytest.mark.parametrize("suffix", [".html", ".png"])
def test_a_contact_sheet_is_drawn_beside_the_findings(command, folder, tmp_path, suffix):
    sheet = tmp_path / f"sheet{suffix}"
    code, out, _ = command("validate", folder, "--contact-sheet", sheet)
    assert code == 2
    assert out.splitlines()[-1] == str(sheet)
    assert sheet.stat().st_size > 5000


def test_a_contact_sheet_of_another_kind_is_refused_before_anything_is_read(command, folder):
    code, out, err = command("validate", folder, "--contact-sheet", folder / "x.pdf")
    assert code == 2
    assert "ends in .html or .png" in out and "reading" not in err


def test_the_folder_of_a_list_is_its_own_unless_another_is_named(command, folder):
    code, out, _ = command("validate", write_list(folder))
    assert (code, out.splitlines()[-1]) == (0, "no problems; cases read: 1 labeled, 1 unlabeled, 1 test")


def test_a_leak_is_an_error_or_with_transductive_a_note(command, folder):
    listed = write_list(folder, unlabeled=[{"image": "images/b.nii.gz"}])
    assert command("validate", listed)[0] == 2
    code, out, _ = command("validate", listed, "--transductive")
    assert code == 0
    assert "note: TRANSDUCTIVE: 1 test cases" in out


def test_subjects_are_found_by_a_pattern(command, folder):
    code, out, _ = command("validate", write_list(folder), "--subject-pattern", "(images)")
    assert code == 2
    assert out.count("the same subject") == 1


def test_a_broken_pattern_is_said(command, folder):
    code, out, _ = command("validate", write_list(folder), "--subject-pattern", "(")
    assert (code, "no regular expression" in out) == (2, True)


def test_the_structure_alone_opens_no_file(command, folder):
    (folder / "images/a.nii.gz").write_bytes(b"damaged")
    assert command("validate", write_list(folder), "--check", "structure")[0] == 0
    assert command("validate", write_list(folder))[0] == 2


def test_a_missing_class_can_be_allowed(command, folder):
    listed = write_list(folder, labels={"0": "background", "1": "organ", "2": "tumour"})
    assert command("validate", listed)[0] == 2
    assert command("validate", listed, "--allow-missing-class")[0] == 0


def test_links_that_lead_out_can_be_refused(command, folder, tmp_path):
    write_image(tmp_path / "far.nii.gz", np.random.default_rng(9).normal(size=(8, 9, 7)), affine=np.eye(4))
    (folder / "images/c.nii.gz").unlink()
    (folder / "images/c.nii.gz").symlink_to(tmp_path / "far.nii.gz")
    assert command("validate", write_list(folder))[0] == 0
    code, out, _ = command("validate", write_list(folder), "--refuse-links")
    assert (code, "PATH_ESCAPE" in out) == (2, True)


def test_a_label_is_renumbered_and_named(command, folder, tmp_path):
    target = tmp_path / "out.nii.gz"
    code, out, _ = command("convert", folder / "labels/a.nii.gz", target, "--label", "--map-labels", "1=3")
    assert (code, out) == (0, f"{target}\n")
    assert read_image(target).array.max() == 3


def test_several_scans_are_converted_and_the_damaged_one_is_named(command, folder, tmp_path):
    (folder / "images/b.nii.gz").write_bytes(b"damaged")
    images = sorted((folder / "images").iterdir())
    code, out, err = command("convert", *images, tmp_path / "out")
    assert code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    assert "b.nii.gz" in err and err.splitlines()[-1].startswith("error: 1 of 3 scans failed")
    assert len(out.splitlines()) == 2


def test_numbers_that_are_none_are_refused(command, folder, tmp_path):
    code, _, err = command("convert", folder / "labels/a.nii.gz", tmp_path / "o.nii", "--label", "--map-labels", "x")
    assert (code, "pairs of class numbers" in err) == (2, True)


def test_the_help_names_every_choice():
    from semi_med.cli import app

    text = CliRunner().invoke(app, ["validate", "--help"], env={"COLUMNS": "200"}).output
    for option in ("--contact-sheet", "--json", "--workers", "--transductive", "--check", "--subject-pattern"):
        assert option in text
