"""Scans in, masks out: verified reading, sliding windows and prediction with a bundle.

The names are loaded when they are first asked for, so that `semi_med.inference.io` needs neither torch nor MONAI.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semi_med.inference.batch import predict
    from semi_med.inference.io import Scan, case_name, read_image, read_label, write_label
    from semi_med.inference.predictor import Prediction, Predictor
    from semi_med.inference.reader import ScanReader
    from semi_med.inference.sliding_window import ProbabilityWindowInferer

__all__ = [
    "Prediction",
    "Predictor",
    "ProbabilityWindowInferer",
    "Scan",
    "ScanReader",
    "case_name",
    "predict",
    "read_image",
    "read_label",
    "write_label",
]

_ROOMS = {
    "Prediction": "predictor",
    "Predictor": "predictor",
    "predict": "batch",
    "ProbabilityWindowInferer": "sliding_window",
    "ScanReader": "reader",
    "Scan": "io",
    "case_name": "io",
    "read_image": "io",
    "read_label": "io",
    "write_label": "io",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
