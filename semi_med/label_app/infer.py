"""The Run button: a scan to its mask, by the project's own predictor, on the scan's own grid."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from semi_med.errors import InputError
from semi_med.inference.io import write_label
from semi_med.inference.picture_check import is_picture
from semi_med.label_app.models import Model


class Segment(InferTask):
    """Segments with the model that answers at the moment of the call.

    One scan at a time is segmented, so that memory is bounded and many calls at once give what one after the other
    would.

    Args:
        model: that answers.
    """

    def __init__(self, model: Model) -> None:
        bundle = model.bundle
        super().__init__(InferType.SEGMENTATION, bundle.labels, bundle.dimensions, bundle.description)
        self.model = model
        self._one = threading.Lock()

    def is_valid(self) -> bool:
        """Always: before the first training a call says what to do."""
        return True

    def info(self) -> dict[str, Any]:
        """Beside MONAI Label's: which round answers."""
        return {**super().info(), "round": self.model.version}

    def get_path(self, validate: bool = True) -> str | None:
        """The model's file, to be downloaded; nothing may be put in its place (`validate` is false for that)."""
        weights = self.model.weights() if validate else None
        return None if weights is None else str(weights)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segments `request["image"]`, a file or a folder with a DICOM series.

        Returns:
            A temporary file with the label, and what is known about it.

        Raises:
            InputError: there is no model yet, or the scan cannot be used.
            ResourceError: code MEMORY.
        """
        scan = Path(str(request.get("image") or ""))
        if not str(request.get("image") or "") or not scan.exists():
            raise InputError("there is no such scan", where=str(request.get("image", ""))[:100], code="NOT_FOUND")
        with self._one:
            predictor = self.model.predictor()
            found = predictor(scan)
        suffix = ".png" if is_picture(scan) else ".nii.gz"
        descriptor, name = tempfile.mkstemp(prefix="semi_med_", suffix=suffix)
        os.close(descriptor)
        try:
            write_label(name, found.label, affine=found.affine, axes=found.axes)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return name, {
            "label_names": self.model.bundle.labels,
            "round": self.model.name_of(predictor),
            "voxels": found.voxels,
            "volumes_ml": {key: round(value, 3) for key, value in found.volumes_ml.items()},
            "confidence": None if found.confidence != found.confidence else round(found.confidence, 4),
            "warnings": list(found.warnings),
            "latencies": {key: round(value, 3) for key, value in found.seconds.items()},
        }
