"""Steps of a bundle's preprocessing, computed in place: MONAI holds three or four images meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import NormalizeIntensity, NormalizeIntensityd, ScaleIntensityRanged, apply_transform
from torch import Tensor

from semi_med.inference.resampling import spaced

_AT_ONCE = 2**20  # numbers that are made at a time; MONAI's tensors are freed late, some of them with the next garbage


def prepared(transform: Any, data: Mapping[Any, Any]) -> Any:
    """What a transform makes of data["image"] (C, *spatial), whose voxels may be changed in place: the same numbers."""
    return spaced(transform, data) or _scaled(transform, data) or apply_transform(transform, data)


def _scaled(transform: Any, data: Mapping[Any, Any]) -> dict[Any, Any] | None:
    """The data, if the transform changes intensities voxel by voxel in float32; None if it is another."""
    image = data["image"]
    if tuple(getattr(transform, "keys", ())) != ("image",) or image.dtype != torch.float32:
        return None
    if type(transform) is ScaleIntensityRanged and transform.scaler.dtype is np.float32:
        _in_place(transform.scaler, image.as_tensor())
        return {**data}
    if type(transform) is NormalizeIntensityd and _by_its_own_mean(transform.normalizer):
        for channel in image.as_tensor():
            _standardise(channel[None], nonzero=transform.normalizer.nonzero)
        return {**data}
    return None


def _by_its_own_mean(normalizer: NormalizeIntensity) -> bool:
    given = normalizer.subtrahend is not None or normalizer.divisor is not None
    return normalizer.channel_wise and not given and normalizer.dtype is np.float32


def _standardise(channel: Tensor, *, nonzero: bool) -> None:
    """To mean 0 and standard deviation 1, of all voxels or of those that are not 0."""
    counted = channel[channel != 0] if nonzero else channel
    if counted.numel() == 0:
        return
    mean, deviation = float(counted.mean()), float(counted.std(unbiased=False))
    del counted
    _in_place(NormalizeIntensity([mean], [deviation], nonzero=nonzero, channel_wise=True), channel)


def _in_place(transform: Any, image: Tensor) -> None:
    """Applies what looks at single voxels, a few planes at a time, those that lie side by side in memory."""
    axis = max(range(1, image.ndim), key=image.stride)
    planes = max(_AT_ONCE * image.shape[axis] // image.numel(), 1)
    for part in image.split(planes, axis):
        part.copy_(transform(part))
