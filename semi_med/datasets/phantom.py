"""An embedded data set: drawings that imitate late-gadolinium MR of a left atrium.

THIS IS A DRAWING FOR DEMOS AND TESTS, NOT ANATOMY. It was measured on nobody. No figure obtained on it (a Dice, a rank
of methods, a threshold) says anything about patients or about real scans.

What it imitates: the left atrium between neighbours of nearly its brightness behind thin, partly volume-averaged walls
(right atrium, ventricles, aorta, pulmonary arteries, coronary sinus), pulmonary veins that stay bright beyond the
labeled length, a mitral orifice where only a plane ends the label, enhanced patches in the wall, and between cases:
pose, shape, contrast, bias field, motion, Rician noise, matrix, spacing, oblique affine, axis order, integer type.

Frames: anatomy is described in RAS mm round the atrium (x to the right, y to the front, z to the head; `Tube`, `Blob`)
at scale 1; a case's pose puts it into the scanner's RAS mm, and the affine of the file leads there from voxels.
Everything is drawn first (`phantom_draw`) and rendered by a function without choices of its own (`phantom_render`).
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from semi_med.data.data_list import DataList, save_data_list
from semi_med.datasets.phantom_draw import Array, Size, draw_case
from semi_med.datasets.phantom_render import render
from semi_med.errors import InputError
from semi_med.files import write_atomically
from semi_med.inference.io import nifti_bytes

CASES: Mapping[str, int] = MappingProxyType({"labeled": 4, "unlabeled": 16, "validation": 4, "test": 8})
NOTE = "A drawing for demos and tests, not anatomy: no figure obtained on it says anything about patients."


def prepare(
    target: str | Path,
    *,
    cases: Mapping[str, int] = CASES,
    seed: int = 0,
    size: Size = "demo",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the phantom: `images/`, `labels/` and `data_list.json`. Repeated on one machine, it writes the same bytes.

    Cases are numbered through the sections labeled, unlabeled, validation, test. The labels of unlabeled cases are
    written too and named as `monitor_label`, which nothing opens unless it is asked to.

    Args:
        target: folder, made if it is missing.
        cases: number of cases for each section; a section that is not named gets none.
        seed: of the whole data set.
        size: see `draw_case`.
        progress: called with (cases done, cases in all) after each case.

    Returns:
        the path of the data list.

    Raises:
        InputError: if a section is unknown, a number is negative or there is no case at all.
    """
    _check_counts(cases)
    target = Path(target)
    sections: dict[str, list[dict[str, str]]] = {name: [] for name in CASES}
    places = [name for name in CASES for _ in range(cases.get(name, 0))]
    for number, section in enumerate(places):
        name = f"phantom_{number:03d}"
        image, label, affine = render(draw_case(number, seed=seed, size=size))
        _write(target / "images" / f"{name}.nii.gz", image, affine)
        _write(target / "labels" / f"{name}.nii.gz", label, affine)
        key = "monitor_label" if section == "unlabeled" else "label"
        sections[section].append({"image": f"images/{name}.nii.gz", key: f"labels/{name}.nii.gz", "subject": name})
        if progress is not None:
            progress(number + 1, len(places))
    return _save_list(target / "data_list.json", sections, description=f"Seed {seed}, size {size}. {NOTE}")


def _check_counts(cases: Mapping[str, int]) -> None:
    """Refuse what is not a number of cases for each known section."""
    wrong = [f"{name}={number}" for name, number in cases.items() if name not in CASES or number < 0]
    if wrong or not sum(cases.values()):
        raise InputError(
            f"wanted 0 or more cases for {', '.join(CASES)}, got {', '.join(wrong) or 'none'}",
            where="phantom",
            fix='For example cases={"labeled": 4, "unlabeled": 16, "validation": 4, "test": 8}.',
        )


def _save_list(path: Path, sections: Mapping[str, list[dict[str, str]]], *, description: str) -> Path:
    """Write the data list of the cases."""
    head = {"name": "phantom", "description": description, "reference": "", "licence": "Apache-2.0"}
    modality = {"modality": {"0": "LGE-MR (phantom)"}, "labels": {"0": "background", "1": "left atrium"}}
    save_data_list(DataList.model_validate({**head, **modality, **sections}), path)
    return path


def _write(path: Path, array: Array, affine: Array) -> None:
    """Write a NIfTI file whole or not at all, with the same bytes each time (no time stamp in the gzip header)."""
    write_atomically(path, gzip.compress(nifti_bytes(array, affine), compresslevel=2, mtime=0))
