"""Annotations of QuPath: polygons of named classes over a picture, as ASAP's XML, to class indices and back.

QuPath sends the corners of each shape as whole pixels, counted from the upper left corner of the picture. Of a shape
in several pieces, or with holes, it sends the corners of all rings in one row, of an ellipse four points: neither says
what was drawn, and both are refused. A pixel is inside if its centre is. Where shapes lie over each other the smaller
one counts, so that a hole is cut by a shape of the class of the background.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

from semi_med.errors import InputError

SUFFIX = ".xml"
MOST_BYTES = 2**25  # some 300,000 corners
_DANGER = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_SHAPES = ("polygon", "rectangle")
_FAR = 1e7  # pixels
_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#9a6324")


@dataclass(frozen=True)
class Shape:
    """One polygon.

    Attributes:
        name: of its class.
        corners: (n, 2) columns and rows, the first pixel from 0 to 1.
    """

    name: str
    corners: np.ndarray


def read_annotations(path: str | Path) -> list[Shape]:
    """Reads the polygons of a file.

    Raises:
        InputError: code TOO_LARGE; FORMAT, it is no such XML, or has a document type, which could make a reader open
            other files; ANNOTATION for a shape of which the corners do not say what was drawn, and for none at all.
    """
    path = Path(path)
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"at most {MOST_BYTES} bytes of annotations are read", where=path.name, code="TOO_LARGE")
    root = _parsed(path)
    shapes = [_shape(found, path) for found in root.iter("Annotation")]
    if not shapes:
        raise InputError(
            "there is no shape in these annotations", where=path.name, fix="Draw one and submit it.", code="ANNOTATION"
        )
    return shapes


def _parsed(path: Path) -> ElementTree.Element:
    content = path.read_bytes()
    try:
        if _DANGER.search(content) or b"\0" in content:
            raise ValueError("it has a document type, or is not in UTF-8")
        # the encoding is not the file's to choose: another one could hide a document type
        root = ElementTree.fromstring(content, parser=ElementTree.XMLParser(encoding="utf-8"))
        if root.tag != "ASAP_Annotations":
            raise ValueError(f"its first element is {root.tag[:40]!r}")
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(
            f"this is no file of annotations as QuPath's plugin sends it ({error})",
            where=path.name,
            fix="Submit the label from QuPath, or as a PNG with a number for each class.",
            code="FORMAT",
        ) from error
    return root


def _shape(found: ElementTree.Element, path: Path) -> Shape:
    name, kind = found.get("PartOfGroup") or found.get("Name") or "", found.get("Type") or ""
    if kind.lower() not in _SHAPES:
        raise InputError(
            f"a shape of the kind {kind[:40]!r} does not say what was drawn; polygons and rectangles are taken",
            where=path.name,
            fix="Turn it into polygons: split what has several pieces, fill holes and cut each with a polygon of the "
            "class background.",
            code="ANNOTATION",
        )
    try:
        points = sorted(found.iter("Coordinate"), key=lambda point: int(point.get("Order", "")))
        corners = np.array([[float(point.get(axis, "")) for axis in "XY"] for point in points])
    except ValueError:
        corners = np.zeros((0, 2))
    if len(corners) < 3 or not (np.abs(corners) < _FAR).all():
        raise InputError(
            "a shape has three corners or more, each with numbers Order, X and Y",
            where=path.name,
            fix="Draw it again.",
            code="ANNOTATION",
        )
    return Shape(name, corners)


def draw(shapes: Sequence[Shape], numbers: Mapping[str, int], *, size: tuple[int, int]) -> np.ndarray:
    """Class indices of a picture.

    Args:
        shapes: in whatever order; smaller ones lie over larger ones.
        numbers: of each class, by name.
        size: columns and rows.

    Returns:
        (columns, rows, 1), uint16.
    """
    label = np.zeros((size[1], size[0]), np.uint16)
    drawn = [(*_inside(one.corners, size), numbers[one.name]) for one in shapes]
    for place, inside, number in sorted(drawn, key=lambda one: -int(one[1].sum())):
        label[place][inside] = number
    return label.T[:, :, np.newaxis]


def _inside(corners: np.ndarray, size: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of the picture (rows, columns) round a shape, and which of its pixels have their centre inside.

    Inside, an odd number of the shape's sides lies to the left.
    """
    (left, top), (right, bottom) = (
        np.clip(ends, 0, size).astype(int) for ends in (np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0)))
    )
    columns, rows = right - left, bottom - top
    crossed = np.zeros((rows, columns + 1), bool)
    local = corners - (left, top)
    for (x, y), (to_x, to_y) in zip(local, np.roll(local, -1, axis=0), strict=True):
        first, last = (min(max(math.ceil(end - 0.5), 0), rows) for end in sorted((y, to_y)))
        if first < last:
            between = np.arange(first, last)
            at = x + (between + 0.5 - y) * ((to_x - x) / (to_y - y))
            crossed[between, np.clip(np.ceil(at - 0.5), 0, columns).astype(int)] ^= True
    inside = np.logical_xor.accumulate(crossed, axis=1)[:, :columns]
    return (slice(top, bottom), slice(left, right)), inside


def outlines(label: np.ndarray, names: Mapping[str, int]) -> list[Shape]:
    """A polygon round each piece of each class, along the borders of its pixels; `draw` gives the label again.

    A hole is part of the same polygon, which goes there and back on one line.

    Args:
        label: (columns, rows, 1) class indices.
        names: number of each class by name.
    """
    from scipy import ndimage

    flat, shapes = label[:, :, 0].T, []
    for name, number in names.items():
        pieces, _ = ndimage.label(flat == number)
        for piece, (rows, columns) in enumerate(ndimage.find_objects(pieces), start=1):
            corners = _joined(_rings(pieces[rows, columns] == piece))
            shapes.append(Shape(name, corners + np.array([columns.start, rows.start])))
    return shapes


def _rings(piece: np.ndarray) -> list[np.ndarray]:
    """Corners of the borders of one piece, the outer one first."""
    padded = np.pad(piece, 1).astype(np.int8)
    down, right = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    onward: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in np.argwhere(down):  # a side above or below a pixel; the piece lies to the right of the way
        onward.setdefault((x, y) if down[y, x] > 0 else (x + 1, y), []).append((1 if down[y, x] > 0 else -1, 0))
    for y, x in np.argwhere(right):
        onward.setdefault((x, y + 1) if right[y, x] > 0 else (x, y), []).append((0, -1 if right[y, x] > 0 else 1))
    rings = []
    while onward:
        start = at = min(onward)
        way, ring = (0, 0), list[tuple[int, int]]()
        while at != start or not ring:
            ways = onward[at]
            # where two pieces of the border meet, turn right: what touches by a corner is apart
            turn = next((one for one in ways if one == (-way[1], way[0])), ways[0])
            ways.remove(turn)
            if not ways:
                del onward[at]
            if turn != way:
                ring.append(at)
            way, at = turn, (at[0] + turn[0], at[1] + turn[1])
        rings.append(np.array(ring))
    return rings


def _joined(rings: Sequence[np.ndarray]) -> np.ndarray:
    """One ring: from the outer one to each hole and back on the same line, which has no inside."""
    joined = rings[0]
    for hole in rings[1:]:
        near = int(((joined - hole[0]) ** 2).sum(axis=1).argmin())
        joined = np.concatenate([joined[: near + 1], hole, hole[:1], joined[near:]])
    return joined


def annotations_xml(shapes: Sequence[Shape], names: Iterable[str]) -> str:
    """What QuPath's plugin reads as the answer to Run.

    Args:
        shapes: of the classes.
        names: of all classes; each has a colour of its own.
    """
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    lines = ['<?xml version="1.0"?>', "<ASAP_Annotations>", "<Annotations>"]
    for shape in shapes:
        name = quoteattr(shape.name)
        lines += [f'<Annotation Name={name} Type="Polygon" PartOfGroup={name} Color="{colours[shape.name]}">']
        points = [f'<Coordinate Order="{place}" X="{x}" Y="{y}"/>' for place, (x, y) in enumerate(shape.corners)]
        lines += ["<Coordinates>", *points, "</Coordinates>", "</Annotation>"]
    groups = [
        f'<Group Name={quoteattr(name)} PartOfGroup="None" Color="{colour}"/>' for name, colour in colours.items()
    ]
    return "\n".join(
        [*lines, "</Annotations>", "<AnnotationGroups>", *groups, "</AnnotationGroups>", "</ASAP_Annotations>"]
    )
