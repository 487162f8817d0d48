"""From a prepared image to class indices, slab by slab; all probabilities of a volume are held only on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from semi_med.inference.resampling import Stretch, Stretcher, reoriented, stretch_back
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
        maps: (channels, *spatial) by name.
        notes: warnings.
        on_scan: whether values and maps lie on the grid of the scan already, else on that of the networks.
    """

    values: Tensor
    left: list[Any]
    summary: Summary
    classes: int
    maps: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    on_scan: bool = False

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
        found = self.maps.pop(name)
        if not self.on_scan:
            values = MetaTensor(found, meta=dict(data["image"].meta))
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
    prepared: MetaTensor,
    bundle: Bundle,
    members: Members,
    *,
    maps: Maps,
    rungs: Sequence[Rung],
    progress: Callable[[int, int], None] | None = None,
) -> Segmentation:
    """Segments one image.

    Args:
        prepared: (C, *spatial), with the trace of what the preprocessing applied.
        bundle: for its inferer and its postprocessing.
        members: networks, asked for what the maps need.
        maps: what is wanted beside the label.
        rungs: where to compute.
        progress: see `ProbabilityWindowInferer.slabs`.
    """
    image = prepared.as_tensor()
    way, left = _way_to_labels(bundle, prepared)
    made = _Volumes(image.shape[1:], None if way is None else way.stretch)
    notes: list[str] = []
    summary, classes = Summary(0), 0
    for slab in bundle.inferer.slabs(image, members, rungs=rungs, say=notes.append, progress=progress):
        probs = slab.values
        if "disagreement" in maps.names:
            probs, doubt = probs[:-1], probs[-1]
            made.put("disagreement", replace(slab, values=disagreement(probs, doubt)[None]))
        if not classes:
            classes = len(probs)
            summary = Summary(classes)
        label = most_probable(probs)
        summary.add(probs, label)
        if "uncertainty" in maps.names:
            made.put("uncertainty", replace(slab, values=uncertainty(probs)[None]))
        if way is None or "probabilities" in maps.names:
            made.put("probabilities", replace(slab, values=probs))
        if way is not None:
            made.put_label(replace(slab, values=probs), label, way)
    values = made.found.pop("label") if way is not None else made.found["probabilities"]
    wanted = {name: made.found[name] for name in maps.names if name in made.found}
    if way is None or way.stretch is None:
        return Segmentation(values, left, summary, classes, wanted, notes)
    wanted = {name: _turned(one, prepared) for name, one in wanted.items()}
    return Segmentation(_turned(values, prepared), left, summary, classes, wanted, notes, on_scan=True)


class _Volumes:
    """Results that grow slab by slab.

    Args:
        size: of the networks' grid.
        stretch: to the grid on which they are kept; None for the networks' own.
    """

    def __init__(self, size: Sequence[int], stretch: Stretch | None) -> None:
        self.found: dict[str, Tensor] = {}
        self._size, self._stretch = tuple(size), stretch
        self._stretchers: dict[str, Stretcher] = {}

    def put(self, name: str, slab: Slab) -> None:
        """Writes planes into their volume, which is made with the first of them."""
        for one in self._stretched(name, slab):
            self._write(name, one, self._stretch.size if self._stretch else self._size)

    def put_label(self, slab: Slab, label: Tensor, way: _Way) -> None:
        """Writes the most probable classes, which are `label` on the networks' grid."""
        if self._stretch is not None:
            for one in self._stretched("label", slab):
                self._write("label", replace(one, values=most_probable(one.values)[None]), self._stretch.size)
            return
        if way.resized:
            label = most_probable(way.back(slab.values))
        self._write("label", replace(slab, values=label[None]), way.size(self._size))

    def _stretched(self, name: str, slab: Slab) -> Iterable[Slab]:
        if self._stretch is None:
            return [slab]
        if name not in self._stretchers:
            self._stretchers[name] = Stretcher(self._stretch, self._size, slab.axis)
        return self._stretchers[name].add(slab)

    def _write(self, name: str, slab: Slab, size: Sequence[int]) -> None:
        if name not in self.found:
            self.found[name] = torch.zeros((len(slab.values), *size), dtype=slab.values.dtype)
        volume = self.found[name]
        volume[(slice(None), *slab.place)] = slab.values.to(volume.device)


@dataclass(frozen=True)
class _Way:
    """How a slab of probabilities becomes class indices.

    Attributes:
        resized: slices are first brought back to this size; None if they are not.
        stretch: volumes are first brought back to their spacing; None if they are not.
    """

    resized: tuple[int, int] | None = None
    stretch: Stretch | None = None

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (*self.resized, shape[2]) if self.resized else tuple(shape)

    def back(self, probs: Tensor) -> Tensor:
        assert self.resized is not None
        return resize_slices(probs, self.resized)


def _way_to_labels(bundle: Bundle, image: MetaTensor) -> tuple[_Way | None, list[Any]]:
    """How slabs become class indices, None if only whole probabilities will do; and the postprocessing that is left."""
    transforms = list(bundle.postprocessing.transforms)
    if transforms and _takes_the_most_probable(transforms[0]):
        return _Way(), transforms[1:]
    operations: Sequence[Mapping[str, Any]] = image.applied_operations
    slices = bundle.by_slices and bundle.inferer.slice_axis in (-1, 2)
    inverted = len(transforms) > 1 and isinstance(transforms[0], Invertd) and _takes_the_most_probable(transforms[1])
    sizes = [one["orig_size"] for one in operations if one.get("class") == ResizeSlicesd.__name__]
    if inverted and not bundle.by_slices and (stretch := stretch_back(image, operations)) is not None:
        return (_Way(stretch=stretch), transforms[2:]) if _is_linear(transforms[0]) else (None, transforms)
    if not slices or not inverted or len(sizes) != len(operations) or len(sizes) > 1:
        return None, transforms
    return _Way(tuple(int(number) for number in sizes[0][:2]) if sizes else None), transforms[2:]  # type: ignore[arg-type]


def _takes_the_most_probable(transform: Any) -> bool:
    if not isinstance(transform, AsDiscreted) or tuple(transform.keys) != ("pred",):
        return False
    others = (*transform.to_onehot, *transform.threshold, *transform.rounding)
    return tuple(transform.argmax) == (True,) and all(one is None for one in others)


def _is_linear(inversion: Invertd) -> bool:
    return not any(inversion.nearest_interp)


def _turned(values: Tensor, image: MetaTensor) -> Tensor:
    """From the axes that were resampled to those of the scan."""
    before = image.applied_operations[-1]["extra_info"]["src_affine"]
    return reoriented(values, before, image.meta["original_affine"]).contiguous()


def _on_scan(values: Tensor, image: MetaTensor) -> MetaTensor:
    """A result that lies on the grid of the scan already."""
    found = MetaTensor(values, meta=dict(image.meta))
    found.affine = torch.as_tensor(np.asarray(image.meta["original_affine"], dtype=np.float64))
    return found
