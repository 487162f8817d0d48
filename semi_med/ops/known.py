"""Voxels of a label that say something."""

from __future__ import annotations

from torch import Tensor

from semi_med.ignored import IGNORED


def known(label: Tensor, valid: Tensor | None = None) -> Tensor:
    """Where a label is not `IGNORED`, and what is valid besides.

    Args:
        label: class indices and `IGNORED`, of any shape.
        valid: bool, the same shape; None for everywhere.

    Returns:
        bool, the same shape.
    """
    found = label != IGNORED
    return found if valid is None else found & valid
