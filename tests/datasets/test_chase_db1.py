"""CHASE_DB1: two observers, both eyes of a child always together."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semi_med.data.data_list import SECTIONS, load_data_list
from semi_med.datasets import chase_db1
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_label


def drawn(column):
    made = np.zeros((6, 9), bool)
    made[1:5, column] = True
    return made


def save(folder, name, observers=("1st", "2nd")):
    folder.mkdir(parents=True, exist_ok=True)
    photograph = np.random.default_rng(len(name)).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    Image.fromarray(photograph).save(folder / f"{name}.jpg")
    for column, observer in enumerate(observers, start=2):
        Image.fromarray(drawn(column)).save(folder / f"{name}_{observer}HO.png")  # one bit a pixel


@pytest.fixture
def source(tmp_path):
    for name in ("Image_01L", "Image_01R", "Image_11L"):
        save(tmp_path / "source", name)
    return tmp_path / "source"


def test_the_first_observer_is_the_label_and_the_second_lies_beside_it(source, tmp_path):
    done = chase_db1.prepare(source, tmp_path / "target")
    for folder, column in (("labels", 2), ("labels_second", 3)):
        label = read_label(tmp_path / f"target/{folder}/Image_01R.png").array[:, :, 0]
        np.testing.assert_array_equal(label.T, drawn(column))
    assert done.entries["Image_01R"].more_labels == {"second": "labels_second/Image_01R.png"}


def test_the_stored_photograph_looks_as_the_original(source, tmp_path):
    chase_db1.prepare(source, tmp_path / "target")
    with Image.open(source / "Image_01L.jpg") as one, Image.open(tmp_path / "target/images/Image_01L.png") as other:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_both_eyes_are_one_child(source, tmp_path):
    found = chase_db1.prepare(source, tmp_path / "target").entries
    assert [(case.subject, case.group, case.split) for case in found.values()] == [
        ("child_01", "L", "training"),
        ("child_01", "R", "training"),
        ("child_11", "L", "test"),
    ]


def test_a_missing_second_observer_is_noted(source, tmp_path):
    (source / "Image_01L_2ndHO.png").unlink()
    done = chase_db1.prepare(source, tmp_path / "target")
    assert "1 photographs have no label of the second observer: Image_01L" in done.summary()


def test_a_second_observer_of_another_size_is_refused(source, tmp_path):
    Image.fromarray(drawn(2).T).save(source / "Image_01L_2ndHO.png")
    with pytest.raises(ProblemsError, match=r"Image_01L_2ndHO\.png: its size is 6 x 9"):
        chase_db1.prepare(source, tmp_path / "target")


def test_a_label_that_was_saved_with_soft_lines_is_refused(source, tmp_path):
    Image.fromarray(np.where(drawn(2), 200, 0).astype(np.uint8)).save(source / "Image_01L_1stHO.png")
    with pytest.raises(ProblemsError, match="was wanted, this has 0, 200"):
        chase_db1.prepare(source, tmp_path / "target")


def test_a_photograph_that_is_cut_off_is_refused_and_the_others_are_written(source, tmp_path):
    path = source / "Image_01R.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ProblemsError, match=r"Image_01R.jpg: the picture is cut off"):
        chase_db1.prepare(source, tmp_path / "target")
    assert (tmp_path / "target/images/Image_01L.png").is_file()


def test_labels_without_a_photograph_are_refused(source, tmp_path):
    (source / "Image_11L.jpg").unlink()
    with pytest.raises(InputError, match="1 labels have no image: Image_11L"):
        chase_db1.prepare(source, tmp_path / "target")


# ---- splits --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lists():
    return chase_db1.build_lists()


def test_the_usual_split_tests_on_the_last_eight(lists):
    each = lists["usual_labeled_02_seed1"]
    assert [case.name for case in each.test] == [f"Image_{n}{eye}" for n in (11, 12, 13, 14) for eye in "LR"]
    assert list(each.counts().values()) == [2, 16, 2, 8]
    assert list(lists["usual_all_labeled"].counts().values()) == [18, 0, 2, 8]


def test_supmix_tests_on_five_and_leaves_one_eye_out(lists):
    assert list(lists["supmix_labeled_02_seed1"].counts().values()) == [2, 18, 2, 5]
    assert list(lists["supmix_all_labeled"].counts().values()) == [20, 0, 2, 5]


def test_an_odd_number_of_labeled_photographs_leaves_an_eye_out(lists):
    assert list(lists["supmix_labeled_05_seed3"].counts().values()) == [5, 14, 2, 5]


def test_no_child_is_in_two_sections(lists):
    for each in lists.values():
        parts = [{case.subject for case in getattr(each, section)} for section in SECTIONS]
        assert sum(len(part) for part in parts) == len(set.union(*parts))


def test_the_lists_of_a_split_share_validation_and_test(lists):
    for prefix in ("usual", "supmix"):
        chosen = [each for name, each in lists.items() if name.startswith(prefix)]
        assert len(chosen) == 7
        assert len({tuple(case.name for case in (*each.validation, *each.test)) for each in chosen}) == 1


def test_lists_whose_training_photographs_are_there_are_written(tmp_path):
    for name in chase_db1.NAMES[:20]:
        save(tmp_path / "source", name, observers=("1st",))
    done = chase_db1.prepare(tmp_path / "source", tmp_path / "target")
    assert {path.name.split("_")[0] for path in done.lists} == {"usual"}
    each = load_data_list(tmp_path / "target/usual_labeled_02_seed1.json")
    assert all((tmp_path / "target" / case.files[0]).is_file() for case in (*each.labeled, *each.unlabeled))
    assert "usual split: 8 of the 8 test photographs are not there" in done.summary()
    assert "supmix split: 4 training photographs are not there, so no lists" in done.summary()


@pytest.mark.real_data
def test_the_real_photographs_are_prepared_whole(tmp_path):
    root = os.environ.get("SEMI_MED_REAL_DATA")
    if not root:
        pytest.skip("SEMI_MED_REAL_DATA is not set")
    done = chase_db1.prepare(Path(root) / "chase_db1", tmp_path / "target")
    assert (len(done.cases), len(done.lists)) == (20, 7)
