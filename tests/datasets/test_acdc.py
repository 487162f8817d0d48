"""ACDC: two frames of each patient, named by Info.cfg."""

import nibabel as nib
import numpy as np
import pytest

from semi_med.data.data_list import load_data_list
from semi_med.datasets import acdc
from semi_med.datasets.acdc import build_lists, prepare
from semi_med.datasets.acdc_ids import SLICES, TRAIN
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_image, read_label

AFFINE = np.diag([-1.5, -1.5, 10.0, 1.0])


def frame(seed, slices=3):
    return np.random.default_rng(seed).integers(10, 250, (6, 5, slices)).astype(np.int16)


def patient(root, number=1, *, ed=1, es=12, slices=3, part="training", label=None):
    folder = root / f"{part}/patient{number:03d}"
    folder.mkdir(parents=True)
    text = f"ED: {ed}\nES: {es}\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"
    (folder / "Info.cfg").write_text(text)
    for position in (ed, es):
        image = frame(number * 100 + position, slices)
        stem = folder / f"patient{number:03d}_frame{position:02d}"
        nib.save(nib.Nifti1Image(image, AFFINE), f"{stem}.nii.gz")
        drawn = (image > 60).astype(np.uint8) + (image > 120) + (image > 200) if label is None else label
        nib.save(nib.Nifti1Image(drawn.astype(np.uint8), AFFINE), f"{stem}_gt.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((6, 5, slices, 2), np.int16), AFFINE), folder / f"patient{number:03d}_4d.nii.gz")


def test_phases_are_those_that_info_cfg_names_not_the_order_of_frames(tmp_path):
    patient(tmp_path / "source", 90, ed=11, es=4)
    done = prepare(tmp_path / "source", tmp_path / "target")
    raw = frame(9011).astype(float)
    image = read_image(tmp_path / "target/images/patient090_ED.nii.gz")
    np.testing.assert_allclose(image.array, (raw - raw.min()) / (raw.max() - raw.min()), atol=1e-6)
    assert done.entries["patient090_ES"].details == {"frame": 4, "phase": "ES"}
    assert done.entries["patient090_ES"].group == "DCM"
    np.testing.assert_array_equal(image.affine, AFFINE)


def test_both_frames_of_a_patient_are_one_subject(tmp_path):
    patient(tmp_path / "source")
    done = prepare(tmp_path / "source", tmp_path / "target")
    assert {case.subject for case in done.entries.values()} == {"patient001"}


def test_slices_are_those_of_the_volumes_at_their_place(tmp_path):
    patient(tmp_path / "source")
    volumes = prepare(tmp_path / "source", tmp_path / "volumes")
    slices = prepare(tmp_path / "source", tmp_path / "slices", variant="slices")
    assert (len(volumes.cases), len(slices.cases)) == (2, 6)
    for kind, read in (("images", read_image), ("labels", read_label)):
        whole = read(tmp_path / f"volumes/{kind}/patient001_ES.nii.gz")
        last = read(tmp_path / f"slices/{kind}/patient001_ES_slice_03.nii.gz")
        np.testing.assert_array_equal(last.array[..., 0], whole.array[..., 2])
        np.testing.assert_array_equal(last.affine @ [0, 0, 0, 1], whole.affine @ [0, 0, 2, 1])


def test_the_published_numbers_of_slices_are_those_of_the_first_patients():
    assert len(TRAIN) == len(SLICES) == 70
    assert 2 * sum(SLICES) == 1312
    assert [2 * sum(SLICES[:count]) for count in (1, 3, 7, 14)] == [32, 68, 136, 256]


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A source with all patients of a small published split."""
    monkeypatch.setattr(acdc, "TRAIN", (3, 1, 2))
    monkeypatch.setattr(acdc, "VALIDATION", (4,))
    monkeypatch.setattr(acdc, "TEST", (5,))
    monkeypatch.setattr(acdc, "SLICES", (3, 2, 3))
    monkeypatch.setattr(acdc, "LABELED", (1,))
    for number in range(1, 6):
        patient(tmp_path / "source", number)
    return tmp_path / "source"


def test_lists_label_patients_not_slices(published, tmp_path):
    prepare(published, tmp_path / "target", variant="slices")
    listed = load_data_list(tmp_path / "target/labeled_01.json")
    assert {case.subject for case in listed.labeled} == {"patient003"}
    assert listed.counts() == {"labeled": 6, "unlabeled": 12, "validation": 6, "test": 6}


def test_another_number_of_slices_than_published_is_noted(published, tmp_path):
    done = prepare(published, tmp_path / "target", variant="slices")
    assert "1 patients have not as many slices as in the published list: patient001" in done.summary()


def test_lists_of_volumes_are_those_that_are_committed(published, tmp_path):
    done = prepare(published, tmp_path / "target")
    assert sorted(path.stem for path in done.lists) == sorted(build_lists())
    assert load_data_list(tmp_path / "target/all_labeled.json") == build_lists()["all_labeled"]


def test_a_missing_patient_keeps_lists_from_being_written(published, tmp_path):
    for path in (published / "training/patient004").iterdir():
        path.unlink()
    for variant in ("volumes", "slices"):
        done = prepare(published, tmp_path / variant, variant=variant)
        assert done.lists == ()
        assert "no data list is written: patient004" in done.summary()


def test_patients_of_the_challenges_own_test_are_said(tmp_path):
    patient(tmp_path / "source", 101, part="testing")
    done = prepare(tmp_path / "source", tmp_path / "target")
    assert "1 patients of the challenge's own test are prepared too: patient101" in done.summary()


def test_a_frame_that_info_cfg_names_must_be_there(tmp_path):
    patient(tmp_path / "source")
    (tmp_path / "source/training/patient001/patient001_frame12.nii.gz").unlink()
    with pytest.raises(ProblemsError, match=r"patient001_frame12.nii.gz is missing, which Info.cfg names as ES"):
        prepare(tmp_path / "source", tmp_path / "target")


def test_an_info_cfg_without_phases_is_refused(tmp_path):
    patient(tmp_path / "source")
    (tmp_path / "source/training/patient001/Info.cfg").write_text("Group: DCM\n")
    with pytest.raises(ProblemsError, match="ED: <frame>"):
        prepare(tmp_path / "source", tmp_path / "target")


def test_a_frame_that_is_cut_off_is_refused(tmp_path):
    patient(tmp_path / "source")
    path = tmp_path / "source/training/patient001/patient001_frame12.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ProblemsError) as caught:
        prepare(tmp_path / "source", tmp_path / "target")
    assert [(str(error.where), error.code) for error in caught.value.problems] == [(str(path), "TRUNCATED")]


def test_labels_beyond_3_are_refused(tmp_path):
    patient(tmp_path / "source", label=np.full((6, 5, 3), 4))
    with pytest.raises(ProblemsError, match="0 to 3 was wanted, this has 4"):
        prepare(tmp_path / "source", tmp_path / "target")


def test_another_folder_is_refused_with_the_layout_named(tmp_path):
    with pytest.raises(InputError, match=r"patient001/Info.cfg was not found"):
        prepare(tmp_path, tmp_path / "target")
