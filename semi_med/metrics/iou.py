"""IoU of every class, background included, over the pixels of all cases together, as tables of natural images have it.

The other metrics here are taken case by case and averaged over cases, and leave out the background. A few lost cases or
rare classes weigh otherwise in both, so that figures of one kind must not stand beside those of the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.metrics.pair import check_same_grid, read_classes

BACKGROUND, MEAN = "background", "mean IoU"
IOU_COLUMNS = ("method", "labeled", "class_name", "seeds", "mean", "sd", "by_seed")


def pixel_counts(
    prediction: np.ndarray, label: np.ndarray, *, values: Sequence[int], ignored: int | None = None
) -> np.ndarray:
    """How many pixels the label calls a and the prediction b, `(K + 1, K + 1)`: the background, then the classes.

    Args:
        prediction: class indices; a value that is no class counts as background.
        label: class indices and `ignored`, the same shape.
        values: of the K classes, above 0.
        ignored: value of the label where nothing is known; such pixels are not counted.
    """
    place = np.zeros(max(int(prediction.max()), int(label.max()), *values) + 1, dtype=np.int64)
    place[list(values)] = np.arange(1, len(values) + 1)
    known = np.ones(label.shape, dtype=bool) if ignored is None else label != ignored
    size = len(values) + 1
    pairs = place[label[known]] * size + place[prediction[known]]
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def counts_of(
    pairs: Mapping[str, tuple[Path, Path]], *, classes: Mapping[int, str], ignored: int | None = None
) -> np.ndarray:
    """`pixel_counts` of all cases together, from the files of predictions and labels.

    Raises:
        InputError: a file cannot be read, or the two of a case do not lie on one grid.
    """
    values = sorted(value for value in classes if value != 0)
    total = np.zeros((len(values) + 1, len(values) + 1), dtype=np.int64)
    for prediction, label in pairs.values():
        predicted, expert = read_classes(prediction), read_classes(label)
        check_same_grid(predicted, expert, where=(prediction, label))
        total += pixel_counts(predicted.array, expert.array, values=values, ignored=ignored)
    return total


def iou_of(counts: np.ndarray, *, classes: Mapping[int, str]) -> dict[str, float]:
    """IoU by class name, and the mean over the classes that occur in label or prediction; others are NaN.

    Args:
        counts: as from `pixel_counts`.
        classes: class index to name.
    """
    names = [classes.get(0, BACKGROUND), *(name for value, name in sorted(classes.items()) if value != 0)]
    both = np.diag(counts).astype(float)
    either = counts.sum(0) + counts.sum(1) - both
    found = [a / b if b else math.nan for a, b in zip(both, either, strict=True)]
    defined = [value for value in found if not math.isnan(value)]
    return {**dict(zip(names, found, strict=True)), MEAN: float(np.mean(defined)) if defined else math.nan}


def over_seeds(runs: Mapping[tuple[str, str], Mapping[int, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Mean and SD (n - 1) over seeds of each class's IoU, with the columns of `IOU_COLUMNS`.

    Args:
        runs: by method and number of labels, by seed, what `iou_of` gives.
    """
    rows = []
    for (method, labeled), by_seed in runs.items():
        for name in next(iter(by_seed.values())):
            values = {seed: found[name] for seed, found in sorted(by_seed.items()) if not math.isnan(found[name])}
            numbers = list(values.values())
            rows.append(
                {
                    "method": method,
                    "labeled": labeled,
                    "class_name": name,
                    "seeds": len(numbers),
                    "mean": float(np.mean(numbers)) if numbers else math.nan,
                    "sd": float(np.std(numbers, ddof=1)) if len(numbers) > 1 else math.nan,
                    "by_seed": " ".join(f"{seed}:{value:.6g}" for seed, value in values.items()),
                }
            )
    return rows
