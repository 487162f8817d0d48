"""U-Net with an EfficientNet encoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from monai.networks.nets import FlexibleUNet
from monai.networks.nets.efficientnet import url_map
from torch import Tensor

from semi_med.errors import InputError
from semi_med.networks.encoder_weights import fill_encoder, published_weights, require_flat

_UPSAMPLING = {"interpolated": "nontrainable", "transposed": "deconv"}  # our word to MONAI's
_NUMBERED = re.compile(r"(.+)\.\d+(\.\d+\..+)")  # MONAI numbers blocks by stage, the published files go through
_UNUSED = ("_fc", "_bn1", "_conv_head")


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
        self.decoded_channels = next(self.segmentation_head.parameters()).shape[1]
        if encoder_weights is not None:
            self.load_encoder(encoder_weights)

    def load_encoder(self, source: str | Path) -> None:
        """Give the encoder published weights.

        Args:
            source: as `encoder_weights`.

        Raises:
            InputError, ResourceError: as the class.
        """
        require_flat(self.spatial_dims)
        url = url_map[self.backbone]
        weights = published_weights(
            str(source), backbone=self.backbone, url=url, check_hash=True, name=PurePosixPath(url).name
        )
        names = {name: _NUMBERED.sub(r"\1\2", name) for name in self.encoder.state_dict()}
        wanted = {name: theirs for name, theirs in names.items() if not name.startswith(_UNUSED)}
        fill_encoder(self.encoder, weights, wanted, source=str(source))

    def features(self, image: Tensor) -> list[Tensor]:
        """The encoder's maps, finest first; see `semi_med.networks.Stepped`."""
        return list(self.encoder(image))

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """The decoder's last map."""
        return self.decoder(list(features), self.skip_connect)

    def classify(self, decoded: Tensor, size: Sequence[int]) -> Tensor:
        """Logits of the decoder's map, which is as large as the image."""
        return self.segmentation_head(decoded)
