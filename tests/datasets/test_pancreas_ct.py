"""Pancreas-CT: DICOM series with labels apart from them, whose axes and headers say something else."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from semi_med.datasets import pancreas_ct
from semi_med.datasets.pancreas_ct import PROTOCOLS, build_lists, crop_box, fit_label, grid, prepare
from semi_med.datasets.record import read_record
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import Scan, read_image, read_label
from tests.corpus.dicom_corpus import plan_series

SHAPE = (16, 20, 10)  # columns, rows, slices
PANCREAS = (slice(2, 7), slice(5, 12), slice(1, 5))


@pytest.fixture(autouse=True)
def small_boxes(monkeypatch):
    monkeypatch.setattr(pancreas_ct, "LEAST", 4)
    monkeypatch.setattr(pancreas_ct, "MARGIN", 2)


def organ():
    label = np.zeros(SHAPE, np.uint8)
    label[PANCREAS] = 1
    return label


def body():
    """Hounsfield units: air, and a pancreas whose values rise by 3 a column, 2 a row and 5 a slice."""
    i, j, k = np.indices(SHAPE)
    return np.where(organ(), 20 + 3 * i + 2 * j + 5 * k, -1000)


def patient(root, number=1, *, label=None, spacing=(0.5, 0.5), step=1.0, header=None):
    """A series in folders as the archive has them, with its label; the header of the label places it elsewhere."""
    plan = plan_series(spacing=spacing, step=step, values=(body() + 1024).T)
    folder = root / f"Pancreas-CT/PANCREAS_{number:04d}/11-24-2015-PANCREAS-18957/Pancreas-99667"
    plan.write(folder, names=lambda k: f"1-{k + 1:03d}.dcm")
    save_label(root, number, organ() if label is None else label, header)
    return plan


def save_label(root, number, label, header=None):
    place = root / "TCIA_pancreas_labels-02-05-2017"
    place.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(label, np.diag([0.5, 0.5, 1.0, 1.0]) if header is None else header),
        place / f"label{number:04d}.nii.gz",
    )


# ---- the two protocols ---------------------------------------------------------------------------------------------


def test_protocol_a_has_voxels_of_1_mm_at_their_place_and_keeps_all_slices(tmp_path):
    plan = patient(tmp_path / "source", step=2.0)
    done = prepare(tmp_path / "source", tmp_path / "target", protocol="A")
    image, label = (
        f(tmp_path / f"target/{kind}s/PANCREAS_0001.nii.gz")
        for kind, f in (("image", read_image), ("label", read_label))
    )
    # 16 x 20 x 10 voxels of 0.5 x 0.5 x 2 mm become 8 x 10 x 20; the label there is 1:4 and 3:6 in the plane, enlarged
    # to 1:5 and 3:7, with 2 voxels at each side 0:7 and 1:9
    assert image.array.shape == label.array.shape == (7, 8, 20)
    np.testing.assert_allclose(image.spacing, (1, 1, 1), atol=1e-5)
    assert nib.load(tmp_path / "target/images/PANCREAS_0001.nii.gz").get_data_dtype() == np.int16
    where = np.argwhere(label.array)
    there = np.c_[where, np.ones(len(where))] @ (np.linalg.inv(plan.affine) @ label.affine).T
    inside = np.round(there[:, :3] + 1e-6).astype(int)
    assert all(organ()[tuple(place)] for place in inside)
    assert done.entries["PANCREAS_0001"].details["label_flips"] == []


def test_protocol_a_crops_in_the_plane_only_and_b_on_all_axes():
    label = np.zeros((60, 60, 60), np.uint8)
    label[20:30, 21:31, 22:32] = 1  # 10 voxels and 2 at each side are more than 4
    assert crop_box(PROTOCOLS["A"], label) == [(18, 32), (19, 33), (0, 60)]
    assert crop_box(PROTOCOLS["B"], label) == [(18, 32), (19, 33), (20, 34)]


def test_the_least_extent_comes_before_the_margin_in_a_and_after_it_in_b(monkeypatch):
    monkeypatch.setattr(pancreas_ct, "LEAST", 20)
    label = np.zeros((60, 60, 60), np.uint8)
    label[30:40, 30:40, 30:40] = 1  # 10 voxels
    assert crop_box(PROTOCOLS["A"], label)[0] == (30 - 5 - 2, 40 + 5 + 2)
    assert crop_box(PROTOCOLS["B"], label)[0] == (30 - 2 - 3, 40 + 2 + 3)


def test_protocol_b_takes_the_distance_of_rows_for_that_of_slices_and_says_so_in_the_affine():
    scan = Scan(np.zeros((10, 10, 10), np.float32), np.diag([0.5, 0.8, 3.0, 1.0]))
    assert grid(PROTOCOLS["A"], scan) == ((0.5, 0.8, 3.0), (5, 8, 30))
    zoom, shape = grid(PROTOCOLS["B"], scan)
    assert (zoom, shape) == ((0.8, 0.8, 0.8), (8, 8, 8))
    np.testing.assert_allclose(np.diag(pancreas_ct._scaled(scan, zoom))[:3], (0.625, 1.0, 3.75))


def test_protocol_b_interpolates_linearly(tmp_path):
    patient(tmp_path / "source", spacing=(0.5, 0.5), step=0.5)
    prepare(tmp_path / "source", tmp_path / "target", protocol="B")
    image = read_image(tmp_path / "target/images/PANCREAS_0001.nii.gz").array
    label = read_label(tmp_path / "target/labels/PANCREAS_0001.nii.gz").array
    # a new voxel is every second old one: 4, 6 of 2:7, 6 to 10 of 5:12, 2 and 4 of 1:5, where the values are exact
    place = np.argwhere(label).min(axis=0)
    i, j, k = np.meshgrid([2, 4, 6], [6, 8, 10], [2, 4], indexing="ij")
    np.testing.assert_array_equal(
        image[tuple(slice(a, a + n) for a, n in zip(place, i.shape, strict=True))], 20 + 3 * i + 2 * j + 5 * k
    )
    assert label.sum() == i.size


def test_hounsfield_units_are_stored_and_no_window_is_applied(tmp_path):
    patient(tmp_path / "source", spacing=(1.0, 1.0), step=1.0)
    prepare(tmp_path / "source", tmp_path / "target", protocol="A")
    assert read_image(tmp_path / "target/images/PANCREAS_0001.nii.gz").array.min() == -1000
    record = read_record(tmp_path / "target")
    assert (record["recipe"]["protocol"], record["recipe"]["unit"]) == ("A", "HU")
    assert record["about"]["name"] == "pancreas_ct_a"


def test_a_folder_of_one_protocol_does_not_take_the_other(tmp_path):
    patient(tmp_path / "source")
    prepare(tmp_path / "source", tmp_path / "target", protocol="A")
    with pytest.raises(InputError, match="another recipe"):
        prepare(tmp_path / "source", tmp_path / "target", protocol="B")


def test_a_third_protocol_is_refused(tmp_path):
    with pytest.raises(InputError, match="A or B, not 'C'"):
        prepare(tmp_path, tmp_path / "target", protocol="C")


# ---- labels --------------------------------------------------------------------------------------------------------


def test_a_label_is_taken_as_stored_whatever_its_header_says():
    label, flips, share = fit_label(organ(), body(), where=Path("x"))
    np.testing.assert_array_equal(label, organ())
    assert (flips, share) == ((), 1.0)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_a_label_with_flipped_axes_is_turned_back(axes):
    label, flips, share = fit_label(np.flip(organ(), axes), body(), where=Path("x"))
    np.testing.assert_array_equal(label, organ())
    assert flips == tuple("ijk"[axis] for axis in axes)
    assert share == 1.0


def test_a_flipped_label_is_noted(tmp_path):
    patient(tmp_path / "source", label=np.flip(organ(), 2).copy())
    done = prepare(tmp_path / "source", tmp_path / "target", protocol="A")
    assert "PANCREAS_0001: LABEL_FLIP: the label fits the scan only with its axis k flipped" in done.summary()
    assert done.entries["PANCREAS_0001"].details["label_flips"] == ["k"]


def test_a_label_that_fits_in_no_way_is_another_patients():
    label = np.zeros(SHAPE, np.uint8)
    label[13:15, 0:2, 8:10] = 1
    with pytest.raises(InputError, match="0% of it is soft tissue as stored") as caught:
        fit_label(label, body(), where=Path("x"))
    assert caught.value.code == "LABEL_FIT"


def test_a_label_that_fits_in_several_ways_but_not_as_stored_is_refused():
    hounsfield = np.where(organ() | np.flip(organ(), 0), 50, -1000)
    with pytest.raises(InputError, match="does not lie on its CT"):
        fit_label(np.flip(organ(), 1), hounsfield, where=Path("x"))


def test_another_distance_of_slices_in_the_header_of_the_label_is_noted(tmp_path):
    patient(tmp_path / "source", step=0.75)
    done = prepare(tmp_path / "source", tmp_path / "target", protocol="A")
    assert "the label says 1 mm between slices, the CT 0.75; the CT counts" in done.summary()


def test_faulty_labels_are_all_named(tmp_path, monkeypatch):
    for number, label in enumerate([organ()[:-1], organ() * 2, organ() * 0], 1):
        (tmp_path / f"source/PANCREAS_{number:04d}").mkdir(parents=True)
        (tmp_path / f"source/PANCREAS_{number:04d}/1-001.dcm").write_text("x")
        save_label(tmp_path / "source", number, label)
    scan = Scan(body().astype(np.float32), np.diag([0.5, 0.5, 1.0, 1.0]))
    monkeypatch.setattr(pancreas_ct, "read_image", lambda path: scan)
    with pytest.raises(ProblemsError) as caught:
        prepare(tmp_path / "source", tmp_path / "target", protocol="A")
    assert [(problem.code, problem.problem.split(",")[0]) for problem in caught.value.problems] == [
        ("GEOMETRY", "the label has 15 x 20 x 10 voxels"),
        ("LABEL_VALUES", "a label of 0 and 1 was wanted"),
        ("LABEL_VALUES", "a label of 0 and 1 was wanted"),
    ]


# ---- what is there -------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Patients 2, 25 and 70 without pixels; any folder is the same scan."""
    for number in (2, 25, 70):
        (tmp_path / f"source/PANCREAS_{number:04d}/a/b").mkdir(parents=True)
        (tmp_path / f"source/PANCREAS_{number:04d}/a/b/1-001.dcm").write_text(str(number))
        save_label(tmp_path / "source", number, organ())
    scan = Scan(body().astype(np.float32), np.diag([1.0, 1.0, 1.0, 1.0]))
    monkeypatch.setattr(pancreas_ct, "read_image", lambda path: scan)
    return tmp_path / "source"


def test_withdrawn_cases_show_the_person_of_case_2(archive, tmp_path):
    done = prepare(archive, tmp_path / "target", protocol="A")
    assert {case.subject for case in done.entries.values()} == {"PANCREAS_0002"}


def test_withdrawn_cases_are_no_part_of_protocol_b(archive, tmp_path):
    done = prepare(archive, tmp_path / "target", protocol="B")
    assert done.cases == ("PANCREAS_0002",)
    assert "PANCREAS_0025 and PANCREAS_0070 are withdrawn" in done.summary()


def test_labels_of_withdrawn_scans_without_their_scans_are_passed_over(archive, tmp_path):
    for number in (25, 70):
        (archive / f"PANCREAS_{number:04d}/a/b/1-001.dcm").unlink()
    assert prepare(archive, tmp_path / "target", protocol="A").cases == ("PANCREAS_0002",)


def test_a_label_without_its_scan_is_refused(archive, tmp_path):
    save_label(archive, 7, organ())
    with pytest.raises(InputError, match="1 labels have no image: PANCREAS_0007"):
        prepare(archive, tmp_path / "target", protocol="A")


def test_labels_may_lie_elsewhere(archive, tmp_path):
    (archive / "TCIA_pancreas_labels-02-05-2017").rename(tmp_path / "labels")
    assert prepare(archive, tmp_path / "one", protocol="A").without_label == (
        "PANCREAS_0002",
        "PANCREAS_0025",
        "PANCREAS_0070",
    )
    done = prepare(archive, tmp_path / "two", protocol="A", labels=tmp_path / "labels")
    assert done.without_label == ()


def test_another_folder_is_refused_with_the_layout_named(tmp_path):
    with pytest.raises(InputError, match=r"PANCREAS_0001/<study>/<series>/1-001.dcm was not found"):
        prepare(tmp_path, tmp_path / "target", protocol="A")


def test_a_series_with_a_missing_slice_is_refused(tmp_path):
    patient(tmp_path / "source")
    next((tmp_path / "source").rglob("1-005.dcm")).unlink()
    with pytest.raises(ProblemsError, match="slice"):
        prepare(tmp_path / "source", tmp_path / "target", protocol="A")


# ---- lists ---------------------------------------------------------------------------------------------------------


def test_the_lists_for_a_download_of_today_leave_the_withdrawn_cases_out(archive, tmp_path, monkeypatch):
    numbers = range(1, 83)
    for number in numbers:
        folder = archive / f"PANCREAS_{number:04d}"
        folder.mkdir(exist_ok=True)
        if number in (25, 70):
            (folder / "a/b/1-001.dcm").unlink()
        else:
            (folder / "1-001.dcm").write_text("x")
            save_label(archive, number, organ())
    done = prepare(archive, tmp_path / "target", protocol="A")
    assert len(done.cases) == 80
    assert sorted(path.stem for path in done.lists) == sorted(n for n in build_lists("A") if "without" in n)
    assert "3 data lists are not written: PANCREAS_0070" in done.summary()
