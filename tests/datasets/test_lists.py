"""Lists drawn with a seed, and finding files by name."""

import pytest

from semi_med.data.data_list import SECTIONS
from semi_med.datasets.found import by_name, files_under, refuse_labels_alone
from semi_med.datasets.lists import ListMaker, Parts, drawn_lists, shuffled
from semi_med.datasets.record import About, PreparedCase
from semi_med.errors import InputError, ProblemsError

ABOUT = About("hearts", {"0": "MR"}, {"0": "background", "1": "heart"}, "Someone 2020", "CC0", "example.org")
# two cases of each of ten people; the second of P9 has no label
CASES = {
    f"P{n}_{c}": PreparedCase(
        f"P{n}_{c}",
        (f"images/P{n}_{c}.png",),
        None if (n, c) == (9, 1) else f"labels/P{n}_{c}.png",
        f"P{n}",
    )
    for n in range(10)
    for c in range(2)
}
PARTS = Parts([f"P{n}" for n in range(6)], ["P6"], ["P7", "P9"], ["P8"])


def draw(**further):
    return drawn_lists(ABOUT, CASES, PARTS, counts={"1": 1, "3": 3}, unit="people", rest="Rest.", **further)


def subjects(data_list, section):
    return {case.subject for case in getattr(data_list, section)}


def test_an_order_depends_on_the_names_and_the_seed_only():
    assert shuffled(["b", "a", "c", "a"], seed=3) == shuffled(["c", "b", "a"], seed=3)
    assert sorted(shuffled("abc", seed=3)) == ["a", "b", "c"]
    assert len({tuple(shuffled("abcdefgh", seed=seed)) for seed in range(5)}) == 5


def test_cases_of_a_subject_stay_together():
    each = draw()["labeled_3_seed1"]
    parts = [subjects(each, section) for section in SECTIONS]
    assert [len(part) for part in parts] == [3, 4, 1, 2]
    assert len(set.union(*parts)) == 10
    assert each.counts()["labeled"] == 6


def test_for_one_seed_fewer_are_among_more():
    lists = draw()
    for seed in (1, 2, 3):
        assert subjects(lists[f"labeled_1_seed{seed}"], "labeled") < subjects(lists[f"labeled_3_seed{seed}"], "labeled")


def test_further_subjects_are_always_unlabeled_and_not_in_the_upper_bound():
    lists = draw()
    assert "P8" in subjects(lists["labeled_3_seed2"], "unlabeled")
    assert lists["all_labeled"].unlabeled == []


def test_a_case_without_a_label_is_left_where_a_label_is_needed():
    assert [case.name for case in draw()["all_labeled"].test] == ["P7_0", "P7_1", "P9_0"]


def test_a_case_without_a_label_can_be_unlabeled():
    made = ListMaker(ABOUT, CASES)(labeled=["P0"], unlabeled=["P9"], validation=[], test=[], description="")
    assert [(case.name, case.monitor_label) for case in made.unlabeled] == [("P9_0", "labels/P9_0.png"), ("P9_1", None)]


def test_unlabeled_subjects_can_be_limited():
    each = draw(most_unlabeled=2)["labeled_1_seed1"]
    assert len(subjects(each, "unlabeled")) == 2 + 1


def test_a_subject_in_two_sections_is_refused():
    with pytest.raises(InputError, match="1 subjects are in two sections: P1"):
        ListMaker(ABOUT, CASES)(labeled=["P0", "P1"], unlabeled=[], validation=["P1"], test=[], description="")


def test_more_labels_than_subjects_are_refused():
    with pytest.raises(InputError, match="7 people are to be labeled, 6 are there"):
        drawn_lists(ABOUT, CASES, PARTS, counts={"7": 7}, unit="people", rest="")


# ---- finding files -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for place in ("a/x1.jpg", "a/X2.JPG", "b/c/x3.jpg", "b/x1.png", ".hidden/x4.jpg", "__MACOSX/x5.jpg", "a/._x1.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"x")
    return tmp_path


def test_files_are_found_at_any_depth_without_hidden_ones_and_leftovers(folder):
    found = by_name(list(files_under(folder)), r"(?P<name>x\d)\.jpg", where=folder)
    assert set(found) == {"x1", "X2", "x3"}


def test_a_name_that_is_there_twice_is_refused_with_both_places(folder):
    (folder / "b/x1.jpg").write_bytes(b"y")
    with pytest.raises(ProblemsError) as caught:
        by_name(list(files_under(folder)), r"(?P<name>x\d)\.jpg", where=folder)
    assert [error.code for error in caught.value.problems] == ["DUPLICATE"]
    assert str(folder / "a/x1.jpg") in str(caught.value)
    assert str(folder / "b/x1.jpg") in str(caught.value)


def test_labels_without_images_are_named(folder):
    with pytest.raises(InputError, match="2 labels have no image: p, q"):
        refuse_labels_alone({"a": folder}, {"a": folder, "q": folder, "p": folder}, where=folder)
