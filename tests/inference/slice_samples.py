"""A bundle of a 2D network, made from the recipe's parts for slices."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from semi_med.recipes.compose import HERE, merge


def brightness(channels: int = 1) -> dict[str, torch.Tensor]:
    """State of a 1x1 convolution to two channels: logits 0 and the mean of the colours."""
    weight = torch.zeros(2, channels, 1, 1)
    weight[1] = 1 / channels
    return {"weight": weight, "bias": torch.zeros(2)}


def write_slice_bundle(
    folder: Path,
    *,
    channels: int = 1,
    size: list[int] | None = None,
    window: tuple[int, int] = (16, 16),
    largest: bool = False,
) -> Path:
    """A bundle that marks pixels brighter than the mean of their picture, of the size that is wanted."""
    parts = (json.loads((HERE / room / "inference.json").read_text()) for room in ("common", "common/slices"))
    network = {"_target_": "torch.nn.Conv2d", "in_channels": channels, "out_channels": 2, "kernel_size": 1}
    own = {
        "bundle_root": str(folder),
        "classes": 2,
        "crop_size": list(window),
        "stride": list(window),
        "image_size": size,
        "intensity_mean": None,
        "intensity_sd": None,
        "network_def": network,
        "largest_component": largest,
    }
    config = {}
    for part in (*parts, own):
        config = merge(config, part)
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    classes = {"outputs": {"pred": {"channel_def": {"0": "background", "1": "vessel"}}}}
    metadata = {"bundle": "sample", "network_data_format": {"inputs": {"image": {"num_channels": channels}}} | classes}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.save({"model": brightness(channels)}, folder / "models" / "model.pt")
    return folder


def save_picture(path: Path, array: np.ndarray) -> Path:
    """Saves (i, j) or (i, j, 3) uint8 as a picture of i columns and j rows."""
    Image.fromarray(np.ascontiguousarray(array.swapaxes(0, 1))).save(path)
    return path
