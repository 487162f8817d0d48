"""CAMUS: both editions as ITK writes them, sizes and spacings that differ, splits by patient."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from semi_med.data.data_list import SECTIONS, load_data_list
from semi_med.datasets import camus
from semi_med.datasets.record import planned
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_image, read_label

LISTS = Path(__file__).parents[2] / "data_lists"
SHAPE = (9, 12)  # columns, rows
SPACING = (0.31, 0.15)


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, SHAPE).astype(np.uint8)


def label(highest=3):
    made = np.zeros(SHAPE, np.uint8)
    made[2:4, 1:9], made[5, 2:4], made[7:, 6:] = 1, 2, highest
    return made


def save(path, array):
    """MetaImage has a third axis of length 1, NIfTI two axes, as the editions do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = np.ascontiguousarray(array.T)
    image = sitk.GetImageFromArray(flat[np.newaxis] if path.suffix == ".mhd" else flat)
    image.SetSpacing((*SPACING, 1.5) if path.suffix == ".mhd" else SPACING)
    sitk.WriteImage(image, str(path))


def patient(root, number=1, suffix=".nii.gz", views=camus.VIEWS, with_label=True):
    name = f"patient{number:04d}"
    for seed, view in enumerate(views):
        save(root / name / f"{name}_{view}{suffix}", picture(seed))
        if with_label:
            save(root / name / f"{name}_{view}_gt{suffix}", label())
    for chambers in ("2CH", "4CH"):
        text = "ED: 1\nES: 18\nNbFrame: 18\nSex: F\nAge: 56\nImageQuality: Good\nEF: 48\n"
        (root / name / f"Info_{chambers}.cfg").write_text(text)
    return root


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("suffix", [".mhd", ".nii.gz"])
def test_both_editions_give_the_same_pixels_labels_and_spacing(tmp_path, suffix):
    patient(tmp_path / "source/training", suffix=suffix)
    done = camus.prepare(tmp_path / "source", tmp_path / "target")
    assert done.cases == tuple(f"patient0001_{view}" for view in camus.VIEWS)
    image = read_image(tmp_path / "target/images/patient0001_2CH_ES.nii.gz")
    np.testing.assert_array_equal(image.array[:, :, 0], picture(1))
    assert image.spacing[:2] == pytest.approx(SPACING)
    np.testing.assert_array_equal(
        read_label(tmp_path / "target/labels/patient0001_2CH_ES.nii.gz").array[:, :, 0], label()
    )


def test_the_files_are_those_that_the_committed_lists_name(tmp_path):
    patient(tmp_path / "source")
    done = camus.prepare(tmp_path / "source", tmp_path / "target")
    committed = load_data_list(LISTS / "camus/all_labeled.json")
    cases = {case for section in SECTIONS for case in getattr(committed, section) if case.subject == "patient0001"}
    assert {case.listed() for case in done.entries.values()} == cases


def test_image_and_label_lie_at_the_same_place(tmp_path):
    patient(tmp_path / "source")
    camus.prepare(tmp_path / "source", tmp_path / "target")
    one, other = (nib.load(tmp_path / f"target/{kind}/patient0001_4CH_ED.nii.gz") for kind in ("images", "labels"))
    np.testing.assert_array_equal(one.affine, other.affine)


def test_sequences_are_not_used(tmp_path):
    patient(tmp_path / "source")
    for name in ("half_sequence", "half_sequence_gt"):
        save(tmp_path / f"source/patient0001/patient0001_2CH_{name}.nii.gz", picture())
    assert len(camus.prepare(tmp_path / "source", tmp_path / "target").cases) == 4


def test_the_record_has_patient_view_and_quality_but_neither_sex_nor_age(tmp_path):
    patient(tmp_path / "source")
    case = camus.prepare(tmp_path / "source", tmp_path / "target").entries["patient0001_4CH_ES"]
    assert (case.subject, case.group) == ("patient0001", "4CH_ES")
    assert case.details == {"quality": "Good", "ejection_fraction": 48.0}


def test_the_pixels_of_a_meta_image_count_for_its_checksum(tmp_path):
    patient(tmp_path / "source", suffix=".mhd")
    camus.prepare(tmp_path / "source", tmp_path / "target")
    raw = tmp_path / "source/patient0001/patient0001_2CH_ED.raw"
    raw.write_bytes(bytes(len(raw.read_bytes())))
    with pytest.raises(ProblemsError, match="prepared from other files"):
        camus.prepare(tmp_path / "source", tmp_path / "target")


def test_resizing_keeps_the_extent_in_mm_and_the_classes(tmp_path):
    patient(tmp_path / "source")
    camus.prepare(tmp_path / "source", tmp_path / "target", size=6)
    scan = read_image(tmp_path / "target/images/patient0001_2CH_ED.nii.gz")
    assert scan.array.shape == (6, 6, 1)
    assert np.multiply(scan.spacing[:2], 6) == pytest.approx(np.multiply(SPACING, SHAPE))
    found = read_label(tmp_path / "target/labels/patient0001_2CH_ED.nii.gz").array
    assert set(np.unique(found)) <= {0, 1, 2, 3}
    assert found.any()


def test_the_same_source_gives_the_same_bytes(tmp_path):
    patient(tmp_path / "source")
    for name in ("one", "two"):
        camus.prepare(tmp_path / "source", tmp_path / name, size=7)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_fourth_class_is_refused_with_its_file(tmp_path):
    patient(tmp_path / "source")
    save(tmp_path / "source/patient0001/patient0001_2CH_ED_gt.nii.gz", label(highest=4))
    with pytest.raises(ProblemsError, match=r"2CH_ED_gt.nii.gz: a label of 0 to 3 was wanted, this has 0, 1, 2, 4"):
        camus.prepare(tmp_path / "source", tmp_path / "target")


def test_a_label_of_another_size_is_refused(tmp_path):
    patient(tmp_path / "source")
    save(tmp_path / "source/patient0001/patient0001_2CH_ED_gt.nii.gz", label()[:-1])
    with pytest.raises(ProblemsError, match="its shape is 8 x 12 x 1"):
        camus.prepare(tmp_path / "source", tmp_path / "target")


def test_a_meta_image_without_its_pixels_is_refused(tmp_path):
    patient(tmp_path / "source", suffix=".mhd")
    (tmp_path / "source/patient0001/patient0001_4CH_ED.raw").unlink()
    with pytest.raises(ProblemsError, match=r"patient0001_4CH_ED\.(raw|mhd)"):
        camus.prepare(tmp_path / "source", tmp_path / "target")


@pytest.mark.parametrize("kind", ["", "_gt"])
def test_a_picture_that_is_cut_off_is_refused(tmp_path, kind):
    patient(tmp_path / "source")
    path = tmp_path / f"source/patient0001/patient0001_4CH_ES{kind}.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ProblemsError) as caught:
        camus.prepare(tmp_path / "source", tmp_path / "target")
    assert [(str(error.where), error.code) for error in caught.value.problems] == [(str(path), "TRUNCATED")]


def test_two_editions_in_one_folder_are_refused(tmp_path):
    patient(tmp_path / "source/a", number=1, suffix=".mhd")
    patient(tmp_path / "source/b", number=2, suffix=".nii.gz")
    with pytest.raises(InputError, match="both editions"):
        camus.prepare(tmp_path / "source", tmp_path / "target")


def test_a_label_without_its_image_is_refused(tmp_path):
    patient(tmp_path / "source")
    (tmp_path / "source/patient0001/patient0001_2CH_ED.nii.gz").unlink()
    with pytest.raises(InputError, match="1 labels have no image: patient0001_2CH_ED"):
        camus.prepare(tmp_path / "source", tmp_path / "target")


def test_pictures_of_the_hidden_test_have_no_label_and_are_in_no_list(tmp_path):
    patient(tmp_path / "source/testing", number=451, suffix=".mhd", with_label=False)
    done = camus.prepare(tmp_path / "source", tmp_path / "target")
    assert (len(done.without_label), done.lists) == (4, ())
    assert "450 of the challenge's 450 patients are not whole" in done.summary()


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(InputError, match="was not found here") as caught:
        camus.prepare(tmp_path / "source", tmp_path / "target")
    assert caught.value.code == "LAYOUT"


# ---- splits --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lists():
    cases = {}
    for name in camus.CHALLENGE_PATIENTS:
        cases |= {f"{name}_{view}": planned(f"{name}_{view}", subject=name) for view in camus.VIEWS}
    return camus.build_lists(cases)


def test_the_lists_have_fixmatchsegs_numbers_of_pictures(lists):
    for count in (4, 8, 16, 32, 64, 100):
        expected = {"labeled": count, "unlabeled": 1000 - count, "validation": 400, "test": 400}
        assert lists[f"labeled_{count:03d}_seed2"].counts() == expected
    assert lists["all_labeled"].counts()["labeled"] == 1000
    assert len(lists) == 19


def test_no_patient_is_in_two_sections(lists):
    for each in lists.values():
        parts = [{case.subject for case in getattr(each, section)} for section in SECTIONS]
        assert len(set.union(*parts)) == sum(len(part) for part in parts) == 450


def test_every_list_has_the_same_validation_and_test(lists):
    assert len({tuple(case.image for case in (*each.validation, *each.test)) for each in lists.values()}) == 1


def test_the_official_split_is_used_as_it_is_written(tmp_path):
    for number in (1, 2, 3, 4):
        patient(tmp_path / "source/database_nifti", number=number)
    split = {"training": ["patient0004", "patient0001"], "validation": ["patient0002"], "testing": ["patient0003"]}
    (tmp_path / "source/database_split").mkdir()
    for part, names in split.items():
        (tmp_path / f"source/database_split/subgroup_{part}.txt").write_text("\n".join(names) + "\n")
    done = camus.prepare(tmp_path / "source", tmp_path / "target")
    each = load_data_list(tmp_path / "target/official_labeled_004_seed1.json")
    assert each.counts() == {"labeled": 4, "unlabeled": 4, "validation": 4, "test": 4}
    assert {case.subject for case in each.test} == {"patient0003"}
    assert done.entries["patient0002_2CH_ED"].split == "validation"


def test_a_split_with_a_patient_twice_is_refused(tmp_path):
    patient(tmp_path / "source")
    for part in ("training", "validation", "testing"):
        (tmp_path / f"source/subgroup_{part}.txt").write_text("patient0001\n")
    with pytest.raises(InputError, match="one that is repeated"):
        camus.prepare(tmp_path / "source", tmp_path / "target")


def test_a_split_without_one_of_its_parts_is_refused(tmp_path):
    patient(tmp_path / "source")
    (tmp_path / "source/subGroup3_training.txt").write_text("patient0001\n")
    (tmp_path / "source/subGroup3_testing.txt").write_text("patient0002\n")
    with pytest.raises(InputError, match=r"subgroup3_validation.txt: this part of a published split is missing"):
        camus.prepare(tmp_path / "source", tmp_path / "target")


def test_a_patient_with_three_pictures_is_named(tmp_path):
    patient(tmp_path / "source", views=camus.VIEWS[:3])
    done = camus.prepare(tmp_path / "source", tmp_path / "target")
    assert "1 patients have not all four pictures with labels: patient0001" in done.summary()


def test_lists_do_not_depend_on_the_order_of_cases():
    cases = {}
    for name in reversed(camus.CHALLENGE_PATIENTS):
        cases |= {f"{name}_{view}": replace(planned(f"{name}_{view}"), subject=name) for view in camus.VIEWS}
    labeled = camus.build_lists(cases)["labeled_004_seed1"].labeled
    forward = {k: cases[k] for k in sorted(cases)}
    assert {c.image for c in labeled} == {c.image for c in camus.build_lists(forward)["labeled_004_seed1"].labeled}


def test_the_recipe_names_the_edition(tmp_path):
    patient(tmp_path / "source", suffix=".mhd")
    camus.prepare(tmp_path / "source", tmp_path / "target")
    recipe = json.loads((tmp_path / "target/dataset.json").read_text())["recipe"]
    assert recipe == {"edition": "mhd", "size": None}
