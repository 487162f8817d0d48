"""Validation of cases: every fault is found, named with its file, and nothing else is."""

import os
import shutil
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from semi_med.data import case_files
from semi_med.data.data_list import load_data_list
from semi_med.data.validation import TRAINING_SECTIONS, Options, check_sections, examine_sections, validate_sections
from semi_med.errors import InputError, ProblemsError

SHAPE = (6, 5, 4)
# 0.5 x 1 x 2 mm, turned by 30 degrees about the third axis
AFFINE = np.array(
    [[0.5 * np.sqrt(0.75), -0.5, 0, -10], [0.25, np.sqrt(0.75), 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]], dtype=float
)


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return str(path)


def image(path, seed, affine=AFFINE):
    return save(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32), affine)


def label(path, value=1, affine=AFFINE, shape=SHAPE):
    array = np.zeros(shape, np.uint8)
    array[1:3, 1:3, 1:3] = value
    return save(path, array, affine)


@pytest.fixture
def sections(tmp_path):
    """Two labeled, two unlabeled, one validation and one test case without any fault."""
    found = {"labeled": [], "unlabeled": [], "validation": [], "test": []}
    for seed, name in enumerate(["L1", "L2", "U1", "U2", "V1", "T1"]):
        section = next(key for key in found if key[0].upper() == name[0])
        item = {"image": image(tmp_path / f"images/{name}.nii.gz", seed), "case": name, "subject": f"S{name}"}
        if section != "unlabeled":
            item["label"] = label(tmp_path / f"labels/{name}.nii.gz")
        found[section].append(item)
    return found


def only(sections, **settings):
    (problem,) = validate_sections(sections, labels=(0, 1), **settings)
    return problem


def test_sound_cases_give_no_problem_and_no_note(sections):
    findings = examine_sections(sections, labels=(0, 1))
    assert (findings.problems, findings.notes) == ([], [])
    assert findings.cases == {"labeled": 2, "unlabeled": 2, "validation": 1, "test": 1}


# ---- files ---------------------------------------------------------------------------------------------------------


def test_every_missing_file_is_named_with_its_case(sections):
    missing = [sections["labeled"][0]["label"], sections["unlabeled"][1]["image"], sections["test"][0]["image"]]
    for file in missing:
        Path(file).unlink()
    found = validate_sections(sections, labels=(0, 1))
    assert [(str(problem.where), problem.code) for problem in found] == [(file, "NOT_FOUND") for file in missing]
    assert "(labeled, case L1)" in str(found[0])


def test_a_section_of_which_all_images_are_missing_gives_one_problem(sections, tmp_path):
    sections["test"] = [
        {
            "image": str(tmp_path / f"nowhere/{n}.nii.gz"),
            "label": label(tmp_path / f"labels/x{n}.nii.gz"),
            "case": f"x{n}",
        }
        for n in range(4)
    ]
    problem = only(sections)
    assert (problem.where, problem.code) == (str(tmp_path / "nowhere"), "NOT_FOUND")
    assert "none of the 4 images of the section test" in str(problem)


def test_a_missing_file_whose_name_is_written_otherwise_in_unicode_is_hinted_at(sections, tmp_path):
    image(tmp_path / "images" / "Mu\u0308ller.nii.gz", 50)
    sections["unlabeled"][0]["image"] = str(tmp_path / "images" / "M\u00fcller.nii.gz")
    assert only(sections).fix.startswith("'Mu\\u0308ller.nii.gz' is there")


def test_what_is_no_plain_file_is_named_and_not_waited_for(sections, tmp_path):
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "loop.nii.gz").symlink_to(tmp_path / "loop.nii.gz")
    names = ["pipe.nii.gz", "folder.nii.gz", "loop.nii.gz"]
    sections["unlabeled"] += [{"image": str(tmp_path / name)} for name in names]
    found = validate_sections(sections, labels=(0, 1))
    assert [Path(problem.where).name for problem in found] == names
    assert [problem.code for problem in found] == ["NOT_A_FILE", "NOT_A_FILE", "UNREADABLE"]


def test_a_truncated_image_and_a_nan_are_both_found(sections):
    first, second = (Path(item["image"]) for item in sections["labeled"])
    first.write_bytes(first.read_bytes()[:-60])
    array = np.ones(SHAPE, np.float32)
    array[0, 0, 0] = np.nan
    save(second, array)
    assert [problem.code for problem in validate_sections(sections, labels=(0, 1))] == ["TRUNCATED", "NONFINITE"]


@pytest.mark.parametrize("name", ["a scan.nii.gz", "Müller 'x' \"y\".nii.gz", "n" * 248 + ".nii.gz"])
def test_unusual_names_are_read(sections, tmp_path, name):
    sections["unlabeled"][0]["image"] = image(tmp_path / name, 20)
    assert validate_sections(sections, labels=(0, 1)) == []


def test_a_label_of_an_unlabeled_case_is_never_opened(sections, tmp_path):
    (tmp_path / "explodes.nii.gz").write_bytes(b"no label")
    sections["unlabeled"][0]["label"] = str(tmp_path / "explodes.nii.gz")
    assert validate_sections(sections, labels=(0, 1)) == []


def test_a_monitor_label_that_was_asked_for_is_checked(sections, tmp_path):
    (tmp_path / "explodes.nii.gz").write_bytes(b"no label")
    sections["unlabeled"][0]["monitor_label"] = str(tmp_path / "explodes.nii.gz")
    assert only(sections).where == Path(tmp_path / "explodes.nii.gz")


def test_each_file_is_read_once(sections, monkeypatch):
    sections["unlabeled"].append(dict(sections["labeled"][0], case="again"))
    opened, lock = [], threading.Lock()

    def counting(read):
        def wrapped(path, **settings):
            with lock:
                opened.append(path)
            return read(path, **settings)

        return wrapped

    for name in ("read_image", "read_label"):
        monkeypatch.setattr(case_files, name, counting(getattr(case_files, name)))
    validate_sections(sections, labels=(0, 1))
    assert sorted(opened) == sorted(
        {item[k] for s in sections.values() for item in s for k in ("image", "label") if k in item}
    )


def test_progress_counts_to_the_number_of_images(sections):
    seen = []
    examine_sections(sections, labels=(0, 1), progress=lambda done, of: seen.append((done, of)))
    assert seen == [(n, 6) for n in range(1, 7)]


@pytest.mark.parametrize("section", ["labeled", "validation", "test"])
def test_a_plain_item_without_its_label_is_a_problem(sections, section):
    del sections[section][0]["label"]
    assert (only(sections).code, only(sections).where) == ("LABEL_KEY", sections[section][0]["image"])


def test_an_item_without_an_image_is_refused(sections):
    del sections["unlabeled"][0]["image"]
    with pytest.raises(InputError, match="unlabeled: an item has no image"):
        validate_sections(sections, labels=(0, 1))


# ---- image against label -------------------------------------------------------------------------------------------


def test_another_shape_is_a_problem_with_both_shapes(sections):
    label(Path(sections["labeled"][0]["label"]), shape=(6, 5, 5))
    problem = only(sections)
    assert problem.code == "GEOMETRY"
    assert "its shape is 6 x 5 x 5, that of L1.nii.gz is 6 x 5 x 4" in str(problem)


def test_a_label_shifted_by_a_quarter_voxel_is_a_problem_with_the_distance(sections):
    shifted = AFFINE.copy()
    shifted[:3, 3] += 0.25 * AFFINE[:3, 2]  # a quarter of the 2 mm step along the third axis
    label(Path(sections["labeled"][0]["label"]), affine=shifted)
    problem = only(sections)
    assert problem.code == "GEOMETRY"
    assert "up to 0.25 voxels (0.50 mm)" in str(problem)


def test_a_label_shifted_by_a_twentieth_of_a_voxel_is_accepted(sections):
    shifted = AFFINE.copy()
    shifted[:3, 3] += 0.05 * AFFINE[:3, 2]
    label(Path(sections["labeled"][0]["label"]), affine=shifted)
    assert validate_sections(sections, labels=(0, 1)) == []


def test_a_mirrored_label_affine_is_a_problem(sections):
    mirrored = AFFINE @ np.diag([-1.0, 1, 1, 1])
    mirrored[:3, 3] = (AFFINE @ [SHAPE[0] - 1, 0, 0, 1])[:3]
    label(Path(sections["labeled"][0]["label"]), affine=mirrored)
    assert "up to 5.00 voxels (2.50 mm)" in str(only(sections))


def test_an_only_file_that_lacks_channels_is_a_problem(tmp_path):
    random = np.random.default_rng(0)
    whole = save(tmp_path / "whole.nii.gz", random.normal(size=(*SHAPE, 2)).astype(np.float32))
    plain = image(tmp_path / "plain.nii.gz", 1)
    sections = {"unlabeled": [{"image": whole, "case": "whole"}, {"image": plain, "case": "plain"}]}
    (problem,) = examine_sections(
        sections, labels=(0, 1), sections_needed=("unlabeled",), options=Options(channels=2)
    ).problems
    assert problem.code == "CHANNELS" and problem.where == plain
    assert "it has 1 channel, 2 are wanted" in problem.problem


def test_channels_on_different_grids_are_a_problem(sections, tmp_path):
    moved = AFFINE.copy()
    moved[0, 3] += 5
    second = image(tmp_path / "t2.nii.gz", 30, affine=moved)
    sections["labeled"][0]["image"] = [sections["labeled"][0]["image"], second]
    assert (only(sections).where, only(sections).code) == (second, "GEOMETRY")


# ---- label values --------------------------------------------------------------------------------------------------


def test_a_foreign_label_value_is_named_with_its_voxels_and_file(sections):
    file = sections["labeled"][1]["label"]
    array = np.zeros(SHAPE, np.uint8)
    array[0, 0, :3], array[1, 1, 1] = 7, 1
    save(Path(file), array)
    problem = only(sections)
    assert (problem.where, problem.code) == (file, "LABEL_VALUES")
    assert "7 (3 voxels)" in str(problem)


def test_a_class_that_no_labeled_case_shows_is_a_problem(sections):
    problems = validate_sections(sections, labels=(0, 1, 2))
    assert [(problem.where, problem.code) for problem in problems] == [("labeled", "MISSING_CLASS")]
    assert "the label value 2 is in none of the 2 labeled cases" in str(problems[0])


def test_no_class_is_called_missing_while_a_label_is_unreadable(sections):
    Path(sections["labeled"][0]["label"]).unlink()
    assert [problem.code for problem in validate_sections(sections, labels=(0, 1, 2))] == ["NOT_FOUND"]


def test_an_empty_label_is_a_note(sections):
    label(Path(sections["labeled"][1]["label"]), value=0)
    findings = examine_sections(sections, labels=(0, 1))
    assert findings.problems == []
    assert findings.notes == ["labeled, case L2: EMPTY_LABEL: no voxel of any class but the background"]


# ---- between sections ----------------------------------------------------------------------------------------------


def add_copy(sections, file, section="unlabeled"):
    """Add an image to a section under another name and subject."""
    sections[section].append({"image": str(file), "case": "copy", "subject": "another"})
    if section != "unlabeled":
        sections[section][-1]["label"] = sections["validation"][0]["label"].replace("V1", "copy")
        label(Path(sections[section][-1]["label"]))


def test_a_labeled_case_behind_a_link_among_the_unlabeled_is_found(sections, tmp_path):
    (tmp_path / "link.nii.gz").symlink_to(sections["labeled"][0]["image"])
    add_copy(sections, tmp_path / "link.nii.gz")
    assert only(sections).code == "DUPLICATE"
    assert "the same image file is listed twice: labeled, case L1" in str(only(sections))


def test_a_copied_file_is_found(sections, tmp_path):
    add_copy(sections, shutil.copy(sections["labeled"][0]["image"], tmp_path / "copy.nii.gz"))
    assert "the images hold the same voxels" in str(only(sections))


def test_a_copy_in_another_compression_type_and_orientation_is_found(sections, tmp_path):
    array = np.random.default_rng(40).integers(0, 999, SHAPE).astype(np.int16)
    save(Path(sections["labeled"][0]["image"]), array)
    turned = nib.Nifti1Image(array.astype(np.float64), AFFINE).as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
    nib.save(turned, tmp_path / "turned.nii")
    add_copy(sections, tmp_path / "turned.nii")
    assert "the images hold the same voxels" in str(only(sections))


@pytest.mark.parametrize("section", ["validation", "test"])
def test_a_training_case_among_validation_or_test_is_leakage(sections, tmp_path, section):
    add_copy(sections, shutil.copy(sections["unlabeled"][0]["image"], tmp_path / "copy.nii.gz"), section)
    assert (only(sections).code, only(sections).where) == ("LEAKAGE", f"unlabeled and {section}")


def test_one_subject_in_two_sections_is_leakage(sections):
    sections["test"][0]["subject"] = sections["unlabeled"][0]["subject"]
    assert only(sections).code == "LEAKAGE"
    assert "the same subject is in two sections: unlabeled, case U1" in str(only(sections))


def test_two_scans_of_one_subject_in_one_section_are_accepted(sections):
    sections["unlabeled"][0]["subject"] = sections["unlabeled"][1]["subject"]
    assert validate_sections(sections, labels=(0, 1)) == []


def test_one_case_twice_in_one_section_is_a_problem(sections):
    sections["unlabeled"].append(dict(sections["unlabeled"][0]))
    assert (only(sections).code, only(sections).where) == ("DUPLICATE", "unlabeled")


def test_one_label_file_for_cases_of_two_sections_is_leakage(sections):
    sections["test"][0]["label"] = sections["labeled"][0]["label"]
    assert "the same label file is used in two sections" in str(only(sections))


def test_two_cases_of_one_name_in_a_section_are_a_problem(sections):
    sections["unlabeled"][0]["case"] = sections["unlabeled"][1]["case"]
    assert (only(sections).code, only(sections).where) == ("CASE_NAME", "unlabeled")


# ---- which sections are needed -------------------------------------------------------------------------------------


def test_a_training_does_not_need_the_files_of_the_test(sections):
    for key in ("image", "label"):
        Path(sections["test"][0][key]).unlink()
    assert validate_sections(sections, labels=(0, 1), sections_needed=TRAINING_SECTIONS) == []


@pytest.mark.parametrize(("key", "reason"), [("image", "the same image file"), ("subject", "the same subject")])
def test_a_training_still_finds_a_test_case_by_path_and_subject(sections, key, reason):
    sections["test"][0][key] = sections["unlabeled"][0][key]
    problem = only(sections, sections_needed=TRAINING_SECTIONS)
    assert problem.code == "LEAKAGE"
    assert reason in str(problem)


@pytest.mark.parametrize("section", ["labeled", "unlabeled"])
def test_no_labeled_or_unlabeled_case_is_a_problem(sections, section):
    sections[section] = []
    assert f"{section}: there is no {section} case" in str(only(sections))


def test_supervised_training_needs_no_unlabeled_case(sections):
    sections["unlabeled"] = []
    assert validate_sections(sections, labels=(0, 1), sections_needed=("labeled", "validation")) == []


def test_an_empty_validation_section_is_a_note(sections):
    sections["validation"] = []
    findings = examine_sections(sections, labels=(0, 1))
    assert findings.problems == []
    assert findings.notes[0].startswith("validation: no case")


def test_an_unknown_section_is_refused(sections):
    with pytest.raises(InputError, match="got train"):
        validate_sections({**sections, "train": []}, labels=(0, 1))


def test_plain_items_take_case_and_subject_from_the_file_name(tmp_path):
    plain = {
        "labeled": [{"image": image(tmp_path / "a/x.nii.gz", 1), "label": label(tmp_path / "l/x.nii.gz")}],
        "unlabeled": [{"image": image(tmp_path / "b/x.nii.gz", 2)}],
    }
    assert "the same subject is in two sections: labeled, case x" in str(only(plain))


def test_check_lists_every_problem_under_its_title(sections):
    Path(sections["labeled"][0]["image"]).unlink()
    sections["test"][0]["subject"] = sections["unlabeled"][0]["subject"]
    with pytest.raises(ProblemsError, match=r"data list toy.json: 2 problems found\n  - .*\n  - ") as caught:
        check_sections(sections, labels=(0, 1), title="data list toy.json")
    assert [problem.code for problem in caught.value.problems] == ["NOT_FOUND", "LEAKAGE"]


def test_check_gives_its_findings_when_all_is_well(sections):
    assert check_sections(sections, labels=(0, 1)).cases["labeled"] == 2


def test_ten_thousand_cases_that_need_no_reading_are_compared_within_seconds(sections):
    sections["test"] = [{"image": f"/nowhere/{n}.nii.gz", "label": f"/nowhere/l{n}.nii.gz"} for n in range(10_000)]
    sections["test"].append({"image": "/nowhere/77.nii.gz", "label": "/nowhere/other.nii.gz", "case": "copy"})
    problem = only(sections, sections_needed=TRAINING_SECTIONS)
    assert "test, case 77 " in str(problem)
    assert "test, case copy" in str(problem)


@pytest.mark.real_data
def test_prepared_left_atrium_validates(tmp_path):
    root = os.environ.get("SEMI_MED_REAL_DATA")
    if not root:
        pytest.skip("SEMI_MED_REAL_DATA is not set")
    data_list = load_data_list(Path(__file__).parents[2] / "data_lists/la/labeled_04.json")
    sections = data_list.sections(Path(root) / "left_atrium")
    sections["unlabeled"] = sections["unlabeled"][:4]
    check_sections(sections, labels=data_list.label_values, sections_needed=TRAINING_SECTIONS)


# ---- ignored voxels ------------------------------------------------------------------------------------------------


def with_ignored(sections, name="L1", *, everywhere=False):
    item = next(item for items in sections.values() for item in items if item["case"] == name)
    array = np.full(SHAPE, 255, np.uint8)
    if not everywhere:
        array[:3] = 0
        array[1, 1, 1] = 1
    save(Path(item["label"]), array)
    return item["label"]


def test_a_255_is_a_foreign_label_unless_the_list_ignores_it(sections):
    file = with_ignored(sections)
    problem = only(sections)
    assert (problem.code, str(problem.where)) == ("LABEL_VALUES", file)
    assert "this has 255 (60 voxels)" in str(problem)
    assert '"ignored": 255' in problem.fix


def test_ignored_voxels_are_accepted_and_counted(sections):
    with_ignored(sections)
    findings = examine_sections(sections, labels=(0, 1), options=Options(ignored=255))
    assert findings.problems == []
    assert findings.notes == ["IGNORED: 60 voxels (12.50%) in 1 of 4 labels are 255 and count nowhere"]


def test_a_label_of_which_nothing_is_known_is_noted_as_empty(sections):
    with_ignored(sections, everywhere=True)
    notes = examine_sections(sections, labels=(0, 1), options=Options(ignored=255)).notes
    assert any("EMPTY_LABEL" in note for note in notes)


def test_ignored_voxels_show_no_class(sections):
    for name in ("L1", "L2"):
        with_ignored(sections, name)
    problem = examine_sections(sections, labels=(0, 1, 2), options=Options(ignored=255)).problems
    assert [error.code for error in problem] == ["MISSING_CLASS"]


def test_other_foreign_values_are_refused_beside_ignored_ones(sections):
    file = with_ignored(sections)
    array = np.asarray(nib.load(file).dataobj).astype(np.uint8)
    array[0, 0, 0] = 7
    save(Path(file), array)
    (problem,) = examine_sections(sections, labels=(0, 1), options=Options(ignored=255)).problems
    assert "this has 7 (1 voxels)" in str(problem)
