"""What the report of a run or of a folder of predictions is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semi_med.metrics.case import Row


@dataclass(frozen=True)
class ReviewCase:
    """One predicted case: its files and what is known about it.

    Attributes:
        name: as its record has it.
        prediction: the predicted label; None if the case failed.
        key: of this very mask of this case; marks belong to it. Empty if there is no mask.
        image: the scan; of several channels the first. None if no scans were given.
        series: of a DICOM folder with several, the number of the series.
        label: the expert's label on the same grid; None if there is none.
        uncertainty_map: voxels to uncertainty, on the same grid.
        confidence: one number for the case from 0 to 1, larger is surer; None if it is not known.
        volumes: structure to what the table of volumes says about it, column by column.
        warnings: each beginning with a code.
        error: why it failed; empty if it did not.
        seconds: it took; None if it is not recorded.
    """

    name: str
    prediction: Path | None
    key: str = ""
    image: Path | None = None
    series: int | None = None
    label: Path | None = None
    uncertainty_map: Path | None = None
    confidence: float | None = None
    volumes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class ReviewView:
    """Everything that stands on the page.

    Attributes:
        title: heading.
        identity: of what is reported: the same for the same masks.
        cases: in the order of their record; empty if only a training is reported.
        table: rows of `evaluate`, with the names of `cases`; empty without labels.
        classes: number in the masks to name, without the background, as far as known.
        training: the folder of the run; None if only predictions are reported.
        records: title to what is recorded about it, places on a machine left out.
        notes: sentences on top of the page.
    """

    title: str
    identity: str
    cases: Sequence[ReviewCase] = ()
    table: Sequence[Row] = ()
    classes: Mapping[int, str] = field(default_factory=dict)
    training: Path | None = None
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
