"""Labelled subjects drawn from a base list, and lists that cannot be compared."""

from __future__ import annotations

from typing import Any

import pytest

from semi_med.data.data_list import Case, DataList
from semi_med.data.subsets import check_apart, counts_scans, draw_labeled, pool_subjects, subject_of
from semi_med.errors import InputError, ProblemsError


def case(name: str, subject: str | None = None, key: str | None = "label") -> Case:
    files = {"image": f"images/{name}.nii.gz"} | ({key: f"labels/{name}.nii.gz"} if key else {})
    return Case(**files, case=name, subject=subject)


def base(**sections: list[Case]) -> DataList:
    """Subjects A, B with two scans each and C, D, E with one; the label of E is not known."""
    parts: dict[str, Any] = {
        "labeled": [case("a1", "A"), case("a2", "A"), case("c", "C")],
        "unlabeled": [
            case("b1", "B", "monitor_label"),
            case("b2", "B", "monitor_label"),
            case("d", "D", "monitor_label"),
            case("e", "E", None),
        ],
        "validation": [case("v", "V")],
        "test": [case("t", "T")],
    }
    return DataList(name="x", description="Given.", labels={"0": "background", "1": "ball"}, **{**parts, **sections})


def labeled_subjects(data_list: DataList) -> set[str]:
    return {subject_of(each) for each in data_list.labeled}


def test_the_pool_are_the_subjects_whose_labels_are_known():
    assert pool_subjects(base()) == ["A", "B", "C", "D"]


def test_a_subject_with_one_unknown_label_is_not_in_the_pool():
    assert "D" not in pool_subjects(base(unlabeled=[case("d1", "D", "monitor_label"), case("d2", "D", None)]))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_as_many_subjects_as_asked_for_keep_all_their_labels(count):
    drawn = draw_labeled(base(), count=count, seed=1)
    assert len(labeled_subjects(drawn)) == count
    assert {each.name for each in (*drawn.labeled, *drawn.unlabeled)} == {"a1", "a2", "b1", "b2", "c", "d", "e"}
    assert not labeled_subjects(drawn) & {subject_of(each) for each in drawn.unlabeled}


@pytest.mark.parametrize("seed", range(5))
def test_for_one_seed_fewer_subjects_are_among_more(seed):
    drawn = [labeled_subjects(draw_labeled(base(), count=count, seed=seed)) for count in (1, 2, 3, 4)]
    assert drawn[0] < drawn[1] < drawn[2] < drawn[3]


def test_seeds_draw_different_subjects_and_one_seed_always_the_same():
    by_seed = [frozenset(labeled_subjects(draw_labeled(base(), count=2, seed=seed))) for seed in range(10)]
    assert len(set(by_seed)) > 2
    assert by_seed == [frozenset(labeled_subjects(draw_labeled(base(), count=2, seed=seed))) for seed in range(10)]


def test_the_draw_does_not_depend_on_which_labels_the_base_list_gives():
    everything = base(
        labeled=[case("d", "D"), case("b2", "B"), case("b1", "B"), case("c", "C"), case("a2", "A"), case("a1", "A")],
        unlabeled=[case("e", "E", None)],
    )
    for seed in range(5):
        first, second = (draw_labeled(each, count=2, seed=seed) for each in (base(), everything))
        assert labeled_subjects(first) == labeled_subjects(second)


def test_labels_that_are_not_kept_may_be_watched_and_unknown_ones_stay_unknown():
    drawn = draw_labeled(base(), count=1, seed=1)
    watched = {each.name: each.monitor_label for each in drawn.unlabeled}
    assert watched.pop("e") is None
    assert watched == {name: f"labels/{name}.nii.gz" for name in watched}
    assert all(each.label is None for each in drawn.unlabeled)
    assert all(each.label == f"labels/{each.name}.nii.gz" and each.monitor_label is None for each in drawn.labeled)


def test_all_labels_are_those_of_the_pool_whatever_the_seed():
    drawn = draw_labeled(base(), count=None, seed=1)
    assert labeled_subjects(drawn) == {"A", "B", "C", "D"}
    assert [each.name for each in drawn.unlabeled] == ["e"]
    assert draw_labeled(base(), count=None, seed=2) == drawn


def test_what_is_held_out_stays_as_it_is():
    drawn = draw_labeled(base(), count=1, seed=1)
    assert (drawn.validation, drawn.test, drawn.labels) == (base().validation, base().test, base().labels)


def test_a_list_says_how_it_was_drawn():
    assert draw_labeled(base(), count=2, seed=7).description == (
        "Given. 2 of 4 subjects keep their labels, drawn with seed 7."
    )


@pytest.mark.parametrize("count", [0, 5])
def test_a_number_the_pool_does_not_hold_is_refused_with_how_many_there_are(count):
    with pytest.raises(InputError, match=rf"{count} labelled subjects were asked for.*holds 4 subjects") as caught:
        draw_labeled(base(), count=count, seed=1)
    assert caught.value.code == "LABELED"


def test_a_pool_without_any_label_is_refused():
    with pytest.raises(InputError, match="holds 0"):
        draw_labeled(base(labeled=[], unlabeled=[case("e", "E", None)]), count=None, seed=1)


def test_scans_are_counted_where_no_case_names_another_subject():
    alone = base(labeled=[case("a"), case("b", "b")], unlabeled=[])
    assert counts_scans(alone) and not counts_scans(base())
    with pytest.raises(InputError, match="holds 2 scans"):
        draw_labeled(alone, count=3, seed=1)


# ---- lists that can be compared ------------------------------------------------------------------------------------


def test_lists_drawn_from_one_base_can_be_compared():
    check_apart({f"{n}": draw_labeled(base(), count=n, seed=seed) for seed in (1, 2) for n in (1, 2, None)})


@pytest.mark.parametrize("section", ["unlabeled", "validation", "test"])
def test_a_subject_in_two_sections_is_refused(section):
    more = case("a3", "A", "monitor_label" if section == "unlabeled" else "label")
    wrong = base(**{section: [*getattr(base(), section), more]})
    with pytest.raises(ProblemsError, match="the same subject is in two sections") as caught:
        check_apart({"mine": wrong})
    assert "data list mine" in str(caught.value)


def test_a_case_in_two_sections_is_refused_even_under_another_subject():
    with pytest.raises(ProblemsError, match="the same image file is listed twice"):
        check_apart({"mine": base(test=[Case(image="images/a1.nii.gz", label="labels/a1.nii.gz", subject="Z")])})


def test_lists_with_other_test_sections_are_refused():
    with pytest.raises(ProblemsError, match="first and second: the test sections differ"):
        check_apart({"first": base(), "second": base(test=[case("u", "U")])})


@pytest.mark.parametrize("section", ["validation", "test"])
def test_what_one_list_holds_out_and_another_trains_on_is_leakage(section):
    other = base(labeled=[case("new scan", "V" if section == "validation" else "T")], validation=[], test=[case("u")])
    with pytest.raises(ProblemsError) as caught:
        check_apart({"first": base(), "second": other})
    leaks = [problem for problem in caught.value.problems if problem.code == "LEAKAGE"]
    assert len(leaks) == 1
    assert f"in the section {section} of first, and second trains on it" in str(leaks[0])


def test_a_list_without_a_test_section_is_refused():
    with pytest.raises(InputError, match="there is no test section"):
        check_apart({"mine": base(test=[])})
