"""What a model was trained with, where the configuration of its bundle says otherwise.

A training may change the network or the size of its images on the command line. The bundle's files stay as they are;
`models/model.json` beside `models/model.pt` has what was changed, for predictions with that model alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from semi_med.errors import InputError

SHARED = (  # by training and prediction
    *("classes", "crop_size", "image_size", "intensity_mean", "intensity_sd"),
    *("network_def", "peer_def", "stride"),
)


def read_trained_with(weights: str | Path, folder: str | Path) -> dict[str, Any]:
    """The settings that lie beside the weights; none where the bundle's own say the same.

    They can name code, as a configuration can. So only those of the bundle's own `models` are read, and none of a file
    of weights that came from elsewhere.

    Args:
        weights: the model's file.
        folder: the bundle, or a run's folder.

    Raises:
        InputError: code BUNDLE, the file is not what a training writes.
    """
    path = Path(weights).with_suffix(".json")
    if path.parent.resolve() != (Path(folder) / "models").resolve() or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = isinstance(found, dict) and set(found) <= set(SHARED)
    except (OSError, ValueError):
        known = False
    if not known:
        raise InputError(
            f"of the settings that the model was trained with, {', '.join(SHARED)} may stand here and nothing else",
            where=path,
            fix="Copy models/ of the training again, with all its files.",
            code="BUNDLE",
        )
    return dict(found)
