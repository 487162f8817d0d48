"""Which lists name the same cases, and which folders hold the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from semi_med.data.data_list import DataList
from semi_med.data.identity import cases_digest, files_digest


def listed(**changed: Any) -> DataList:
    tree: dict[str, Any] = {"name": "x", "labels": {"0": "background", "1": "organ"}}
    tree["labeled"] = [{"image": "a.nii", "label": "a_label.nii", "subject": "A"}]
    tree["unlabeled"] = [{"image": "b.nii"}, {"image": "c.nii"}]
    tree["test"] = [{"image": "t.nii", "label": "t_label.nii"}]
    return DataList.model_validate({**tree, **changed})


def test_what_a_list_says_about_itself_does_not_count():
    assert cases_digest(listed()) == cases_digest(listed(name="y", description="z", licence="CC0"))


def test_what_is_left_to_its_default_is_the_same_as_written_out():
    written = [{"image": "b.nii", "case": "b", "subject": "b"}, {"image": ["c.nii"]}]
    assert cases_digest(listed(unlabeled=written)) == cases_digest(listed())


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": {"0": "background", "1": "lesion"}},
        {"unlabeled": [{"image": "b.nii"}]},
        {"unlabeled": [{"image": "c.nii"}, {"image": "b.nii"}]},
        {"unlabeled": [{"image": "b.nii", "subject": "B"}, {"image": "c.nii"}]},
        {"validation": [{"image": "v.nii", "label": "v_label.nii"}]},
        {"test": [{"image": "t.nii", "label": "other.nii"}]},
    ],
)
def test_other_cases_classes_or_an_other_order_are_another_list(changed):
    assert cases_digest(listed(**changed)) != cases_digest(listed())


def fill(folder: Path, **sizes: int) -> Path:
    folder.mkdir()
    names = {"a": 1, "a_label": 2, "b": 3, "c": 4, "t": 5, "t_label": 6} | sizes
    for name, size in names.items():
        (folder / f"{name}.nii").write_bytes(b"x" * size)
    return folder


def test_files_of_the_training_side_are_told_by_their_sizes_wherever_they_lie(tmp_path):
    here, there = fill(tmp_path / "here"), fill(tmp_path / "there", t=50, t_label=60)
    assert (
        files_digest(listed(), here)
        == files_digest(listed(), there)
        != files_digest(listed(), fill(tmp_path / "z", c=9))
    )


def test_nothing_is_said_of_files_that_are_not_there(tmp_path):
    (fill(tmp_path / "here") / "c.nii").unlink()
    assert files_digest(listed(), tmp_path / "here") is None
