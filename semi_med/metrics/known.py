"""Leaving out what is not known of a label."""

from __future__ import annotations

import numpy as np

from semi_med.ignored import IGNORED


def without_ignored(prediction: np.ndarray, label: np.ndarray, *, ignored: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays with `IGNORED`, which is no class, where the label is `ignored`.

    Such voxels are then in no overlap and no volume, and both objects have a surface where they begin.

    Args:
        prediction: class indices.
        label: class indices and `ignored`, the same shape.
        ignored: value of the label where nothing is known; None leaves both as they are.
    """
    if ignored is None:
        return prediction, label
    seen = label != ignored
    prediction, label = (np.where(seen, array, np.uint8(IGNORED)) for array in (prediction, label))
    return prediction, label
