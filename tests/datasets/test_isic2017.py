"""ISIC 2017: folders of the three archives, superpixels beside photographs."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from semi_med.data.data_list import SECTIONS
from semi_med.data.folders import find_cases
from semi_med.data.validation import Options, examine_cases
from semi_med.datasets import isic2017
from semi_med.datasets.record import planned
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_label

PARTS = {"ISIC_0000001": "Training", "ISIC_0000002": "Validation", "ISIC_0000003": "Test_v2"}


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    for number, (name, part) in enumerate(PARTS.items()):
        images, labels = root / f"ISIC-2017_{part}_Data", root / f"ISIC-2017_{part}_Part1_GroundTruth"
        images.mkdir(parents=True)
        labels.mkdir()
        photograph = np.random.default_rng(number).integers(0, 256, (6 + number, 8, 3)).astype(np.uint8)
        drawn = np.zeros((6 + number, 8), np.uint8)
        drawn[1:3, 5:] = 255
        Image.fromarray(photograph).save(images / f"{name}.jpg")
        Image.fromarray(photograph).save(images / f"{name}_superpixels.png")
        Image.fromarray(drawn).save(labels / f"{name}_segmentation.png")
        (images / f"ISIC-2017_{part}_Data_metadata.csv").write_text("image_id,age_approximate,sex\n")
    return root


def test_superpixels_are_skipped_and_parts_known_by_their_folders(source, tmp_path):
    done = isic2017.prepare(source, tmp_path / "target")
    assert {name: case.split for name, case in done.entries.items()} == {
        "ISIC_0000001": "training",
        "ISIC_0000002": "validation",
        "ISIC_0000003": "test",
    }
    assert len(list((tmp_path / "target/images").iterdir())) == 3


def test_the_lesion_is_1_at_its_columns_and_rows(source, tmp_path):
    isic2017.prepare(source, tmp_path / "target")
    label = read_label(tmp_path / "target/labels/ISIC_0000002.png").array[:, :, 0]
    expected = np.zeros((8, 7), np.uint8)
    expected[5:, 1:3] = 1
    np.testing.assert_array_equal(label, expected)


def test_photographs_keep_their_different_sizes_unless_one_is_asked_for(source, tmp_path):
    for target, size in (("as they are", None), ("equal", 4)):
        isic2017.prepare(source, tmp_path / target, size=size)
    sizes = {
        folder: {Image.open(path).size for path in (tmp_path / folder).glob("*/*.png")}
        for folder in ("as they are", "equal")
    }
    assert sizes == {"as they are": {(8, 6), (8, 7), (8, 8)}, "equal": {(4, 4)}}


def test_photographs_are_copied_byte_by_byte_unless_another_size_is_asked_for(source, tmp_path):
    done = isic2017.prepare(source, tmp_path / "target")
    name = "ISIC_0000001"
    original = (source / f"ISIC-2017_Training_Data/{name}.jpg").read_bytes()
    assert (tmp_path / f"target/images/{name}.jpg").read_bytes() == original
    assert done.entries[name].listed().image == f"images/{name}.jpg"
    assert isic2017.prepare(source, tmp_path / "target").kept == done.cases
    sized = isic2017.prepare(source, tmp_path / "sized", size=4)
    assert sized.entries[name].image == (f"images/{name}.png",)


def test_a_photograph_without_colours_is_stored_with_three_equal_ones(source, tmp_path):
    path = source / "ISIC-2017_Training_Data/ISIC_0000001.jpg"
    Image.open(path).convert("L").save(path)
    done = isic2017.prepare(source, tmp_path / "target")
    assert done.entries["ISIC_0000001"].image == ("images/ISIC_0000001.png",)
    assert np.asarray(Image.open(tmp_path / "target/images/ISIC_0000001.png")).shape == (6, 8, 3)


def test_the_same_source_gives_the_same_bytes_and_the_folder_is_sound(source, tmp_path):
    for name in ("one", "two"):
        done = isic2017.prepare(source, tmp_path / name)
    contents = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    ]
    assert contents[0] == contents[1]
    findings = examine_cases(find_cases(tmp_path / "two").items, options=Options(channels=3))
    assert (findings.problems, findings.cases) == ([], {"scans": len(done.cases)})


def test_a_label_with_soft_borders_is_refused(source, tmp_path):
    drawn = np.tile(np.arange(8, dtype=np.uint8) * 30, (6, 1))
    Image.fromarray(drawn).save(source / "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000001_segmentation.png")
    with pytest.raises(ProblemsError, match=r"this has 0, 30, 60, 90, 120, 150, ... \(8 values\)"):
        isic2017.prepare(source, tmp_path / "target")


def test_a_photograph_that_is_cut_off_is_refused_and_the_others_are_written(source, tmp_path):
    path = source / "ISIC-2017_Training_Data/ISIC_0000001.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ProblemsError, match=r"ISIC_0000001.jpg: the picture is cut off"):
        isic2017.prepare(source, tmp_path / "target")
    assert (tmp_path / "target/images/ISIC_0000003.jpg").is_file()


def test_photographs_in_a_folder_of_another_name_are_refused(source, tmp_path):
    (source / "ISIC-2017_Training_Data").rename(source / "train")
    with pytest.raises(InputError, match="a folder ISIC-2017_"):
        isic2017.prepare(source, tmp_path / "target")


def test_the_folder_of_one_part_can_be_named_itself(source, tmp_path):
    done = isic2017.prepare(source / "ISIC-2017_Training_Data", tmp_path / "target")
    assert (done.cases, done.without_label) == (("ISIC_0000001",), ("ISIC_0000001",))


def test_the_lists_have_the_published_numbers():
    cases = {
        f"ISIC_{start + number:07d}": replace(planned(f"ISIC_{start + number:07d}", suffix=".png"), split=part)
        for start, (part, count) in zip((0, 3000, 4000), isic2017.PARTS.items(), strict=True)
        for number in range(count)
    }
    lists = isic2017.build_lists(cases)
    assert list(lists["labeled_100_seed1"].counts().values()) == [100, 1000, 150, 600]
    assert list(lists["all_labeled"].counts().values()) == [2000, 0, 150, 600]
    names = [case.image for section in SECTIONS for case in getattr(lists["labeled_100_seed2"], section)]
    assert len(names) == len(set(names))


def test_a_part_that_is_not_whole_has_no_list(source, tmp_path):
    done = isic2017.prepare(source, tmp_path / "target")
    assert done.lists == ()
    assert "1 of the 2000 cases of the training part" in done.summary()
