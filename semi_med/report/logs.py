"""Training logs as columns of numbers, however the training ended."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

SCHEDULES = ("learning_rate", "unsupervised_weight", "ramp", "weight", "threshold", "decay")
_NOT_A_LOSS = ("iteration", "seconds", "epoch", *SCHEDULES)
HEALTH = {
    "confident": "Confident share of voxels",
    "certain": "Certain share of voxels",
    "accepted": "Accepted share of images",
    "confidence": "Mean confidence",
    "score": "Mean score of the discriminator",
    "discriminator_labeled": "Discriminator on labels",
    "discriminator_unlabeled": "Discriminator on pseudo-labels",
    "discriminator_right": "Share that the discriminator tells rightly",
    "matched": "Share of the strong view with a source",
    "pasted": "Pasted share of voxels",
    "foreground": "Foreground share of voxels",
    "agreement": "Agreement of the two opinions",
    "pseudo_label_dice": "Dice of the pseudo-labels",
}


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Read a CSV log into one float array for each column.

    A last line that was cut off is dropped. Where a resumed run wrote an iteration twice, the later line counts. A cell
    without a number is NaN.

    Returns:
        Column to values (n,), in order of `iteration`; empty if there is no such file or no line in it.
    """
    try:
        with Path(path).open(encoding="utf-8", errors="replace", newline="") as stream:
            lines = list(csv.reader(stream))
    except (OSError, csv.Error):
        return {}
    if len(lines) < 2 or "iteration" not in lines[0]:
        return {}
    names = lines[0]
    table = np.array([[_number(cell) for cell in line] for line in lines[1:] if len(line) == len(names)], float)
    if not table.size:
        return {}
    at = table[:, names.index("iteration")]
    last = {value: row for row, value in enumerate(at.tolist()) if np.isfinite(value)}
    rows = [last[value] for value in sorted(last)]
    return {name: table[rows, column] for column, name in enumerate(names)}


def loss_columns(log: dict[str, np.ndarray]) -> list[str]:
    """Name the columns that are terms of the loss, `loss` first."""
    found = [name for name in log if not _is(name, _NOT_A_LOSS) and not _is(name, tuple(HEALTH))]
    return sorted(found, key=lambda name: name != "loss")


def smooth(values: np.ndarray, *, points: int = 40) -> np.ndarray:
    """Moving mean over about one `points`-th of the curve, shorter at both ends; undefined values are left out."""
    half = len(values) // points // 2
    if half < 1:
        return values
    defined = np.isfinite(values)
    sums, counts = (
        np.concatenate([[0.0], np.cumsum(part)]) for part in (np.where(defined, values, 0.0), defined.astype(float))
    )
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    with np.errstate(invalid="ignore"):
        return (sums[high] - sums[low]) / (counts[high] - counts[low])


def _is(name: str, families: tuple[str, ...]) -> bool:
    return any(name == family or name.startswith(f"{family}_") for family in families)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
