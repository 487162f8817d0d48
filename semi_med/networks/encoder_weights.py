"""Where the ImageNet weights of an encoder come from, and how they fit other channels than three colours."""

from __future__ import annotations

import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semi_med.errors import InputError, ResourceError


def require_flat(spatial_dims: int) -> None:
    """Refuse ImageNet weights for a network of volumes.

    Raises:
        InputError: code SETTING.
    """
    if spatial_dims != 2:
        raise InputError(
            f"there are ImageNet weights for 2 dimensions, not for {spatial_dims}",
            fix="Set encoder_weights to null",
            code="SETTING",
        )


def published_weights(source: str, *, backbone: str, url: str, check_hash: bool, name: str) -> dict[str, Tensor]:
    """The published state dict, from torch's hub folder, the network, or a file.

    Args:
        source: "imagenet" or a file.
        backbone: for the errors.
        url: of the published file.
        check_hash: whether the name of the published file holds the beginning of its SHA-256.
        name: of the file in torch's hub folder.

    Raises:
        InputError: code NO_WEIGHTS, the file is missing or none.
        ResourceError: code DOWNLOAD, it could not be downloaded.
    """
    if source == "imagenet":
        try:
            return dict(
                torch.hub.load_state_dict_from_url(
                    url, weights_only=True, progress=False, check_hash=check_hash, file_name=name
                )
            )
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise ResourceError(
                f"the ImageNet weights of {backbone} could not be downloaded ({error})",
                fix=f"Download {url} on a machine that is online, and give the file as encoder_weights (or "
                f"put it as {name} into {Path(torch.hub.get_dir()) / 'checkpoints'}); or set it to null for random "
                "weights",
                code="DOWNLOAD",
            ) from error
    path = Path(source)
    if not path.is_file():
        raise InputError(
            "the file of encoder weights is missing",
            where=path.absolute(),
            fix='Give a file, "imagenet", or null for random weights',
            code="NO_WEIGHTS",
        )
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    except Exception as error:
        raise InputError(
            f"no weights can be read from this file: {type(error).__name__}",
            where=path,
            fix=f"Download {url}",
            code="NO_WEIGHTS",
        ) from error


def fill_encoder(
    encoder: nn.Module, weights: Mapping[str, Tensor], names: Mapping[str, str], *, source: str, dimensions: int = 2
) -> None:
    """Copy published weights into an encoder.

    Args:
        encoder: changed in place.
        weights: the published ones.
        names: of the tensors that must be found, from the encoder's name to the published one.
        source: for the error.
        dimensions: of the encoder's convolutions.

    Raises:
        InputError: code NO_WEIGHTS, one is missing or has another size.
    """
    own, found = encoder.state_dict(), {}
    for name, published in names.items():
        theirs, value = weights.get(published), own[name]
        if theirs is not None and theirs.dim() == dimensions + 2 and theirs.shape[1] == 3 != value.shape[1]:
            theirs = _for_channels(theirs, value.shape[1])
        if theirs is not None and theirs.shape == value.shape:
            found[name] = theirs
    if missing := [name for name in names if name not in found]:
        raise InputError(
            f"these are not the encoder's weights: {len(missing)} of {len(own)} tensors are missing or of other size, "
            f"the first is {missing[0]}",
            where=source,
            fix="Take the file that belongs to the backbone",
            code="NO_WEIGHTS",
        )
    encoder.load_state_dict({**own, **found})


def _for_channels(kernel: Tensor, channels: int) -> Tensor:
    """A first convolution for colours made one for other channels: the same response to a grey image."""
    if channels == 1:
        return kernel.sum(1, keepdim=True)
    return kernel[:, [c % 3 for c in range(channels)]] * 3 / channels
