"""Slices to one volume: stored values with one slope; real values where slopes differ or a grid is resampled."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from semi_med.errors import InputError, ResourceError
from semi_med.inference.byte_check import free_memory, most_voxels
from semi_med.inference.dicom_files import FileSet
from semi_med.inference.dicom_geometry import Layout, arrange
from semi_med.inference.dicom_headers import Header, Slice
from semi_med.inference.dicom_objects import Unusable
from semi_med.inference.dicom_pixels import read_pixels
from semi_med.inference.dicom_series import Survey, Volume

_AIR = (-1200.0, -900.0)  # HU: padding in this range looks like air already
_COUNTED = ("hidden file", "text")  # kinds of other files that are not worth a warning


@dataclass(frozen=True)
class Choices:
    """What is done about series that are no regular stack.

    Attributes:
        gaps: missing or unequally spaced slices are an error, or filled in by linear interpolation.
        tilt: a tilted gantry is resampled to right angles, or an error.
        burned_in: pixels that may show identity are named in a warning, or an error.
    """

    gaps: Literal["error", "resample"] = "error"
    tilt: Literal["resample", "error"] = "resample"
    burned_in: Literal["warn", "error"] = "warn"


@dataclass(frozen=True)
class Voxels:
    """A volume as it leaves the child process.

    Attributes:
        array: (slices, rows, columns), C order.
        slope: factor from stored to real values.
        inter: added after the factor.
        affine: 4x4, (column, row, slice) to RAS mm.
        warnings: each beginning with a code; numbers and our own words only.
    """

    array: np.ndarray
    slope: float
    inter: float
    affine: np.ndarray
    warnings: tuple[str, ...]


def read_volume(
    volume: Volume,
    files: FileSet,
    choices: Choices,
    *,
    progress: Callable[[int], None],
    allow_memory: Callable[[int], None],
) -> Voxels:
    """Reads, decodes and stacks the slices.

    Args:
        volume: its slices.
        files: where they lie.
        choices: what is done about gaps and tilt.
        progress: called with the index of each file before it is opened.
        allow_memory: called with the bytes of the volume before they are taken.

    Raises:
        InputError: for whatever keeps the slices from making a volume.
    """
    slices = volume.slices
    header = slices[0].header
    _check_one_space(slices)
    warnings = _header_warnings(volume, choices)
    layout = arrange(volume.planes, fill_gaps=choices.gaps == "resample", allow_tilt=choices.tilt == "resample")
    shape = (len(slices), slices[0].plane.rows, slices[0].plane.columns)
    if int(np.prod(shape)) > most_voxels():
        raise InputError(
            f"{shape[2]} x {shape[1]} x {shape[0]} voxels are more than the {most_voxels()} that are read",
            fix="Crop or resample the series first.",
            code="TOO_LARGE",
        )
    dtype = np.result_type(*{_dtype(one.header) for one in slices})
    scales = {(one.slope, one.inter) for one in slices}
    if len(scales) > 1 or layout.tilted or not layout.regular:
        dtype = np.dtype(np.float32)
    slope, inter = (1.0, 0.0) if dtype.kind == "f" else next(iter(scales))
    allow_memory(int(np.prod(shape)) * dtype.itemsize)
    _check_memory(8 * int(np.prod(shape)))  # float32, here and in the parent
    array = np.empty(shape, dtype)
    padding = _Padding(header.modality)
    warnings += _fill(array, slices, layout, files, padding=padding, real=dtype.kind == "f", progress=progress)
    warnings += padding.replace(array, slope, inter)
    affine = layout.affine
    if layout.tilted:
        array, affine = _straighten(array, layout, slices[0].plane.spacing or (1.0, 1.0), affine)
    if not layout.regular:
        array = _regular(array, layout)
    return Voxels(np.ascontiguousarray(array), slope, inter, affine, (*warnings, *layout.warnings))


def ignored_warning(found: Survey) -> list[str]:
    """What else lay in the folder, if it is worth a word."""
    kinds = [f"{count} {kind}" for kind, count in sorted(found.ignored.items()) if kind not in _COUNTED]
    return [f"IGNORED: {', '.join(kinds)} in the folder"] if kinds else []


def _check_memory(needed: int) -> None:
    if (free := free_memory()) is not None and needed > free:
        raise ResourceError(
            f"its voxels take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB of memory are free",
            fix="Crop or resample the series, or free memory.",
            code="MEMORY",
        )


def _check_one_space(slices: Sequence[Slice]) -> None:
    if len({one.header.frame_of_reference for one in slices} - {""}) > 1:
        raise InputError(
            "the slices belong to different coordinate systems",
            fix="Put the slices of each scan into a folder of their own.",
            code="MIXED_SERIES",
        )
    if len({(one.header.modality, one.header.study) for one in slices}) > 1:
        raise InputError(
            "the slices belong to different studies or modalities",
            fix="Put the slices of each scan into a folder of their own.",
            code="MIXED_SERIES",
        )


def _header_warnings(volume: Volume, choices: Choices) -> list[str]:
    codes = {code for one in volume.slices for code in one.header.warnings}
    burned_in = "the file says that text is burned into the pixels; it may show who the patient is"
    if "PHI_PIXELS" in codes and choices.burned_in == "error":
        raise InputError(burned_in, fix="Use a series without burned-in annotation.", code="PHI_PIXELS")
    warnings = [f"PHI_PIXELS: {burned_in}"] if "PHI_PIXELS" in codes else []
    if "LOSSY" in codes:
        warnings.append("LOSSY: the pixels were compressed with loss")
    if volume.copies:
        warnings.append(f"COPY: {volume.copies} files are exact copies of others and were left out")
    announced = max(one.header.announced for one in volume.slices)
    if announced > len(volume.slices) and not volume.part:
        warnings.append(f"FEWER_SLICES: the acquisition has {announced} images, {len(volume.slices)} are here")
    return warnings


def _dtype(header: Header) -> np.dtype:
    allocated, _, _, signed, _, _ = header.stored
    return np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")


def _fill(
    array: np.ndarray,
    slices: Sequence[Slice],
    layout: Layout,
    files: FileSet,
    *,
    padding: _Padding,
    real: bool,
    progress: Callable[[int], None],
) -> list[str]:
    """Puts every slice into its place, file by file; returns warnings."""
    place = {index: k for k, index in enumerate(layout.order)}
    by_file = sorted(range(len(slices)), key=lambda index: (slices[index].header.file, slices[index].frame))
    trailing, inverted = 0, 0
    for number, group in itertools.groupby(by_file, key=lambda index: slices[index].header.file):
        indices = list(group)
        progress(number)
        frames = slices[indices[0]].header.frames
        try:
            with files.open(number) as stream:
                pixels, rest = read_pixels(stream, slices[indices[0]], frames=frames)
        except Unusable as error:
            text = f"{files.label(number)} cannot be used: {error.problem}"
            raise InputError(text, fix=error.fix, code=error.code) from None
        except OSError as error:
            text = f"{files.label(number)} cannot be opened ({error.strerror or error})"
            raise InputError(text, fix="Copy the file again.", code="UNREADABLE") from None
        trailing += rest
        for index in indices:
            one, values = slices[index], pixels[slices[index].frame]
            padding.mark(values, one, place[index])
            if one.header.stored[5]:
                inverted += 1
                values = _inverted(values, one.header)
            array[place[index]] = values * one.slope + one.inter if real else values
    warnings = [f"TRAILING: {trailing} bytes follow the announced pixels"] if trailing else []
    if inverted:
        what = "kept, since they are physical" if slices[0].header.modality != "MR" else "turned round"
        warnings.append(f"MONOCHROME1: low values are shown bright; the values were {what}")
    return warnings


def _inverted(values: np.ndarray, header: Header) -> np.ndarray:
    """MONOCHROME1 is about display. Brightness has a meaning of its own only in MR; HU and SUV have units."""
    if header.modality != "MR":
        return values
    bits, signed = header.stored[1], header.stored[3]
    # the sum of the lowest and the highest value is -1 with a sign, else the highest
    return (-1 - values) if signed else (values.dtype.type((1 << bits) - 1) - values)


class _Padding:
    """Voxels outside of the picture, which become background."""

    def __init__(self, modality: str) -> None:
        self.modality = modality
        self.marks: dict[int, np.ndarray] = {}

    def mark(self, values: np.ndarray, one: Slice, place: int) -> None:
        """Remembers the padding of a slice, unless it looks like background already."""
        if one.header.padding is None:
            return
        low, high = one.header.padding
        ends = sorted((low * one.slope + one.inter, high * one.slope + one.inter))
        background = _AIR if self.modality == "CT" else (0.0, 0.0)
        if background[0] <= ends[0] and ends[1] <= background[1]:
            return
        marks = (values >= low) & (values <= high)
        if marks.any():
            self.marks[place] = marks

    def replace(self, array: np.ndarray, slope: float, inter: float) -> list[str]:
        """Gives padding the smallest real value of the rest, in place."""
        count = sum(int(marks.sum()) for marks in self.marks.values())
        if count in (0, array.size):
            return []
        darkest = min if slope > 0 else max
        ends = []
        for place, values in enumerate(array):
            kept = values[~self.marks[place]] if place in self.marks else values
            if kept.size:
                ends.append(kept.min() if slope > 0 else kept.max())
        value = darkest(ends)
        for place, marks in self.marks.items():
            array[place][marks] = value
        return [f"PADDING: {count} voxels outside of the picture were set to {float(value) * slope + inter:g}"]


def _straighten(
    array: np.ndarray, layout: Layout, spacing: tuple[float, float], affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Moves every slice in its plane, by linear interpolation, so that the stack is at right angles.

    The grid grows so that nothing falls outside; what is new there is background.
    """
    affine = affine.copy()
    for axis, size, shift in ((2, spacing[1], layout.shift[0]), (1, spacing[0], layout.shift[1])):
        pixels = layout.heights * shift / size
        if np.abs(pixels).max() < 1e-3:
            continue
        low, high = int(np.floor(pixels.min())), int(np.ceil(pixels.max()))
        shape = list(array.shape)
        shape[axis] += high - low
        moved = np.full(shape, array.min(), array.dtype)
        for k, by in enumerate(pixels):
            _move(array[k], moved[k], by - low, axis - 1)
        array = moved
        affine[:3, 3] += affine[:3, 2 - axis] * low  # affine columns: (column, row, slice)
    return array, affine


def _move(source: np.ndarray, target: np.ndarray, by: float, axis: int) -> None:
    """Writes `source`, moved by a positive number of pixels, into the middle of `target`."""
    whole = int(np.floor(by))
    part = np.float32(by - whole)
    source, target = np.moveaxis(source, axis, 0), np.moveaxis(target, axis, 0)
    size = len(source)
    if not part:
        target[whole : whole + size] = source
        return
    background = target[:1].copy()
    before, after = np.concatenate([background, source]), np.concatenate([source, background])
    target[whole : whole + size + 1] = (1 - part) * after + part * before


def _regular(array: np.ndarray, layout: Layout) -> np.ndarray:
    """Linear interpolation along the height, onto equal steps."""
    wanted = np.minimum(np.arange(layout.slices) * layout.step, layout.heights[-1])
    above = np.clip(np.searchsorted(layout.heights, wanted, side="left"), 1, len(layout.heights) - 1)
    width = layout.heights[above] - layout.heights[above - 1]
    weight = ((wanted - layout.heights[above - 1]) / width).astype(np.float32)[:, None, None]
    return np.asarray((1 - weight) * array[above - 1] + weight * array[above], dtype=array.dtype)
