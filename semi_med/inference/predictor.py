"""From scans to masks with a trained bundle: one scan, or a whole folder."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged

from semi_med.errors import InputError, ResourceError, SemiMedError, root_cause
from semi_med.inference.batch_files import (
    BatchCase,
    CaseRow,
    Format,
    collect_cases,
    join_channels,
    listed_cases,
    make_output_folder,
    write_record,
    write_volumes,
)
from semi_med.inference.bundle import Bundle, load_bundle, resolve_device
from semi_med.inference.io import write_label
from semi_med.inference.picture_check import is_picture
from semi_med.inference.reader import ScanReader
from semi_med.runtime import keep_freed_memory


@dataclass(frozen=True)
class Prediction:
    """The segmentation of one scan, on the scan's own grid.

    Attributes:
        label: (i, j, k) class indices, or the numbers that the bundle's labels have for them; uint8, uint16 above 255.
        affine: 4x4 float64, voxel index to RAS millimetres: that of the scan.
        volumes_ml: millilitres of every class but the background, by name; empty for what has no volume in space, a
            picture, two axes or a sequence of flat frames.
        voxels: the same as counts, of a picture in pixels.
        warnings: what was odd, each beginning with a code.
        seconds: wall time, reading included.
        axes: of the scan's file: 3, or of what is flat 2 for (i, j) and 4 for (i, j, 1, k).
    """

    label: np.ndarray
    affine: np.ndarray
    volumes_ml: dict[str, float]
    voxels: dict[str, int]
    warnings: tuple[str, ...]
    seconds: float
    axes: int = 3


class Predictor:
    """A bundle whose networks are loaded once and segment scan after scan.

    Args:
        bundle: opened with `semi_med.inference.bundle.load_bundle`; `Predictor.load` does both.
        device: where the networks are.
    """

    def __init__(self, bundle: Bundle, *, device: torch.device) -> None:
        self.bundle = bundle
        self.device = device
        # in place of the bundle's own loader, so that no file goes round the checks
        channels = bundle.channels or 1
        self._reader = ScanReader(nonfinite="replace", channels=channels, flat=bundle.by_slices)
        reader: Any = self._reader  # MONAI takes instances, its annotation names only classes
        self._load = LoadImaged(keys="image", reader=reader, ensure_channel_first=True)

    @classmethod
    def load(
        cls,
        bundle: str | Path,
        *,
        weights: str | Path | None = None,
        network: str = "1",
        largest_component: bool | None = None,
        device: str | torch.device | None = None,
    ) -> Predictor:
        """Opens a bundle or the folder of a training run.

        Args:
            bundle: folder with `configs/inference.json`, `configs/metadata.json` and `models/model.pt`.
            weights: a file to use instead of `models/model.pt`.
            network: "1", "2" or "mean" (average of both networks' probabilities).
            largest_component: keep only the largest connected component (26 neighbours) of each class; None follows
                the bundle.
            device: for example "cpu" or "cuda:0"; None takes CUDA if there is one.

        Raises:
            InputError: if the bundle, its weights or a setting cannot be used; the code says which.
            ResourceError: if the device cannot be used.
        """
        found = resolve_device(device)
        if found.type == "cpu":
            keep_freed_memory()
        opened = load_bundle(
            Path(bundle),
            weights=None if weights is None else Path(weights),
            network=network,
            device=found,
            largest_component=largest_component,
        )
        return cls(opened, device=found)

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
        started = time.perf_counter()
        self._reader.dicom = dict(dicom or {})
        files = [str(path)] if isinstance(path, str | Path) else [str(name) for name in path]
        try:
            label, affine, warnings, axes = self._segment(files)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise ResourceError(
                "there is not enough memory for this scan",
                where=files[0],
                fix="Use the device cpu, a machine with more memory, or crop the scan.",
                code="MEMORY",
            ) from error
        except Exception as error:
            cause = root_cause(error)
            if isinstance(cause, SemiMedError) and cause is not error:
                raise cause from None  # MONAI wraps what a transform raises
            raise
        values = self.bundle.values
        voxels = {
            name: int(np.count_nonzero(label == values[index]))
            for index, name in self.bundle.classes.items()
            if index > 0
        }
        millilitres = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
        flat = axes != 3 or _are_pictures(files)
        warnings += [f"EMPTY: no voxel is {name}" for name, count in voxels.items() if count == 0]
        return Prediction(
            label=label,
            affine=affine,
            volumes_ml={} if flat else {name: count * millilitres for name, count in voxels.items()},
            voxels=voxels,
            warnings=tuple(warnings),
            seconds=time.perf_counter() - started,
            axes=axes,
        )

    def _segment(self, files: list[str]) -> tuple[np.ndarray, np.ndarray, list[str], int]:
        """Label, affine and warnings of one scan, and how many axes its file has."""
        if not self.bundle.by_slices and _are_pictures(files):
            raise InputError(
                "the network is 3D and wants a volume, this is a picture",
                where=files[0],
                fix="Use a bundle with a 2D network.",
                code="NDIM",
            )
        data = self._load({"image": files if len(files) > 1 else files[0]})
        image = data["image"]
        shape = tuple(image.shape[1:])
        affine = np.asarray(image.affine, dtype=np.float64).copy()
        warnings, axes = image.meta["warnings"].splitlines(), int(image.meta["axes"])
        if self.bundle.channels not in (None, image.shape[0]):
            raise InputError(
                f"the network wants {self.bundle.channels} image channels, the case has {image.shape[0]}",
                where=files[0],
                fix="Save the picture in as many colours, grey or RGB."
                if _are_pictures(files)
                else "Give one file per channel.",
                code="NDIM",
            )
        data = self.bundle.preprocessing(data)
        with torch.no_grad():
            probs = self.bundle.inferer(data["image"].as_tensor()[None].to(self.device), self.bundle.networks)
        self._check_probs(probs, files[0])
        data["pred"] = MetaTensor(probs[0], meta=data["image"].meta)
        label = self._label_on_grid(self.bundle.postprocessing(data)["pred"], shape, affine)
        return label, affine, warnings, axes

    def _check_probs(self, probs: torch.Tensor, file: str) -> None:
        if probs.shape[1] != len(self.bundle.classes):
            raise InputError(
                f"the network gives {probs.shape[1]} classes, the metadata name {len(self.bundle.classes)}",
                where=self.bundle.weights,
                fix="Mend channel_def in configs/metadata.json.",
                code="BUNDLE",
            )
        if not torch.isfinite(probs).all():
            raise InputError(
                "the network's output is not finite for this scan",
                where=file,
                fix="Set amp to false in the bundle's inferer; if that does not help, look at the values of the scan.",
                code="NONFINITE_OUTPUT",
            )

    def _label_on_grid(self, pred: torch.Tensor, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
        """Class indices from what the postprocessing returned, checked to lie on the grid of the scan."""
        values = pred.detach().cpu()
        back = isinstance(values, MetaTensor) and np.allclose(np.asarray(values.affine), affine, atol=1e-4)
        if tuple(values.shape) != (1, *shape) or not back:
            raise InputError(
                f"postprocessing must return class indices on the grid of the scan, (1, {shape}) with its affine; "
                f"it returned {tuple(values.shape)}",
                where="postprocessing",
                fix="Use AsDiscreted(argmax=True) and Invertd over the preprocessing.",
                code="BUNDLE",
            )
        return values.numpy()[0].astype(np.uint8 if max(self.bundle.values) < 256 else np.uint16)


def _are_pictures(files: Sequence[str]) -> bool:
    return all(is_picture(Path(file)) for file in files)


def predict(
    bundle: str | Path,
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    cases: Mapping[str, Sequence[Path]] | None = None,
    network: str = "1",
    largest_component: bool | None = None,
    device: str | torch.device | None = None,
    weights: str | Path | None = None,
    series: int | str | None = None,
    dicom: Mapping[str, Any] | None = None,
    format: Format = "auto",
    report: Callable[[CaseRow, int, int], None] | None = None,
) -> list[CaseRow]:
    """Segments files, folders of scans and DICOM series; a case that fails is recorded and the others go on.

    Writes `<case>_seg.nii.gz` for every case, for a picture `<case>_seg.png`, and `volumes.csv` and `run.json`, each at
    once or not at all.

    Args:
        bundle: see `Predictor.load`.
        inputs: scans, folders of scans, and folders or zip archives of DICOM series.
        output: folder for the results; made if it is not there.
        cases: names and files of the cases, as a data list has them; then no input is looked through.
        network: see `Predictor.load`.
        largest_component: see `Predictor.load`.
        device: see `Predictor.load`.
        weights: see `Predictor.load`.
        series: of DICOM folders with several: a number, the beginning of a hash, or "all".
        dicom: `gaps`, `tilt` and `burned_in` of `semi_med.inference.dicom.read_dicom`.
        format: of the labels; "nifti" also for pictures, "png" also for volumes of one slice.
        report: called after every case with its row, the number of finished cases and the number of all.

    Returns:
        One row per case, in the order of the inputs; `status` is "done" or "failed".

    Raises:
        InputError: if the inputs, the bundle or the output folder cannot be used; no case has been touched then.
        ResourceError: if the device cannot be used, or the disk is full.
    """
    output = Path(output)
    if cases is None:
        paths = [Path(path) for path in inputs]
        found = collect_cases(paths, output, series=series, format=format, several_channels=True)
    else:
        found = listed_cases(cases, output, series=series, format=format)
    predictor = Predictor.load(
        bundle, weights=weights, network=network, largest_component=largest_component, device=device
    )
    if cases is None:
        found = join_channels(
            found,
            output,
            channels=predictor.bundle.channels or 1,
            names=predictor.bundle.channel_names,
            in_one_file=predictor.bundle.in_one_file,
            format=format,
        )
    make_output_folder(output)
    settings = {
        "bundle": Path(bundle).resolve().name,
        "weights": predictor.bundle.weights.name,
        "weights_sha256": predictor.bundle.sha256,
        "network": network,
        "largest_component": predictor.bundle.largest_component,
        "device": str(predictor.device),
        "window": list(predictor.bundle.inferer.window),
        "stride": list(predictor.bundle.inferer.stride),
        "amp": predictor.bundle.inferer.amp,
        "dicom": {"series": series, **(dicom or {})},
        "classes": {str(predictor.bundle.values[index]): name for index, name in predictor.bundle.classes.items()},
    }
    started, clock = datetime.datetime.now(datetime.timezone.utc), time.perf_counter()
    rows: list[CaseRow] = []
    try:
        for case in found:
            rows.append(_predict_case(predictor, case, dict(dicom or {})))
            if report is not None:
                report(rows[-1], len(rows), len(found))
    finally:  # an interrupted run keeps its record
        write_volumes(output / "volumes.csv", rows)
        write_record(
            output / "run.json",
            settings,
            rows=rows,
            started=started.isoformat(timespec="seconds"),
            seconds=time.perf_counter() - clock,
        )
    return rows


def _predict_case(predictor: Predictor, case: BatchCase, dicom: Mapping[str, Any]) -> CaseRow:
    started = time.perf_counter()
    row = CaseRow(
        case=case.name,
        image=case.image.name,
        status="failed",
        output=None,
        volumes_ml={},
        voxels={},
        warnings=[],
        error=None,
        code=None,
        seconds=0.0,
    )
    try:
        prediction = predictor([case.image, *case.further], dicom={**dicom, "series": case.series})
        write_label(case.target, prediction.label, affine=prediction.affine, axes=prediction.axes)
    except SemiMedError as error:
        if error.code == "DISK_FULL":  # every further case would fail alike
            raise
        row["error"], row["code"] = f"{error.problem}. {error.fix}" if error.fix else error.problem, error.code
    except Exception as error:  # one case must not stop the batch
        text = f"{type(error).__name__}: {error}".replace(f"{case.image.parent}/", "")
        row["error"], row["code"] = text, "UNEXPECTED"
    else:
        row["status"], row["output"] = "done", case.target.name
        row["volumes_ml"], row["voxels"] = prediction.volumes_ml, prediction.voxels
        row["warnings"] = list(prediction.warnings)
    row["seconds"] = round(time.perf_counter() - started, 3)
    return row
