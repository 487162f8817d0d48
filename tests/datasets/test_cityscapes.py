"""Cityscapes: labelIds to 19 classes, all else ignored; lists of Dense FixMatch."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from semi_med.data.data_list import SECTIONS
from semi_med.datasets import cityscapes
from semi_med.datasets.record import planned
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_label

# number in labelIds and class, of the data set's own table
TRAINED = [(7, 0), (8, 1), (11, 2), (12, 3), (13, 4), (17, 5), (19, 6), (20, 7), (21, 8), (22, 9), (23, 10)]
TRAINED += [(24, 11), (25, 12), (26, 13), (27, 14), (28, 15), (31, 16), (32, 17), (33, 18)]


def save(root, part, city, number=1, *, ids=None, labeled=True):
    name = f"{city}_{number:06d}_000019"
    images, labels = root / "leftImg8bit" / part / city, root / "gtFine" / part / city
    images.mkdir(parents=True, exist_ok=True)
    photograph = np.random.default_rng(number).integers(0, 256, (2, 34, 3)).astype(np.uint8)
    Image.fromarray(photograph).save(images / f"{name}_leftImg8bit.png")
    if labeled:
        labels.mkdir(parents=True, exist_ok=True)
        ids = np.tile(np.arange(34, dtype=np.uint8), (2, 1)) if ids is None else ids
        Image.fromarray(ids).save(labels / f"{name}_gtFine_labelIds.png")
        Image.fromarray(photograph).save(labels / f"{name}_gtFine_color.png")
    return name


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    save(root, "train", "aachen")
    save(root, "train", "ulm")
    save(root, "val", "frankfurt")
    save(root, "test", "berlin")
    save(root, "train_extra", "bad-honnef", labeled=False)
    return root


def test_19_numbers_are_classes_and_the_others_are_ignored(source, tmp_path):
    cityscapes.prepare(source, tmp_path / "target")
    label = read_label(tmp_path / "target/labels/aachen_000001_000019.png").array[:, 0, 0]
    expected = np.full(34, 255)
    for number, index in TRAINED:
        expected[number] = index
    np.testing.assert_array_equal(label, expected)


def test_photographs_are_copied_byte_by_byte(source, tmp_path):
    cityscapes.prepare(source, tmp_path / "target")
    original = source / "leftImg8bit/val/frankfurt/frankfurt_000001_000019_leftImg8bit.png"
    assert (tmp_path / "target/images/frankfurt_000001_000019.png").read_bytes() == original.read_bytes()


def test_the_test_with_its_stand_ins_is_left_and_extra_comes_on_request(source, tmp_path):
    usual = cityscapes.prepare(source, tmp_path / "usual")
    more = cityscapes.prepare(source, tmp_path / "more", extra=True)
    assert {case.split for case in usual.entries.values()} == {"train", "val"}
    assert set(more.cases) - set(usual.cases) == {"bad-honnef_000001_000019"}
    assert more.without_label == ("bad-honnef_000001_000019",)


def test_labels_of_training_ids_are_refused(source, tmp_path):
    save(source, "train", "aachen", ids=np.full((2, 34), 255, np.uint8))
    with pytest.raises(ProblemsError, match=r"0 to 33 \(labelIds\) was wanted, this has 255"):
        cityscapes.prepare(source, tmp_path / "target")


def test_an_empty_photograph_is_refused(source, tmp_path):
    path = source / "leftImg8bit/train_extra/bad-honnef/bad-honnef_000001_000019_leftImg8bit.png"
    Image.fromarray(np.zeros((2, 34, 3), np.uint8)).save(path)
    with pytest.raises(ProblemsError, match="every pixel has the same value"):
        cityscapes.prepare(source, tmp_path / "target", extra=True)


def test_the_photograph_that_is_published_black_is_left_out_and_noted(source, tmp_path):
    folder = source / "leftImg8bit/train_extra/troisdorf"
    folder.mkdir()
    black = folder / "troisdorf_000000_000073_leftImg8bit.png"
    Image.fromarray(np.zeros((2, 34), np.uint8)).save(black)
    done = cityscapes.prepare(source, tmp_path / "target", extra=True)
    assert "troisdorf_000000_000073" not in done.cases
    assert "troisdorf_000000_000073 is black" in done.summary()
    Image.fromarray(np.arange(204, dtype=np.uint8).reshape(2, 34, 3)).save(black)  # the one that the page offers
    assert "troisdorf_000000_000073" in cityscapes.prepare(source, tmp_path / "whole", extra=True).cases


def test_a_photograph_that_is_cut_off_is_refused(source, tmp_path):
    path = source / "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ProblemsError, match="the picture is cut off"):
        cityscapes.prepare(source, tmp_path / "target")


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(InputError, match="leftImg8bit/train/aachen"):
        cityscapes.prepare(tmp_path / "source", tmp_path / "target")


def test_the_lists_have_dense_fixmatchs_numbers_and_no_city_of_the_validation_in_the_training():
    sizes = {("train", "aachen"): 2880, ("train", "ulm"): 95, ("val", "frankfurt"): 500, ("train_extra", "bonn"): 30}
    cases = {}
    for (part, city), count in sizes.items():
        for number in range(count):
            name = f"{city}_{number:06d}_000019"
            made = replace(planned(name, suffix=".png"), split=part, group=city)
            cases[name] = made if part != "train_extra" else replace(made, label=None)
    lists = cityscapes.build_lists(cases)
    assert len(lists) == 5 * 4 + 2
    for count in (93, 186, 372, 744, 1488):
        assert list(lists[f"labeled_{count:04d}_seed4"].counts().values()) == [count, 2880 - count, 95, 500]
    assert list(lists["all_labeled_with_extra"].counts().values()) == [2880, 30, 95, 500]
    assert {each.ignored for each in lists.values()} == {255}
    each = lists["labeled_0093_seed1"]
    assert {case.name.split("_")[0] for case in each.validation} == {"ulm"}
    names = [case.name for section in SECTIONS for case in getattr(each, section)]
    assert len(names) == len(set(names))
    assert len({tuple(case.name for case in lists[f"labeled_0093_seed{s}"].labeled) for s in (1, 2, 3, 4)}) == 4


def test_a_part_that_is_not_whole_has_no_list(source, tmp_path):
    done = cityscapes.prepare(source, tmp_path / "target")
    assert done.lists == ()
    assert "2 of the 2975 cases of the train part" in done.summary()
