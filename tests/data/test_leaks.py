"""The four kinds of leak, who is one subject, and lists that lead astray."""

import json
import os
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from semi_med.data.data_list import load_data_list
from semi_med.data.members import Member, subject_pattern
from semi_med.data.validation import Options, examine_sections
from semi_med.errors import InputError, ProblemsError

LABELS = (0, 1)


def scan(path: Path, seed: int, *, dtype: str = "f4", label: bool = False) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    array = random.integers(0, 2 if label else 900, (5, 4, 3)).astype("u1" if label else dtype)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return str(path)


@pytest.fixture
def sections(tmp_path):
    """One case in each section, two among the unlabeled, no leak."""
    found = {}
    for number, (section, name) in enumerate(
        [("labeled", "L"), ("unlabeled", "U"), ("unlabeled", "W"), ("validation", "V"), ("test", "T")]
    ):
        item = {"image": scan(tmp_path / f"images/{name}.nii.gz", number), "case": name, "subject": f"person {name}"}
        if section != "unlabeled":
            item["label"] = scan(tmp_path / f"labels/{name}.nii.gz", 50 + number, label=True)
        found.setdefault(section, []).append(item)
    return found


def found_in(sections, **options):
    return examine_sections(sections, labels=LABELS, options=Options(**options))


def leak(kind: str, sections, tmp_path, into: str = "test") -> None:
    """Make the first unlabeled case turn up in another section too."""
    item = sections["unlabeled"][0]
    if kind == "path":
        image = item["image"]
    elif kind == "link":
        image = str(tmp_path / "link.nii.gz")
        Path(image).symlink_to(item["image"])
    elif kind == "voxels":  # other file type, data type and compression, another name
        image = str(tmp_path / "copy.nii")
        original = nib.load(item["image"])
        nib.save(nib.Nifti1Image(original.get_fdata().astype("i2"), original.affine), image)
    else:
        image = scan(tmp_path / "again.nii.gz", 99)
    label = scan(tmp_path / "labels/copy.nii.gz", 77, label=True)
    subject = item["subject"] if kind == "subject" else "somebody else"
    sections[into].append({"image": image, "label": label, "case": "copy", "subject": subject})


KINDS = {
    "path": "the same image file is listed twice",
    "link": "the same image file is listed twice",
    "voxels": "the images hold the same voxels",
    "subject": "the same subject is in two sections",
}


@pytest.mark.parametrize("section", ["validation", "test"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_leak_is_found_once_and_named(sections, tmp_path, kind, section):
    leak(kind, sections, tmp_path, section)
    (problem,) = found_in(sections).problems
    assert problem.code == "LEAKAGE"
    assert problem.problem.startswith(KINDS[kind])
    assert "case U " in problem.problem and "case copy" in problem.problem


@pytest.mark.parametrize("kind", KINDS)
def test_a_transductive_list_may_have_test_cases_among_the_unlabeled_and_is_told_so(sections, tmp_path, kind):
    leak(kind, sections, tmp_path)
    findings = found_in(sections, transductive=True)
    assert findings.problems == []
    assert findings.notes[0].startswith("TRANSDUCTIVE: 1 test cases")


@pytest.mark.parametrize("section", ["validation", "labeled"])
def test_transductive_allows_nothing_else(sections, tmp_path, section):
    leak("voxels", sections, tmp_path, section)
    (problem,) = found_in(sections, transductive=True).problems
    assert problem.code == ("LEAKAGE" if section == "validation" else "DUPLICATE")


def test_a_case_in_three_sections_is_no_transductive_one(sections, tmp_path):
    leak("subject", sections, tmp_path)
    sections["labeled"][0]["subject"] = sections["unlabeled"][0]["subject"]
    assert [problem.code for problem in found_in(sections, transductive=True).problems] == ["LEAKAGE"]


def test_a_leak_into_the_test_names_the_way_to_allow_it(sections, tmp_path):
    leak("path", sections, tmp_path)
    assert "--transductive" in found_in(sections).problems[0].fix


def test_two_scans_of_nothing_but_air_are_no_copies(sections, tmp_path):
    for item in (sections["labeled"][0], sections["test"][0]):
        nib.save(nib.Nifti1Image(np.zeros((5, 4, 3), "i2"), np.eye(4)), item["image"])
    findings = found_in(sections)
    assert findings.problems == []
    assert sum("CONSTANT" in note for note in findings.notes) == 2


def test_sessions_of_one_subject_named_after_bids_are_one_subject(sections):
    sections["labeled"][0] |= {"case": "sub-07_ses-1_T1w", "subject": "sub-07_ses-1_T1w"}
    sections["test"][0] |= {"case": "sub-07_ses-2_T1w", "subject": "sub-07_ses-2_T1w"}
    (problem,) = found_in(sections).problems
    assert problem.problem.startswith("the same subject")


def test_a_stated_subject_counts_more_than_a_name_after_bids():
    assert Member.of("labeled", {"image": "sub-07_T1w.nii.gz", "subject": "X"}).subject == "X"
    assert Member.of("labeled", {"image": "sub-07_T1w.nii.gz"}).subject == "sub-07"
    assert Member.of("labeled", {"image": "subtle-07.nii.gz"}).subject == "subtle-07"


@pytest.mark.parametrize(
    ("pattern", "subject"), [(r"TCGA_(\w\w_\w{4})_", "CS_4941"), (r"TCGA_\w\w", "TCGA_CS"), ("nothing", "own")]
)
def test_a_pattern_finds_the_subject_in_the_path(pattern, subject):
    item = {"image": "/data/TCGA_CS_4941_1996/1.tif", "case": "1", "subject": "own"}
    assert Member.of("labeled", item, pattern=subject_pattern(pattern)).subject == subject


def test_a_broken_pattern_is_refused():
    with pytest.raises(InputError, match=r"\(: this is no regular expression"):
        subject_pattern("(")


def test_a_missing_class_may_be_allowed(sections):
    findings = examine_sections(sections, labels=(0, 1, 2), options=Options(allow_missing_class=True))
    assert findings.problems == []
    assert findings.notes == [
        "MISSING_CLASS: the label value 2 is in none of the 1 labeled cases, so it cannot be learned"
    ]


def test_a_foreign_value_names_the_command_that_renumbers(sections):
    label = sections["labeled"][0]["label"]
    array = np.asarray(nib.load(label).dataobj) * 255
    nib.save(nib.Nifti1Image(array.astype("u1"), np.eye(4)), label)
    problem = next(problem for problem in found_in(sections).problems if problem.code == "LABEL_VALUES")
    assert "--map-labels 255=1" in problem.fix


def test_many_notes_of_one_kind_become_one_line(sections, tmp_path):
    sections["unlabeled"] = [{"image": scan(tmp_path / f"u/{n}.nii.gz", 100 + n), "case": f"u{n}"} for n in range(7)]
    for item in sections["unlabeled"]:
        original = nib.load(item["image"])
        nib.save(nib.Nifti1Image(original.get_fdata()[..., None].astype("f4"), np.eye(4)), item["image"])
    (note,) = found_in(sections).notes
    assert note == (
        "SQUEEZED: trailing axes of length 1 were dropped (5 x 4 x 3 x 1) "
        "(7 files, the first is unlabeled, case u0: 0.nii.gz)"
    )


def test_channels_of_one_file_are_read_where_the_list_names_them(sections):
    stack = np.random.default_rng(0).normal(size=(5, 4, 3, 2)).astype("f4")
    nib.save(nib.Nifti1Image(stack, np.eye(4)), sections["unlabeled"][0]["image"])
    assert [problem.code for problem in found_in(sections).problems] == ["NDIM"]
    nib.save(nib.Nifti1Image(stack + 1, np.eye(4)), sections["unlabeled"][1]["image"])
    for section in ("labeled", "validation", "test"):
        for item in sections[section]:
            stack = stack + 3
            nib.save(nib.Nifti1Image(stack, np.eye(4)), item["image"])
    assert found_in(sections, channels=2).problems == []


def test_each_case_gets_a_verdict_with_what_was_found_in_it(sections):
    sections["test"] = []
    Path(sections["unlabeled"][0]["image"]).write_bytes(b"")
    findings = found_in(sections)
    assert [(v.section, v.case, v.verdict) for v in findings.verdicts] == [
        ("labeled", "L", "sound"),
        ("unlabeled", "U", "refused"),
        ("unlabeled", "W", "sound"),
        ("validation", "V", "sound"),
    ]
    facts = findings.verdicts[0].facts[sections["labeled"][0]["image"]]
    assert (facts.shape, facts.spacing, facts.orientation) == ((5, 4, 3), (1.0, 1.0, 1.0), "RAS")
    label = findings.verdicts[0].facts[sections["labeled"][0]["label"]]
    assert sum(label.values.values()) == 60


def test_the_exit_code_is_that_of_bad_input_unless_only_the_machine_is_at_fault(sections, monkeypatch):
    from semi_med.inference import byte_check

    assert found_in(sections).exit_code == 0
    monkeypatch.setattr(byte_check, "_ALWAYS_THERE", 10)
    monkeypatch.setattr(byte_check, "free_memory", lambda: 20)
    assert found_in(sections).exit_code == 3
    Path(sections["test"][0]["image"]).write_bytes(b"")
    assert found_in(sections).exit_code == 2


def test_the_structure_of_a_large_list_is_seen_within_seconds(tmp_path):
    count = 5000
    for folder in ("i", "l"):
        (tmp_path / folder).mkdir()
    for number in range(count):
        (tmp_path / f"i/{number}.nii.gz").write_bytes(b"x")
    (tmp_path / "l/0.nii.gz").write_bytes(b"x")
    listed = {"name": "x", "labels": {"0": "background", "1": "organ"}}
    listed["labeled"] = [{"image": "i/0.nii.gz", "label": "l/0.nii.gz"}]
    listed["unlabeled"] = [{"image": f"i/{number}.nii.gz"} for number in range(1, count)]
    listed["unlabeled"][17]["image"] = "i/none.nii.gz"
    (tmp_path / "list.json").write_text(json.dumps(listed))
    seen = []
    started = time.process_time()
    sections = load_data_list(tmp_path / "list.json").sections(tmp_path)
    findings = examine_sections(
        sections, labels=LABELS, options=Options(check="structure"), progress=lambda done, of: seen.append((done, of))
    )
    assert time.process_time() - started < 3  # 100,000 in a minute
    assert [problem.code for problem in findings.problems] == ["NOT_FOUND"]
    assert seen[-1] == (count, count)


@pytest.mark.parametrize("path", ["../a.nii.gz", "/etc/passwd", "x/../../a.nii.gz", "C:\\a.nii.gz", "..\\a.nii.gz"])
def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path, path):
    listed = {"name": "x", "labels": {"0": "b", "1": "o"}, "unlabeled": [{"image": path}]}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    with pytest.raises(ProblemsError) as caught:
        load_data_list(tmp_path / "list.json")
    assert [problem.code for problem in caught.value.problems] == ["PATH_ESCAPE"]


@pytest.mark.parametrize(
    "name", ["a b.nii.gz", "a'b\".nii.gz", "M\u00fcller.nii.gz", "\u5fc3.nii.gz", "x" * 248 + ".nii.gz"]
)
def test_unusual_names_work_from_the_list_to_the_verdict(tmp_path, name):
    scan(tmp_path / name, 1)
    scan(tmp_path / "l.nii.gz", 2, label=True)
    listed = {"name": "x", "labels": {"0": "b", "1": "o"}, "labeled": [{"image": name, "label": "l.nii.gz"}]}
    (tmp_path / "list.json").write_text(json.dumps(listed, ensure_ascii=False), encoding="utf-8")
    sections = load_data_list(tmp_path / "list.json").sections(tmp_path)
    findings = examine_sections(sections, labels=LABELS, sections_needed=("labeled",))
    assert (findings.problems, findings.verdicts[0].case) == ([], name.removesuffix(".nii.gz"))


def test_backslashes_of_another_system_are_separators(tmp_path):
    scan(tmp_path / "images" / "a.nii.gz", 1)
    listed = {"name": "x", "labels": {"0": "b", "1": "o"}, "unlabeled": [{"image": "images\\a.nii.gz"}]}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    sections = load_data_list(tmp_path / "list.json").sections(tmp_path)
    assert sections["unlabeled"][0]["image"] == str(tmp_path / "images/a.nii.gz")


def test_a_link_out_of_the_folder_is_refused_on_request_and_a_loop_always(tmp_path):
    outside = scan(tmp_path / "outside/a.nii.gz", 1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.nii.gz").symlink_to(outside)
    (tmp_path / "data/loop.nii.gz").symlink_to(tmp_path / "data/loop.nii.gz")
    listed = {"name": "x", "labels": {"0": "b", "1": "o"}}
    listed["unlabeled"] = [{"image": "a.nii.gz"}, {"image": "loop.nii.gz"}]
    (tmp_path / "list.json").write_text(json.dumps(listed))
    data_list = load_data_list(tmp_path / "list.json")
    with pytest.raises(ProblemsError) as caught:
        data_list.sections(tmp_path / "data", allow_outside=False)
    assert [problem.code for problem in caught.value.problems] == ["PATH_ESCAPE"]
    found = examine_sections(data_list.sections(tmp_path / "data"), labels=LABELS, sections_needed=("unlabeled",))
    assert [problem.code for problem in found.problems] == ["UNREADABLE"]


def test_a_device_is_refused_without_waiting(sections, tmp_path):
    (tmp_path / "zero.nii.gz").symlink_to("/dev/zero")
    sections["unlabeled"][0]["image"] = str(tmp_path / "zero.nii.gz")
    assert [problem.code for problem in found_in(sections).problems] == ["NOT_A_FILE"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_named(sections):
    Path(sections["unlabeled"][0]["image"]).chmod(0)
    assert [problem.code for problem in found_in(sections).problems] == ["UNREADABLE"]
