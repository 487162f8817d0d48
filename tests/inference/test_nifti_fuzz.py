"""Damaged copies, a few hundred of the thousands that the benchmark reads, each in a child under limits."""

from tests.corpus import nifti_fuzz
from tests.corpus.nifti_corpus import AFFINE, sound
from tests.corpus.nifti_fuzz import KINDS, Outcome, damaged, fuzz


def test_damaged_copies_are_refused_or_read_as_sane_volumes_and_nothing_else(tmp_path):
    outcome = fuzz(tmp_path, 304)
    assert outcome.faults == 0, outcome.examples
    assert outcome.peak < 1000
    assert {"TRUNCATED", "CORRUPT", "HEADER", "AFFINE"} <= set(outcome.refused)
    assert sum(outcome.refused.values()) > 100 and outcome.same > 50 and outcome.other > 5


def test_damaged_copies_read_as_labels_are_refused_or_sane_too(tmp_path):
    outcome = fuzz(tmp_path, 96, first_seed=5000, labels=True)
    assert outcome.faults == 0, outcome.examples
    assert sum(outcome.refused.values()) > 30 and outcome.same > 10


def test_a_seed_always_gives_the_same_copy_and_every_kind_of_damage_changes_the_file():
    source = sound(nifti_fuzz.original(), AFFINE)
    copies = [damaged(seed, source) for seed in range(3 * len(KINDS))]
    assert [damaged(seed, source) for seed in range(3 * len(KINDS))] == copies
    assert {kind for kind, _, data in copies if data != source} == set(KINDS)


def test_a_child_that_dies_is_counted_as_a_crash(tmp_path):
    child = nifti_fuzz._Child(labels=False)
    child._process.kill()
    word, _ = child.read(tmp_path / "none.nii")
    child.close()
    outcome = Outcome()
    nifti_fuzz._count(outcome, word, "bytes 3", 3)
    assert (outcome.crashed, outcome.faults, outcome.examples) == (1, 1, {"crashed (bytes 3)": 3})


def test_another_exception_is_a_fault():
    outcome = Outcome()
    nifti_fuzz._count(outcome, "escaped ZeroDivisionError", "bytes 3", 3)
    nifti_fuzz._count(outcome, "refused HEADER", "bytes 4", 4)
    assert (outcome.faults, outcome.escaped, outcome.refused) == (1, {"ZeroDivisionError": 1}, {"HEADER": 1})
