"""What `semi-med split` takes: prepared folders, data lists, folders of images and labels."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from semi_med.cli import main
from semi_med.data.data_list import load_data_list
from semi_med.datasets.prepared import MadeCase, SourceCase, prepare_cases
from semi_med.datasets.record import About
from semi_med.datasets.split_source import Choices, published, read_source, write_published
from semi_med.errors import InputError

ABOUT = About("hearts", {"0": "MR"}, {"0": "background", "1": "heart"}, "Someone 2020", "CC0", "example.org")
PLAIN = Choices()


def label(size, value=1):
    """8 x 8 x 2 voxels with a foreground of this many."""
    array = np.zeros(128, np.uint8)
    array[:size] = value
    return array.reshape(8, 8, 2)


@pytest.fixture
def folder(tmp_path):
    """Twelve scans of six patients in `images/`, ten with labels of growing size, of the classes 1 and 2."""
    root = tmp_path / "data"
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for number in range(12):
        name = f"patient{number // 2}_{'ab'[number % 2]}.nii.gz"
        image = np.random.default_rng(number).normal(size=(8, 8, 2)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), root / "images" / name)
        if number < 10:
            nib.save(nib.Nifti1Image(label(10 + 10 * number, 1 + number % 2), np.eye(4)), root / "labels" / name)
    return root


@pytest.fixture
def ignoring(tmp_path):
    """Four cases of which less and less is foreground, and more and more is not known."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "x").write_text("x")

    def make(case):
        array = label(8 - int(case.name[1]))
        array[4:][: int(case.name[1])] = 255
        return MadeCase(np.zeros((8, 8, 2), np.float32), array, np.eye(4))

    cases = [SourceCase(f"c{n}", source / "x", source / "x") for n in range(4)]
    about = replace(ABOUT, ignored=255)
    prepare_cases(cases, tmp_path / "p", source=source, about=about, recipe={}, make=make)
    return tmp_path / "p"


def test_what_is_ignored_is_no_foreground_and_stays_in_the_split(ignoring):
    found = read_source(ignoring, Choices(stratify="foreground"))
    assert found.header["ignored"] == 255
    assert {case.subject: case.stratum for case in found.cases} == {f"c{n}": f"{4 - n} of 4" for n in range(4)}


@pytest.fixture
def prepared(tmp_path):
    """Eight cases of two groups."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "x").write_text("x")
    cases = [
        SourceCase(f"c{n}", source / "x", source / "x", subject=f"s{n // 2}", group="ab"[n // 4]) for n in range(8)
    ]
    made = MadeCase(np.zeros((8, 8, 2), np.float32), label(5), np.eye(4))
    prepare_cases(cases, tmp_path / "p", source=source, about=ABOUT, recipe={}, make=lambda case: made)
    return tmp_path / "p"


def test_a_prepared_folder_brings_its_subjects_groups_and_terms(prepared):
    found = read_source(prepared, Choices(stratify="group"))
    assert {case.subject: case.stratum for case in found.cases} == {"s0": "a", "s1": "a", "s2": "b", "s3": "b"}
    assert (found.header["name"], found.header["licence"]) == ("hearts", "CC0")
    assert found.cases[0].label == "labels/c0.nii.gz"


def test_without_a_wish_nothing_is_stratified(prepared):
    assert {case.stratum for case in read_source(prepared, PLAIN).cases} == {None}


def test_a_folder_of_images_and_labels_names_its_classes_by_number(folder):
    found = read_source(folder, PLAIN)
    assert len(found.cases) == 12
    assert sum(case.label is None for case in found.cases) == 2
    assert found.header["labels"] == {"0": "background", "1": "class 1", "2": "class 2"}
    assert "Every case counts as a subject of its own" in found.notes[-1]


@pytest.mark.parametrize(("value", "advice"), [(255, '"ignored": 255'), (300, "--map-labels 300=1")])
def test_numbers_that_are_no_classes_are_refused_with_what_they_can_mean(folder, value, advice):
    array = label(10).astype(np.uint16)
    array[0, 0, 0] = value
    nib.save(nib.Nifti1Image(array, np.eye(4)), folder / "labels/patient0_a.nii.gz")
    with pytest.raises(InputError, match=f"labels of up to {value} are no class indices") as caught:
        read_source(folder, PLAIN)
    assert advice in str(caught.value)
    assert read_source(folder, Choices(labels=("heart",))).header["labels"] == {"0": "background", "1": "heart"}


def test_classes_can_be_named(folder):
    found = read_source(folder, Choices(labels=("left", "right")))
    assert found.header["labels"] == {"0": "background", "1": "left", "2": "right"}


def test_a_pattern_finds_the_subject_in_the_name(folder):
    found = read_source(folder, Choices(pattern=r"(patient\d)_"))
    assert sorted({case.subject for case in found.cases}) == [f"patient{n}" for n in range(6)]
    with pytest.raises(InputError, match=r"nothing says whom 12 cases show"):
        read_source(folder, Choices(pattern=r"scan(\d+)"))
    with pytest.raises(InputError, match="no regular expression"):
        read_source(folder, Choices(pattern="("))


def test_a_table_gives_subjects_and_groups(folder, tmp_path):
    rows = "".join(f"patient{n // 2}_{'ab'[n % 2]},{n // 4},{'old' if n < 6 else 'young'}\n" for n in range(12))
    (tmp_path / "t.csv").write_text(f"case,subject,group\n{rows}")
    found = read_source(folder, Choices(subjects=tmp_path / "t.csv", stratify="group"))
    assert sorted({case.subject for case in found.cases}) == ["0", "1", "2"]
    assert {case.stratum for case in found.cases} == {"old", "young"}


def test_a_case_that_is_missing_in_the_table_is_named(folder, tmp_path):
    (tmp_path / "t.csv").write_text("case,subject\npatient0_a,0\n")
    with pytest.raises(InputError, match=r"nothing says whom 11 cases show: patient0_b"):
        read_source(folder, Choices(subjects=tmp_path / "t.csv"))


def test_strata_by_foreground_are_those_of_the_subjects_means(folder):
    found = read_source(folder, Choices(pattern=r"patient\d", stratify="foreground"))
    strata = {case.subject: case.stratum for case in found.cases}
    # five subjects with labels in four strata, from the smallest foreground to the largest
    assert strata == {
        "patient0": "1 of 4", "patient1": "1 of 4", "patient2": "2 of 4", "patient3": "3 of 4", "patient4": "4 of 4",
        "patient5": None,
    }  # fmt: skip


def test_groups_must_be_known_to_stratify_by_them(folder):
    with pytest.raises(InputError, match="no case has a group"):
        read_source(folder, Choices(stratify="group"))
    with pytest.raises(InputError, match="none, group, foreground was wanted, got 'age'"):
        read_source(folder, Choices(stratify="age"))


def test_a_data_list_is_split_anew(folder, tmp_path, capsys):
    arguments = [
        "split",
        str(folder),
        "-o",
        str(tmp_path / "one.json"),
        "--labeled",
        "2",
        "--subject-pattern",
        r"patient\d",
    ]
    run(*arguments)
    run("split", str(tmp_path / "one.json"), "-o", str(tmp_path / "two.json"), "--labeled", "1", "--seed", "3")
    one, two = (load_data_list(tmp_path / f"{name}.json") for name in ("one", "two"))
    assert len(one.labeled) == 4
    assert len(two.labeled) == 2
    assert {case.name for s in ("labeled", "unlabeled", "validation", "test") for case in getattr(one, s)} == {
        case.name for s in ("labeled", "unlabeled", "validation", "test") for case in getattr(two, s)
    }
    assert two.labels == one.labels


# ---- the command ---------------------------------------------------------------------------------------------------


def run(*arguments):
    """The command's exit code, 0 if it ends without one."""
    import sys
    from unittest import mock

    with mock.patch.object(sys, "argv", ["semi-med", *arguments]):
        try:
            main()
        except SystemExit as error:
            return error.code or 0
    return 0


def test_the_command_writes_a_list_that_can_be_trained_with(folder, tmp_path, capsys):
    arguments = ["-o", str(tmp_path / "list.json"), "--labeled", "40%", "--test", "1", "--validation", "1"]
    assert run("split", str(folder), *arguments, "--subject-pattern", r"patient\d") == 0
    listed = load_data_list(tmp_path / "list.json")
    assert listed.counts() == {"labeled": 4, "unlabeled": 4, "validation": 2, "test": 2}
    for section in listed.sections(folder, monitor=True).values():
        for item in section:
            for key in ("image", "label", "monitor_label"):
                assert key not in item or nib.load(item[key]).shape == (8, 8, 2)
    assert "patient5" in {case.subject for case in listed.unlabeled}
    assert "│ test       │ 1        │ 2     │" in capsys.readouterr().out


def test_what_is_no_number_is_refused(folder, tmp_path, capsys):
    assert run("split", str(folder), "-o", str(tmp_path / "x.json"), "--labeled", "few") == 2
    assert "--labeled: a number such as 8, or a fraction such as 0.1, was wanted, got 'few'" in capsys.readouterr().err


def test_published_lists_are_written_as_they_are_committed(tmp_path, capsys):
    assert run("split", "--published", "acdc", "-o", str(tmp_path)) == 0
    assert load_data_list(tmp_path / "acdc/labeled_07.json").counts()["labeled"] == 14
    with pytest.raises(InputError, match=r"no published lists of 'x'. Choose one of acdc, .*la"):
        write_published("x", tmp_path)
    assert {"la", "acdc", "brats2019", "pancreas_ct"} <= set(published())


def test_a_source_or_a_published_split_is_wanted_not_both(folder, tmp_path, capsys):
    assert run("split", "-o", str(tmp_path)) == 2
    assert run("split", str(folder), "--published", "la", "-o", str(tmp_path)) == 2
