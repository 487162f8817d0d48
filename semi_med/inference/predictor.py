"""From scans to masks with a trained bundle, one scan at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscreted, Compose, Invertd, KeepLargestConnectedComponentd, LoadImaged, MapLabelValued

from semi_med.errors import InputError, ResourceError, SemiMedError, root_cause
from semi_med.inference.bundle import Bundle, load_bundle, resolve_device
from semi_med.inference.ladder import is_out_of_memory, rungs
from semi_med.inference.picture_check import is_picture
from semi_med.inference.precision import Precision, Precisions
from semi_med.inference.preprocessing import prepared
from semi_med.inference.reader import ScanReader
from semi_med.inference.segmentation import Maps, Segmentation, segment
from semi_med.inference.structures import Structure, measure
from semi_med.runtime import keep_freed_memory

_ACTIVATION = 2**28  # bytes: a level of a network for a few windows is smaller, a volume that counts is larger
_OF_LABELS = (AsDiscreted, Invertd, KeepLargestConnectedComponentd, MapLabelValued)  # see nothing but their keys
_SLICES = 16  # at a time, where a volume is looked through


@dataclass(frozen=True)
class Prediction:
    """The segmentation of one scan, on the scan's own grid.

    Attributes:
        label: (i, j, k) class indices, or the numbers that the bundle's labels have for them; uint8, uint16 above 255.
        affine: 4x4 float64, voxel index to RAS millimetres: that of the scan.
        structures: what is measured of every class but the background, by name.
        warnings: what was odd, each beginning with a code.
        seconds: wall time of reading, network and the way back to the scan's grid, by these names.
        axes: of the scan's file: 3, or of what is flat 2 for (i, j) and 4 for (i, j, 1, k).
        maps: (i, j, k) float32 by name, or (i, j, k, classes) for probabilities; those that were asked for.
        confidence: the mean of that of the structures; NaN if it is not known.
    """

    label: np.ndarray
    affine: np.ndarray
    structures: dict[str, Structure]
    warnings: tuple[str, ...]
    seconds: dict[str, float]
    axes: int = 3
    maps: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Millilitres by name; empty for what has no volume in space: a picture, two axes, flat frames."""
        return {name: one.millilitres for name, one in self.structures.items() if not np.isnan(one.millilitres)}

    @property
    def voxels(self) -> dict[str, int]:
        """Voxels by name, of a picture pixels."""
        return {name: one.voxels for name, one in self.structures.items()}

    @property
    def confidence(self) -> float:
        """The mean over structures, see `semi_med.inference.summary.Summary`."""
        known = [one.confidence for one in self.structures.values() if not np.isnan(one.confidence)]
        return float(np.mean(known)) if known else float("nan")


@dataclass(frozen=True)
class Loaded:
    """A scan that has been read and prepared.

    Attributes:
        files: it came from.
        data: what the bundle's preprocessing gave, over the key "image".
        intensities: (i, j, k) as they were read, of the first channel.
        affine: of the scan.
        warnings: of reading.
        axes: of the file.
        seconds: that it took.
    """

    files: tuple[str, ...]
    data: dict[Any, Any]
    intensities: np.ndarray
    affine: np.ndarray
    warnings: tuple[str, ...]
    axes: int
    seconds: float


@dataclass(frozen=True)
class Segmented:
    """What the networks made of a scan.

    Attributes:
        loaded: the scan; the voxels of its prepared image are gone if no step of the postprocessing can want them.
        segmentation: on the networks' grid.
        seconds: that it took.
    """

    loaded: Loaded
    segmentation: Segmentation
    seconds: float


class Predictor:
    """A bundle whose networks are loaded once and segment scan after scan.

    A call does one scan. `read`, `segment` and `finish` are its three steps, for those who let them overlap: each may
    run in a thread of its own.

    Args:
        bundle: opened with `semi_med.inference.bundle.load_bundle`; `Predictor.load` does both.
        device: where the networks are.
        precision: of the networks, see `load`.
        maps: what is wanted beside the label.
        flips: average over mirror images too.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: torch.device,
        precision: Precision = "bundle",
        maps: Sequence[str] = (),
        flips: bool = False,
    ) -> None:
        self.bundle = bundle
        self.device = device
        self.maps = Maps.of(maps, networks=len(bundle.networks), flips=flips)
        self.precisions = Precisions(bundle, device, precision)
        # in place of the bundle's own loader, so that no file goes round the checks
        self._reader = ScanReader(nonfinite="replace", channels=bundle.channels or 1, flat=bundle.by_slices)
        reader: Any = self._reader  # MONAI takes instances, its annotation names only classes
        self._load = LoadImaged(keys="image", reader=reader, ensure_channel_first=True)
        self._reading = Lock()
        # MONAI's transforms turn their tracing off while they invert, so that two threads must not be in them at once
        self._transforms = Lock()

    @classmethod
    def load(
        cls,
        bundle: str | Path,
        *,
        weights: str | Path | None = None,
        network: str = "1",
        largest_component: bool | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "bundle",
        maps: Sequence[str] = (),
        flips: bool = False,
    ) -> Predictor:
        """Opens a bundle or the folder of a training run.

        Args:
            bundle: folder with `configs/inference.json`, `configs/metadata.json` and `models/model.pt`.
            weights: a file to use instead of `models/model.pt`.
            network: "1", "2" or "mean" (average of both networks' probabilities).
            largest_component: keep only the largest connected component (26 neighbours) of each class; None follows
                the bundle.
            device: for example "cpu" or "cuda:0"; None takes CUDA if there is one.
            precision: "bundle" as the bundle says (its `amp`), "float32", "bfloat16", or "auto": bfloat16 where the
                machine computes with it and a window of the first scan comes out the same.
            maps: any of "probabilities", "uncertainty" and "disagreement".
            flips: average over mirror images too.

        Raises:
            InputError: if the bundle, its weights or a setting cannot be used; the code says which.
            ResourceError: if the device cannot be used.
        """
        found = resolve_device(device)
        if found.type == "cpu":
            keep_freed_memory(_ACTIVATION)
        opened = load_bundle(
            Path(bundle),
            weights=None if weights is None else Path(weights),
            network=network,
            device=found,
            largest_component=largest_component,
        )
        return cls(opened, device=found, precision=precision, maps=maps, flips=flips)

    def __call__(
        self, path: str | Path | Sequence[str | Path], *, dicom: Mapping[str, Any] | None = None
    ) -> Prediction:
        """Segments one scan.

        Args:
            path: a file or the folder of a DICOM series, or one of them per channel. Pictures are for 2D networks,
                which segment a volume slice by slice, along its last axis unless the bundle says otherwise.
            dicom: choices for DICOM series, see `semi_med.inference.dicom.read_dicom`.

        Returns:
            The label on the grid of the scan, whatever its orientation, spacing and size.

        Raises:
            InputError: if the scan is not sound or does not suit the bundle.
            ResourceError: code MEMORY.
        """
        return self.finish(self.segment(self.read(path, dicom=dicom)))

    def read(self, path: str | Path | Sequence[str | Path], *, dicom: Mapping[str, Any] | None = None) -> Loaded:
        """Reads a scan and prepares it for the networks. Arguments and errors are those of a call."""
        files = (str(path),) if isinstance(path, str | Path) else tuple(str(name) for name in path)
        with _explained(files):
            return self._read(files, dict(dicom or {}))

    def segment(self, loaded: Loaded, *, progress: Callable[[int, int], None] | None = None) -> Segmented:
        """Runs the networks.

        Args:
            loaded: from `read`.
            progress: called with the number of windows that are done, and of all.

        Raises:
            InputError: if the networks' output cannot be used.
            ResourceError: code MEMORY, if it runs out even on the CPU.
        """
        started = time.perf_counter()
        with _explained(loaded.files), torch.no_grad():
            image = loaded.data["image"]
            networks, reduced, notes = self.precisions.networks_for(image.as_tensor())
            found = segment(
                image,
                self.bundle,
                self.maps.members(networks, reduced),
                maps=self.maps,
                rungs=rungs(self.device, self.bundle.inferer.at_once),
                progress=progress,
            )
            self._check(found, loaded.files[0])
            found.notes.extend(notes)
        if _looks_at_labels_only(self.bundle.postprocessing):
            loaded = replace(loaded, data={**loaded.data, "image": _without_voxels(image)})
        return Segmented(loaded, found, time.perf_counter() - started)

    def finish(self, segmented: Segmented) -> Prediction:
        """Brings the result to the grid of the scan and measures it. Errors are those of a call."""
        started = time.perf_counter()
        loaded, found = segmented.loaded, segmented.segmentation
        shape = loaded.intensities.shape
        with _explained(loaded.files), self._transforms:
            returned = found.label_on_grid(loaded.data, self.bundle)
            maps = {name: found.map_on_grid(name, loaded.data, self.bundle) for name in self.maps.names}
        label = _checked_label(returned, shape, loaded.affine, largest=max(self.bundle.values))
        names = {name: index for index, name in self.bundle.classes.items() if index > 0}
        flat = loaded.axes != 3 or _are_pictures(loaded.files)
        structures = measure(
            label,
            loaded.intensities,
            values={name: self.bundle.values[index] for name, index in names.items()},
            millilitres=float("nan") if flat else abs(float(np.linalg.det(loaded.affine[:3, :3]))) / 1000,
            confidence={name: found.summary.confidence(index) for name, index in names.items()},
        )
        empty = [f"EMPTY: no voxel is {name}" for name, one in structures.items() if one.voxels == 0]
        return Prediction(
            label=label,
            affine=loaded.affine,
            structures=structures,
            warnings=(*loaded.warnings, *found.notes, *empty),
            seconds={
                "read": loaded.seconds,
                "network": segmented.seconds,
                "finish": time.perf_counter() - started,
            },
            axes=loaded.axes,
            maps=maps,
        )

    def _read(self, files: tuple[str, ...], dicom: dict[str, Any]) -> Loaded:
        started = time.perf_counter()
        if not self.bundle.by_slices and _are_pictures(files):
            raise InputError(
                "the network is 3D and wants a volume, this is a picture",
                where=files[0],
                fix="Use a bundle with a 2D network.",
                code="NDIM",
            )
        with self._reading:
            self._reader.dicom = dicom
            image = self._load({"image": list(files) if len(files) > 1 else files[0]})["image"]
        if self.bundle.channels not in (None, image.shape[0]):
            raise InputError(
                f"the network wants {self.bundle.channels} image channels, the case has {image.shape[0]}",
                where=files[0],
                fix="Save the picture in as many colours, grey or RGB."
                if _are_pictures(files)
                else "Give one file per channel.",
                code="NDIM",
            )
        intensities = _copy(image[0].as_tensor().numpy())  # since transforms may work in place
        affine = np.asarray(image.affine, dtype=np.float64).copy()
        warnings, axes = tuple(image.meta["warnings"].splitlines()), int(image.meta["axes"])
        data: Any = {"image": image}
        del image
        with self._transforms:  # one by one: a composition would hold the scan beside what is made of it
            for transform in self.bundle.preprocessing.flatten().transforms:
                data = prepared(transform, data)
        return Loaded(files, data, intensities, affine, warnings, axes, time.perf_counter() - started)

    def _check(self, found: Segmentation, file: str) -> None:
        if found.classes != len(self.bundle.classes):
            raise InputError(
                f"the network gives {found.classes} classes, the metadata name {len(self.bundle.classes)}",
                where=self.bundle.weights,
                fix="Mend channel_def in configs/metadata.json.",
                code="BUNDLE",
            )
        if not found.summary.finite:
            raise InputError(
                "the network's output is not finite for this scan",
                where=file,
                fix="Predict with --precision float32; if that does not help, look at the values of the scan.",
                code="NONFINITE_OUTPUT",
            )


def _copy(image: np.ndarray) -> np.ndarray:
    """A copy in half of the memory, int16, where that holds every value, as it does for CT and most MR."""
    made = np.empty(image.shape, np.int16)
    for start in range(0, image.shape[0], _SLICES):
        part = image[start : start + _SLICES]
        if part.min() < -(2**15) or part.max() >= 2**15:
            return image.copy()
        made[start : start + _SLICES] = part
        if not np.array_equal(made[start : start + _SLICES], part):
            return image.copy()
    return made


def _looks_at_labels_only(postprocessing: Compose) -> bool:
    """Whether no step can want the voxels of the prepared image; an inversion wants to know what was done to it."""
    steps = postprocessing.flatten().transforms
    return all(type(step) in _OF_LABELS and tuple(step.keys) == ("pred",) for step in steps)


def _without_voxels(image: MetaTensor) -> MetaTensor:
    """As large, at the same place and with the same trace; all voxels are one zero, which takes no memory."""
    nothing = torch.zeros((), dtype=image.dtype).expand(image.shape)
    return MetaTensor(nothing, meta=dict(image.meta), applied_operations=[*image.applied_operations])


def _checked_label(label: torch.Tensor, shape: tuple[int, ...], affine: np.ndarray, *, largest: int) -> np.ndarray:
    """Class indices from what the postprocessing returned, checked to lie on the grid of the scan."""
    values = label.detach().cpu()
    back = isinstance(values, MetaTensor) and np.allclose(np.asarray(values.affine), affine, atol=1e-4)
    if tuple(values.shape) != (1, *shape) or not back:
        raise InputError(
            f"postprocessing must return class indices on the grid of the scan, (1, {shape}) with its affine; "
            f"it returned {tuple(values.shape)}",
            where="postprocessing",
            fix="Use AsDiscreted(argmax=True) and Invertd over the preprocessing.",
            code="BUNDLE",
        )
    return values.numpy()[0].astype(np.uint8 if largest < 256 else np.uint16, copy=False)


class _explained:
    """Says of memory that ran out, and of what a transform wrapped, what it is."""

    def __init__(self, files: Sequence[str]) -> None:
        self._file = files[0]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception):
            return
        if is_out_of_memory(error):
            raise ResourceError(
                "there is not enough memory for this scan",
                where=self._file,
                fix="Use the device cpu, a machine with more memory, or crop the scan.",
                code="MEMORY",
            ) from error
        cause = root_cause(error)
        if isinstance(cause, SemiMedError) and cause is not error:
            raise cause from None  # MONAI wraps what a transform raises


def _are_pictures(files: Sequence[str]) -> bool:
    return all(is_picture(Path(file)) for file in files)
