"""Small NIfTI files and a bundle whose network is one convolution."""

import gzip
import json
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import torch


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine), path)
    return path


def patched(path: Path, offset: int, layout: str, *values: float) -> Path:
    """Overwrites header fields of an uncompressed or compressed little-endian NIfTI-1 file."""
    packed = path.suffix == ".gz"
    data = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    struct.pack_into("<" + layout, data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data)) if packed else bytes(data))
    return path


def convolution(weight: float, *, bias: float = 0.0) -> dict[str, torch.Tensor]:
    """State of a 1x1x1 convolution from one channel to two: logits 0 and weight * x + bias."""
    return {
        "weight": torch.tensor([0.0, weight]).reshape(2, 1, 1, 1, 1),
        "bias": torch.tensor([0.0, bias]),
    }


def write_bundle(
    folder: Path,
    *,
    states: dict[str, dict[str, torch.Tensor]] | None = None,
    window: tuple[int, int, int] = (4, 4, 4),
    stride: tuple[int, int, int] = (2, 3, 4),
    peer: bool = False,
    post: list[dict] | None = None,
    amp: bool = False,
) -> Path:
    """A bundle whose network is one 1x1x1 convolution; by default it marks voxels brighter than the mean."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    network = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
    invert = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    config = {
        "bundle_root": "/nowhere",
        "device": "$torch.device('cuda:99')",
        "output_dir": "$@bundle_root + '/predictions'",
        "network_def": network,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "LoadImaged",
                    "keys": "image",
                    "reader": "semi_med.inference.reader.ScanReader",
                    "ensure_channel_first": True,
                },
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
                {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True},
            ],
        },
        "inferer": {
            "_target_": "semi_med.inference.sliding_window.ProbabilityWindowInferer",
            "roi_size": list(window),
            "stride": list(stride),
            "amp": amp,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                *(post or []),
                {**invert, "nearest_interp": True, "to_tensor": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "training_only": "$1 / 0",
    }
    if peer:
        config["peer_def"] = "@network_def"
    classes = {"outputs": {"pred": {"channel_def": {"0": "background", "1": "left atrium"}}}}
    inputs = {"inputs": {"image": {"num_channels": 1}}}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": inputs | classes}))
    torch.save(states or {"model": convolution(1.0)}, folder / "models" / "model.pt")
    return folder
