"""Fingerprints made by hand, and folders of small scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.planning.fingerprint import Fingerprint, Intensities, Spread, Structure
from semi_med.planning.machine import Machine

CPU = Machine("cpu", 16.0, "a CPU")
GPU = Machine("cuda:0", 40.0, "a GPU")


def spreads(values: Sequence[float], vary: float = 0.0) -> tuple[Spread, Spread, Spread]:
    """The same on the three axes, from (1 - vary / 2) to (1 + vary / 2) of the median."""
    i, j, k = (Spread(v * (1 - vary / 2), v, v * (1 + vary / 2)) for v in values)
    return i, j, k


def fingerprint(
    size: Sequence[float] = (96, 96, 96), spacing: Sequence[float] = (1, 1, 1), *, vary: float = 0.0, **changed: Any
) -> Fingerprint:
    """A data set of 20 MR volumes, 8 with a label of one structure, but for what is changed."""
    usual: dict[str, Any] = {
        "cases": 20,
        "labeled": 8,
        "subjects": 20,
        "labeled_subjects": 8,
        "subject_rule": "by hand",
        "pictures": False,
        "oriented": True,
        "channels": ("image",),
        "files": 1,
        "colour": False,
        "size": spreads(size),
        "spacing": spreads(spacing, vary),
        "intensities": Intensities(-1000.0, 0.0, 900.0, -100.0, 300.0),
        "foreground": Intensities(-50.0, 60.0, 200.0, 80.0, 40.0),
        "ct": False,
        "zeros": 0.0,
        "background": 0,
        "classes": (Structure(1, "organ", 8, 0.05),),
    }
    return Fingerprint(**{**usual, **changed})


def write_scan(path: Path, array: np.ndarray, *, spacing: Sequence[float] = (1, 1, 1)) -> Path:
    """A NIfTI file in RAS."""
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)
    return path


def write_folder(
    root: Path, *, cases: int = 4, labeled: int = 2, values: Sequence[int] = (0, 1), shape: Sequence[int] = (24, 22, 20)
) -> Path:
    """`images/` and `labels/` of noisy scans with a bright box for each structure."""
    for number in range(cases):
        random = np.random.default_rng(number)
        label = np.full(shape, values[0], np.uint16)
        for place, value in enumerate(values[1:]):
            label[4 + number % 2 : 12, 5:13, 2 + 6 * place : 7 + 6 * place] = value
        image = random.normal(100, 10, shape) + 80.0 * (label != values[0])
        write_scan(root / f"images/p{number}.nii.gz", image.astype(np.int16))
        if number < labeled:
            write_scan(root / f"labels/p{number}_seg.nii.gz", label)
    return root
