"""Batch inference: a first mask for every scan of the study, to be corrected instead of drawn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

logger = logging.getLogger("semi_med.label")


class BatchSegment(BatchInferTask):
    """Segments scan after scan and saves the masks under the tag "original"; one that fails does not stop the others.

    MONAI Label's own task counts GPUs to choose a device and divides by their number, which fails where there is none.
    """

    def __call__(self, request: Mapping[str, Any], datastore: Any, infer: Callable[..., Any]) -> dict[str, Any]:
        """Segments all scans, or with `images` "labeled" or "unlabeled" these; `max_batch_size` of them at most."""
        scans = sorted(self.get_images(request, datastore))
        scans = scans[: int(request.get("max_batch_size") or len(scans))]
        result: dict[str, Any] = {}
        for number, scan in enumerate(scans, start=1):
            one = {
                "model": request.get("model"),
                "image": scan,
                "save_label": True,
                "label_tag": DefaultLabelTag.ORIGINAL,
            }
            try:
                found = infer(one, datastore)
                Path(found.pop("file")).unlink(missing_ok=True)
                result[scan] = found
            except Exception as error:
                logger.warning(f"{scan} was not segmented: {getattr(error, 'detail', error)}")
                result[scan] = {"error": str(getattr(error, "detail", error))}
            logger.info(f"segmented {number} of {len(scans)}: {scan}")
        return result
