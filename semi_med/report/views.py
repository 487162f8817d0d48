"""What a report is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semi_med.metrics.case import Row


@dataclass(frozen=True)
class RunView:
    """One trained network and what it reached.

    Attributes:
        name: shown to the reader; unique in a report.
        folder: of the run; `logs/train.csv` and `logs/validation.csv` are read from it where they exist.
        table: rows of `evaluate`, one for each case and class.
        settings: what is worth telling; nested mappings are shown with dotted names.
        minutes: training time; NaN if unknown.
    """

    name: str
    folder: Path
    table: Sequence[Row]
    settings: Mapping[str, Any] = field(default_factory=dict)
    minutes: float = float("nan")


@dataclass(frozen=True)
class CaseView:
    """The files of one case that may be drawn.

    Attributes:
        case: as in the tables.
        image: scan, any readable format; of several channels the first is drawn.
        label: the expert's label on the grid of the image.
        predictions: name of the run to its predicted label.
    """

    case: str
    image: Path
    label: Path
    predictions: Mapping[str, Path]
