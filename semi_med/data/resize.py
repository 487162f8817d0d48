"""Slices at the size that a 2D network wants, and what it says about them back at their own size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.transforms.utils import scale_affine
from monai.utils import TraceKeys, convert_to_tensor, ensure_tuple_rep
from torch import Tensor
from torch.nn import functional

from semi_med.errors import InputError

MODES = ("bilinear", "nearest")
_AT_ONCE = 32  # slices; what is held beside the result


def resize_slices(image: Tensor, size: Sequence[int], *, mode: str = "bilinear") -> Tensor:
    """Every slice at another size; the edges of the picture stay where they are.

    Args:
        image: (C, i, j, k).
        size: of i and j.
        mode: "bilinear", each new pixel a mean over what it covers when smaller, without anything beyond the border;
            or "nearest" for class indices.

    Returns:
        (C, *size, k) float32.
    """
    made = image.new_empty((image.shape[0], *size, image.shape[3]), dtype=torch.float32)
    for start in range(0, image.shape[3], _AT_ONCE):
        slices = image[..., start : start + _AT_ONCE].permute(3, 0, 1, 2).float()
        if mode == "nearest":
            found = functional.interpolate(slices, size=tuple(size), mode="nearest-exact")
        else:
            found = functional.interpolate(slices, size=tuple(size), mode="bilinear", antialias=True)
        made[..., start : start + _AT_ONCE] = found.permute(1, 2, 3, 0)
    return made


class ResizeSlicesd(MapTransform, InvertibleTransform):
    """`resize_slices` for the images and labels of a case, with the affine that goes with it; can be inverted.

    MONAI's `Resized` with anti-aliasing takes zeros beyond the border into its means, which darkens the edge, and 20
    times the memory of the volume.

    Args:
        keys: (C, i, j, k).
        size: of i and j; None leaves everything as it is.
        mode: "bilinear" or "nearest", for all keys or for each. An inversion uses that of its key.
        allow_missing_keys: skip a key that a case does not have.

    Raises:
        InputError: code SETTING, if the size or a mode cannot be.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int] | None,
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size = None if size is None else tuple(int(number) for number in size)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise InputError(
                f"two numbers of pixels are wanted, not {size}", where="ResizeSlicesd.size", code="SETTING"
            )
        if wrong := set(self.mode) - set(MODES):
            raise InputError(
                f"one of {', '.join(MODES)} is wanted, not {min(wrong)!r}", where="ResizeSlicesd.mode", code="SETTING"
            )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with its slices at the size."""
        case = dict(data)
        if self.size is None:
            return case
        for key, mode in self.key_iterator(case, self.mode):
            image = convert_to_tensor(case[key], track_meta=True)
            if image.ndim != 4:
                raise InputError(
                    f"slices (C, i, j, k) are wanted, not {tuple(image.shape)}", where=f"ResizeSlicesd, {key!s}"
                )
            case[key] = _resized(image, self.size, mode)
            self.push_transform(case[key], orig_size=tuple(image.shape[1:]), extra_info={"mode": mode})
        return case

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with its slices at their own size."""
        case = dict(data)
        for key in self.key_iterator(case) if self.size is not None else ():
            trace = self.pop_transform(case[key])
            mode = "nearest" if trace[TraceKeys.EXTRA_INFO]["mode"].startswith("nearest") else "bilinear"
            case[key] = _resized(case[key], [int(number) for number in trace[TraceKeys.ORIG_SIZE][:2]], mode)
        return case


def _resized(image: MetaTensor, size: Sequence[int], mode: str) -> MetaTensor:
    old, new = tuple(image.shape[1:]), (*size, image.shape[3])
    made = image.as_tensor().float() if old == new else resize_slices(image.as_tensor(), size, mode=mode)
    resized = MetaTensor(made).copy_meta_from(image)
    resized.affine = image.affine @ torch.as_tensor(scale_affine(old, new), dtype=image.affine.dtype)
    return resized
