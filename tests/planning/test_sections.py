"""Which cases teach, watch and are kept: by subject, whatever is labelled."""

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


def test_other_numbers_than_class_indices_are_in_the_list_and_usual_ones_are_not():
    pairs = cases(("a", True))
    other = fingerprint(classes=(Structure(255, "vessel", 1, 0.1),))
    made, _ = make_list("m", pairs, other, subjects={"a": "a"}, validation=0, test=0, labeled=None, seed=0)
    assert made.file_values == [0, 255] and made.labels == {"0": "background", "1": "vessel"}
    assert made.label_values == (0, 255) and made.names_by_value == {0: "background", 255: "vessel"}
    assert listed(pairs)[0].file_values is None
