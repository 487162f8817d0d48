"""BraTS 2019: folders of high and low grade with four modalities each."""

import nibabel as nib
import numpy as np
import pytest

from semi_med.datasets import brats2019
from semi_med.datasets.brats2019 import prepare
from semi_med.datasets.record import read_record
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_image, read_label

SHAPE = (12, 14, 10)
BRAIN = (slice(2, 9), slice(3, 12), slice(1, 8))
AFFINE = np.array(
    [[-1.0, 0, 0, 0], [0, -1.0, 0, 239], [0, 0, 1.0, 0], [0, 0, 0, 1]]
)  # as the challenge's files have it


def volume(offset):
    image = np.zeros(SHAPE, np.int16)
    image[BRAIN] = np.arange(7 * 9 * 7).reshape(7, 9, 7) + offset
    return image


def tumour():
    label = np.zeros(SHAPE, np.uint8)
    label[3:6, 4:7, 2:5] = 2
    label[4:6, 5:7, 3:5] = 1
    label[4, 5, 3] = 4
    return label


def case(root, name="CBICA_AAP_1", grade="HGG", *, without=(), label=None):
    folder = root / f"MICCAI_BraTS_2019_Data_Training/{grade}/BraTS19_{name}"
    folder.mkdir(parents=True)
    for offset, what in enumerate(("flair", "t1", "t1ce", "t2"), 1):
        if what not in without:
            nib.save(nib.Nifti1Image(volume(100 * offset), AFFINE), folder / f"BraTS19_{name}_{what}.nii.gz")
    if "seg" not in without:
        seg = nib.Nifti1Image(tumour() if label is None else label, AFFINE)
        nib.save(seg, folder / f"BraTS19_{name}_seg.nii.gz")


def test_flair_and_whole_tumour_are_cropped_to_the_brain_at_their_place(tmp_path):
    case(tmp_path / "source")
    prepare(tmp_path / "source", tmp_path / "target")
    name = "BraTS19_CBICA_AAP_1.nii.gz"
    image, label = read_image(tmp_path / "target/images" / name), read_label(tmp_path / "target/labels" / name)
    np.testing.assert_array_equal(image.array, volume(100)[BRAIN])
    np.testing.assert_array_equal(label.array, tumour()[BRAIN] > 0)
    np.testing.assert_array_equal(image.affine @ [0, 0, 0, 1], AFFINE @ [2, 3, 1, 1])
    np.testing.assert_array_equal(label.affine, image.affine)


def test_intensities_are_stored_as_they_are(tmp_path):
    case(tmp_path / "source")
    prepare(tmp_path / "source", tmp_path / "target")
    assert nib.load(tmp_path / "target/images/BraTS19_CBICA_AAP_1.nii.gz").get_data_dtype() == np.int16


def test_regions_are_four_channels_in_their_order_and_4_becomes_3(tmp_path):
    case(tmp_path / "source")
    done = prepare(tmp_path / "source", tmp_path / "target", variant="regions")
    files = done.entries["BraTS19_CBICA_AAP_1"].image
    assert [int(read_image(tmp_path / "target" / file).array.max()) - 440 for file in files] == [100, 200, 300, 400]
    label = read_label(tmp_path / "target/labels/BraTS19_CBICA_AAP_1.nii.gz").array
    np.testing.assert_array_equal(label, np.where(tumour() == 4, 3, tumour())[BRAIN])
    assert read_record(tmp_path / "target")["about"]["modality"]["2"] == "T1 with contrast agent"


def test_grades_are_groups(tmp_path):
    case(tmp_path / "source", "A_1", "HGG")
    case(tmp_path / "source", "B_1", "LGG")
    done = prepare(tmp_path / "source", tmp_path / "target")
    assert {name: entry.group for name, entry in done.entries.items()} == {"BraTS19_A_1": "HGG", "BraTS19_B_1": "LGG"}


def test_only_the_modalities_of_the_variant_are_needed(tmp_path):
    case(tmp_path / "source", without=("t1", "t2"))
    assert len(prepare(tmp_path / "source", tmp_path / "one").cases) == 1
    with pytest.raises(ProblemsError) as caught:
        prepare(tmp_path / "source", tmp_path / "two", variant="regions")
    assert [problem.problem for problem in caught.value.problems] == [
        "the modality t1 of BraTS19_CBICA_AAP_1 is missing",
        "the modality t2 of BraTS19_CBICA_AAP_1 is missing",
    ]


def test_a_case_without_a_label_is_kept_and_reported(tmp_path):
    case(tmp_path / "source", without=("seg",))
    done = prepare(tmp_path / "source", tmp_path / "target")
    assert done.without_label == ("BraTS19_CBICA_AAP_1",)


def test_a_label_of_another_edition_is_refused(tmp_path):
    case(tmp_path / "source", label=np.where(tumour() == 4, 3, tumour()).astype(np.uint8))
    with pytest.raises(ProblemsError, match=r"0, 1, 2 and 4 was wanted, this has \[0, 1, 2, 3\]"):
        prepare(tmp_path / "source", tmp_path / "target")


def test_a_modality_on_another_grid_is_refused(tmp_path):
    case(tmp_path / "source")
    (path,) = (tmp_path / "source").rglob("*_t2.nii.gz")
    nib.save(nib.Nifti1Image(volume(400), np.diag([-1.0, -1.0, 2.0, 1.0])), path)
    with pytest.raises(ProblemsError, match="although the shapes are equal"):
        prepare(tmp_path / "source", tmp_path / "target", variant="regions")


def test_a_modality_that_is_cut_off_is_refused(tmp_path):
    case(tmp_path / "source")
    (path,) = (tmp_path / "source").rglob("*_t1ce.nii.gz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ProblemsError) as caught:
        prepare(tmp_path / "source", tmp_path / "target", variant="regions")
    assert [(str(error.where), error.code) for error in caught.value.problems] == [(str(path), "TRUNCATED")]


def test_the_two_variants_are_two_data_sets(tmp_path):
    case(tmp_path / "source")
    prepare(tmp_path / "source", tmp_path / "target")
    with pytest.raises(InputError, match="another recipe"):
        prepare(tmp_path / "source", tmp_path / "target", variant="regions")
    with pytest.raises(InputError, match="flair or regions, not 't1'"):
        prepare(tmp_path / "source", tmp_path / "target", variant="t1")


def test_another_folder_is_refused_with_the_layout_named(tmp_path):
    with pytest.raises(InputError, match=r"BraTS19_<id>_flair.nii.gz was not found"):
        prepare(tmp_path, tmp_path / "target")


def test_lists_are_written_when_their_cases_are_there(tmp_path, monkeypatch):
    for names, section in ((("A_1", "B_1"), "TRAIN"), (("C_1",), "VALIDATION"), (("D_1",), "TEST")):
        monkeypatch.setattr(brats2019, section, names)
    monkeypatch.setattr(brats2019, "LABELED", (1,))
    for name in ("A_1", "B_1", "C_1"):
        case(tmp_path / "source", name)
    done = prepare(tmp_path / "source", tmp_path / "target", variant="regions")
    assert [path.name for path in done.lists] == ["labeled_01.json", "all_labeled.json"]
    assert "1 of the 1 test cases are not there" in done.summary()
