"""LA: preparation from synthetic trees of the challenge's layout and of a cropped copy."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from semi_med.data.data_list import load_data_list
from semi_med.datasets import la
from semi_med.datasets.boxes import crop_interval
from semi_med.datasets.la import MARGIN, prepare
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_image, read_label

SHAPE = (160, 150, 6)
# columns are the directions of i, j, k in LPS: i goes to the front, j to the right, k to the head
DIRECTION = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def save_nrrd(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    scan = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    scan.SetSpacing((0.5, 0.75, 2.0))
    scan.SetOrigin((10.0, -20.0, 30.0))
    scan.SetDirection(DIRECTION)
    sitk.WriteImage(scan, str(path), useCompression=True)


def atrium(value=255):
    array = np.zeros(SHAPE, np.uint8)
    array[60:80, 10:140, 2:4] = value  # 20 voxels along i, 130 along j
    return array


def scan(seed=0):
    return np.random.default_rng(seed).integers(0, 200, SHAPE).astype(np.uint8)


def challenge(root, name="CASE1", seed=0, label=True):
    save_nrrd(root / name / "lgemri.nrrd", scan(seed))
    if label:
        save_nrrd(root / name / "laendo.nrrd", atrium())


def cropped(root, name, value=1, affine=None, label=True):
    """A small cropped case; the seed is its name's length."""
    affine = np.diag([-0.5, 0.5, 2, 1]) if affine is None else affine
    image = np.random.default_rng(len(name)).integers(0, 255, (8, 7, 6)).astype(np.uint8)
    arrays = {"images": image, "labels": (image > 128).astype(np.uint8) * value}
    for folder, array in arrays.items() if label else [("images", image)]:
        (root / folder).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), root / folder / f"{name}.nii.gz")


def state(folder):
    return {p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


# ---- the crop ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "size", "expected"),
    [
        (200, 320, 576, (185, 335)),  # 120 voxels: only the margin
        (200, 211, 576, (135, 277)),  # 11 voxels lack 101: 50 before, 51 after, then 15 on each side
        (5, 130, 576, (0, 145)),  # the margin is lost at the border
        (0, 10, 300, (0, 112)),  # the least extent is not
        (290, 300, 300, (188, 300)),
        (3, 10, 80, (0, 80)),  # a scan smaller than the least extent is kept whole
    ],
)
def test_the_crop_is_the_label_enlarged_to_112_plus_15_on_each_side(low, high, size, expected):
    assert crop_interval(low, high, size, least=112, margin=MARGIN) == expected


# ---- the challenge's layout ----------------------------------------------------------------------------------------


def test_the_prepared_image_is_the_crop_of_the_normalised_whole(tmp_path):
    challenge(tmp_path / "source")
    prepare(tmp_path / "source", tmp_path / "target")
    whole = scan().astype(np.float64)
    expected = ((whole - whole.mean()) / whole.std())[0:141, 0:150]  # 60:80 lacks 92 and gains 15; 10:140 only gains 15
    found = read_image(tmp_path / "target/images/CASE1.nii.gz").array
    assert found.shape == (141, 150, 6)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_prepared_label_is_1_where_the_source_has_255(tmp_path):
    challenge(tmp_path / "source")
    prepare(tmp_path / "source", tmp_path / "target")
    stored = nib.load(tmp_path / "target/labels/CASE1.nii.gz")
    assert stored.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(stored.dataobj), atrium(1)[0:141, 0:150])


def test_the_crop_keeps_every_voxel_at_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(la, "LEAST", (16, 16))
    challenge(tmp_path / "source")
    prepare(tmp_path / "source", tmp_path / "target")
    # first voxel kept: 60 - 15 along i (to the front), 10 - 15 < 0 along j; LPS (10, -20 - 45 * 0.5, 30), in RAS:
    for folder in ("images", "labels"):
        affine = nib.load(tmp_path / "target" / folder / "CASE1.nii.gz").affine
        np.testing.assert_allclose(affine @ [0, 0, 0, 1], [-10, 42.5, 30, 1], atol=1e-5)
        np.testing.assert_allclose(affine[:3, :3], [[0, 0.75, 0], [0.5, 0, 0], [0, 0, 2]], atol=1e-6)


def test_cases_are_found_at_any_depth_with_unusual_names(tmp_path):
    challenge(tmp_path / "a source" / "Training Set", name="Fall Ü 1")
    challenge(tmp_path / "a source" / "Testing Set", name="T1", seed=1)
    done = prepare(tmp_path / "a source", tmp_path / "ein Ziel")
    assert done.cases == ("Fall Ü 1", "T1")
    assert (tmp_path / "ein Ziel/images/Fall Ü 1.nii.gz").is_file()


def test_a_case_without_a_label_is_kept_whole_and_reported(tmp_path):
    challenge(tmp_path / "source", label=False)
    done = prepare(tmp_path / "source", tmp_path / "target")
    assert done.without_label == ("CASE1",)
    assert "CASE1: no label: kept whole, not cropped" in done.summary()
    assert read_image(tmp_path / "target/images/CASE1.nii.gz").array.shape == SHAPE
    assert not list((tmp_path / "target/labels").iterdir())


def test_a_label_without_an_image_and_a_case_twice_are_refused(tmp_path):
    challenge(tmp_path / "source" / "a")
    challenge(tmp_path / "source" / "b")
    save_nrrd(tmp_path / "source/C/laendo.nrrd", atrium())
    with pytest.raises(ProblemsError) as caught:
        prepare(tmp_path / "source", tmp_path / "target")
    assert [problem.code for problem in caught.value.problems] == ["NO_IMAGE", "DUPLICATE"]


def test_faulty_cases_are_all_named_and_the_others_written(tmp_path):
    for seed, name in enumerate(["A", "B", "C", "D", "E"]):
        challenge(tmp_path / "source", name=name, seed=seed)
    save_nrrd(tmp_path / "source/B/laendo.nrrd", atrium(7))
    save_nrrd(tmp_path / "source/C/laendo.nrrd", atrium(0))
    save_nrrd(tmp_path / "source/D/laendo.nrrd", atrium()[:-1])
    save_nrrd(tmp_path / "source/E/lgemri.nrrd", np.full(SHAPE, 3, np.uint8))
    with pytest.raises(ProblemsError) as caught:
        prepare(tmp_path / "source", tmp_path / "target")
    assert [(Path(p.where).parent.name, p.problem.split(",")[0]) for p in caught.value.problems] == [
        ("B", "a label of 0 and 255"),
        ("C", "the label is empty"),
        ("D", "its shape is 159 x 150 x 6"),
        ("E", "every voxel has the same value"),
    ]
    assert [path.name for path in (tmp_path / "target/images").iterdir()] == ["A.nii.gz"]


def test_the_same_source_gives_the_same_bytes(tmp_path):
    challenge(tmp_path / "source")
    for target in ("one", "two"):
        prepare(tmp_path / "source", tmp_path / target)
    for file in ("images/CASE1.nii.gz", "labels/CASE1.nii.gz"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


# ---- a folder that is cropped already ------------------------------------------------------------------------------


def test_cropped_images_are_copied_as_they_are(tmp_path):
    cropped(tmp_path / "source", "A")
    prepare(tmp_path / "source", tmp_path / "target")
    file = "images/A.nii.gz"
    assert (tmp_path / "target" / file).read_bytes() == (tmp_path / "source" / file).read_bytes()


def test_cropped_labels_are_written_as_0_and_1(tmp_path):
    cropped(tmp_path / "source", "A", value=255)
    prepare(tmp_path / "source", tmp_path / "target")
    source, target = (read_label(tmp_path / folder / "labels/A.nii.gz") for folder in ("source", "target"))
    np.testing.assert_array_equal(target.array, source.array // 255)
    np.testing.assert_array_equal(target.affine, source.affine)


def test_a_cropped_label_on_another_grid_is_refused(tmp_path):
    cropped(tmp_path / "source", "A")
    moved = nib.load(tmp_path / "source/labels/A.nii.gz")
    nib.save(
        nib.Nifti1Image(np.asarray(moved.dataobj), np.diag([-0.5, 0.5, 3, 1])), tmp_path / "source/labels/A.nii.gz"
    )
    with pytest.raises(ProblemsError, match="although the shapes are equal"):
        prepare(tmp_path / "source", tmp_path / "target")


def test_nothing_in_a_cropped_folder_is_skipped_silently(tmp_path):
    cropped(tmp_path / "source", "A")
    cropped(tmp_path / "source", "B", label=False)
    (tmp_path / "source/images/notes.txt").touch()
    (tmp_path / "source/labels/C.nii.gz").touch()
    with pytest.raises(ProblemsError) as caught:
        prepare(tmp_path / "source", tmp_path / "target")
    assert [Path(problem.where).name for problem in caught.value.problems] == ["notes.txt", "C.nii.gz"]


def test_a_folder_of_neither_layout_is_refused_with_both_named(tmp_path):
    with pytest.raises(InputError, match=r"lgemri.nrrd nor a folder images/"):
        prepare(tmp_path, tmp_path / "target")
    assert not (tmp_path / "target").exists()


# ---- the target ----------------------------------------------------------------------------------------------------


def test_a_finished_target_is_left_as_it_is(tmp_path):
    cropped(tmp_path / "source", "A")
    prepare(tmp_path / "source", tmp_path / "target")
    before = state(tmp_path / "target" / "images")
    done = prepare(tmp_path / "source", tmp_path / "target")
    assert (done.written, done.kept) == ((), ("A",))
    assert state(tmp_path / "target" / "images") == before


def test_an_interrupted_preparation_goes_on(tmp_path, monkeypatch):
    for name in ("A", "BB", "CCC"):
        cropped(tmp_path / "source", name)

    def interrupt(done, _):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "source", tmp_path / "target", progress=interrupt, workers=1)
    (tmp_path / "target/images/.semi_med_x.tmp").write_bytes(b"half")
    done = prepare(tmp_path / "source", tmp_path / "target")
    assert set(done.kept) >= {"A", "BB"}
    assert sorted(p.name for p in (tmp_path / "target/images").iterdir()) == ["A.nii.gz", "BB.nii.gz", "CCC.nii.gz"]


def test_a_file_that_was_written_without_its_record_is_made_again(tmp_path):
    cropped(tmp_path / "source", "A")
    prepare(tmp_path / "source", tmp_path / "target")
    record = json.loads((tmp_path / "target/dataset.json").read_text())
    record["cases"]["A"] = None  # as after a kill between the two
    (tmp_path / "target/dataset.json").write_text(json.dumps(record))
    (tmp_path / "target/labels/A.nii.gz").unlink()
    assert prepare(tmp_path / "source", tmp_path / "target").written == ("A",)
    assert (tmp_path / "target/labels/A.nii.gz").is_file()


def test_cases_that_were_added_to_the_source_are_added(tmp_path):
    cropped(tmp_path / "source", "A")
    prepare(tmp_path / "source", tmp_path / "target")
    cropped(tmp_path / "source", "BB")
    done = prepare(tmp_path / "source", tmp_path / "target")
    assert (done.written, done.kept) == (("BB",), ("A",))


def test_a_folder_with_other_content_is_refused_untouched(tmp_path):
    cropped(tmp_path / "source", "A")
    (tmp_path / "target").mkdir()
    (tmp_path / "target/thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not empty") as caught:
        prepare(tmp_path / "source", tmp_path / "target")
    assert caught.value.code == "TARGET"
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["thesis.txt"]


def test_a_target_made_from_other_cases_is_refused(tmp_path):
    cropped(tmp_path / "source", "A")
    cropped(tmp_path / "other", "B")
    prepare(tmp_path / "source", tmp_path / "target")
    with pytest.raises(InputError, match="1 cases that the source does not have: A"):
        prepare(tmp_path / "other", tmp_path / "target")


def test_a_target_made_from_a_case_of_the_same_name_but_other_content_is_refused(tmp_path):
    cropped(tmp_path / "source", "A")
    cropped(tmp_path / "other", "A", value=255)
    prepare(tmp_path / "source", tmp_path / "target")
    before = state(tmp_path / "target" / "labels")
    with pytest.raises(ProblemsError, match="prepared from other files"):
        prepare(tmp_path / "other", tmp_path / "target")
    assert state(tmp_path / "target" / "labels") == before


def test_a_prepared_file_that_was_changed_is_not_overwritten(tmp_path):
    cropped(tmp_path / "source", "A")
    prepare(tmp_path / "source", tmp_path / "target")
    (tmp_path / "target/labels/A.nii.gz").write_bytes(b"corrected by hand")
    with pytest.raises(ProblemsError, match="changed afterwards"):
        prepare(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target/labels/A.nii.gz").read_bytes() == b"corrected by hand"


def test_the_source_is_no_target(tmp_path):
    cropped(tmp_path, "A")
    with pytest.raises(InputError, match="the same folder"):
        prepare(tmp_path, tmp_path)


# ---- lists ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A source with every scan of a small published split: 20 for training, 2 for the test."""
    train, test = tuple(f"P{n:02d}" for n in range(20)), ("T1", "T2")
    monkeypatch.setattr(la, "TRAIN", train)
    monkeypatch.setattr(la, "TEST", test)
    monkeypatch.setattr(la.build_lists, "__defaults__", (train, test))
    for name in (*train, *test):
        cropped(tmp_path / "source", name)
    return tmp_path / "source"


def test_lists_are_written_when_the_published_scans_are_there(published, tmp_path):
    done = prepare(published, tmp_path / "target")
    assert len(done.lists) == 13
    counts = load_data_list(tmp_path / "target/labeled_08.json").counts()
    assert counts == {"labeled": 8, "unlabeled": 8, "validation": 4, "test": 2}


def test_every_path_of_a_written_list_is_there(published, tmp_path):
    prepare(published, tmp_path / "target")
    sections = load_data_list(tmp_path / "target/labeled_04.json").sections(tmp_path / "target", monitor=True)
    files = [
        item[key] for items in sections.values() for item in items for key in item if key not in ("case", "subject")
    ]
    assert len(files) == 44
    assert all(Path(file).is_file() for file in files)


def test_lists_are_written_without_the_test_scans_which_is_said(published, tmp_path):
    for folder in ("images", "labels"):
        (published / folder / "T1.nii.gz").unlink()
    done = prepare(published, tmp_path / "target")
    assert len(done.lists) == 13
    assert "1 of the 2 test scans are not there" in done.summary()


def test_no_list_is_written_when_a_training_scan_is_missing(published, tmp_path):
    for folder in ("images", "labels"):
        (published / folder / "P03.nii.gz").unlink()
    done = prepare(published, tmp_path / "target")
    assert done.lists == ()
    assert "so no data list is written: P03" in done.summary()
    assert not (tmp_path / "target/labeled_04.json").exists()


def test_a_list_that_was_edited_is_kept(published, tmp_path):
    prepare(published, tmp_path / "target")
    (tmp_path / "target/labeled_04.json").write_text("{}")
    done = prepare(published, tmp_path / "target")
    assert (tmp_path / "target/labeled_04.json").read_text() == "{}"
    assert "labeled_04.json was there, differs" in done.summary()


@pytest.mark.real_data
def test_the_real_cropped_folder_is_prepared_whole(tmp_path):
    root = os.environ.get("SEMI_MED_REAL_DATA")
    if not root:
        pytest.skip("SEMI_MED_REAL_DATA is not set")
    done = prepare(Path(root) / "left_atrium", tmp_path / "target")
    assert (len(done.cases), len(done.lists), done.without_label) == (80, 13, ())
