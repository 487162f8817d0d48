"""LGG: tif slices of three contrasts in folders of patients, numbers without leading zeros."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semi_med.data.data_list import SECTIONS
from semi_med.datasets import lgg
from semi_med.datasets.record import planned
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_image, read_label

SCAN = "TCGA_CS_4941_19960909"
COUNT = 12


def colours(number):
    """Rows and columns; a bright block on columns 4 to 11 and rows 2 to 13, brighter from slice to slice."""
    made = np.zeros((16, 16, 3), np.uint8)
    ramp = np.random.default_rng(number).integers(0, 40, (12, 8, 3))
    made[2:14, 4:12] = 80 + 10 * number + ramp
    return made


def drawn(number):
    made = np.zeros((16, 16), np.uint8)
    if number > 5:
        made[4:6, 5:11] = 255
    return made


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source/kaggle_3m" / SCAN
    folder.mkdir(parents=True)
    for number in range(1, COUNT + 1):
        Image.fromarray(colours(number)).save(folder / f"{SCAN}_{number}.tif", compression="tiff_adobe_deflate")
        Image.fromarray(drawn(number)).save(folder / f"{SCAN}_{number}_mask.tif", compression="tiff_adobe_deflate")
    (folder.parent / "data.csv").write_text("Patient,RNASeqCluster\n")
    return tmp_path / "source"


def test_slices_keep_all_contrasts_and_look_as_published(source, tmp_path):
    lgg.prepare(source, tmp_path / "target")
    with Image.open(tmp_path / f"target/images/{SCAN}_7.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), colours(7))
    label = read_label(tmp_path / f"target/labels/{SCAN}_7.png").array[:, :, 0]
    np.testing.assert_array_equal(label.T, drawn(7) > 0)


def test_slices_are_in_the_order_of_the_head_and_belong_to_their_patient(source, tmp_path):
    done = lgg.prepare(source, tmp_path / "target")
    assert done.cases == tuple(f"{SCAN}_{number}" for number in range(1, COUNT + 1))
    assert {(case.subject, case.group) for case in done.entries.values()} == {("TCGA_CS_4941", "CS")}


def test_a_volume_has_its_slices_in_order_and_three_normalised_channels(source, tmp_path):
    lgg.prepare(source, tmp_path / "target", variant="buda")
    channels = [read_image(tmp_path / f"target/images/{SCAN}_000{c}.nii.gz").array for c in range(3)]
    assert channels[0].shape == (256, 256, COUNT - 2)
    for channel in channels:
        assert channel.mean() == pytest.approx(0, abs=1e-4)
        assert channel.std() == pytest.approx(1, abs=1e-4)
    middle = channels[1][100:150, 100:150].mean(axis=(0, 1))
    assert np.all(np.diff(middle[:-1]) > 0)  # brighter from slice to slice: 2, 3, ..., 11
    label = read_label(tmp_path / f"target/labels/{SCAN}.nii.gz").array
    assert np.flatnonzero(label.any(axis=(0, 1))).tolist() == list(range(4, 10))  # slices 6 to 11


def test_a_volume_is_cut_padded_to_a_square_and_clipped_as_published():
    volume = np.zeros((10, 9, 3, 3), np.uint8)
    volume[2:8, 3:5, 1:3] = np.random.default_rng(0).integers(100, 200, (6, 2, 2, 3))
    volume[0, 0, 0] = 9  # less than a tenth of the highest: taken as air
    label = np.zeros((10, 9, 3), np.uint8)
    label[2:4, 3, 1] = 1
    image, made, box = lgg.buda_volume(volume, label, size=6)
    assert box == [[2, 8], [3, 5], [1, 3]]
    square = np.zeros((6, 6, 2, 3))
    square[:, 2:4] = volume[2:8, 3:5, 1:3]
    low, high = np.percentile(square, (10, 99))
    expected = np.clip(square, low, high)
    expected = (expected - expected.mean(axis=(0, 1, 2))) / expected.std(axis=(0, 1, 2))
    np.testing.assert_allclose(image, expected, atol=1e-5)
    assert np.argwhere(made).tolist() == [[0, 2, 0], [1, 2, 0]]


def test_both_variants_are_different_recipes(source, tmp_path):
    lgg.prepare(source, tmp_path / "target")
    with pytest.raises(InputError, match="another recipe"):
        lgg.prepare(source, tmp_path / "target", variant="buda")


def test_a_variant_that_is_not_there_is_refused(source, tmp_path):
    with pytest.raises(InputError, match="one of slices, buda was wanted, got 'volumes'"):
        lgg.prepare(source, tmp_path / "target", variant="volumes")


def test_a_slice_without_a_label_is_no_volume(source, tmp_path):
    (source / f"kaggle_3m/{SCAN}/{SCAN}_3_mask.tif").unlink()
    with pytest.raises(InputError, match=f"1 slices have no label: {SCAN}_3"):
        lgg.prepare(source, tmp_path / "target", variant="buda")


def test_a_volume_with_a_gap_is_refused(source, tmp_path):
    for suffix in ("", "_mask"):
        (source / f"kaggle_3m/{SCAN}/{SCAN}_10{suffix}.tif").unlink()
    with pytest.raises(InputError, match=f"{SCAN}: slices are missing: 10"):
        lgg.prepare(source, tmp_path / "target", variant="buda")


def test_a_black_volume_is_refused():
    with pytest.raises(InputError, match="every voxel has the same value"):
        lgg.buda_volume(np.zeros((4, 4, 2, 3), np.uint8), np.zeros((4, 4, 2), np.uint8))


def test_a_slice_that_is_cut_off_is_refused(source, tmp_path):
    path = source / f"kaggle_3m/{SCAN}/{SCAN}_3.tif"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ProblemsError, match=f"{SCAN}_3.tif"):
        lgg.prepare(source, tmp_path / "target")


# ---- splits --------------------------------------------------------------------------------------------------------

SCANS = [f"TCGA_{'CS' if number < 60 else 'HT'}_{4000 + number}_19960909" for number in range(110)]


@pytest.fixture(scope="module")
def lists():
    cases = {}
    for scan in SCANS:
        for number in (1, 2):
            name = f"{scan}_{number}"
            cases[name] = planned(name, subject=lgg.patient_of(name), channels=3, suffix=".png")
    return lgg.build_lists(cases)


def test_the_test_is_drawn_as_the_data_sets_authors_draw_it():
    # Python's generator with seed 42 takes these ten of 110
    expected = [SCANS[index] for index in (81, 14, 3, 94, 35, 31, 28, 17, 13, 86)]
    assert lgg.published_test(list(reversed(SCANS))) == expected


def test_the_draw_needs_all_110():
    with pytest.raises(InputError, match="110 scans are wanted, got 109"):
        lgg.published_test(SCANS[1:])


def test_lists_are_by_patient(lists):
    assert set(lists) == {*(f"labeled_{n}_seed{s}" for n in ("05", "10", "20", "50") for s in (1, 2, 3)), "all_labeled"}
    assert list(lists["labeled_20_seed1"].counts().values()) == [40, 150, 10, 20]
    for each in lists.values():
        parts = [{case.subject for case in getattr(each, section)} for section in SECTIONS]
        assert sum(len(part) for part in parts) == len(set.union(*parts)) == 110


def test_fewer_labeled_patients_are_among_more(lists):
    few, many = ({case.subject for case in lists[f"labeled_{n}_seed2"].labeled} for n in ("05", "50"))
    assert few < many


def test_without_all_patients_no_list_is_written(source, tmp_path):
    done = lgg.prepare(source, tmp_path / "target")
    assert done.lists == ()
    assert "1 scans are there" in done.summary()


@pytest.mark.real_data
def test_the_real_slices_are_prepared_whole(tmp_path):
    root = os.environ.get("SEMI_MED_REAL_DATA")
    if not root:
        pytest.skip("SEMI_MED_REAL_DATA is not set")
    done = lgg.prepare(Path(root) / "lgg_kaggle_3m", tmp_path / "target")
    assert len({case.subject for case in done.entries.values()}) == 12
    assert done.without_label == ()
