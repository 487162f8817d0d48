"""Intensities are changed as MONAI changes them, to the last bit, and in place."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from inference_samples import write_bundle, write_nifti
from monai.data import MetaTensor
from monai.transforms import NormalizeIntensityd, ScaleIntensityRanged

from semi_med.inference import Predictor, preprocessing
from semi_med.inference.preprocessing import prepared

CT_WINDOW = {"a_min": -125, "a_max": 275, "b_min": 0.0, "b_max": 1.0}
STEPS = [
    NormalizeIntensityd(keys="image", channel_wise=True),
    NormalizeIntensityd(keys="image", channel_wise=True, nonzero=True),
    ScaleIntensityRanged(keys="image", **CT_WINDOW, clip=True),
    ScaleIntensityRanged(keys="image", a_min=-100, a_max=300),
]


def image(*, order="C") -> MetaTensor:
    """(2, 7, 5, 9), some voxels 0, the second channel nothing but 0."""
    values = np.random.default_rng(0).normal(30, 200, (7, 5, 9)).astype(np.float32)
    values[values < -150] = 0
    values = np.asarray(np.stack([values, np.zeros_like(values)]), order=order)
    return MetaTensor(torch.from_numpy(values), affine=np.diag([0.7, 0.7, 2.0, 1.0]))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("step", STEPS)
def test_numbers_are_those_of_monai(monkeypatch, step, order):
    monkeypatch.setattr(preprocessing, "_AT_ONCE", 100)
    given = image(order=order)
    wanted = step({"image": copy.deepcopy(given)})["image"]
    found = prepared(step, {"image": given})["image"]
    assert torch.equal(found.as_tensor(), wanted.as_tensor())
    assert torch.equal(found.affine, wanted.affine)
    assert found.as_tensor().data_ptr() == given.as_tensor().data_ptr()


@pytest.mark.parametrize(
    "step",
    [
        NormalizeIntensityd(keys="image"),
        NormalizeIntensityd(keys="image", channel_wise=True, subtrahend=[1.0, 2.0], divisor=[3.0, 4.0]),
        ScaleIntensityRanged(keys="image", **CT_WINDOW, dtype=np.float64),
    ],
)
def test_what_is_otherwise_is_left_to_monai(monkeypatch, step):
    monkeypatch.setattr(preprocessing, "_in_place", None)
    wanted = step({"image": image()})["image"]
    assert torch.equal(prepared(step, {"image": image()})["image"].as_tensor(), wanted.as_tensor())


def test_the_prepared_image_is_let_go_once_the_networks_have_seen_it(tmp_path):
    path = write_nifti(tmp_path / "a.nii", np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32))
    predictor = Predictor.load(write_bundle(tmp_path / "b"), device="cpu")
    loaded = predictor.read(path)
    kept = predictor.segment(loaded).loaded.data["image"]
    assert kept.shape == (1, 5, 6, 7)
    assert kept.as_tensor().untyped_storage().nbytes() == 4
    assert loaded.data["image"].untyped_storage().nbytes() == 4 * 5 * 6 * 7


def test_a_step_that_may_look_at_the_image_gets_it(tmp_path):
    """The bundle marks voxels brighter than the mean; its last step takes those out that are far brighter."""
    values = np.zeros((5, 6, 7), np.float32)
    values[1:4], values[2, 2, 2] = 10, 100
    only = {"_target_": "MaskIntensityd", "keys": "pred", "mask_key": "image", "select_fn": "$lambda image: image < 3"}
    path = write_nifti(tmp_path / "a.nii", values)
    label = Predictor.load(write_bundle(tmp_path / "b", post=[only]), device="cpu")(path).label
    assert (label[2, 2, 2], label[2, 2, 3], label[0, 0, 0]) == (0, 1, 0)
