"""Exporting a bundle: its deployable network in each format, checked, with a model card and checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.transforms import LoadImaged
from torch import Tensor, nn

from semi_med.errors import InputError
from semi_med.export.card import model_card
from semi_med.export.formats import FILE_NAMES, FORMATS, INPUT, OPSET, OUTPUT, Format, check_packages, runner, write
from semi_med.export.knowledge import Knowledge, gather
from semi_med.export.parity import (
    TOLERANCE,
    Parity,
    check,
    compare,
    other_sizes,
    random_windows,
    windows_of,
    works_on_other_sizes,
)
from semi_med.files import write_atomically
from semi_med.inference.bundle import Bundle, load_bundle
from semi_med.inference.reader import ScanReader
from semi_med.runtime import versions

RECORD, CARD, SUMS = "export.json", "MODEL_CARD.md", "SHA256SUMS"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        written: the files, networks first.
        parity: by format and kind of input, "random" and "real".
    """

    written: tuple[Path, ...]
    parity: Mapping[Format, Mapping[str, Parity]]


def export_bundle(
    bundle: str | Path,
    output: str | Path,
    *,
    formats: Sequence[Format] = FORMATS,
    network: str = "1",
    weights: str | Path | None = None,
    inputs: Sequence[str | Path] = (),
    metrics: Sequence[str | Path] = (),
    tolerance: float = TOLERANCE,
    say: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write the network that segments as files that run without this project.

    Args:
        bundle: a bundle with weights, or the folder of a training run.
        output: folder; files of an earlier export are replaced.
        formats: of the network.
        network: "1" or "2" of a bundle with two.
        weights: a file to use instead of `models/model.pt`.
        inputs: scans to compare on beside random input.
        metrics: `<table>_summary.json` files of `evaluate` for the model card, beside those that lie in the bundle.
        tolerance: largest difference of outputs (relative where they are above 1) and of probabilities.
        say: told what is done, a line at a time.

    Returns:
        What was written: `model.ts`, `model.onnx`, `MODEL_CARD.md`, `export.json` and `SHA256SUMS`.

    Raises:
        InputError: the bundle, its weights, a scan or a setting cannot be used; code EXPORT or PARITY, a network that
            cannot be written in a format, or is another one there. Nothing is written then.
        ResourceError: code NO_PACKAGE, or the disk is full.
    """
    chosen = tuple(dict.fromkeys(formats))
    check_packages(chosen)
    if network not in ("1", "2"):
        raise InputError(f"one network is exported, 1 or 2, not {network!r}", where="--network", code="SETTING")
    folder, bundle = Path(output), Path(bundle)
    opened = load_bundle(
        bundle, weights=None if weights is None else Path(weights), network=network, device=torch.device("cpu")
    )
    known = gather(bundle, opened, metrics=[Path(path) for path in metrics])
    module, channels, window = opened.networks[0].float().eval(), opened.channels or 1, opened.inferer.window
    windows = {"random": random_windows(channels, window)}
    if inputs:
        windows["real"] = [part for path in inputs for part in _real_windows(opened, Path(path))]
        say(f"{len(windows['real'])} windows of {len(inputs)} scans, prepared as for a prediction")

    contents: dict[Format, bytes] = {}
    parity: dict[Format, dict[str, Parity]] = {}
    sizes: dict[Format, bool | None] = {}
    for form in chosen:
        contents[form] = write(module, form, windows["random"][0], about=_about(bundle, opened, known, network))
        run = runner(form, contents[form])
        parity[form] = {name: compare(module, run, found) for name, found in windows.items()}
        check(parity[form], tolerance=tolerance, where=FILE_NAMES[form])
        sizes[form] = works_on_other_sizes(module, run, other_sizes(channels, window), tolerance=tolerance)
        for name, found in parity[form].items():
            say(f"{FILE_NAMES[form]}: {name} input differs by {found.largest:.2g} at most")
    record = _record(opened, known, network, contents, parity=parity, sizes=sizes, tolerance=tolerance, module=module)
    files = {FILE_NAMES[form]: content for form, content in contents.items()}
    files[RECORD] = (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
    files[CARD] = model_card(known, record).encode("utf-8")
    files[SUMS] = "".join(f"{_sha256(content)}  {name}\n" for name, content in files.items()).encode("utf-8")
    for name, content in files.items():
        write_atomically(folder / name, content)
    return Exported(tuple(folder / name for name in files), parity)


def _real_windows(opened: Bundle, path: Path) -> list[Tensor]:
    """Windows of a scan, prepared as for a prediction."""
    reader: Any = ScanReader(nonfinite="replace", channels=opened.channels or 1, flat=opened.by_slices)
    data = LoadImaged(keys="image", reader=reader, ensure_channel_first=True)({"image": str(path)})
    image = opened.preprocessing(data)["image"].as_tensor().float()
    if image.shape[0] != (opened.channels or image.shape[0]):
        raise InputError(
            f"the network wants {opened.channels} image channels, the scan has {image.shape[0]}",
            where=path,
            fix="Give a scan with as many channels.",
            code="NDIM",
        )
    return list(windows_of(image, opened.inferer.window, slice_axis=opened.inferer.slice_axis))


def _about(bundle: Path, opened: Bundle, known: Knowledge, network: str) -> dict[str, Any]:
    """What a file says about its network."""
    return {
        "name": known.metadata.get("name") or bundle.resolve().name,
        "intended_use": known.metadata.get("intended_use") or "not recorded",
        "classes": {str(index): name for index, name in opened.classes.items()},
        "label_values": opened.values,
        "input": f"{INPUT}: float32 (batch, {opened.channels or 1}, {_axes(opened)}), prepared as {CARD} says",
        "output": f"{OUTPUT}: float32 (batch, {len(opened.classes)}, {_axes(opened)}), before the softmax",
        "window": list(opened.inferer.window),
        "stride": list(opened.inferer.stride),
        "network": network,
        "weights_sha256": opened.sha256,
        "semi_med": versions()["semi-med"],
    }


def _axes(opened: Bundle) -> str:
    return ", ".join("ijk"[: len(opened.inferer.window)])


def _record(
    opened: Bundle,
    known: Knowledge,
    network: str,
    contents: Mapping[Format, bytes],
    *,
    parity: Mapping[Format, Mapping[str, Parity]],
    sizes: Mapping[Format, bool | None],
    tolerance: float,
    module: nn.Module,
) -> dict[str, Any]:
    """What is needed to tell later what these files are."""
    return {
        "bundle": known.bundle,
        "weights": opened.weights.name,
        "weights_sha256": opened.sha256,
        "network": network,
        "networks_trained": known.networks,
        "class": type(module).__name__,
        "parameters": sum(value.numel() for value in module.parameters()),
        "input": {"name": INPUT, "channels": opened.channels or 1, "window": list(opened.inferer.window)},
        "output": {"name": OUTPUT, "classes": opened.classes, "values": opened.values},
        "stride": list(opened.inferer.stride),
        "largest_component": opened.largest_component,
        "tolerance": tolerance,
        "files": [
            {
                "name": FILE_NAMES[form],
                "format": form,
                "bytes": len(content),
                "sha256": _sha256(content),
                **({"opset": OPSET} if form == "onnx" else {}),
                "parity": {name: found.as_json() for name, found in parity[form].items()},
                "other_sizes": sizes[form],
            }
            for form, content in contents.items()
        ],
        "versions": {**versions(), **_more_versions(contents)},
    }


def _more_versions(contents: Mapping[Format, bytes]) -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("onnx", "onnxruntime")} if "onnx" in contents else {}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
