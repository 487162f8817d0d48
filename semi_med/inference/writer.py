"""The MONAI transform that writes labels as `semi-med predict` does, for bundles run with `monai.bundle`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from semi_med.errors import InputError
from semi_med.inference.batch_files import FORMATS, Format, label_name
from semi_med.inference.io import write_label


class SaveLabeld(MapTransform):
    """Writes class indices as `<case>_seg.png` for a picture and as `<case>_seg.nii.gz` for anything else.

    What is written lies on the grid of the scan, so this stands last, after the inversion and the argmax.

    Args:
        keys: (1, i, j, k) class indices whose metadata name the file of the scan and its affine.
        output_dir: folder of the labels; made if it is not there.
        format: "auto"; or "nifti" or "png" for all scans.
        allow_missing_keys: as of any MONAI transform.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        format: Format = "auto",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if format not in FORMATS:
            raise InputError(
                f"one of {', '.join(FORMATS)} is wanted, not {format!r}", where="SaveLabeld.format", code="SETTING"
            )
        self.output_dir = Path(output_dir)
        self.format: Format = format

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(dict(data)):
            self._write(data[key])
        return dict(data)

    def _write(self, label: Any) -> None:
        if not isinstance(label, MetaTensor) or label.ndim != 4 or label.shape[0] != 1:
            raise InputError(
                f"class indices (1, i, j, k) with metadata are wanted, not {tuple(label.shape)}",
                where="SaveLabeld",
                fix="Put AsDiscreted(argmax=True) and Invertd before it.",
                code="BUNDLE",
            )
        scan = Path(str(label.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "")))
        if not scan.name:
            raise InputError(
                "the label does not say which scan it is of", where="SaveLabeld", fix="Load it with LoadImaged."
            )
        indices = label.detach().cpu().numpy()[0]
        write_label(
            self.output_dir / label_name(scan, format=self.format),
            indices.astype(np.uint8 if indices.max() < 256 else np.uint16),
            affine=np.asarray(label.affine, dtype=np.float64),
            axes=int(label.meta.get("axes", 3)),
        )
