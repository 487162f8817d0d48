"""Slices at the network's size and back."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from semi_med.data.resize import ResizeSlicesd, resize_slices
from semi_med.errors import InputError
from semi_med.inference.pictures import resize_image

AFFINE = torch.tensor([[0, 0.4, 0, 3], [-0.3, 0, 0, 9], [0, 0, 2.0, 1], [0, 0, 0, 1]], dtype=torch.float64)


def image_of(*shape: int) -> MetaTensor:
    return MetaTensor(torch.rand(shape, generator=torch.Generator().manual_seed(0)), affine=AFFINE)


def test_half_the_size_is_a_weighted_mean_and_the_border_is_not_darkened():
    found = resize_slices(torch.full((1, 99, 64, 2), 7.0), (33, 20))
    torch.testing.assert_close(found, torch.full((1, 33, 20, 2), 7.0))


@pytest.mark.parametrize("size", [(20, 15), (60, 70)])
def test_it_is_the_resizing_that_prepares_data_sets(size):
    array = np.random.default_rng(0).random((41, 33), np.float32)
    found = resize_slices(torch.from_numpy(array)[None, :, :, None], size)[0, :, :, 0]
    np.testing.assert_allclose(found.numpy(), resize_image(array, size), atol=1e-5)


def test_many_slices_are_what_each_alone_is():
    volume = torch.rand(2, 13, 17, 70)
    found = resize_slices(volume, (8, 9))
    torch.testing.assert_close(found, torch.cat([resize_slices(volume[..., k : k + 1], (8, 9)) for k in range(70)], 3))


def test_nearest_keeps_class_indices():
    label = (torch.arange(15 * 11) % 4).reshape(1, 15, 11, 1)
    assert set(resize_slices(label, (40, 7), mode="nearest").unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("shape", [(3, 99, 96, 1), (1, 31, 77, 5), (1, 32, 32, 3), (2, 5, 7, 2)])
def test_probabilities_come_back_to_the_very_grid_of_the_image(shape):
    before = Compose([ResizeSlicesd("image", [32, 32])])
    case = before({"image": image_of(*shape)})
    assert case["image"].shape == (shape[0], 32, 32, shape[3])
    case["pred"] = MetaTensor(torch.rand(4, 32, 32, shape[3]), meta=case["image"].meta)
    back = Invertd("pred", before, orig_keys="image", nearest_interp=False, to_tensor=True)(case)["pred"]
    assert back.shape == (4, *shape[1:])
    torch.testing.assert_close(back.affine, AFFINE, atol=1e-12, rtol=0)


def test_the_corners_of_the_picture_stay_in_place():
    case = ResizeSlicesd("image", [16, 8])({"image": image_of(1, 32, 32, 1)})
    first, last = (torch.tensor([i, j, 0, 1], dtype=torch.float64) for i, j in ((-0.5, -0.5), (31.5, 31.5)))
    end = torch.tensor([15.5, 7.5, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(case["image"].affine @ first, AFFINE @ first)
    torch.testing.assert_close(case["image"].affine @ end, AFFINE @ last)


def test_an_inversion_uses_the_mode_of_its_key():
    resize = ResizeSlicesd(["image", "label"], [8, 8], mode=["bilinear", "nearest"])
    label = MetaTensor((torch.arange(20 * 20) % 2).reshape(1, 20, 20, 1), affine=AFFINE)
    back = resize.inverse(resize({"image": image_of(1, 20, 20, 1), "label": label}))
    assert set(back["label"].unique().tolist()) <= {0.0, 1.0}
    assert len(back["image"].unique()) > 64


def test_without_a_size_nothing_changes():
    image = image_of(1, 5, 6, 2)
    resize = ResizeSlicesd("image", None)
    assert resize({"image": image})["image"] is image
    assert resize.inverse(resize({"image": image}))["image"] is image


@pytest.mark.parametrize("settings", [{"size": [32]}, {"size": [32, 0]}, {"size": [8, 8], "mode": "cubic"}])
def test_a_setting_that_cannot_be_is_refused(settings):
    with pytest.raises(InputError, match="ResizeSlicesd"):
        ResizeSlicesd("image", **settings)


def test_a_picture_without_a_slice_axis_is_refused():
    with pytest.raises(InputError, match=r"slices \(C, i, j, k\) are wanted, not \(1, 5, 6\)"):
        ResizeSlicesd("image", [8, 8])({"image": torch.zeros(1, 5, 6)})
