"""Spacing is changed and changed back as MONAI does it, and no more than planes are held on the way."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from inference_samples import write_bundle, write_nifti
from monai.data import MetaTensor
from monai.transforms import Spacingd
from torch.utils._python_dispatch import TorchDispatchMode

from semi_med.inference import Predictor, preprocessing
from semi_med.inference.resampling import Stretch, spaced

SHAPE = (13, 10, 17)
AXES = list(itertools.permutations(range(3)))[1::2]


def grid(axes=(0, 1, 2), signs=(1, 1, 1), spacing=(0.7, 1.3, 2.5), angle=0.0) -> np.ndarray:
    """An affine whose axes are turned about the third one."""
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[:, axes] @ np.diag(np.multiply(signs, spacing))
    affine[:3, 3] = 5, -7, 11
    return affine


def bundle_with_spacing(folder, *, classes=3):
    """Resamples to 1.1 mm, segments, and brings probabilities back before the class is chosen."""
    write_bundle(folder, window=(6, 6, 6), stride=(4, 3, 5))
    path, about = folder / "configs" / "inference.json", folder / "configs" / "metadata.json"
    config, metadata = json.loads(path.read_text()), json.loads(about.read_text())
    config["network_def"]["out_channels"] = classes
    spacing = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.1, 1.1, 1.1], "mode": "bilinear"}
    config["preprocessing"]["transforms"].insert(2, spacing)
    first, second, *others = config["postprocessing"]["transforms"]
    config["postprocessing"]["transforms"] = [{**second, "nearest_interp": False}, first, *others]
    named = {str(number): f"class {number}" for number in range(classes)}
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = named
    path.write_text(json.dumps(config))
    about.write_text(json.dumps(metadata))
    weight = torch.linspace(-2, 2, classes).reshape(classes, 1, 1, 1, 1)
    bias = torch.tensor([0.0, 0.3, 0.0])[:classes]
    torch.save({"model": {"weight": weight, "bias": bias}}, folder / "models" / "model.pt")
    return folder


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(100, 30, SHAPE).astype(np.float32)


@pytest.mark.parametrize("pixdim", [(1.0, 1.0, 1.0), (0.5, 2.0, 2.5), (3.0, 3.0, 3.0)])
def test_an_image_is_resampled_as_monai_does_it_and_monai_can_undo_it(image, pixdim):
    scan = MetaTensor(torch.from_numpy(image)[None], affine=grid(angle=0.2))
    transform = Spacingd(keys="image", pixdim=pixdim, mode="bilinear")
    wanted, found = transform({"image": scan})["image"], spaced(transform, {"image": scan})["image"]
    torch.testing.assert_close(found.as_tensor(), wanted.as_tensor().float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.affine, wanted.affine)
    back = transform.inverse({"image": found})["image"]
    torch.testing.assert_close(back, transform.inverse({"image": wanted})["image"], atol=1e-3, rtol=0)
    assert back.shape == scan.shape


def test_what_is_not_linear_is_left_to_monai(image):
    scan = MetaTensor(torch.from_numpy(image)[None], affine=grid())
    nearest = Spacingd(keys="image", pixdim=(1.0, 1.0, 1.0), mode="nearest")
    assert spaced(nearest, {"image": scan}) is None
    assert Stretch.between(grid(), grid(angle=0.2), SHAPE) is None
    assert Stretch.between(grid(), grid(signs=(-1, 1, 1)), SHAPE) is None


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("signs", [(1, -1, 1), (-1, 1, -1)])
def test_labels_and_maps_come_back_as_monai_brings_them(tmp_path, monkeypatch, image, axes, signs):
    path = write_nifti(tmp_path / "a.nii", image, grid(axes, signs, angle=0.1))
    maps = ["probabilities", "uncertainty"]
    monkeypatch.setattr("semi_med.inference.resampling._AT_ONCE", 1000)
    load = Predictor.load(bundle_with_spacing(tmp_path / "b"), device="cpu", maps=maps)
    found = load(path)
    with monkeypatch.context() as plain:
        plain.setattr(preprocessing, "spaced", lambda transform, data: None)
        plain.setattr("semi_med.inference.segmentation.stretch_back", lambda image, operations: None)
        wanted = load(path)
    for name in maps:
        np.testing.assert_allclose(found.maps[name], wanted.maps[name], atol=1e-4)
    clear = np.sort(wanted.maps["probabilities"], axis=-1)
    clear = clear[..., -1] - clear[..., -2] > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.label[clear], wanted.label[clear])
    assert len(np.unique(found.label)) == 3
    np.testing.assert_array_equal(found.affine, wanted.affine)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor of floating point has that is made meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, torch.Tensor) and one.is_floating_point():
                self.numbers = max(self.numbers, one.numel())
        return result


def test_no_volume_of_probabilities_and_no_coordinates_are_held(tmp_path, monkeypatch):
    image = np.random.default_rng(0).normal(size=(8, 9, 300)).astype(np.float32)
    path = write_nifti(tmp_path / "a.nii", image, np.diag([0.7, 0.7, 0.7, 1]))
    monkeypatch.setattr("semi_med.inference.resampling._AT_ONCE", 1000)
    load = Predictor.load(bundle_with_spacing(tmp_path / "b"), device="cpu")
    with Largest() as seen:
        load.finish(load.segment(load.read(path)))
    assert seen.numbers <= image.size  # of one channel, not of three classes or three coordinates
