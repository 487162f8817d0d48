"""Labels as DICOM segmentations of the series that they were made of. Written in the child process that reads DICOM."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.errors import ResourceError
from semi_med.inference.dicom import ask_about
from semi_med.inference.segment_codes import Segment
from semi_med.inference.segment_codes import segments_of as segments_of

_TIMEOUT = 600.0  # seconds: a thousand slices with many structures take a minute


@dataclass(frozen=True)
class SegmentationInfo:
    """What a segmentation says about itself.

    Attributes:
        segments: one for each class.
        bundle: name of the model.
        weights_sha256: of the model.
    """

    segments: Sequence[Segment]
    bundle: str
    weights_sha256: str


def has_highdicom() -> bool:
    """Whether DICOM segmentations can be written."""
    return importlib.util.find_spec("highdicom") is not None


def check_highdicom() -> None:
    """Raises a ResourceError, code NO_HIGHDICOM, if they cannot."""
    if not has_highdicom():
        raise ResourceError(
            "DICOM segmentations are written with highdicom, which is not installed",
            fix="pip install 'semi-med[seg]'.",
            code="NO_HIGHDICOM",
        )


def write_seg(
    target: Path, source: Path, label: np.ndarray, *, choices: Mapping[str, Any], info: SegmentationInfo
) -> None:
    """Writes a binary DICOM SEG that refers to every slice of the series.

    Of the series only what ties a segmentation to it is taken over: patient and study, and no free text beside them.
    Where the series was resampled to be read (a tilted gantry, filled gaps), each slice gets what lies at its place.

    Args:
        target: the file; written at once or not at all.
        source: folder, archive or file of the series.
        label: (i, j, k) class numbers on the grid that `read_dicom` gave with the same choices.
        choices: series, gaps, tilt, burned_in.
        info: names, codes and where the label comes from.

    Raises:
        InputError: if the series cannot be read again, or its objects lack what a segmentation must refer to.
        ResourceError: code NO_HIGHDICOM, MEMORY, TEMPORARY or DISK_FULL.
    """
    check_highdicom()
    choices = dict(choices)
    series = choices.pop("series", None)
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="semi_med_"))
            handed = Path(folder) / "label.npy"
            np.save(handed, np.ascontiguousarray(label.T))
        except OSError as error:
            raise ResourceError(
                f"there is no DICOM SEG beside the label: the folder for temporary files takes none ({error.strerror})",
                fix="Free space there or set TMPDIR to another folder, then repeat with --skip-existing.",
                code="TEMPORARY",
            ) from error
        request = {
            "action": "segment",
            "series": series,
            "choices": choices,
            "label": str(handed),
            "target": str(target.absolute()),
            "segments": [asdict(one) for one in info.segments],
            "bundle": info.bundle,
            "weights_sha256": info.weights_sha256,
        }
        ask_about(source, request, timeout=_TIMEOUT)
