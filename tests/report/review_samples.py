"""A folder of predictions as `predict` leaves it behind, its scans and labels, and a training run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel import Nifti1Image

from semi_med.inference.io import write_image, write_label

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])  # LPS axes
SHAPE = (12, 14, 8)
NAMES = ("heart", "lung & <b>liver</b>")
SHIFTS = {"good": 0, "fair": 1, "poor": 3}  # voxels that a prediction lies beside its label


@dataclass(frozen=True)
class Folders:
    run: Path
    predictions: Path
    images: Path
    labels: Path


def label_of(shift: int = 0) -> np.ndarray:
    """Two boxes, classes 1 and 2, moved along the first axis."""
    array = np.zeros(SHAPE, np.uint8)
    array[1 + shift : 5 + shift, 3:9, 2:6] = 1
    array[5 + shift : 8 + shift, 3:9, 2:6] = 2
    return array


def write_folders(root: Path) -> Folders:
    folders = Folders(root / "run", root / "masks", root / "scans", root / "labels")
    rows = []
    for number, (case, shift) in enumerate(SHIFTS.items()):
        image = 100 + 50 * (label_of() > 0) + np.random.default_rng(number).normal(0, 5, SHAPE)
        write_image(folders.images / f"{case}.nii.gz", image.astype(np.float32), affine=AFFINE)
        write_label(folders.labels / f"{case}.nii.gz", label_of(), affine=AFFINE)
        predicted = label_of(shift)
        write_label(folders.predictions / f"{case}_seg.nii.gz", predicted, affine=AFFINE)
        voxels = {name: int((predicted == value).sum()) for value, name in enumerate(NAMES, start=1)}
        rows.append(_row(case, voxels=voxels, confidence=0.9 - 0.1 * shift))
    rows.append(_row("broken", error="this file is damaged. Copy it again", confidence=None))
    record = {
        "started": "2026-01-02T03:04:05+00:00",
        "versions": {"torch": "2.13.0"},
        "settings": {"bundle": "hearts", "weights_sha256": "abc", "cache": "/home/Jane_Doe/cache"},
        "cases": rows,
    }
    (folders.predictions / "run.json").write_text(json.dumps(record))
    lines = ["case,class,millilitres,voxels,components,touches_border"]
    for row in rows:
        lines += [f'{row["case"]},"{name}",{0.002 * count:.4f},{count},1,no' for name, count in row["voxels"].items()]
    (folders.predictions / "volumes.csv").write_text("\n".join(lines) + "\n")
    _write_run(folders.run)
    return folders


def _row(case: str, *, voxels: dict | None = None, error: str | None = None, confidence: float | None) -> dict:
    done = error is None
    return {
        "case": case,
        "image": f"{case}.nii.gz",
        "status": "done" if done else "failed",
        "output": f"{case}_seg.nii.gz" if done else None,
        "voxels": voxels or {},
        "warnings": ["EMPTY: no voxel is </script><script>alert(1)</script>"] if case == "fair" else [],
        "error": error,
        "seconds": 1.5,
        "confidence": confidence,
    }


def _write_run(folder: Path) -> None:
    (folder / "logs").mkdir(parents=True)
    (folder / "configs").mkdir()
    lines = ["iteration,seconds,learning_rate,loss,supervised,unsupervised_weight,confident,foreground,agreement"]
    lines += [f"{i},{i / 10},0.01,{2 / i},{1 / i},{i / 100},{i / 20},0.1,0.5" for i in range(1, 20)]
    (folder / "logs" / "train.csv").write_text("\n".join(lines) + "\n")
    (folder / "logs" / "validation.csv").write_text("iteration,mean_dice,dice_1,dice_2\n10,0.5,0.4,0.6\n")
    settings = {"seed": 7, "dataset_dir": "/data/Jane_Doe", "device": "cpu"}
    (folder / "run.json").write_text(json.dumps({"bundle": "hearts", "settings": settings}))


def write_map(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Nifti1Image(values.astype(np.float32), AFFINE).to_filename(path)
