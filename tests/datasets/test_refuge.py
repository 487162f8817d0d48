"""REFUGE: three parts in the archives' own folders, bmp labels of 0, 128 and 255."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from semi_med.data.data_list import SECTIONS
from semi_med.datasets import refuge
from semi_med.datasets.record import planned
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_image, read_label

PLACES = {
    "g0001": ("Training400/Glaucoma", "Annotation-Training400/Disc_Cup_Masks/Glaucoma"),
    "n0001": ("Training400/Non-Glaucoma", "Annotation-Training400/Disc_Cup_Masks/Non-Glaucoma"),
    "V0001": ("REFUGE-Validation400", "REFUGE-Validation400-GT/Disc_Cup_Masks"),
    "T0001": ("Test400", "REFUGE-Test-GT/Disc_Cup_Masks/N"),
}
SHAPE = (10, 8)  # columns, rows


def drawing():
    """The disc on columns 2 to 6, the cup on column 4, as rows and columns of the file."""
    made = np.full((8, 10), 255, np.uint8)
    made[1:7, 2:7] = 128
    made[2:4, 4] = 0
    return made


def photograph(seed):
    return np.random.default_rng(seed).integers(0, 256, (8, 10, 3)).astype(np.uint8)


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    for seed, (name, (images, labels)) in enumerate(PLACES.items()):
        for folder in (images, labels):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(seed)).save(root / images / f"{name}.jpg")
        Image.fromarray(drawing()).save(root / labels / f"{name}.bmp")
    return root


def test_dark_is_inside_the_cup_is_2_and_the_rest_of_the_disc_1(source, tmp_path):
    refuge.prepare(source, tmp_path / "target")
    label = read_label(tmp_path / "target/labels/g0001.png").array[:, :, 0]
    expected = np.zeros(SHAPE, np.uint8)
    expected[2:7, 1:7] = 1
    expected[4, 2:4] = 2
    np.testing.assert_array_equal(label, expected)


def test_photographs_are_copied_byte_by_byte(source, tmp_path):
    refuge.prepare(source, tmp_path / "target")
    original = source / PLACES["V0001"][0] / "V0001.jpg"
    assert (tmp_path / "target/images/V0001.jpg").read_bytes() == original.read_bytes()


def test_a_photograph_that_is_cut_off_is_refused_and_the_others_are_written(source, tmp_path):
    path = source / PLACES["V0001"][0] / "V0001.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ProblemsError, match=r"V0001.jpg: the picture is cut off"):
        refuge.prepare(source, tmp_path / "target")
    assert (tmp_path / "target/images/T0001.jpg").is_file()


def test_each_photograph_is_in_its_part_with_the_diagnosis_that_folders_give(source, tmp_path):
    found = refuge.prepare(source, tmp_path / "target").entries
    assert {name: (case.split, case.group) for name, case in found.items()} == {
        "g0001": ("training", "glaucoma"),
        "n0001": ("training", "no glaucoma"),
        "V0001": ("validation", None),
        "T0001": ("test", "no glaucoma"),
    }


def test_a_label_with_a_palette_means_the_greys_that_are_seen(source, tmp_path):
    numbers = np.select([drawing() == 0, drawing() == 128], [0, 1], 2).astype(np.uint8)
    picture = Image.fromarray(numbers)
    picture.putpalette([0, 0, 0, 128, 128, 128, 255, 255, 255])
    picture.save(source / PLACES["g0001"][1] / "g0001.bmp")
    refuge.prepare(source, tmp_path / "target")
    labels = [read_label(tmp_path / f"target/labels/{name}.png").array for name in ("g0001", "n0001")]
    np.testing.assert_array_equal(*labels)


def test_photographs_are_resized_together_with_their_labels(source, tmp_path):
    refuge.prepare(source, tmp_path / "target", size=5)
    assert read_image(tmp_path / "target/images/T0001.png", channels=3).array.shape == (5, 5, 1, 3)
    assert read_label(tmp_path / "target/labels/T0001.png").array.shape == (5, 5, 1)


def test_a_folder_of_another_challenge_and_leftovers_are_skipped(source, tmp_path):
    for place in ("Training400/AMD/A0001.jpg", "__MACOSX/Training400/Glaucoma/g0002.jpg", "Training400/._g0003.jpg"):
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        (source / place).write_bytes(b"x")
    assert len(refuge.prepare(source, tmp_path / "target").cases) == 4


def test_a_lossy_copy_of_a_label_is_refused(source, tmp_path):
    Image.fromarray(np.where(drawing() == 128, 127, drawing()).astype(np.uint8)).save(
        source / PLACES["n0001"][1] / "n0001.bmp"
    )
    with pytest.raises(ProblemsError, match=r"n0001.bmp: a label of 0, 128 and 255 was wanted, this has 0, 127, 255"):
        refuge.prepare(source, tmp_path / "target")


def test_a_label_of_another_size_is_refused(source, tmp_path):
    Image.fromarray(drawing().T).save(source / PLACES["n0001"][1] / "n0001.bmp")
    with pytest.raises(ProblemsError, match=r"its size is 8 x 10 \(columns x rows\), that of n0001.jpg is 10 x 8"):
        refuge.prepare(source, tmp_path / "target")


def test_the_second_editions_files_of_the_same_names_are_refused(source, tmp_path):
    (source / "REFUGE2-Validation").mkdir()
    Image.fromarray(photograph(9)).save(source / "REFUGE2-Validation/V0001.jpg")
    with pytest.raises(ProblemsError, match="V0001 is there twice"):
        refuge.prepare(source, tmp_path / "target")


def test_labels_without_photographs_are_refused(source, tmp_path):
    (source / PLACES["T0001"][0] / "T0001.jpg").unlink()
    with pytest.raises(InputError, match="1 labels have no image: T0001"):
        refuge.prepare(source, tmp_path / "target")


def test_a_part_that_is_not_whole_has_no_list_and_is_named(source, tmp_path):
    done = refuge.prepare(source, tmp_path / "target")
    assert done.lists == ()
    assert "2 of the 400 cases of the training part" in done.summary()


def test_the_lists_have_the_published_numbers():
    parts = {"training": "n", "validation": "V", "test": "T"}
    cases = {
        f"{letter}{number:04d}": replace(planned(f"{letter}{number:04d}", suffix=".png"), split=part)
        for part, letter in parts.items()
        for number in range(1, 401)
    }
    lists = refuge.build_lists(cases)
    assert set(lists) == {"labeled_100_seed1", "labeled_100_seed2", "labeled_100_seed3", "all_labeled"}
    assert list(lists["labeled_100_seed1"].counts().values()) == [100, 300, 400, 400]
    names = [case.image for section in SECTIONS for case in getattr(lists["labeled_100_seed3"], section)]
    assert len(names) == len(set(names)) == 1200
    assert all(str(case.image).startswith("images/T") for case in lists["all_labeled"].test)
