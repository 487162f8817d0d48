"""Which files of a folder are scans, and which are their labels."""

from pathlib import Path

import numpy as np
import pytest

from semi_med.data.folders import find_cases
from semi_med.data.validation import Options, examine_cases
from semi_med.errors import InputError
from semi_med.inference.io import write_label


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def pairs(folder: Path) -> dict[str, tuple]:
    """Case to file names of its image and label."""

    def short(value):
        if value is None or isinstance(value, list):
            return value and [short(file) for file in value]
        return Path(value).relative_to(folder).as_posix()

    return {item["case"]: (short(item["image"]), short(item.get("label"))) for item in find_cases(folder).items}


def test_images_and_labels_of_equal_names(tmp_path):
    touch(tmp_path, "images/a.nii.gz", "images/b.nii.gz", "labels/a.nii.gz", "dataset.json")
    assert pairs(tmp_path) == {
        "a": ("images/a.nii.gz", "labels/a.nii.gz"),
        "b": ("images/b.nii.gz", None),
    }


def test_decathlon_folders_and_their_test_images(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTs/c.nii.gz", "imagesTr/._a.nii.gz")
    assert pairs(tmp_path) == {"a": ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz"), "c": ("imagesTs/c.nii.gz", None)}


def test_channels_in_files_of_their_own(tmp_path):
    touch(tmp_path, *(f"imagesTr/a_000{n}.nii.gz" for n in range(3)), "labelsTr/a.nii.gz", "imagesTr/x_2001.nii.gz")
    assert pairs(tmp_path) == {
        "a": ([f"imagesTr/a_000{n}.nii.gz" for n in range(3)], "labelsTr/a.nii.gz"),
        "x_2001": ("imagesTr/x_2001.nii.gz", None),
    }


@pytest.mark.parametrize(
    ("image", "label", "case"),
    [
        ("a_image.nii.gz", "a_label.nii.gz", "a"),
        ("a_1.tif", "a_1_mask.tif", "a_1"),
        ("Image_01L.jpg", "Image_01L_1stHO.png", "Image_01L"),
        ("brain-image.nrrd", "brain-label.nrrd", "brain"),
        ("p1_frame01.nii.gz", "p1_frame01_gt.nii.gz", "p1_frame01"),
        ("ISIC_1.jpg", "ISIC_1_segmentation.png", "ISIC_1"),
    ],
)
def test_images_and_labels_side_by_side(tmp_path, image, label, case):
    touch(tmp_path, f"x/{image}", f"x/{label}")
    assert pairs(tmp_path) == {case: (f"x/{image}", f"x/{label}")}


def test_a_label_without_its_image_is_told_or_taken_as_a_scan(tmp_path):
    touch(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", "labels/z.nii.gz", "other/q_label.nii.gz")
    found = find_cases(tmp_path)
    assert found.notes == ("1 labels have no image of their name: z.nii.gz",)
    assert [item["case"] for item in found.items] == ["a", "q_label"]


def test_cases_of_one_name_are_told_apart_by_their_folder(tmp_path):
    touch(tmp_path, "p1/t1.nii.gz", "p2/t1.nii.gz")
    assert sorted(pairs(tmp_path)) == ["p1/t1.nii.gz", "p2/t1.nii.gz"]


def test_other_files_are_counted_and_payloads_and_hidden_files_are_not(tmp_path):
    touch(tmp_path, "a.mhd", "a.raw", "notes.txt", "more.txt", "table.csv", ".DS_Store", ".git/x.nii.gz")
    found = find_cases(tmp_path)
    assert found.ignored == {".txt": 2, ".csv": 1}
    assert [item["case"] for item in found.items] == ["a"]


@pytest.mark.parametrize(("name", "code"), [("none", "NOT_FOUND"), ("file", "NOT_A_FOLDER"), ("empty", "NO_SCANS")])
def test_what_holds_no_scan_is_refused(tmp_path, name, code):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path / name)
    assert caught.value.code == code


def write(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    write_label(path, array.astype(np.uint8), affine=np.eye(4) if affine is None else affine)


def test_a_255_among_other_classes_may_mean_that_nothing_is_known(tmp_path):
    write(tmp_path / "images/a.nii.gz", np.arange(120).reshape(4, 5, 6))
    write(tmp_path / "labels/a.nii.gz", np.array([0, 1, 255] * 40).reshape(4, 5, 6))
    (note,) = examine_cases(find_cases(tmp_path).items).notes
    assert "--map-labels 255=2`; or, if nothing is known at 255, the list says so" in note


def test_a_folder_is_examined_with_pairs_copies_and_class_numbers(tmp_path):
    random = np.random.default_rng(0)
    first = random.integers(0, 200, (4, 5, 6))
    write(tmp_path / "images/a.nii.gz", first)
    write(tmp_path / "images/b.nii.gz", random.integers(0, 200, (4, 5, 6)))
    write(tmp_path / "images/copy.nii", first)
    write(tmp_path / "labels/a.nii.gz", (first > 100) * 255)
    write(tmp_path / "labels/b.nii.gz", (first > 100) * 1, np.diag([1.0, 1, 3, 1]))
    findings = examine_cases(find_cases(tmp_path).items, options=Options(workers=1))
    assert [(problem.code, Path(str(problem.where)).name) for problem in findings.problems] == [
        ("GEOMETRY", "b.nii.gz"),
        ("DUPLICATE", "copy.nii"),
    ]
    assert [note for note in findings.notes if "LABEL_NUMBERS" in note] == [
        "case a: LABEL_NUMBERS: the values are 0, 255; a data list counts classes 0, 1, 2, ...: "
        "`semi-med convert LABELS OUTPUT --label --map-labels 255=1`"
    ]
    assert findings.cases == {"scans": 3}


def test_an_image_given_as_a_label_is_refused(tmp_path):
    random = np.random.default_rng(0)
    write_label(tmp_path / "images/a.nii", random.integers(0, 999, (9, 9, 9)).astype(np.uint16), affine=np.eye(4))
    write_label(tmp_path / "labels/a.nii", random.integers(0, 999, (9, 9, 9)).astype(np.uint16), affine=np.eye(4))
    (problem,) = examine_cases(find_cases(tmp_path).items).problems
    assert problem.code == "LABEL_VALUES"
    assert "different values are no classes" in problem.problem
