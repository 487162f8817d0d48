"""SCR on JSRT: raw pixels with the high byte first, a gif for each structure, overlaps by the order of painting."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semi_med.data.data_list import SECTIONS, load_data_list
from semi_med.datasets import scr_jsrt
from semi_med.datasets.record import planned
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_image, read_label

LISTS = Path(__file__).parents[2] / "data_lists"
# rows and columns of each structure's drawing; the left lung is on the right of the picture
BOXES = {
    "right lung": (slice(200, 800), slice(100, 400)),
    "left lung": (slice(200, 800), slice(600, 900)),
    "heart": (slice(500, 800), slice(450, 700)),
    "right clavicle": (slice(150, 250), slice(150, 400)),
    "left clavicle": (slice(150, 250), slice(600, 850)),
}


def radiograph():
    """As rows and columns: film blackening that grows to the right, with one pixel beyond 12 bits."""
    made = np.tile(np.arange(2048, dtype=np.uint16), (2048, 1))
    made[1000:] += 1000
    made[0, 0] = 5000
    return made


def save_drawings(root, name="JPCLN001", fold="fold1"):
    for structure, box in BOXES.items():
        folder = root / "scratch" / fold / "masks" / structure
        folder.mkdir(parents=True, exist_ok=True)
        drawn = np.zeros((1024, 1024), np.uint8)
        drawn[box] = 255
        Image.fromarray(drawn).save(folder / f"{name}.gif")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("scr") / "source"
    (root / "All247images").mkdir(parents=True)
    radiograph().astype(">u2").tofile(root / "All247images/JPCLN001.IMG")
    save_drawings(root)
    return root


@pytest.fixture(scope="module")
def usual(source):
    scr_jsrt.prepare(source, source.parent / "usual", workers=1)
    return source.parent / "usual"


def test_pixels_are_inverted_means_of_two_by_two(usual):
    scan = read_image(usual / "images/JPCLN001.nii.gz")
    array = scan.array[:, :, 0]
    assert array.shape == (1024, 1024)
    assert array[100, 10] == 4095 - 200.5  # columns 200 and 201, far from the second half
    assert array[100, 600] == 4095 - 1200.5
    assert array[0, 0] == 4095 - (4095 + 1 + 0 + 1) / 4


def test_the_files_are_those_that_the_committed_lists_name(usual):
    committed = load_data_list(LISTS / "scr_jsrt/all_labeled.json")
    (case,) = (case for section in SECTIONS for case in getattr(committed, section) if case.subject == "JPCLN001")
    assert all((usual / file).is_file() for file in (case.image, case.label))


def test_pixels_have_their_size_and_the_patients_left_is_on_the_right_of_the_picture(usual):
    scan = read_image(usual / "images/JPCLN001.nii.gz")
    assert scan.spacing[:2] == pytest.approx((0.35, 0.35))
    step_i, step_j = scan.affine[:3, 0], scan.affine[:3, 1]
    np.testing.assert_allclose((step_i, step_j), [[-0.35, 0, 0], [0, 0, -0.35]], atol=1e-6)  # RAS: to the left, down


def test_what_is_painted_last_covers_what_lies_below(usual):
    label = read_label(usual / "labels/JPCLN001.nii.gz").array[:, :, 0]  # by column and row
    assert label[150, 300] == label[850, 300] == 1
    assert label[650, 600] == 2  # heart over the left lung
    assert label[200, 220] == label[700, 220] == 3  # clavicles over lungs
    assert label[0, 0] == 0


def test_left_and_right_are_told_apart_on_request_and_covered_pixels_counted(source, tmp_path):
    done = scr_jsrt.prepare(source, tmp_path / "target", structures=5)
    label = read_label(tmp_path / "target/labels/JPCLN001.nii.gz").array[:, :, 0]
    assert [label[150, 300], label[850, 300], label[650, 600], label[200, 220], label[700, 220]] == [1, 2, 3, 4, 5]
    # heart on left lung, then each clavicle on a lung
    assert done.entries["JPCLN001"].details == {"overpainted_pixels": 100 * 300 + 50 * 250 + 50 * 250}


def test_at_the_radiographs_own_size_each_pixel_of_a_label_is_repeated(source, usual, tmp_path):
    scr_jsrt.prepare(source, tmp_path / "target", size=2048)
    image = read_image(tmp_path / "target/images/JPCLN001.nii.gz")
    assert image.array[7, 3, 0] == 4095 - 7
    assert image.spacing[0] == pytest.approx(0.175)
    whole, half = (
        read_label(folder / "labels/JPCLN001.nii.gz").array[:, :, 0] for folder in (tmp_path / "target", usual)
    )
    np.testing.assert_array_equal(whole[::2, 1::2], half)


def test_other_sizes_keep_the_corner_of_the_film(source, usual, tmp_path):
    scr_jsrt.prepare(source, tmp_path / "target", size=320)
    small, half = (read_image(folder / "images/JPCLN001.nii.gz") for folder in (tmp_path / "target", usual))
    corner = np.array([-0.5, -0.5, 0, 1])
    np.testing.assert_allclose(small.affine @ corner, half.affine @ corner, atol=1e-6)
    assert read_label(tmp_path / "target/labels/JPCLN001.nii.gz").array.shape == (320, 320, 1)


def test_a_raw_file_of_another_size_is_refused(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/JPCNN001.IMG").write_bytes(bytes(1000))
    with pytest.raises(ProblemsError, match="8388608 bytes were wanted"):
        scr_jsrt.prepare(tmp_path / "source", tmp_path / "target")


def test_a_missing_structure_and_a_missing_radiograph_are_named_together(tmp_path):
    save_drawings(tmp_path / "source", "JPCLN001")
    save_drawings(tmp_path / "source", "JPCNN002")
    (tmp_path / "source/scratch/fold1/masks/heart/JPCLN001.gif").unlink()
    (tmp_path / "source/JPCLN001.IMG").write_bytes(b"x")
    with pytest.raises(ProblemsError) as caught:
        scr_jsrt.prepare(tmp_path / "source", tmp_path / "target")
    assert {(error.where, error.code) for error in caught.value.problems} == {
        ("JPCLN001", "NO_LABEL"),
        ("JPCNN002", "NO_IMAGE"),
    }


def test_an_empty_drawing_is_refused(source, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/JPCLN001.IMG").symlink_to(source / "All247images/JPCLN001.IMG")
    save_drawings(tmp_path / "source")
    Image.fromarray(np.zeros((1024, 1024), np.uint8)).save(tmp_path / "source/scratch/fold1/masks/heart/JPCLN001.gif")
    with pytest.raises(ProblemsError, match="the drawing of the heart is empty"):
        scr_jsrt.prepare(tmp_path / "source", tmp_path / "target")


def test_a_drawing_that_is_cut_off_is_refused(source, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/JPCLN001.IMG").symlink_to(source / "All247images/JPCLN001.IMG")
    save_drawings(tmp_path / "source")
    path = tmp_path / "source/scratch/fold1/masks/left lung/JPCLN001.gif"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ProblemsError) as caught:
        scr_jsrt.prepare(tmp_path / "source", tmp_path / "target")
    assert [str(error.where) for error in caught.value.problems] == [str(path)]


@pytest.mark.parametrize("setting", [{"structures": 4}, {"size": 4096}])
def test_impossible_settings_are_refused(source, tmp_path, setting):
    with pytest.raises(InputError, match="3 or 5 structures and a size"):
        scr_jsrt.prepare(source, tmp_path / "target", **setting)


def test_without_all_radiographs_no_list_is_written(usual):
    assert list(usual.glob("*.json")) == [usual / "dataset.json"]


def test_the_lists_have_the_published_numbers_and_folds():
    cases = {name: replace(planned(name), split="fold1" if int(name[-3:]) % 2 else "fold2") for name in scr_jsrt.NAMES}
    lists = scr_jsrt.build_lists(cases)
    assert list(lists["labeled_100_seed1"].counts().values()) == [100, 100, 23, 24]
    assert list(lists["fold1_all_labeled"].counts().values()) == [112, 0, 12, 123]
    assert list(lists["fold2_all_labeled"].counts().values()) == [111, 0, 12, 124]
    for each in lists.values():
        names = [case.image for section in SECTIONS for case in getattr(each, section)]
        assert len(names) == len(set(names)) == 247
