"""From a prepared image to class indices, slab by slab; all probabilities of a volume are held only on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscreted, Compose, Invertd
from torch import Tensor

from semi_med.data.resize import ResizeSlicesd, resize_slices
from semi_med.errors import InputError
from semi_med.inference.bundle import Bundle
from semi_med.inference.ladder import Rung
from semi_med.inference.members import Members
from semi_med.inference.stitching import Slab
from semi_med.inference.summary import Summary, disagreement, most_probable, uncertainty

MAPS = ("probabilities", "uncertainty", "disagreement")


@dataclass(frozen=True)
class Maps:
    """What is wanted beside the label, and of whom.

    Attributes:
        names: of `MAPS`, in their order.
        flips: members see mirror images too.
    """

    names: tuple[str, ...] = ()
    flips: bool = False

    @classmethod
    def of(cls, names: Sequence[str], *, networks: int, flips: bool) -> Maps:
        """Checks the names.

        Raises:
            InputError: code SETTING; code NO_PEER if one network is to disagree with itself.
        """
        if unknown := sorted(set(names) - set(MAPS)):
            raise InputError(f"one of {', '.join(MAPS)} is wanted, not {unknown[0]!r}", where="maps", code="SETTING")
        if "disagreement" in names and networks == 1 and not flips:
            raise InputError(
                "disagreement wants several members, and there is one network",
                fix="Choose the network mean, or --tta flips.",
                code="NO_PEER",
            )
        return cls(tuple(name for name in MAPS if name in names), flips)

    def members(self, networks: Sequence[Callable[..., Any]], reduced: torch.dtype | None) -> Members:
        """The networks, asked for what the maps need."""
        return Members(networks, reduced=reduced, flips=self.flips, entropy="disagreement" in self.names)


@dataclass
class Segmentation:
    """The networks' result.

    Attributes:
        values: class indices (1, *spatial), or probabilities (classes, *spatial) where only the bundle's
            postprocessing knows how to make a label of them.
        left: what of the bundle's postprocessing is still to be done with them.
        summary: how sure it is.
        classes: that the networks have.
        maps: (channels, *spatial) by name, on the networks' grid.
        notes: warnings.
    """

    values: Tensor
    left: list[Any]
    summary: Summary
    classes: int
    maps: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)

    def label_on_grid(self, data: Mapping[Any, Any], bundle: Bundle) -> Tensor:
        """(1, i, j, k) on the grid of the scan; `data` is what the preprocessing gave."""
        done = any(isinstance(one, Invertd) for one in bundle.postprocessing.transforms) and not any(
            isinstance(one, Invertd) for one in self.left
        )
        meta = data["image"]
        pred = MetaTensor(self.values, meta=dict(meta.meta)) if not done else _on_scan(self.values, meta)
        result: Tensor = Compose(self.left)({**data, "pred": pred})["pred"]
        return result

    def map_on_grid(self, name: str, data: Mapping[Any, Any], bundle: Bundle) -> np.ndarray:
        """(i, j, k), or (i, j, k, classes) for probabilities; taken out of `maps`, since it may be large."""
        values = MetaTensor(self.maps.pop(name), meta=dict(data["image"].meta))
        invert = Invertd(
            keys="map", transform=bundle.preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True
        )
        found = invert({"image": data["image"], "map": values})["map"].as_tensor().float()
        if name != "probabilities":
            return np.asarray(found[0].clamp_(0, 1))
        found.clamp_(0, 1)
        found[0] += 1 - found.sum(0)  # what was cropped away is background
        return np.moveaxis(found.numpy(), 0, -1)


def segment(
    image: Tensor,
    bundle: Bundle,
    members: Members,
    *,
    maps: Maps,
    operations: Sequence[Mapping[str, Any]],
    rungs: Sequence[Rung],
    progress: Callable[[int, int], None] | None = None,
) -> Segmentation:
    """Segments one image.

    Args:
        image: (C, *spatial).
        bundle: for its inferer and its postprocessing.
        members: networks, asked for what the maps need.
        maps: what is wanted beside the label.
        operations: that the preprocessing applied, as MONAI traces them.
        rungs: where to compute.
        progress: see `ProbabilityWindowInferer.slabs`.
    """
    way, left = _way_to_labels(bundle, operations)
    size = image.shape[1:] if way is None else way.size(image.shape[1:])
    made: dict[str, Tensor] = {}
    notes: list[str] = []
    summary, classes = Summary(0), 0
    for slab in bundle.inferer.slabs(image, members, rungs=rungs, say=notes.append, progress=progress):
        probs = slab.values
        if "disagreement" in maps.names:
            probs, doubt = probs[:-1], probs[-1]
            _put(made, "disagreement", slab, disagreement(probs, doubt)[None], image.shape[1:])
        if not classes:
            classes = len(probs)
            summary = Summary(classes)
        label = most_probable(probs)
        summary.add(probs, label)
        if "uncertainty" in maps.names:
            _put(made, "uncertainty", slab, uncertainty(probs)[None], image.shape[1:])
        if way is None or "probabilities" in maps.names:
            _put(made, "probabilities", slab, probs, image.shape[1:])
        if way is not None:
            if way.resized:
                label = most_probable(way.back(probs))
            _put(made, "label", slab, label[None], size)
    values = made.pop("label") if way is not None else made["probabilities"]
    wanted = {name: made[name] for name in maps.names if name in made}
    return Segmentation(values, left, summary, classes, wanted, notes)


@dataclass(frozen=True)
class _Way:
    """How a slab of probabilities becomes class indices.

    Attributes:
        resized: slices are first brought back to this size; None if they are not.
    """

    resized: tuple[int, int] | None = None

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (*self.resized, shape[2]) if self.resized else tuple(shape)

    def back(self, probs: Tensor) -> Tensor:
        assert self.resized is not None
        return resize_slices(probs, self.resized)


def _way_to_labels(bundle: Bundle, operations: Sequence[Mapping[str, Any]]) -> tuple[_Way | None, list[Any]]:
    """How slabs become class indices, None if only whole probabilities will do; and the postprocessing that is left."""
    transforms = list(bundle.postprocessing.transforms)
    if transforms and _takes_the_most_probable(transforms[0]):
        return _Way(), transforms[1:]
    slices = bundle.by_slices and bundle.inferer.slice_axis in (-1, 2)
    inverted = len(transforms) > 1 and isinstance(transforms[0], Invertd) and _takes_the_most_probable(transforms[1])
    sizes = [one["orig_size"] for one in operations if one.get("class") == ResizeSlicesd.__name__]
    if not slices or not inverted or len(sizes) != len(operations) or len(sizes) > 1:
        return None, transforms
    return _Way(tuple(int(number) for number in sizes[0][:2]) if sizes else None), transforms[2:]  # type: ignore[arg-type]


def _takes_the_most_probable(transform: Any) -> bool:
    if not isinstance(transform, AsDiscreted) or tuple(transform.keys) != ("pred",):
        return False
    others = (*transform.to_onehot, *transform.threshold, *transform.rounding)
    return tuple(transform.argmax) == (True,) and all(one is None for one in others)


def _put(made: dict[str, Tensor], name: str, slab: Slab, values: Tensor, size: Sequence[int]) -> None:
    """Writes planes into their volume, which is made with the first of them."""
    if name not in made:
        made[name] = torch.zeros((len(values), *size), dtype=values.dtype)
    made[name][(slice(None), *slab.place)] = values.to(made[name].device)


def _on_scan(values: Tensor, image: MetaTensor) -> MetaTensor:
    """A result that lies on the grid of the scan already."""
    found = MetaTensor(values, meta=dict(image.meta))
    found.affine = torch.as_tensor(np.asarray(image.meta["original_affine"], dtype=np.float64))
    return found
