"""Photographs, drawn labels and flat scans as plain (i, j) arrays, for those who prepare data sets from them.

`read_image` gives float32 volumes; a preparation needs colours and numbers exactly as they are stored. Everywhere here
i counts columns from left to right and j rows downwards. Every file is verified whole, as by `read_image`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from semi_med.errors import InputError
from semi_med.inference.axes import Wanted
from semi_med.inference.byte_check import COPY_AGAIN, check_regular_file
from semi_med.inference.io import Scan, read_image, read_label
from semi_med.inference.picture_check import PICTURE_FORMATS, is_picture
from semi_med.inference.picture_check import read_picture as read_checked_picture

_USUAL = ("PICTURE",)  # warnings that hold for every picture


def read_photograph(path: str | Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Colours of a photograph.

    Args:
        path: a picture.

    Returns:
        (i, j, 3) uint8, a grey picture with three equal colours, and warnings.

    Raises:
        InputError: as `read_image`; code DTYPE if the picture has more than 8 bits.
    """
    array, warnings = _pixels(Path(path), Wanted(image=True, channels=3))
    if array.dtype != np.uint8:
        raise InputError(
            f"a photograph of 8 bits is wanted, this has {array.dtype}", where=path, fix=COPY_AGAIN, code="DTYPE"
        )
    if array.ndim == 2:
        return np.repeat(array[..., np.newaxis], 3, axis=2), (*warnings, "GREY: the photograph has no colours")
    return array, warnings


def read_drawing(path: str | Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Grey values of a drawn label as a person sees them, whatever numbers its palette has for them.

    Args:
        path: a picture in black, white and grey.

    Returns:
        (i, j) in the type of the file, and warnings.

    Raises:
        InputError: as `read_image`; code DTYPE if it is in colour.
    """
    array, warnings = _pixels(Path(path), Wanted(image=True))
    if array.ndim != 2:
        raise InputError("a drawing in black, white and grey is wanted, this has colours", where=path, code="DTYPE")
    return array, tuple(warning for warning in warnings if not warning.startswith("GREY"))


def read_indices(path: str | Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class indices of a label: the numbers of a palette, or grey values; colours are for people only.

    Args:
        path: a picture with one number per pixel.

    Returns:
        (i, j) in the type of the file, and warnings.

    Raises:
        InputError: as `read_label`.
    """
    return _pixels(Path(path), Wanted(image=False))


def two_valued(values: np.ndarray, *, where: str | Path) -> np.ndarray:
    """A drawing of one structure as a label: 1 where it has 255, or 1; 0 where it has 0.

    Raises:
        InputError: code LABEL_VALUES for any other value, such as those that lossy compression makes.
    """
    highest = int(values.max())
    if highest not in (0, 1, 255) or np.any((values != 0) & (values != highest)):
        raise wrong_values(values, wanted="0 and 255, or 0 and 1,", where=where)
    return (values > 0).astype(np.uint8)


def wrong_values(values: np.ndarray, *, wanted: str, where: str | Path) -> InputError:
    """The error for a label that holds other values than its data set documents."""
    found = [str(value) for value in np.unique(values)]
    text = ", ".join(found[:6]) + (f", ... ({len(found)} values)" if len(found) > 6 else "")
    return InputError(
        f"a label of {wanted} was wanted, this has {text}",
        where=where,
        fix="Take the label as its data set publishes it; a copy as JPEG or one that was resized does not keep it.",
        code="LABEL_VALUES",
    )


def check_same_size(label: np.ndarray, image: np.ndarray, *, where: str | Path, reference: str) -> None:
    """Refuse a label that has other columns or rows than its image.

    Args:
        label: (i, j).
        image: (i, j[, c]).
        where: the label's file.
        reference: name of the image.

    Raises:
        InputError: code GEOMETRY.
    """
    if label.shape != image.shape[:2]:
        wanted, got = (f"{shape[0]} x {shape[1]}" for shape in (image.shape, label.shape))
        raise InputError(
            f"its size is {got} (columns x rows), that of {reference} is {wanted}",
            where=where,
            fix="Take image and label from the same edition of the data set.",
            code="GEOMETRY",
        )


def _pixels(path: Path, wanted: Wanted) -> tuple[np.ndarray, tuple[str, ...]]:
    if not is_picture(path):
        raise InputError(
            f"a picture is wanted ({', '.join(PICTURE_FORMATS)})", where=path, fix="Check the name.", code="FORMAT"
        )
    raw = read_checked_picture(path, wanted)
    return raw.array[:, :, 0], tuple(w for w in raw.warnings if not w.startswith(_USUAL))


def read_raw_pixels(path: str | Path, *, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Pixels of a file that has nothing but pixels, row after row.

    Args:
        path: the file.
        shape: columns and rows.
        dtype: of a pixel, for example ">u2" for 16 bits with the high byte first.

    Returns:
        (i, j).

    Raises:
        InputError: code TRUNCATED or HEADER, if the file has another size.
    """
    size, needed = check_regular_file(Path(path)), shape[0] * shape[1] * np.dtype(dtype).itemsize
    if size != needed:
        raise InputError(
            f"{needed} bytes were wanted ({shape[0]} x {shape[1]} pixels), the file has {size}",
            where=path,
            fix=COPY_AGAIN,
            code="TRUNCATED" if size < needed else "HEADER",
        )
    return np.fromfile(path, dtype=dtype).reshape(shape[1], shape[0]).swapaxes(0, 1)


# ---- flat scans ----------------------------------------------------------------------------------------------------


def read_flat_image(path: str | Path) -> Scan:
    """A scan of one slice, also as NIfTI with two axes: (i, j) float32, and the affine of a volume of one slice.

    Raises:
        InputError: as `read_image`; code NDIM if there are several slices.
    """
    return _flat(read_image(path, flat=True), Path(path))


def read_flat_label(path: str | Path) -> Scan:
    """A label of one slice, as `read_flat_image`: (i, j) class indices.

    Raises:
        InputError: as `read_label`; code NDIM if there are several slices.
    """
    return _flat(read_label(path, flat=True), Path(path))


def _flat(scan: Scan, path: Path) -> Scan:
    if scan.array.ndim != 3 or scan.array.shape[2] != 1:
        shape = " x ".join(str(size) for size in scan.array.shape)
        raise InputError(f"one slice is wanted, this has {shape}", where=path, fix="Check the file.", code="NDIM")
    return replace(scan, array=scan.array[:, :, 0])


def smallest_type(array: np.ndarray) -> np.ndarray:
    """Whole numbers of a float array as uint8 or int16 where they fit; anything else as it is."""
    low, high = float(array.min()), float(array.max())
    if low < -(2**15) or high >= 2**15 or np.any(array != np.rint(array)):
        return array
    return array.astype(np.uint8 if low >= 0 and high < 256 else np.int16)


# ---- another size --------------------------------------------------------------------------------------------------


def resize_image(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """An image with other numbers of columns and rows: linear, each new pixel a mean over what it covers when smaller.

    Args:
        image: (i, j) of any number type, or (i, j, 3) uint8.
        size: columns and rows.

    Returns:
        the same type; whole numbers are rounded. The edges of the picture stay where they are.
    """
    from PIL import Image

    if image.ndim == 3:
        picture = Image.fromarray(np.ascontiguousarray(image.swapaxes(0, 1)))
        return np.asarray(picture.resize(_columns_rows(size), Image.Resampling.BILINEAR)).swapaxes(0, 1)
    picture = Image.fromarray(np.ascontiguousarray(image.T, dtype=np.float32))
    made = np.asarray(picture.resize(_columns_rows(size), Image.Resampling.BILINEAR)).T
    return made.astype(image.dtype) if image.dtype.kind == "f" else np.rint(made).astype(image.dtype)


def resize_label(label: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A label (i, j) of at most 256 classes with other numbers of columns and rows: the nearest pixel's class."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(label.T, dtype=np.uint8))
    return np.asarray(picture.resize(_columns_rows(size), Image.Resampling.NEAREST)).T


def resized_affine(affine: np.ndarray, shape: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """The affine after `resize_image`.

    Args:
        affine: 4x4, voxel to RAS mm, of the slice as it was.
        shape: its columns and rows.
        size: columns and rows it was given.
    """
    factors = np.array([shape[0] / size[0], shape[1] / size[1], 1.0])
    made = affine.copy()
    made[:3, :3] = affine[:3, :3] * factors
    # the edge, half a pixel before the first centre, stays
    made[:3, 3] = affine[:3, 3] + affine[:3, :3] @ ((factors - 1) / 2)
    return made


def _columns_rows(size: Sequence[int]) -> tuple[int, int]:
    return int(size[0]), int(size[1])
