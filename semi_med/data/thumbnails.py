"""One case as a strip of small pictures: three planes with the outlines of its label, marked with letters.

The scan is turned to the nearest RAS axes. Axial and coronal planes show the patient's right on the left side, sagittal
planes anterior on the left side, as on a radiologist's screen. Pictures are shown upright and without letters.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from semi_med.ignored import IGNORED
from semi_med.inference.grids import ras_affine, to_ras
from semi_med.inference.io import Scan

SIDE = 168  # pixels of a panel
GAP = 4
COLOURS = ((86, 224, 255), (255, 166, 0), (255, 111, 181), (124, 255, 178), (240, 228, 66), (190, 150, 255))
UNKNOWN = (190, 190, 190)
_UNORIENTED = ("PICTURE", "NO_ORIENTATION")
_MOST_COLOURED = 40  # classes that are outlined one by one


@dataclass(frozen=True)
class _Plane:
    """Axes of a cut through an RAS volume: the normal, the one that runs to the left, the one upwards; the letters."""

    normal: int
    across: int
    up: int
    letters: str  # at the left, right, top, bottom


_PLANES = (_Plane(2, 0, 1, "RLAP"), _Plane(1, 0, 2, "RLSI"), _Plane(0, 1, 2, "APSI"))


def colour_of(value: int) -> tuple[int, int, int]:
    """Red, green, blue of a class; repeated after some classes. What is not known is grey."""
    return UNKNOWN if value == IGNORED else COLOURS[(value - 1) % len(COLOURS)]


def thumbnails(image: Scan | None, label: Scan | None) -> bytes | None:
    """A JPEG strip of the planes through a case, None without an image.

    Args:
        image: (i, j, k) or (i, j, k, 3) in colour; of other channels the first is shown.
        label: its outlines are drawn where its own affine places it, so that a wrong header is seen.
    """
    if image is None:
        return None
    from PIL import Image

    array, spacing = to_ras(image.array, image.affine)
    drawn = to_ras(label.array, label.affine)[0] if label is not None else None
    lookup = None
    if label is not None:
        own = ras_affine(label.affine, label.array.shape)
        lookup = np.linalg.inv(own) @ ras_affine(image.affine, image.array.shape)
    centre = _centre(array.shape[:3], drawn, lookup)
    oriented = not any(warning.startswith(_UNORIENTED) for warning in image.warnings)
    planes = [plane for plane in _PLANES if min(array.shape[plane.across], array.shape[plane.up]) > 1] or [_PLANES[0]]
    cuts = [_cut(array, plane, centre) for plane in planes]
    window = _window(cuts)
    millimetres = max(array.shape[axis] * spacing[axis] for plane in planes for axis in (plane.across, plane.up))
    panels = []
    for plane, cut in zip(planes, cuts, strict=True):
        size = tuple(
            max(1, round(SIDE * cut.shape[n] * spacing[a] / millimetres)) for n, a in ((1, plane.across), (0, plane.up))
        )
        grey = _scaled(cut, window)[::-1, ::-1]
        panel = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")).copy()
        if drawn is not None and lookup is not None:
            values = _label_cut(drawn, lookup, plane, centre, size, array.shape)
            _outline(panel, values[::-1, ::-1])
        panels.append(_framed(panel, plane.letters if oriented else ""))
    strip = np.concatenate([part for panel in panels for part in (panel, np.zeros((SIDE, GAP, 3), np.uint8))][:-1], 1)
    stream = io.BytesIO()
    Image.fromarray(strip).save(stream, "JPEG", quality=88, subsampling=0)
    return stream.getvalue()


def _centre(shape: tuple[int, ...], label: np.ndarray | None, lookup: np.ndarray | None) -> tuple[int, ...]:
    """The voxel whose three planes show most of the label; the middle without one."""
    middle = tuple(size // 2 for size in shape)
    if label is None or lookup is None or not label.any():
        return middle
    region = label > 0
    point = [int(np.argmax(region.sum(axis=tuple({0, 1, 2} - {axis})))) for axis in range(3)]
    found = np.rint((np.linalg.inv(lookup) @ [*point, 1])[:3])
    return tuple(int(np.clip(index, 0, size - 1)) for index, size in zip(found, shape, strict=True))


def _cut(array: np.ndarray, plane: _Plane, centre: tuple[int, ...]) -> np.ndarray:
    """(up, across) or (up, across, 3)."""
    cut = np.take(array, centre[plane.normal], axis=plane.normal).swapaxes(0, 1)
    return cut if cut.ndim == 2 or cut.shape[2] == 3 else cut[..., 0]


def _window(cuts: list[np.ndarray]) -> tuple[float, float]:
    shown = np.concatenate([cut.ravel() for cut in cuts])
    low, high = np.percentile(shown, [0.5, 99.5])
    return (float(low), float(high)) if high > low else (float(low) - 1, float(low) + 1)


def _scaled(cut: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    low, high = window
    return (np.clip((cut - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _label_cut(
    label: np.ndarray,
    lookup: np.ndarray,
    plane: _Plane,
    centre: tuple[int, ...],
    size: tuple[int, ...],
    shape: tuple[int, ...],
) -> np.ndarray:
    """Values of the label at the pixels of a panel (up, across); 0 outside of it."""
    points: list[Any] = [None, None, None]
    points[plane.normal] = float(centre[plane.normal])
    for axis, pixels, reshape in ((plane.across, size[0], (1, -1)), (plane.up, size[1], (-1, 1))):
        points[axis] = ((np.arange(pixels) + 0.5) * shape[axis] / pixels - 0.5).reshape(reshape)
    i, j, k = np.broadcast_arrays(*points)
    found = np.rint(np.einsum("ab,b...->a...", lookup[:3], np.stack([i, j, k, np.ones_like(i)]))).astype(int)
    inside = np.all([(index >= 0) & (index < size) for index, size in zip(found, label.shape, strict=True)], axis=0)
    values = np.zeros(inside.shape, np.int64)
    values[inside] = label[tuple(index[inside] for index in found)]
    return values


def _outline(panel: np.ndarray, values: np.ndarray) -> None:
    """Colours, in place, the pixels of each class that touch another one."""
    padded = np.pad(values, 1)
    edge = np.zeros(values.shape, bool)
    for shifted in (padded[2:, 1:-1], padded[:-2, 1:-1], padded[1:-1, 2:], padded[1:-1, :-2]):
        edge |= shifted != values
    edge &= values > 0
    for value in np.unique(values[edge])[:_MOST_COLOURED]:
        panel[edge & (values == value)] = colour_of(int(value))


def _framed(panel: np.ndarray, letters: str) -> np.ndarray:
    """A panel in the middle of a black square, with letters at its sides."""
    from PIL import Image, ImageDraw

    frame = np.zeros((SIDE, SIDE, 3), np.uint8)
    top, left = (SIDE - panel.shape[0]) // 2, (SIDE - panel.shape[1]) // 2
    frame[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
    if not letters:
        return frame
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    half = SIDE // 2
    for letter, place, anchor in zip(
        letters, ((3, half), (SIDE - 3, half), (half, 2), (half, SIDE - 2)), ("lm", "rm", "ma", "md"), strict=True
    ):
        draw.text(place, letter, fill="white", stroke_fill="black", stroke_width=2, anchor=anchor, font_size=12)
    return np.asarray(picture)
