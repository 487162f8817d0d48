"""Intensities of scans whose background is 0, such as MR of the brain without the skull."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import Tensor


def standardize_above_zero(image: Tensor, *, percentile: float = 99.9) -> Tensor:
    """Each channel cut at a percentile, then brought to mean 0 and SD 1 over its voxels above 0.

    The background is moved along with the rest, so that it stays below the tissue; as SSL4MIS prepares BraTS.

    Args:
        image: (C, *spatial).
        percentile: of all voxels, those of the background among them; the next larger value is the limit.

    Returns:
        the same shape; a channel that is constant above 0 becomes 0 there, one without such voxels stays as it is.
    """
    return torch.stack([_one(channel, percentile) for channel in image])


def _one(channel: Tensor, percentile: float) -> Tensor:
    flat = channel.reshape(-1)
    place = min(max(math.ceil(percentile * flat.numel() / 100 - 1e-6), 1), flat.numel())
    cut = channel.clamp(max=flat.kthvalue(place).values)
    tissue = cut[cut > 0]
    if not tissue.numel():
        return cut
    deviation = tissue.std(correction=0)
    return (cut - tissue.mean()) / (deviation if deviation > 0 else 1)


class StandardizeAboveZerod(MapTransform):
    """`standardize_above_zero` for the images of a case.

    Args:
        keys: of images (C, *spatial).
        percentile: see there.
        allow_missing_keys: skip a key that a case does not have.
    """

    def __init__(self, keys: KeysCollection, percentile: float = 99.9, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 0 < percentile <= 100:
            raise ValueError(f"a percentile above 0 and up to 100 is wanted, not {percentile}")
        self.percentile = percentile

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with its images changed."""
        case = dict(data)
        for key in self.key_iterator(case):
            image = convert_to_tensor(case[key], dtype=torch.float32, track_meta=False)
            changed = standardize_above_zero(image, percentile=self.percentile)
            case[key] = convert_to_dst_type(changed, dst=case[key], dtype=torch.float32)[0]
        return case
