"""U-Net with an EfficientNet encoder, and where the encoder's ImageNet weights come from."""

from __future__ import annotations

import re
import urllib.error
from pathlib import Path
from typing import Any, Literal

import torch
from monai.networks.nets import FlexibleUNet
from monai.networks.nets.efficientnet import url_map
from torch import Tensor, nn

from semi_med.errors import InputError, ResourceError

_UPSAMPLING = {"interpolated": "nontrainable", "transposed": "deconv"}  # our word to MONAI's
_NUMBERED = re.compile(r"(.+)\.\d+(\.\d+\..+)")


class EfficientUNet(FlexibleUNet):
    """MONAI's FlexibleUNet with a U-Net decoder on an EfficientNet encoder (Tan and Le, ICML 2019).

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        spatial_dims: 2 or 3; ImageNet weights exist for 2.
        backbone: "efficientnet-b0" to "efficientnet-b7"; b4 is FixMatchSeg's.
        encoder_weights: None for random ones; "imagenet" for those of the library, downloaded once into torch's hub
            folder; or a file of theirs. The first convolution is summed over its three colours for one channel, and
            repeated in turn for other numbers.
        upsampling: in the decoder: "interpolated" or "transposed" convolutions, as in `VNet`.
        dropout: in the decoder.

    Shape: image `(B, in_channels, *spatial)` of any size to logits `(B, out_channels, *spatial)`.

    Raises:
        InputError: there is no such backbone or file, or it holds no weights of this encoder.
        ResourceError: the weights could not be downloaded.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        spatial_dims: int = 2,
        backbone: str = "efficientnet-b4",
        encoder_weights: str | Path | None = None,
        upsampling: Literal["interpolated", "transposed"] = "interpolated",
        dropout: float = 0.0,
    ) -> None:
        if backbone not in url_map or not backbone.startswith("efficientnet"):
            known = [name for name in url_map if name.startswith("efficientnet")]
            raise InputError(
                f"there is no backbone {backbone!r}", fix=f"Choose one of {', '.join(known)}", code="SETTING"
            )
        if upsampling not in _UPSAMPLING:
            raise InputError(
                f"upsampling must be one of {', '.join(_UPSAMPLING)}, not {upsampling!r}",
                fix="Choose one of these",
                code="SETTING",
            )
        super().__init__(
            in_channels,
            out_channels,
            backbone,
            pretrained=False,
            spatial_dims=spatial_dims,
            dropout=dropout,
            upsample=_UPSAMPLING[upsampling],
        )
        self.backbone, self.spatial_dims = backbone, spatial_dims
        if encoder_weights is not None:
            self.load_encoder(encoder_weights)

    def load_encoder(self, source: str | Path) -> None:
        """Give the encoder published weights.

        Args:
            source: as `encoder_weights`.

        Raises:
            InputError, ResourceError: as the class.
        """
        if self.spatial_dims != 2:
            raise InputError(
                f"there are ImageNet weights for 2 dimensions, not for {self.spatial_dims}",
                fix="Set encoder_weights to null",
                code="SETTING",
            )
        _load_encoder(self.encoder, _weights(str(source), self.backbone), source=str(source))


def _weights(source: str, backbone: str) -> dict[str, Tensor]:
    """The published state dict, from torch's hub folder, the network, or a file."""
    if source == "imagenet":
        url = url_map[backbone]
        try:
            return dict(torch.hub.load_state_dict_from_url(url, weights_only=True, progress=False, check_hash=True))
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise ResourceError(
                f"the ImageNet weights of {backbone} could not be downloaded ({error})",
                fix=f"Download {url} on a machine that is online, and give the file as encoder_weights (or "
                f"put it into {Path(torch.hub.get_dir()) / 'checkpoints'}); or set it to null for random weights",
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
            fix=f"Download {url_map[backbone]}",
            code="NO_WEIGHTS",
        ) from error


def _load_encoder(encoder: nn.Module, weights: dict[str, Tensor], *, source: str) -> None:
    """Copy published weights, whose blocks are numbered through, to MONAI's, numbered by stage and block."""
    own, found = encoder.state_dict(), {}
    for name, value in own.items():
        theirs = weights.get(_NUMBERED.sub(r"\1\2", name))
        if theirs is not None and theirs.dim() == 4 and theirs.shape[1] == 3 != value.shape[1]:
            theirs = _for_channels(theirs, value.shape[1])
        if theirs is not None and theirs.shape == value.shape:
            found[name] = theirs
    missing = [name for name in own if name not in found and not name.startswith(("_fc", "_bn1", "_conv_head"))]
    if missing:
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
