"""Labels as pictures: the numbers are classes, the colours are for people."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from semi_med.errors import InputError
from semi_med.inference.io import read_label, write_label
from semi_med.inference.label_png import label_png

LABEL = (np.arange(6 * 4) % 3).astype(np.uint8).reshape(6, 4)


def test_a_label_comes_back_as_it_was_written(tmp_path):
    write_label(tmp_path / "a.png", LABEL[:, :, None], affine=np.eye(4))
    np.testing.assert_array_equal(read_label(tmp_path / "a.png").array, LABEL[:, :, None])


def test_columns_and_rows_are_those_of_the_picture(tmp_path):
    write_label(tmp_path / "a.png", LABEL[:, :, None], affine=np.eye(4))
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.mode, picture.size) == ("P", (6, 4))
        assert picture.getpixel((5, 1)) == LABEL[5, 1]


def test_all_256_classes_have_a_colour_and_no_two_the_same(tmp_path):
    write_label(tmp_path / "a.png", np.arange(256, dtype=np.uint8).reshape(16, 16, 1), affine=np.eye(4))
    with Image.open(tmp_path / "a.png") as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == 256
    assert [tuple(colour) for colour in colours.tolist()].count((0, 0, 0)) == 1  # the background


def test_the_same_label_gives_the_same_bytes(tmp_path):
    digests = {hashlib.sha256(label_png(LABEL.copy(), path=tmp_path / "a.png")).hexdigest() for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.zeros((3, 3, 2), np.uint8), r"one slice \(i, j, 1\) is wanted for this file, the label has \(3, 3, 2\)"),
        (np.zeros((3, 3), np.uint8), "one slice"),
        (np.full((3, 3, 1), 256, np.uint16), "from 0 to 255"),
        (np.full((3, 3, 1), -1, np.int16), "from 0 to 255"),
        (np.zeros((3, 3, 1), np.float32), "from 0 to 255"),
    ],
)
def test_what_a_picture_cannot_hold_is_refused_and_nothing_is_written(tmp_path, label, words):
    with pytest.raises(InputError, match=words):
        write_label(tmp_path / "a.png", label, affine=np.eye(4))
    assert list(tmp_path.iterdir()) == []
