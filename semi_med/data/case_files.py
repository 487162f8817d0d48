"""What the files of one case hold: read once, compared with each other, counted and fingerprinted."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel.orientations as orientations
import numpy as np

from semi_med.errors import InputError, SemiMedError
from semi_med.inference.io import Scan, read_image, read_label

MAX_DISPLACEMENT = 0.1  # voxels between the same corner of image and label


@dataclass
class CaseContent:
    """What was found in the files of one image and of its labels.

    Attributes:
        image_errors: by image file.
        label_errors: by label file.
        counts: voxels of each allowed class, by label file.
        digest: of the voxels, None if they could not be read.
        warnings: by file.
    """

    image_errors: dict[str, list[SemiMedError]] = field(default_factory=dict)
    label_errors: dict[str, list[SemiMedError]] = field(default_factory=dict)
    counts: dict[str, dict[int, int]] = field(default_factory=dict)
    digest: str | None = None
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_case_files(images: Sequence[str], label_files: Sequence[str], labels: Sequence[int]) -> CaseContent:
    """Read the files of one case, each once, and check them against each other.

    Args:
        images: one file for each channel; the first one's grid is the case's.
        label_files: labels of this image; none if there are none, or if they must not be opened.
        labels: the class indices that labels may hold.
    """
    content = CaseContent()
    grid: _Grid | None = None
    digests = []
    for file in images:
        try:
            scan = read_image(file)
        except SemiMedError as error:
            content.image_errors[file] = [error]
            continue
        grid = grid or _Grid(Path(file).name, scan.array.shape[:3], scan.affine)
        content.image_errors[file] = grid.errors(scan, file)
        content.warnings[file] = scan.warnings
        digests.append(_digest(scan))
    content.digest = " ".join(sorted(digests)) if len(digests) == len(images) else None
    for file in label_files:
        try:
            label = read_label(file)
        except SemiMedError as error:
            content.label_errors[file] = [error]
            continue
        content.counts[file], foreign = _count(label.array, labels, file)
        content.label_errors[file] = [*(grid.errors(label, file) if grid else ()), *foreign]
    return content


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
        fix="If the voxels do match, give the label the affine of the image; else resample the label to the image.",
        code="GEOMETRY",
    )


def _count(label: np.ndarray, labels: Sequence[int], file: str) -> tuple[dict[int, int], list[SemiMedError]]:
    """Voxels of each class, and the error for values that are no class."""
    counts = {value: int(np.count_nonzero(label == value)) for value in labels}
    if sum(counts.values()) == label.size:
        return counts, []
    values, numbers = np.unique(label[~np.isin(label, list(labels))], return_counts=True)
    found = [f"{value} ({number} voxels)" for value, number in zip(values, numbers, strict=True)]
    more = f" and {len(found) - 5} more values" if len(found) > 5 else ""
    error = InputError(
        f"the label values {', '.join(str(value) for value in labels)} are known, "
        f"this has {', '.join(found[:5])}{more}",
        where=file,
        fix="Renumber the label, or name the class in the data list's `labels`.",
        code="LABEL_VALUES",
    )
    return counts, [error]


def _digest(scan: Scan) -> str:
    """Of voxels and shape in the orientation nearest to RAS: equal for a re-compressed or re-oriented copy."""
    array = orientations.apply_orientation(scan.array, orientations.io_orientation(scan.affine))
    state = hashlib.blake2b(repr(array.shape).encode(), digest_size=20)
    state.update(np.asfortranarray(array).T.data)
    return state.hexdigest()


def _times(shape: Iterable[int]) -> str:
    return " x ".join(str(size) for size in shape)


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
