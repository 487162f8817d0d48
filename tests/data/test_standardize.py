"""Intensities above zero: cut, then mean 0 and SD 1 of the tissue."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from semi_med.data.standardize import StandardizeAboveZerod, standardize_above_zero


def test_the_tissue_has_mean_0_and_sd_1_and_the_background_moves_along():
    image = torch.tensor([[0.0, 0.0, 1.0, 3.0]])  # tissue 1 and 3: mean 2, SD 1
    torch.testing.assert_close(standardize_above_zero(image, percentile=100), torch.tensor([[-2.0, -2.0, -1.0, 1.0]]))


def test_what_is_above_the_percentile_is_cut_to_it():
    image = torch.arange(1.0, 1001.0)[None]
    image[0, -1] = 1e6
    found = standardize_above_zero(image, percentile=99.9)
    # the 999th of 1000 values is the limit
    cut = np.minimum(image[0].numpy(), 999)
    np.testing.assert_allclose(found[0].numpy(), (cut - cut.mean()) / cut.std(), rtol=1e-5)


def test_each_channel_is_its_own():
    one = torch.rand(1, 4, 5, 6) + 0.1
    both = standardize_above_zero(torch.cat([one, one * 50]))
    torch.testing.assert_close(both[0], both[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("image", [torch.zeros(1, 3, 3), torch.tensor([[[0.0, 5.0], [5.0, 0.0]]])])
def test_images_without_contrast_stay_finite(image):
    found = standardize_above_zero(image)
    assert torch.isfinite(found).all()
    assert found.max() == 0


def test_a_case_keeps_its_place_and_its_other_entries():
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, 3, 3, 3) + 0.1, affine=affine)
    case = {"image": image, "label": torch.ones(1, 3, 3, 3)}
    found = StandardizeAboveZerod("image")(case)
    assert isinstance(found["image"], MetaTensor)
    torch.testing.assert_close(found["image"].affine, affine)
    assert found["image"].mean().abs() < 1e-5
    assert found["label"] is case["label"]
    assert case["image"] is image


def test_a_percentile_of_0_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        StandardizeAboveZerod("image", percentile=0)
