"""Opening a bundle folder: its inference configuration, its networks and their weights.

A bundle's configuration can run code, as any MONAI bundle's can; open only bundles whose source is trusted. Weights
are data: they are loaded with `weights_only=True`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.transforms import (
    AsDiscreted,
    Compose,
    Invertd,
    KeepLargestConnectedComponentd,
    LoadImaged,
    SaveImaged,
)
from torch import nn

from semi_med.errors import InputError, ResourceError, root_cause
from semi_med.inference.components import in_boxes
from semi_med.inference.sliding_window import ProbabilityWindowInferer
from semi_med.inference.trained_with import read_trained_with
from semi_med.inference.writer import SaveLabeld
from semi_med.runtime import quiet_unused_readers

NETWORKS = ("1", "2", "mean")
quiet_unused_readers()


@dataclass
class Bundle:
    """What prediction needs of a bundle folder.

    Attributes:
        preprocessing: what follows the loading of the image, over the key "image".
        inferer: volume and networks to probabilities.
        networks: in evaluation mode, on their device; two for "mean".
        postprocessing: probabilities to class indices on the grid of the input, over the key "pred".
        classes: name of every class index, background included.
        values: the number that stands for each class index in what the postprocessing gives.
        channels: image channels the networks want; None if the metadata do not say.
        channel_names: what these are called, in their order; none if the metadata do not say.
        in_one_file: whether the bundle was made for files that hold several channels each.
        largest_component: whether the postprocessing keeps only the largest component of each class.
        weights: the file the weights came from.
        sha256: of that file.
        config_sha256: of `inference.json` and `metadata.json`, and of what the model was trained with otherwise.
        codes: what the metadata say about the codes of the classes, by name (`segment_codes`).
    """

    preprocessing: Compose
    inferer: ProbabilityWindowInferer
    networks: list[nn.Module]
    postprocessing: Compose
    classes: dict[int, str]
    values: list[int]
    channels: int | None
    channel_names: tuple[str, ...]
    in_one_file: bool
    largest_component: bool
    weights: Path
    sha256: str
    config_sha256: str
    codes: Mapping[str, Any]

    @property
    def by_slices(self) -> bool:
        """Whether the networks are 2D, so that pictures are segmented, and volumes slice by slice."""
        return len(self.inferer.window) == 2


def load_bundle(
    folder: Path, *, weights: Path | None, network: str, device: torch.device, largest_component: bool | None = None
) -> Bundle:
    """Reads `configs/inference.json`, `configs/metadata.json` and the weights of a bundle or training run.

    What a training changed on the command line lies beside its weights and goes before the configuration.

    Args:
        folder: the bundle, or the folder of a training run; both have the same layout.
        weights: a file to use instead of `models/model.pt`.
        network: "1", "2" or "mean"; the last two need a bundle trained with two networks.
        device: where the networks go.
        largest_component: whether the postprocessing keeps only the largest component of each class, 26 neighbours
            being connected; None leaves it as configured.

    Raises:
        InputError: code SETTING, BUNDLE, NO_WEIGHTS, WEIGHTS or NO_PEER.
    """
    if network not in NETWORKS:
        raise InputError(f"network must be one of {', '.join(NETWORKS)}, not {network!r}", code="SETTING")
    metadata = folder / "configs" / "metadata.json"
    classes, channels, channel_names = _read_metadata(metadata)
    config = folder / "configs" / "inference.json"
    weights = weights or folder / "models" / "model.pt"
    trained = json.dumps(read_trained_with(weights, folder), sort_keys=True).encode()
    parser = _parser(config, bundle_root=folder, weights=weights, device=device)
    states = _load_states(weights, folder)
    if network != "1":
        _require_peer(parser, states, config=config, weights=weights, network=network)

    networks = []
    for name, key in (("network_def", "model"), ("peer_def", "peer")):
        if network == "mean" or (network == "2") == (key == "peer"):
            module = copy.deepcopy(_instance(parser, name, nn.Module, config=config))
            _load_state(module, states[key], key=key, weights=weights)
            networks.append(module.to(device).eval())

    preprocessing = _instance(parser, "preprocessing", Compose, config=config)
    postprocessing = _instance(parser, "postprocessing", Compose, config=config)
    in_one_file = _in_one_file(preprocessing, channel_names)
    # the compositions are changed in place: Invertd holds on to the very object
    if not _drop(preprocessing, LoadImaged):
        raise _bundle_error("preprocessing has no LoadImaged", config)
    _drop(postprocessing, SaveImaged)
    _drop(postprocessing, SaveLabeld)
    return Bundle(
        preprocessing=preprocessing,
        inferer=_instance(parser, "inferer", ProbabilityWindowInferer, config=config),
        networks=networks,
        postprocessing=postprocessing,
        classes=classes,
        values=_values(parser.get("label_values"), classes, config=config),
        channels=channels,
        channel_names=channel_names,
        in_one_file=in_one_file,
        largest_component=_set_largest_component(postprocessing, largest_component),
        weights=weights,
        sha256=_sha256(weights),
        config_sha256=hashlib.sha256(config.read_bytes() + metadata.read_bytes() + trained).hexdigest(),
        codes=_read_json(metadata).get("segment_codes", {}),
    )


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device to use, tried with one small computation; None means CUDA if there is one, else the CPU.

    Raises:
        InputError: code DEVICE, if there is no device of that name.
        ResourceError: code DEVICE, if it cannot be used on this machine.
    """
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise InputError(f"there is no device {device!r}", fix="Use cpu, cuda or cuda:0.", code="DEVICE") from error
    try:
        torch.ones(1, device=found).add_(1).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ResourceError(
            f"the device {found} cannot be used on this machine",
            fix="Use another device, for example cpu.",
            code="DEVICE",
        ) from error
    return found


def _bundle_error(problem: str, where: Path) -> InputError:
    return InputError(
        problem,
        where=where,
        fix="Compose the bundle again, or compare it with one that ships with semi_med.",
        code="BUNDLE",
    )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            "this file of the bundle is missing",
            where=path,
            fix="Name a bundle or a training run: a folder with configs/ and models/.",
            code="BUNDLE",
        ) from None
    except (OSError, ValueError) as error:
        raise _bundle_error(f"this file is no readable JSON ({error})", path) from error


def _read_metadata(path: Path) -> tuple[dict[int, str], int | None, tuple[str, ...]]:
    """Class names by index, and the number and the names of the image channels if given."""
    metadata = _read_json(path)
    try:
        data_format = metadata["network_data_format"]
        classes = {int(index): str(name) for index, name in data_format["outputs"]["pred"]["channel_def"].items()}
        image = data_format.get("inputs", {}).get("image", {})
        channels = image.get("num_channels")
        named = {int(index): str(name) for index, name in image.get("channel_def", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = "network_data_format.outputs.pred.channel_def must name every class by its index"
        raise _bundle_error(problem, path) from error
    if sorted(classes) != list(range(len(classes))) or len(classes) < 2 or len(set(classes.values())) < len(classes):
        raise _bundle_error(f"channel_def must name the classes 0, 1, ... differently, it is {classes}", path)
    names = tuple(named[index] for index in sorted(named))
    return classes, None if channels is None else int(channels), names


def _parser(config: Path, *, bundle_root: Path, weights: Path, device: torch.device) -> ConfigParser:
    content = _read_json(config)
    if not isinstance(content, dict):
        raise _bundle_error("a JSON object is wanted", config)
    missing = [name for name in ("preprocessing", "inferer", "network_def", "postprocessing") if name not in content]
    if missing:
        raise _bundle_error(f"these entries are missing: {', '.join(missing)}", config)
    content |= read_trained_with(weights, bundle_root)
    # an absolute path begins with a separator or a drive, so the parser never takes it for an expression
    return ConfigParser({**content, "bundle_root": str(bundle_root.resolve()), "device": device})


def _instance(parser: ConfigParser, name: str, kind: type, *, config: Path) -> Any:
    try:
        value = parser.get_parsed_content(name)
    except Exception as error:  # a configuration can raise anything
        cause = root_cause(error)
        raise _bundle_error(f"the entry {name!r} cannot be built ({type(cause).__name__}: {cause})", config) from error
    if not isinstance(value, kind):
        raise _bundle_error(f"the entry {name!r} must be a {kind.__name__}, it is a {type(value).__name__}", config)
    return value


def _values(given: Any, classes: Mapping[int, str], *, config: Path) -> list[int]:
    """The numbers that masks have for the classes; by default the class indices."""
    if given is None:
        return list(classes)
    if not isinstance(given, list) or len(given) != len(classes) or not all(isinstance(one, int) for one in given):
        raise _bundle_error(f"label_values must name {len(classes)} numbers, one for each class, not {given}", config)
    return given


def _in_one_file(preprocessing: Compose, names: Sequence[str]) -> bool:
    """Whether the loader reads several channels from one file, or these are the colours of a picture."""
    loaders = [one for one in preprocessing.transforms if isinstance(one, LoadImaged)]
    several = any(getattr(reader, "channels", 1) > 1 for loader in loaders for reader in loader._loader.readers)
    return several or [name.lower() for name in names] == ["red", "green", "blue"]


def _drop(composition: Compose, kind: type) -> bool:
    """Removes the transforms of one class in place; tells whether there were any."""
    kept = [transform for transform in composition.transforms if not isinstance(transform, kind)]
    dropped = len(kept) < len(composition.transforms)
    composition.transforms = tuple(kept)
    return dropped


def _set_largest_component(postprocessing: Compose, wanted: bool | None) -> bool:
    """Adds or removes in place what keeps the largest component of each class; tells whether it is there."""
    transforms = list(postprocessing.transforms)
    there = any(isinstance(transform, KeepLargestConnectedComponentd) for transform in transforms)
    if wanted and not there:
        transforms.insert(_place_of_components(transforms), KeepLargestConnectedComponentd(keys="pred"))
        postprocessing.transforms = tuple(transforms)
    elif there and wanted is False:
        _drop(postprocessing, KeepLargestConnectedComponentd)
    for transform in postprocessing.transforms:
        if isinstance(transform, KeepLargestConnectedComponentd):
            in_boxes(transform)
    return there if wanted is None else wanted


def _place_of_components(transforms: list[Any]) -> int:
    """Where class indices can be cleaned: on the network's grid, where a bundle's configuration does it too.

    A bundle that inverts probabilities has no class indices there; they are cleaned where they come about.
    """
    inversion = next((at for at, one in enumerate(transforms) if isinstance(one, Invertd)), len(transforms))
    discrete = [at for at, one in enumerate(transforms) if isinstance(one, AsDiscreted)]
    return discrete[0] + 1 if discrete and discrete[0] > inversion else inversion


def _load_states(weights: Path, folder: Path) -> dict[str, Mapping[str, torch.Tensor]]:
    """State dicts by "model" and, for two networks, "peer"."""
    if not weights.is_file():
        raise InputError(
            "there are no weights here",
            where=weights,
            fix=f"Train first (semi-med train writes {folder.name}/models/model.pt), or name a file with --weights.",
            code="NO_WEIGHTS",
        )
    try:
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "this file holds more than weights, or is no PyTorch file; it was not loaded",
            where=weights,
            fix="Use the models/model.pt that training wrote.",
            code="WEIGHTS",
        ) from error
    except Exception as error:  # on rubbish the unpickler raises whatever it stumbles over
        raise InputError(
            "this file is damaged or no PyTorch file", where=weights, fix="Copy it again.", code="WEIGHTS"
        ) from error
    states = {key: content[key] for key in ("model", "peer") if isinstance(content, dict) and content.get(key)}
    tensors = [value for state in states.values() if isinstance(state, Mapping) for value in state.values()]
    if "model" not in states or not all(isinstance(value, torch.Tensor) for value in tensors) or not tensors:
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"the entry 'model' with a network's state is wanted, found: {found}",
            where=weights,
            fix="Use the models/model.pt that training wrote.",
            code="WEIGHTS",
        )
    return states


def _require_peer(
    parser: ConfigParser, states: Mapping[str, Any], *, config: Path, weights: Path, network: str
) -> None:
    missing = None
    if "peer_def" not in parser:
        missing = f"{config.name} has no entry 'peer_def'"
    elif "peer" not in states:
        missing = f"{weights.name} has no entry 'peer'"
    if missing:
        raise InputError(
            f"network {network!r} needs a bundle trained with two networks, but {missing}",
            where=config.parent.parent,
            fix="Use network 1.",
            code="NO_PEER",
        )


def _load_state(module: nn.Module, state: Mapping[str, torch.Tensor], *, key: str, weights: Path) -> None:
    """Loads a state dict that must fit exactly and be finite."""
    wanted = module.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in state]
    problems += [f"{name} is not in the network" for name in state if name not in wanted]
    problems += [
        f"{name} has the shape {tuple(state[name].shape)}, {tuple(value.shape)} is wanted"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(
            f"the weights under {key!r} do not fit the network: {'; '.join(problems[:5])}{more}",
            where=weights,
            fix="Use weights trained with this bundle: models/ of its folder, with all its files, has what they were "
            "trained with. For weights of another training name the folder of that training instead of this bundle.",
            code="WEIGHTS",
        )
    broken = [name for name, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise InputError(
            f"the weights under {key!r} hold NaN or infinite numbers, for example in {broken[0]}",
            where=weights,
            fix="Use an earlier checkpoint.",
            code="WEIGHTS",
        )
    module.load_state_dict(dict(state))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
