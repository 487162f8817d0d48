"""The Decathlon: any task by its dataset.json."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from semi_med.data.data_list import load_data_list
from semi_med.datasets.msd import prepare
from semi_med.datasets.record import read_record
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_image, read_label

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def task(root, *, count=2, tests=1, channels=1, folder="Task04_Hippocampus", dtype=np.uint8):
    """A task with its files; labels hold 0, 1 and 2."""
    source = root / folder
    names = [f"hippocampus_{number:03d}" for number in range(count + tests)]
    for number, name in enumerate(names):
        shape = (4, 5, 3) if channels == 1 else (4, 5, 3, channels)
        image = np.random.default_rng(number).integers(0, 500, shape).astype(np.int16)
        part = "Tr" if number < count else "Ts"
        (source / f"images{part}").mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(image, AFFINE), source / f"images{part}/{name}.nii.gz")
        (source / f"images{part}/._{name}.nii.gz").write_bytes(b"Mac OS X")
        if number < count:
            (source / "labelsTr").mkdir(exist_ok=True)
            label = (image if channels == 1 else image[..., 0]) // 200
            nib.save(nib.Nifti1Image(label.astype(dtype), AFFINE), source / f"labelsTr/{name}.nii.gz")
    content = {
        "name": "Hippocampus",
        "description": "Left and right hippocampus",
        "reference": "Vanderbilt University Medical Center",
        "licence": "CC-BY-SA 4.0",
        "release": "1.0 12/08/2018",
        "tensorImageSize": "3D" if channels == 1 else "4D",
        "modality": {str(number): name for number, name in enumerate(("MRI", "T2", "ADC")[:channels])},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "numTraining": count,
        "numTest": tests,
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names[:count]],
        "test": [f"./imagesTs/{n}.nii.gz" for n in names[count:]],
    }
    (source / "dataset.json").write_text(json.dumps(content))
    return source


def change(source, **content):
    path = source / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **content}))


def test_a_task_is_taken_as_its_dataset_json_says(tmp_path):
    source = task(tmp_path)
    done = prepare(source, tmp_path / "target")
    assert done.cases == ("hippocampus_000", "hippocampus_001", "hippocampus_002")
    assert done.without_label == ("hippocampus_002",)
    about = read_record(tmp_path / "target")["about"]
    assert (about["name"], about["labels"]["2"], about["modality"]) == (
        "msd_task04_hippocampus",
        "Posterior",
        {"0": "MRI"},
    )
    assert about["reference"].endswith("Vanderbilt University Medical Center")
    assert about["licence"] == "CC-BY-SA 4.0"


def test_images_of_one_channel_are_copied_and_float_labels_become_indices(tmp_path):
    source = task(tmp_path, dtype=np.float32)
    prepare(source, tmp_path / "target")
    file = "hippocampus_000.nii.gz"
    assert (tmp_path / "target/images" / file).read_bytes() == (source / "imagesTr" / file).read_bytes()
    assert nib.load(tmp_path / "target/labels" / file).get_data_dtype() == np.uint8
    np.testing.assert_array_equal(
        read_label(tmp_path / "target/labels" / file).array, nib.load(source / "labelsTr" / file).get_fdata()
    )


def test_channels_of_one_file_are_taken_apart_in_their_order(tmp_path):
    source = task(tmp_path, channels=2)
    done = prepare(source, tmp_path / "target")
    whole = nib.load(source / "imagesTr/hippocampus_000.nii.gz").get_fdata()
    for channel, file in enumerate(done.entries["hippocampus_000"].image):
        np.testing.assert_array_equal(read_image(tmp_path / "target" / file).array, whole[..., channel])


def test_another_number_of_channels_than_named_is_refused(tmp_path):
    source = task(tmp_path, channels=2)
    change(source, modality={"0": "T2", "1": "ADC", "2": "T1"})
    with pytest.raises(ProblemsError):
        prepare(source, tmp_path / "target")
    source = task(tmp_path / "other")
    change(source, modality={"0": "T2", "1": "ADC"})
    with pytest.raises(ProblemsError, match=r"2 channels were wanted, as dataset.json has it, this has 1"):
        prepare(source, tmp_path / "target2")


def test_a_label_that_dataset_json_does_not_name_is_refused(tmp_path):
    source = task(tmp_path)
    change(source, labels={"0": "background", "1": "both"})
    with pytest.raises(ProblemsError, match=r"labels from 0 to 1 were wanted, as dataset.json has it, this has 2"):
        prepare(source, tmp_path / "target")


def test_files_and_dataset_json_must_agree(tmp_path):
    source = task(tmp_path)
    (source / "labelsTr/hippocampus_001.nii.gz").rename(source / "labelsTr/other.nii.gz")
    with pytest.raises(ProblemsError) as caught:
        prepare(source, tmp_path / "target")
    assert [(Path(p.where).name, p.code) for p in caught.value.problems] == [
        ("hippocampus_001.nii.gz", "NOT_FOUND"),
        ("other.nii.gz", "LAYOUT"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        {"labels": {"background": 0, "heart": 1}},  # of nnU-Net's second version
        {"labels": {"0": "background", "2": "heart"}},
        {"training": ["imagesTr/a.nii.gz"]},
        {"test": ["../../secret.nii.gz"]},
        {"modality": None},
        {"name": 4},
    ],
)
def test_another_dataset_json_is_refused(tmp_path, content):
    source = task(tmp_path)
    change(source, **content)
    with pytest.raises(InputError, match="keys name, labels and modality") as caught:
        prepare(source, tmp_path / "target")
    assert caught.value.code == "FORMAT"


def test_a_folder_without_dataset_json_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no dataset.json"):
        prepare(tmp_path, tmp_path / "target")


def test_lists_keep_the_cases_of_a_person_together_if_it_is_known(tmp_path):
    source = task(tmp_path, count=48, tests=2)
    rows = "".join(f"hippocampus_{number:03d},{number // 2}\n" for number in range(50))
    (tmp_path / "cases.csv").write_text(f"id,subject_group\n{rows}")
    done = prepare(source, tmp_path / "target", subjects=tmp_path / "cases.csv")
    assert [path.stem for path in done.lists] == ["labeled_10_seed1", "labeled_20_seed1", "all_labeled_seed1"]
    listed = load_data_list(tmp_path / "target/labeled_20_seed1.json")
    # 24 subjects: 5 for the test, 2 for validation, 20 % of the other 17 are 3; two scans of the test have no label
    assert listed.counts() == {"labeled": 6, "unlabeled": 30, "validation": 4, "test": 10}
    assert done.entries["hippocampus_005"].subject == "2"


def test_without_a_table_of_persons_each_case_is_one_and_it_is_said(tmp_path):
    done = prepare(task(tmp_path), tmp_path / "target")
    assert "Nothing says which cases show one person" in done.summary()
    assert "Fewer than 20 subjects have a label: no data list is written" in done.summary()


def test_a_table_without_the_columns_is_refused(tmp_path):
    (tmp_path / "cases.csv").write_text("file,person\na,b\n")
    with pytest.raises(InputError, match="columns `case` and `subject` were wanted, got file, person"):
        prepare(task(tmp_path), tmp_path / "target", subjects=tmp_path / "cases.csv")


@pytest.mark.real_data
def test_the_real_hippocampus_is_prepared_whole(tmp_path):
    root = os.environ.get("SEMI_MED_REAL_DATA")
    if not root:
        pytest.skip("SEMI_MED_REAL_DATA is not set")
    real = Path(root) / "hippocampus"
    source = tmp_path / "Task04_Hippocampus"
    source.mkdir()
    (source / "imagesTr").symlink_to(real / "images")
    (source / "labelsTr").symlink_to(real / "labels")
    names = sorted(path.name for path in (real / "labels").iterdir())
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    content = {"name": "Hippocampus", "modality": {"0": "MRI"}, "labels": labels, "training": training, "test": []}
    (source / "dataset.json").write_text(json.dumps(content))
    done = prepare(source, tmp_path / "target", subjects=real / "cases.csv")
    assert (len(done.cases), len(done.lists), done.without_label) == (199, 3, ())
