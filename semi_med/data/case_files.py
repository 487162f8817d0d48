"""What the files of one case hold: read once, compared with each other, counted and fingerprinted."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from semi_med.errors import InputError, SemiMedError
from semi_med.ignored import IGNORED
from semi_med.inference.byte_check import check_regular_file
from semi_med.inference.grids import orientation, to_ras
from semi_med.inference.io import Scan, check_name, read_image, read_label

MAX_DISPLACEMENT = 0.1  # voxels between the same corner of image and label
_MOST_VALUES = 256  # classes; a label with more different values is an image

Look: TypeAlias = Callable[[Scan | None, Scan | None], Any]


@dataclass(frozen=True)
class Facts:
    """What was found in one file that could be read.

    Attributes:
        shape: voxels.
        spacing: mm between voxel centres along i, j, k.
        orientation: towards which sides i, j, k run, for example `RAS`; None where the file does not say.
        values: of a label, voxels of each value; of an image None.
        range: of an image, smallest and largest intensity.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str | None
    values: dict[int, int] | None = None
    range: tuple[float, float] | None = None


@dataclass
class CaseContent:
    """What was found in the files of one image and of its labels.

    Attributes:
        image_errors: by image file.
        label_errors: by label file.
        counts: voxels of each class, by label file.
        digest: of the voxels, None if they could not be read or are all the same.
        warnings: by file.
        facts: by file.
        kept: what the look at the case gave.
    """

    image_errors: dict[str, list[SemiMedError]] = field(default_factory=dict)
    label_errors: dict[str, list[SemiMedError]] = field(default_factory=dict)
    counts: dict[str, dict[int, int]] = field(default_factory=dict)
    digest: str | None = None
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    kept: Any = None


def read_case_files(
    images: Sequence[str],
    label_files: Sequence[str],
    labels: Sequence[int] | None,
    *,
    channels: int = 1,
    look: Look | None = None,
    check: str = "full",
    flat: bool = False,
) -> CaseContent:
    """Read the files of one case, each once, and check them against each other.

    Args:
        images: one file for each channel; the first one's grid is the case's.
        label_files: labels of this image; none if there are none, or if they must not be opened.
        labels: the class indices that labels may hold; None for any.
        channels: of an image in one file.
        look: is shown the first image and the first label, None for what could not be read.
        check: "full", or "structure" to see only that the files are there and not empty.
        flat: what is flat is taken as slices, see `semi_med.inference.io.read_image`.
    """
    if check == "structure":
        return _look_for_files(images, label_files)
    content = CaseContent()
    grid: _Grid | None = None
    scans: list[Scan] = []
    found: list[Scan] = []
    digests = []
    for file in images:
        try:
            scan = read_image(file, channels=channels if len(images) == 1 else 1, strict=True, flat=flat)
        except SemiMedError as error:
            content.image_errors[file] = [error]
            continue
        grid = grid or _Grid(Path(file).name, scan.array.shape[:3], scan.affine)
        content.image_errors[file] = [*grid.errors(scan, file), *_channel_errors(scan, len(images), channels, file)]
        content.warnings[file] = scan.warnings
        content.facts[file] = _facts(scan, range=(float(scan.array.min()), float(scan.array.max())))
        digests.append(_digest(scan))
        scans = scans or [scan]
    known = [digest for digest in digests if digest is not None]
    content.digest = " ".join(sorted(known)) if len(known) == len(images) else None
    for file in label_files:
        try:
            label = read_label(file, strict=True, flat=flat)
            content.counts[file], foreign = _count(label.array, labels, file)
        except SemiMedError as error:
            content.label_errors[file] = [error]
            continue
        content.label_errors[file] = [*(grid.errors(label, file) if grid else ()), *foreign]
        content.warnings[file] = label.warnings
        content.facts[file] = _facts(label, values=content.counts[file])
        found = found or [label]
    if look is not None:
        content.kept = look(next(iter(scans), None), next(iter(found), None))
    return content


def _channel_errors(scan: Scan, files: int, channels: int, file: str) -> list[SemiMedError]:
    """The error if an only file does not hold the several channels of its case."""
    found = scan.array.shape[3] if scan.array.ndim == 4 else 1
    if files > 1 or channels == 1 or found == channels:
        return []
    return [
        InputError(
            f"it has {found} {'channel' if found == 1 else 'channels'}, {channels} are wanted",
            where=file,
            fix="Save it as the others are: a picture in colour, a volume with its channels as the fourth axis.",
            code="CHANNELS",
        )
    ]


def _look_for_files(images: Sequence[str], label_files: Sequence[str]) -> CaseContent:
    content = CaseContent()
    for errors, files in ((content.image_errors, images), (content.label_errors, label_files)):
        for file in files:
            errors[file] = []
            try:
                if not Path(file).is_dir():
                    check_name(file)
                    check_regular_file(Path(file))
            except SemiMedError as error:
                errors[file].append(error)
    return content


def _facts(scan: Scan, *, values: dict[int, int] | None = None, range: tuple[float, float] | None = None) -> Facts:
    unknown = any(warning.startswith(("PICTURE", "NO_ORIENTATION")) for warning in scan.warnings)
    return Facts(
        shape=tuple(scan.array.shape),
        spacing=scan.spacing,
        orientation=None if unknown else orientation(scan.affine),
        values=values,
        range=range,
    )


@dataclass(frozen=True)
class _Grid:
    """The grid of a case, and the file that it was taken from."""

    reference: str
    shape: tuple[int, ...]
    affine: np.ndarray

    def errors(self, scan: Scan, file: str) -> list[SemiMedError]:
        error = grid_difference(scan, shape=self.shape, affine=self.affine, where=file, reference=self.reference)
        return [error] if error else []


def grid_difference(
    scan: Scan, *, shape: Sequence[int], affine: np.ndarray, where: str | Path, reference: str
) -> InputError | None:
    """The error if a scan is not on the grid that is wanted.

    Args:
        scan: what is compared.
        shape: voxels of the wanted grid.
        affine: 4x4 of the wanted grid, voxel to RAS mm.
        where: the scan's file.
        reference: what the wanted grid belongs to, for the text.

    Returns:
        None if the shapes are equal and every corner lies within `MAX_DISPLACEMENT` voxels of its place.
    """
    shape = tuple(shape)
    if scan.array.shape[:3] != shape:
        return InputError(
            f"its shape is {_times(scan.array.shape[:3])}, that of {reference} is {_times(shape)}",
            where=where,
            fix="Export both from the same scan, or resample the label to the image.",
            code="GEOMETRY",
        )
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, size - 1) for size in shape))]).T
    shift = ((scan.affine - affine) @ corners)[:3]
    voxels = np.linalg.norm(np.linalg.inv(affine[:3, :3]) @ shift, axis=0)
    worst = int(voxels.argmax())
    if voxels[worst] <= MAX_DISPLACEMENT:
        return None
    return InputError(
        f"its grid lies up to {voxels[worst]:.2f} voxels ({np.linalg.norm(shift[:, worst]):.2f} mm) off that of "
        f"{reference} although the shapes are equal (at most {MAX_DISPLACEMENT} voxels are allowed; origins "
        f"{_numbers(scan.affine[:3, 3])} and {_numbers(affine[:3, 3])} mm, spacings "
        f"{_numbers(scan.spacing)} and {_numbers(np.linalg.norm(affine[:3, :3], axis=0))} mm)",
        where=where,
        fix="If the voxels do match, give the label the affine of the image; else resample the label to the image: "
        "`semi-med convert LABEL OUTPUT --label --onto IMAGE`.",
        code="GEOMETRY",
    )


def _count(label: np.ndarray, labels: Sequence[int] | None, file: str) -> tuple[dict[int, int], list[SemiMedError]]:
    """Voxels of each class, and the error for values that are no class."""
    if labels is None:
        return _count_any(label, file), []
    counts = {value: int(np.count_nonzero(label == value)) for value in labels}
    if sum(counts.values()) == label.size:
        return counts, []
    values, numbers = np.unique(label[~np.isin(label, list(labels))], return_counts=True)
    found = [f"{value} ({number} voxels)" for value, number in zip(values, numbers, strict=True)]
    more = f" and {len(found) - 5} more values" if len(found) > 5 else ""
    unknown = f' If nothing is known at {IGNORED}, add `"ignored": {IGNORED}` to the list.' if IGNORED in values else ""
    error = InputError(
        f"the label values {', '.join(str(value) for value in labels)} are known, "
        f"this has {', '.join(found[:5])}{more}",
        where=file,
        fix="Name the class in the data list's `labels`, or renumber: "
        f"`semi-med convert LABELS OUTPUT --label --map-labels {values[0]}=1`.{unknown}",
        code="LABEL_VALUES",
    )
    return counts, [error]


def _count_any(label: np.ndarray, file: str) -> dict[int, int]:
    """Voxels of each value that occurs.

    Raises:
        InputError: code LABEL_VALUES, if there are too many for classes.
    """
    if label.dtype.itemsize <= 2:
        numbers = np.bincount(label.ravel(order="K"))
        values = np.flatnonzero(numbers)
        numbers = numbers[values]
    else:
        values, numbers = np.unique(label, return_counts=True)
    if len(values) > _MOST_VALUES:
        raise InputError(
            f"{len(values)} different values are no classes",
            where=file,
            fix="This looks like an image; give the label.",
            code="LABEL_VALUES",
        )
    return {int(value): int(number) for value, number in zip(values, numbers, strict=True)}


def _digest(scan: Scan) -> str | None:
    """Of voxels and shape in the orientation nearest to RAS: equal for a re-compressed or re-oriented copy.

    None for a constant volume, which is no sign of being the same scan.
    """
    if any(warning.startswith("CONSTANT") for warning in scan.warnings):
        return None
    array, _ = to_ras(scan.array, scan.affine)
    state = hashlib.blake2b(repr(array.shape).encode(), digest_size=20)
    state.update(np.asfortranarray(array).T.data)
    return state.hexdigest()


def _times(shape: Iterable[int]) -> str:
    return " x ".join(str(size) for size in shape)


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
