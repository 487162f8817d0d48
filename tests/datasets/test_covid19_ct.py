"""COVID-19 CT: two volumes that are stacks of slices."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from semi_med.data.data_list import SECTIONS
from semi_med.datasets import covid19_ct
from semi_med.datasets.record import planned
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_image, read_label

AFFINE = np.diag([-0.8, -0.7, 5.0, 1.0])
SHAPE = (6, 8, 4)


def volume():
    return np.random.default_rng(0).integers(-1000, 300, SHAPE).astype(np.float32)


def findings(highest=3):
    made = np.zeros(SHAPE, np.float32)
    made[1:3, 5:7, 0], made[4, 2, 1], made[2, 6:, 2] = 1, 2, highest
    return made


def save(folder, image=None, label=None, affine=AFFINE):
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume() if image is None else image, AFFINE), folder / "tr_im.nii.gz")
    nib.save(nib.Nifti1Image(findings() if label is None else label, affine), folder / "tr_mask.nii.gz")
    return folder


def test_each_slice_is_a_case_with_its_values_and_its_place(tmp_path):
    done = covid19_ct.prepare(save(tmp_path / "source"), tmp_path / "target")
    assert done.cases == ("slice_000", "slice_001", "slice_002", "slice_003")
    image = read_image(tmp_path / "target/images/slice_002.nii.gz")
    np.testing.assert_array_equal(image.array[:, :, 0], volume()[:, :, 2])
    np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], AFFINE @ [0, 0, 2, 1])
    assert image.spacing == pytest.approx((0.8, 0.7, 5.0))
    label = read_label(tmp_path / "target/labels/slice_000.nii.gz").array
    np.testing.assert_array_equal(label[:, :, 0], findings()[:, :, 0])


def test_the_lists_of_all_slices_are_those_that_are_committed(tmp_path):
    image = np.random.default_rng(0).integers(-1000, 300, (4, 3, 100)).astype(np.float32)
    label = (image > 0).astype(np.float32)
    done = covid19_ct.prepare(save(tmp_path / "source", image, label), tmp_path / "target")
    folder = Path(__file__).parents[2] / "data_lists/covid19_ct"
    assert {path.name: path.read_bytes() for path in done.lists} == {
        path.name: path.read_bytes() for path in folder.glob("*.json")
    }


def test_all_slices_are_stored_in_one_type(tmp_path):
    image = volume()
    image[:, :, 1] = np.arange(48).reshape(6, 8)  # this slice alone would fit into 8 bits
    covid19_ct.prepare(save(tmp_path / "source", image=image), tmp_path / "target")
    types = {nib.load(path).get_data_dtype() for path in (tmp_path / "target/images").iterdir()}
    assert types == {np.dtype("int16")}


def test_slices_are_resized_with_their_labels(tmp_path):
    covid19_ct.prepare(save(tmp_path / "source"), tmp_path / "target", size=4)
    image = read_image(tmp_path / "target/images/slice_000.nii.gz")
    assert image.array.shape == (4, 4, 1)
    assert image.spacing[:2] == pytest.approx((0.8 * 6 / 4, 0.7 * 8 / 4))
    assert set(np.unique(read_label(tmp_path / "target/labels/slice_000.nii.gz").array)) == {0, 1}


def test_the_same_source_gives_the_same_bytes_with_any_number_of_threads(tmp_path):
    source = save(tmp_path / "source")
    made = []
    for workers in (1, 3):
        folder = tmp_path / f"target {workers}"
        covid19_ct.prepare(source, folder, workers=workers)
        made.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")})
    assert made[0] == made[1]


def test_a_label_whose_header_lies_elsewhere_is_paired_as_stored(tmp_path):
    covid19_ct.prepare(save(tmp_path / "source", affine=np.eye(4)), tmp_path / "target")
    label = read_label(tmp_path / "target/labels/slice_000.nii.gz")
    np.testing.assert_array_equal(label.array[:, :, 0], findings()[:, :, 0])
    np.testing.assert_allclose(label.affine[:3, :3], AFFINE[:3, :3])


def test_a_label_of_fewer_slices_is_refused(tmp_path):
    with pytest.raises(InputError, match="its shape is 6 x 8 x 3"):
        covid19_ct.prepare(save(tmp_path / "source", label=findings()[:, :, :3]), tmp_path / "target")


def test_a_volume_that_is_cut_off_is_refused(tmp_path):
    path = save(tmp_path / "source") / "tr_im.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"tr_im.nii.gz") as caught:
        covid19_ct.prepare(tmp_path / "source", tmp_path / "target")
    assert caught.value.code == "TRUNCATED"


def test_a_fourth_finding_is_refused(tmp_path):
    with pytest.raises(InputError, match="a label of 0 to 3 was wanted, this has 0, 1, 2, 4"):
        covid19_ct.prepare(save(tmp_path / "source", label=findings(4)), tmp_path / "target")


def test_an_empty_slice_is_refused_and_named(tmp_path):
    image = volume()
    image[:, :, 3] = 0
    with pytest.raises(ProblemsError, match="slice_003: every pixel has the same value"):
        covid19_ct.prepare(save(tmp_path / "source", image=image), tmp_path / "target")


def test_one_volume_alone_is_refused(tmp_path):
    (save(tmp_path / "source") / "tr_mask.nii.gz").unlink()
    with pytest.raises(InputError, match=r"tr_im\.nii\.gz with tr_mask\.nii\.gz was not found"):
        covid19_ct.prepare(tmp_path / "source", tmp_path / "target")


def test_the_leak_between_slices_of_a_patient_is_said_in_the_summary_the_record_and_every_list(tmp_path):
    done = covid19_ct.prepare(save(tmp_path / "source"), tmp_path / "target")
    assert "one patient may be on both sides" in done.summary()
    assert "one patient may be on both sides" in (tmp_path / "target/dataset.json").read_text()


def test_the_lists_have_the_published_numbers():
    cases = {f"slice_{number:03d}": planned(f"slice_{number:03d}") for number in range(100)}
    lists = covid19_ct.build_lists(cases)
    assert len(lists) == 14
    assert list(lists["labeled_09_seed1"].counts().values()) == [9, 61, 10, 20]
    assert list(lists["ordered_labeled_18_seed2"].counts().values()) == [18, 52, 10, 20]
    assert [case.name for case in lists["ordered_all_labeled"].test] == [f"slice_{n:03d}" for n in range(80, 100)]
    for each in lists.values():
        names = [case.name for section in SECTIONS for case in getattr(each, section)]
        assert len(names) == len(set(names)) == 100
        assert "one patient may be on both sides" in each.description
