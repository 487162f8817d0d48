"""Pascal VOC: palette labels, VOC's own lists, both forms of the augmented set."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from semi_med.data.data_list import SECTIONS
from semi_med.data.splits import make_split, split_list
from semi_med.data.validation import Options, check_sections
from semi_med.datasets import pascal_voc
from semi_med.datasets.lists import ListMaker
from semi_med.datasets.record import planned
from semi_med.datasets.split_source import Choices, read_source
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_label

PALETTE = [part for number in range(256) for part in (number * 7 % 256, number * 13 % 256, number * 29 % 256)]
TRAIN, VAL, FURTHER = "2007_000032", "2007_000033", "2008_000002"


def drawn(value=15):
    """Rows and columns: an object with its outline of 255."""
    made = np.zeros((5, 7), np.uint8)
    made[1:4, 2:6] = 255
    made[2, 3:5] = value
    return made


def save_palette(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(rows)
    picture.putpalette(PALETTE)
    picture.save(path)


def save_mat(path, rows):
    """As SBD has it: a structure of boundaries, classes and the segmentation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": {"Boundaries": np.zeros((20, 1)), "Segmentation": rows, "CategoriesPresent": [[15]]}})


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source/VOCdevkit/VOC2012"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for number, name in enumerate((TRAIN, VAL, FURTHER, "2012_000001")):
        photograph = np.random.default_rng(number).integers(0, 256, (5, 7, 3)).astype(np.uint8)
        Image.fromarray(photograph).save(root / f"JPEGImages/{name}.jpg")
    for part, name in (("train", TRAIN), ("val", VAL)):
        save_palette(root / f"SegmentationClass/{name}.png", drawn())
        (root / f"ImageSets/Segmentation/{part}.txt").write_text(f"{name}\n")
    (root / "ImageSets/Segmentation/trainval.txt").write_text(f"{TRAIN}\n{VAL}\n")
    return tmp_path / "source"


def label(target, name):
    return read_label(target / f"labels/{name}.png").array[:, :, 0]


def test_classes_are_the_palettes_numbers_and_the_outline_stays_255(source, tmp_path):
    pascal_voc.prepare(source, tmp_path / "target")
    np.testing.assert_array_equal(label(tmp_path / "target", TRAIN), drawn().T)


def test_photographs_are_copied_byte_by_byte(source, tmp_path):
    pascal_voc.prepare(source, tmp_path / "target")
    original = source / f"VOCdevkit/VOC2012/JPEGImages/{TRAIN}.jpg"
    assert (tmp_path / f"target/images/{TRAIN}.jpg").read_bytes() == original.read_bytes()


def test_photographs_in_no_list_are_left(source, tmp_path):
    found = pascal_voc.prepare(source, tmp_path / "target").entries
    assert {name: case.split for name, case in found.items()} == {TRAIN: "train", VAL: "val"}


@pytest.mark.parametrize("form", ["png", "mat"])
def test_both_forms_of_the_augmented_set_give_the_same_label_by_column_and_row(source, tmp_path, form):
    rows = np.where(drawn() == 255, 0, drawn()).astype(np.uint8)
    for name in (TRAIN, FURTHER):
        if form == "mat":
            save_mat(source / f"benchmark_RELEASE/dataset/cls/{name}.mat", rows)
        else:
            path = source / f"VOCdevkit/VOC2012/SegmentationClassAug/{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(rows).save(path)  # grey, as this form is shared
    done = pascal_voc.prepare(source, tmp_path / "target")
    np.testing.assert_array_equal(label(tmp_path / "target", FURTHER), rows.T)
    np.testing.assert_array_equal(label(tmp_path / "target", TRAIN), drawn().T)  # VOC's own is preferred
    assert done.entries[FURTHER].split == "augmented"


def test_the_augmented_set_in_both_forms_is_refused(source, tmp_path):
    save_palette(source / f"SegmentationClassAug/{FURTHER}.png", drawn())
    save_mat(source / f"cls/{FURTHER}.mat", drawn())
    with pytest.raises(InputError, match="in both forms"):
        pascal_voc.prepare(source, tmp_path / "target")


def test_a_label_that_was_saved_in_colours_is_refused(source, tmp_path):
    path = source / f"VOCdevkit/VOC2012/SegmentationClass/{TRAIN}.png"
    with Image.open(path) as picture:
        picture.convert("RGB").save(path)
    with pytest.raises(ProblemsError, match="a picture in colour"):
        pascal_voc.prepare(source, tmp_path / "target")


def test_a_class_that_is_not_there_is_refused(source, tmp_path):
    save_palette(source / f"VOCdevkit/VOC2012/SegmentationClass/{TRAIN}.png", drawn(21))
    with pytest.raises(ProblemsError, match="0 to 20 and 255 was wanted, this has 0, 21, 255"):
        pascal_voc.prepare(source, tmp_path / "target")


def test_a_photograph_that_is_cut_off_is_refused_and_not_copied(source, tmp_path):
    path = source / f"VOCdevkit/VOC2012/JPEGImages/{VAL}.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ProblemsError, match="the picture is cut off"):
        pascal_voc.prepare(source, tmp_path / "target")
    assert [path.name for path in (tmp_path / "target/images").iterdir()] == [f"{TRAIN}.jpg"]


def test_a_damaged_label_of_sbd_is_refused(source, tmp_path):
    (source / "cls").mkdir()
    (source / f"cls/{FURTHER}.mat").write_bytes(b"no matlab file at all" * 20)
    with pytest.raises(ProblemsError, match="this is no label of SBD") as caught:
        pascal_voc.prepare(source, tmp_path / "target")
    assert caught.value.problems[0].code == "CORRUPT"


def test_a_name_without_a_label_is_refused(source, tmp_path):
    (source / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text(f"{VAL}\n2009_000001\n")
    with pytest.raises(InputError, match="1 of 2 names have no label in SegmentationClass: 2009_000001"):
        pascal_voc.prepare(source, tmp_path / "target")


def test_missing_photographs_are_named(source, tmp_path):
    (source / f"VOCdevkit/VOC2012/JPEGImages/{VAL}.jpg").unlink()
    with pytest.raises(InputError, match=f"1 photographs are missing: {VAL}"):
        pascal_voc.prepare(source, tmp_path / "target")


def test_a_missing_list_is_named(source, tmp_path):
    (source / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").unlink()
    with pytest.raises(InputError, match=r"ImageSets/Segmentation/train.txt was not found"):
        pascal_voc.prepare(source, tmp_path / "target")


def test_the_lists_have_dense_fixmatchs_numbers():
    sizes = {"train": 1464, "val": 1449, "augmented": 60}
    cases = {
        f"{2007 + year}_{number:06d}": replace(planned(f"{2007 + year}_{number:06d}", suffix=".png"), split=part)
        for year, (part, count) in enumerate(sizes.items())
        for number in range(count)
    }
    lists = pascal_voc.build_lists(cases)
    assert len(lists) == 4 * 4 + 3
    for count in (92, 183, 366, 732):
        assert list(lists[f"labeled_{count:03d}_seed1"].counts().values()) == [count, 1364 - count + 60, 100, 1449]
    assert list(lists["all_labeled_with_augmented"].counts().values()) == [1364, 60, 100, 1449]
    assert list(lists["augmented_all_labeled"].counts().values()) == [1424, 0, 100, 1449]
    assert {each.ignored for each in lists.values()} == {255}
    names = [case.name for section in SECTIONS for case in getattr(lists["labeled_732_seed4"], section)]
    assert len(names) == len(set(names)) == sum(sizes.values())


def test_lists_say_that_255_is_ignored_and_the_folder_is_sound_with_it_only(source, tmp_path):
    done = pascal_voc.prepare(source, tmp_path / "target")
    maker = ListMaker(pascal_voc.ABOUT, done.entries)
    listed = maker(labeled=[TRAIN], unlabeled=[], validation=[VAL], test=[], description="")
    assert listed.ignored == 255
    found = read_source(tmp_path / "target", Choices())
    assert split_list(make_split(found.cases, labeled=1, test=1), **found.header).ignored == 255
    sections = listed.sections(tmp_path / "target")
    options = Options(ignored=listed.ignored, channels=3, allow_missing_class=True)
    needed = ("labeled", "validation")
    assert not check_sections(sections, labels=listed.label_values, sections_needed=needed, options=options).problems
    with pytest.raises(ProblemsError, match="this has 255"):
        check_sections(
            sections, labels=listed.label_values, sections_needed=needed, options=replace(options, ignored=None)
        )
