"""Which cases teach, watch and are kept: by subject, whatever is labelled."""

from dataclasses import replace
from pathlib import Path

import pytest
from planning_samples import fingerprint

from semi_med.data.pairs import Pair, Pairs
from semi_med.data.validation import examine_sections
from semi_med.errors import InputError
from semi_med.planning.fingerprint import Structure
from semi_med.planning.sections import make_list

ROOT = Path("/data")


def cases(*rows):
    """From (case, labelled?)."""
    return Pairs(
        ROOT,
        tuple(Pair(n, (ROOT / f"i/{n}.nii",), ROOT / f"l/{n}.nii" if labeled else None) for n, labeled in rows),
        ("",),
    )


def listed(pairs, subjects=None, **numbers):
    subjects = subjects or {case.case: case.case for case in pairs.cases}
    usual = {"validation": 0, "test": 0, "labeled": None, "seed": 0}
    return make_list("mine", pairs, fingerprint(), subjects=subjects, **{**usual, **numbers})


def test_paths_are_relative_and_nothing_but_names_is_in_the_list():
    made, _ = listed(cases(("a", True), ("b", False)))
    assert made.labeled[0].image == "i/a.nii" and made.labeled[0].label == "l/a.nii"
    assert made.unlabeled[0].image == "i/b.nii" and made.unlabeled[0].label is None


def test_sections_have_the_numbers_asked_for_and_one_seed_gives_one_draw():
    pairs = cases(*((f"c{n}", n < 10) for n in range(15)))
    made, _ = listed(pairs, validation=2, test=3)
    assert made.counts() == {"labeled": 5, "unlabeled": 5, "validation": 2, "test": 3}
    assert listed(pairs, validation=2, test=3)[0] == made
    assert listed(pairs, validation=2, test=3, seed=1)[0] != made


def test_hidden_labels_can_be_watched_but_do_not_teach():
    made, _ = listed(cases(*((f"c{n}", True) for n in range(6))), labeled=2)
    assert made.counts() == {"labeled": 2, "unlabeled": 4, "validation": 0, "test": 0}
    assert all(case.monitor_label and not case.label for case in made.unlabeled)


def test_a_subject_is_in_one_section_and_its_scans_without_a_label_are_used_or_left_out():
    pairs = cases(*((f"{who}{n}", n == 0) for who in "abc" for n in range(3)))
    made, notes = listed(pairs, {case.case: case.case[0] for case in pairs.cases}, validation=1)
    (watch,) = made.validation
    assert made.counts() == {"labeled": 2, "unlabeled": 4, "validation": 1, "test": 0}
    assert notes == ("2 scans without a label show subjects that are held out, and were left out",)
    assert all(case.subject != watch.subject for case in (*made.labeled, *made.unlabeled))
    assert examine_sections(made.sections(ROOT), labels=(0, 1), sections_needed=()).problems == []


def test_more_held_out_than_labelled_is_refused():
    with pytest.raises(InputError, match="leave none of 2 labelled subjects to teach"):
        listed(cases(("a", True), ("b", True)), validation=1, test=1)


def rare(pairs, *, show: set[str]):
    """A fingerprint of two classes, the second of which only some cases show."""
    shown = {case.case: frozenset({0, 1, 2} if case.case in show else {0, 1}) for case in pairs.cases}
    return fingerprint(classes=(Structure(1, "organ", 8, 0.05), Structure(2, "tumour", 1, 0.01)), shown=shown)


def test_a_draw_that_leaves_a_class_out_of_what_teaches_is_drawn_again_with_a_note():
    pairs = cases(*((f"c{n}", True) for n in range(10)))
    numbers = {"subjects": {case.case: case.case for case in pairs.cases}, "validation": 3, "test": 3, "labeled": None}
    plain, _ = make_list("m", pairs, fingerprint(), seed=0, **numbers)
    only = plain.test[0].name
    made, notes = make_list("m", pairs, rare(pairs, show={only}), seed=0, **numbers)
    assert only in {case.name for case in made.labeled} and made.counts() == plain.counts()
    (note,) = notes
    seed = int(note.rpartition(" ")[2])
    assert note.startswith("seed 0 leaves a class out") and f"with seed {seed}:" in made.description
    assert made == make_list("m", pairs, rare(pairs, show={only}), seed=seed, **numbers)[0]
    meant, _ = make_list("m", pairs, rare(pairs, show={only}), seed=0, allow_missing_class=True, **numbers)
    assert only in {case.name for case in meant.test}


def test_a_class_that_no_draw_brings_to_what_teaches_is_named():
    pairs = cases(("a", True), ("b", True))
    numbers = {"subjects": {"a": "a", "b": "b"}, "validation": 0, "test": 0, "labeled": 1, "seed": 0}
    found = rare(pairs, show={"a"})
    shown = {"a": frozenset({0, 2}), "b": frozenset({0, 1})}
    with pytest.raises(InputError, match=r"\(value \d\) would be in none of the 1 labelled cases.*allow_missing_class"):
        make_list("m", pairs, replace(found, shown=shown), **numbers)


def test_other_numbers_than_class_indices_are_in_the_list_and_usual_ones_are_not():
    pairs = cases(("a", True))
    other = fingerprint(classes=(Structure(255, "vessel", 1, 0.1),))
    made, _ = make_list("m", pairs, other, subjects={"a": "a"}, validation=0, test=0, labeled=None, seed=0)
    assert made.file_values == [0, 255] and made.labels == {"0": "background", "1": "vessel"}
    assert made.label_values == (0, 255) and made.names_by_value == {0: "background", 255: "vessel"}
    assert listed(pairs)[0].file_values is None
