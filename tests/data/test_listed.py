"""The files of a list are found in its folder, in parts and in copies of it, and never those of another case."""

from pathlib import Path

import pytest

from semi_med.data.data_list import DataList
from semi_med.data.listed import section_files
from semi_med.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def listed(*cases: dict, labeled: tuple[dict, ...] = ()) -> DataList:
    return DataList(name="x", labels={"0": "background", "1": "organ"}, labeled=list(labeled), test=list(cases))


def case_of(name: str) -> dict:
    """A folder a case, with two channels and a label."""
    return {"image": [f"in/{name}/flair.nii", f"in/{name}/t1.nii"], "label": f"in/{name}/seg.nii", "case": name}


@pytest.fixture
def data(tmp_path) -> Path:
    return touch(tmp_path / "data", *(f"in/{p}/{f}.nii" for p in ("p1", "p2") for f in ("flair", "t1", "seg")))


@pytest.mark.parametrize("places", [(".",), ("in",), ("in/p1", "in/p2"), ("in/p1/flair.nii", "in/p1/t1.nii", "in/p2")])
def test_files_are_found_by_their_path_from_whatever_folder_of_the_data_is_given(data, places):
    found = section_files(listed(case_of("p1"), case_of("p2")), "test", [data / place for place in places])
    assert found == {p: (data / f"in/{p}/flair.nii", data / f"in/{p}/t1.nii") for p in ("p1", "p2")}


def test_labels_are_found_as_scans_are(data):
    found = section_files(listed(case_of("p1"), case_of("p2")), "test", [data / "in"], labels=True)
    assert found == {p: (data / f"in/{p}/seg.nii",) for p in ("p1", "p2")}


def test_files_of_another_case_with_the_same_name_are_not_taken(data):
    of_list = listed(case_of("p2"), labeled=(case_of("p1"),))
    with pytest.raises(
        InputError, match=r"2 of the 2 scans of the section test are not among the inputs: flair.nii, t1"
    ):
        section_files(of_list, "test", [data / "in/p1"])


def test_in_a_copy_a_file_is_found_by_its_name_if_no_other_of_the_list_has_it(tmp_path):
    touch(tmp_path, "copy/a.nii.gz", "copy/deep/a.nii.gz", "copy/deep/b.nii.gz")
    cases = [{"image": f"images/{name}.nii", "label": f"labels/{name}.nii"} for name in "ab"]
    found = section_files(listed(*cases), "test", [tmp_path / "copy"])
    assert found == {"a": (tmp_path / "copy/a.nii.gz",), "b": (tmp_path / "copy/deep/b.nii.gz",)}


def test_the_folder_of_a_series_may_be_given_itself(tmp_path):
    touch(tmp_path, "data/p1/0001")
    of_list = listed({"image": "data/p1", "label": "labels/p1.nii"})
    for place in (tmp_path, tmp_path / "data", tmp_path / "data/p1"):
        assert section_files(of_list, "test", [place]) == {"p1": (tmp_path / "data/p1",)}
