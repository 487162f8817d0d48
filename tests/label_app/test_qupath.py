"""Annotations of QuPath: what a polygon covers by hand, and a label that goes there and comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semi_med.errors import InputError
from semi_med.label_app.qupath import Shape, annotations_xml, draw, outlines, read_annotations

NAMES = {"background": 0, "disc": 1, "cup & rim": 2}


def polygon(name: str, *corners: tuple[float, float]) -> Shape:
    return Shape(name, np.array(corners, float))


def square(name: str, low: float, high: float) -> Shape:
    return polygon(name, (low, low), (high, low), (high, high), (low, high))


def test_a_rectangle_covers_its_pixels_and_no_more():
    label = draw([polygon("disc", (1, 2), (4, 2), (4, 4), (1, 4))], NAMES, size=(6, 5))
    assert label.shape == (6, 5, 1)
    expected = np.zeros((6, 5), int)
    expected[1:4, 2:4] = 1
    assert np.array_equal(label[:, :, 0], expected)


def test_a_pixel_is_inside_where_its_centre_is():
    label = draw([polygon("disc", (0, 0), (4, 0), (0, 4))], NAMES, size=(4, 4))
    assert label[:, :, 0].sum(axis=0).tolist() == [3, 2, 1, 0]


def test_what_lies_beyond_the_picture_is_cut_off():
    assert draw([square("disc", -3, 2)], NAMES, size=(4, 3))[:, :, 0].sum() == 4
    assert draw([square("disc", 50, 60)], NAMES, size=(4, 3)).sum() == 0


def test_the_smaller_of_two_shapes_counts_whatever_their_order():
    shapes = [square("cup & rim", 2, 5), square("disc", 0, 8), square("background", 3, 4)]
    label = draw(shapes, NAMES, size=(8, 8))[:, :, 0]
    assert np.array_equal(label, draw(shapes[::-1], NAMES, size=(8, 8))[:, :, 0])
    assert (label[0, 0], label[2, 2], label[3, 3]) == (1, 2, 0)
    assert np.bincount(label.ravel()).tolist() == [1, 64 - 9, 8]


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_label_with_holes_comes_back_from_its_outlines(tmp_path, seed, block):
    label = np.random.default_rng(seed).integers(0, 3, (13, 9)).repeat(block, axis=0).repeat(block, axis=1)[:, :, None]
    names = {name: number for name, number in NAMES.items() if number}
    (tmp_path / "a.xml").write_text(annotations_xml(outlines(label, names), names), encoding="utf-8")
    found = draw(read_annotations(tmp_path / "a.xml"), names, size=label.shape[:2])
    assert np.array_equal(found, label)


def test_an_outline_has_the_corners_alone():
    label = np.zeros((9, 7, 1), int)
    label[2:8, 3:5] = 1
    (found,) = outlines(label, {"disc": 1})
    assert sorted(found.corners.tolist()) == [[2, 3], [2, 5], [8, 3], [8, 5]]


def written(folder: Path, *, kind: str = "Polygon", corners: str | None = None) -> Path:
    text = annotations_xml([square("disc", 0, 4)], NAMES).replace("Polygon", kind)
    (folder / "label.xml").write_text(text if corners is None else text.replace('X="4.0"', corners))
    return folder / "label.xml"


@pytest.mark.parametrize("kind", ["Ellipse", "Geometry", "Line", ""])
def test_a_shape_that_does_not_say_what_was_drawn_is_refused(tmp_path, kind):
    with pytest.raises(InputError, match=r"label\.xml: a shape of the kind .* Turn it into polygons") as caught:
        read_annotations(written(tmp_path, kind=kind))
    assert caught.value.code == "ANNOTATION"


@pytest.mark.parametrize("corners", ['X="nan"', 'X="1e300"', 'X="four"', ""])
def test_corners_are_numbers(tmp_path, corners):
    with pytest.raises(InputError, match="three corners or more"):
        read_annotations(written(tmp_path, corners=corners))


def test_corners_are_taken_by_their_order(tmp_path):
    text = annotations_xml([polygon("disc", (0, 0), (4, 0), (4, 2), (2, 2), (0, 4))], NAMES)
    head, *points, tail = [line for line in text.splitlines() if line]
    (tmp_path / "a.xml").write_text(text)
    places = [place for place, line in enumerate(points) if "<Coordinate " in line]
    points[places[0]], points[places[3]] = points[places[3]], points[places[0]]
    (tmp_path / "b.xml").write_text("\n".join([head, *points, tail]))
    first, second = read_annotations(tmp_path / "a.xml"), read_annotations(tmp_path / "b.xml")
    assert np.array_equal(first[0].corners, second[0].corners)
