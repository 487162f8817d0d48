"""Splits with a seed: no subject in two sections, whatever is asked for."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semi_med.data.data_list import SECTIONS, Case
from semi_med.data.splits import SplitCase, foreground_strata, make_split, split_list
from semi_med.errors import InputError

LABELS = {"0": "background", "1": "organ"}
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def case(name, *, subject=None, stratum=None, label=True):
    listed = Case(
        image=f"images/{name}.nii.gz", monitor_label=f"labels/{name}.nii.gz" if label else None, subject=subject
    )
    return SplitCase(listed, stratum=stratum)


def cases(count, **further):
    return [case(f"c{number:03d}", **further) for number in range(count)]


def names(split, section):
    return [one.name for one in split.sections[section]]


def subjects(split, section):
    return {one.subject or one.name for one in split.sections[section]}


@st.composite
def cohorts(draw):
    """Cases of subjects with 1 to 3 scans each, some without a label, in groups."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=4, max_size=40))
    found = []
    for number, size in enumerate(sizes):
        group = draw(st.sampled_from([None, "a", "b", "c"]))
        labeled = draw(st.booleans()) or number < 4
        for scan in range(size):
            has = labeled or draw(st.booleans())
            found.append(case(f"s{number}_{scan}", subject=f"s{number}", stratum=group, label=has))
    return found


def asked(found, draw):
    """Counts that can be met: at least one labeled subject."""
    by_subject = {}
    for one in found:
        by_subject.setdefault(one.subject, []).append(one)
    known = sum(all(one.label for one in group) for group in by_subject.values())
    labeled = draw(st.integers(1, known))
    test = draw(st.integers(0, known - labeled))
    return {"labeled": labeled, "test": test, "validation": draw(st.integers(0, known - labeled - test))}


@quick
@given(st.data(), cohorts(), st.integers(0, 100))
def test_every_case_is_in_one_section_and_every_subject_too(data, found, seed):
    split = make_split(found, **asked(found, data.draw), seed=seed)
    assert sorted(name for section in SECTIONS for name in names(split, section)) == sorted(c.case.name for c in found)
    for number, one in enumerate(SECTIONS):
        for other in SECTIONS[number + 1 :]:
            assert not subjects(split, one) & subjects(split, other)


@quick
@given(st.data(), cohorts(), st.integers(0, 100))
def test_the_numbers_of_subjects_are_those_that_were_asked_for(data, found, seed):
    counts = asked(found, data.draw)
    split = make_split(found, **counts, seed=seed)
    assert {section: len(subjects(split, section)) for section in counts} == counts
    assert {section: split.subjects[section] for section in counts} == counts


@quick
@given(st.data(), cohorts(), st.integers(0, 100))
def test_the_split_does_not_depend_on_the_order_of_the_input(data, found, seed):
    counts = asked(found, data.draw)
    shuffled = random.Random(seed).sample(found, len(found))
    assert make_split(found, **counts, seed=seed) == make_split(shuffled, **counts, seed=seed)


@quick
@given(st.data(), cohorts(), st.integers(0, 100))
def test_only_subjects_whose_labels_are_all_known_are_labeled_or_measured_on(data, found, seed):
    split = make_split(found, **asked(found, data.draw), seed=seed)
    for section in ("labeled", "validation", "test"):
        assert all(one.label for one in split.sections[section])
    assert all(one.label is None for one in split.sections["unlabeled"])


@quick
@given(st.integers(2, 60), st.integers(0, 50), st.integers(0, 100))
def test_for_one_seed_the_test_stays_and_fewer_labels_are_among_more(count, fewer, seed):
    found = cases(count)
    test = count // 5
    rest = count - test
    few = make_split(found, labeled=1 + fewer % rest, test=test, seed=seed)
    many = make_split(found, labeled=rest, test=test, seed=seed)
    assert names(few, "test") == names(many, "test")
    assert set(names(few, "labeled")) <= set(names(many, "labeled"))


@quick
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.floats(0.05, 0.9), st.integers(0, 100))
def test_strata_are_in_every_section_in_their_proportions(sizes, share, seed):
    found = [case(f"{s}_{j}", stratum=f"g{s}") for s, size in enumerate(sizes) for j in range(size)]
    test = int(share * (len(found) - 1))
    split = make_split(found, labeled=1, test=test, seed=seed)
    for stratum, size in enumerate(sizes):
        wanted = test * size / len(found)
        # half a subject for its own rounding, and its share of that of all strata
        assert (
            abs(split.strata["test"].get(f"g{stratum}", 0) - wanted) <= 0.5 + len(sizes) / 2 * size / len(found) + 1e-9
        )


def test_two_seeds_draw_two_splits():
    drawn = {tuple(names(make_split(cases(30), labeled=10, seed=seed), "labeled")) for seed in range(5)}
    assert len(drawn) == 5


def test_a_split_is_the_same_on_every_machine():
    split = make_split(cases(10), labeled=2, validation=1, test=3, seed=1)
    assert names(split, "test") == ["c000", "c008", "c009"]
    assert names(split, "validation") == ["c003"]
    assert names(split, "labeled") == ["c004", "c005"]


def test_fractions_are_of_all_subjects_or_of_those_left_for_training():
    assert make_split(cases(50), labeled=0.1, validation=0.1, test=0.2).subjects == {
        "labeled": 5, "unlabeled": 30, "validation": 5, "test": 10,
    }  # fmt: skip
    assert make_split(cases(50), labeled=0.1, validation=0.1, test=0.2, of_the_rest=True).subjects["labeled"] == 4


def test_a_small_fraction_is_at_least_one_subject():
    assert make_split(cases(12), labeled=0.01, test=0.01).subjects["test"] == 1


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"labeled": 0}, "at least one labeled subject"),
        ({"labeled": 5, "test": 6}, "got 6 for test, 0 for validation, 5 for labeled, of 10 subjects"),
        ({"labeled": -1}, "a number from 0 or a fraction from 0.0 to 1.0 was wanted for labeled, got -1"),
        ({"labeled": 1.5}, "got 1.5"),
        ({"labeled": float("nan")}, "got nan"),
        ({"labeled": True}, "got True"),
    ],
)
def test_what_cannot_be_drawn_is_refused(counts, problem):
    with pytest.raises(InputError, match=problem):
        make_split(cases(10), **counts)


def test_a_case_or_an_image_that_is_there_twice_is_refused():
    with pytest.raises(InputError, match="1 cases are there twice: c000"):
        make_split([*cases(3), case("c000")], labeled=1)
    other = SplitCase(Case(image="images/c000.nii.gz", monitor_label="x.nii.gz", case="other"))
    with pytest.raises(InputError, match="1 images are there twice"):
        make_split([*cases(3), other], labeled=1)
    with pytest.raises(InputError, match="there is no case"):
        make_split([], labeled=1)


def test_foreground_strata_are_equally_large_and_in_order():
    strata = foreground_strata({"a": 0.5, "b": 0.1, "c": 0.3, "d": 0.2}, bins=2)
    assert strata == {"b": "1 of 2", "d": "1 of 2", "c": "2 of 2", "a": "2 of 2"}
    assert foreground_strata({"a": 0.5}) == {"a": "1 of 1"}


def test_a_split_becomes_a_data_list_that_says_how_it_was_drawn():
    split = make_split([case(f"{g}{j}", stratum=g) for g in "ab" for j in range(5)], labeled=2, test=4, seed=7)
    listed = split_list(split, name="organ", labels=LABELS, description="Ours.")
    assert listed.description == (
        "Ours. Subjects drawn with seed 7, in equal proportions of 2 strata: "
        "2 labeled, 4 unlabeled, 0 validation, 4 test."
    )
    assert listed.counts() == {"labeled": 2, "unlabeled": 4, "validation": 0, "test": 4}
