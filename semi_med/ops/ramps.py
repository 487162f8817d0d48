"""Schedules in [0, 1] over iterations."""

from __future__ import annotations

import math


def gaussian_ramp(iteration: int, length: int) -> float:
    """Grows from exp(-5) to 1 over `length` iterations: exp(-5 (1 - t)^2), t = iteration / length.

    Laine and Aila, "Temporal ensembling", ICLR 2017; the usual ramp of the field. There it is evaluated on
    iteration // 150; here on the iteration itself, without the steps.

    Args:
        iteration: 0-based count of updates done.
        length: iterations until 1 is reached; 0 or less means no ramp.
    """
    if length <= 0:
        return 1.0
    t = min(max(iteration / length, 0.0), 1.0)
    return math.exp(-5.0 * (1.0 - t) ** 2)
