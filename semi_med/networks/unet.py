"""The U-Net of the brain MR literature, with the settings that the other networks have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from monai.networks.nets import BasicUNet
from torch import Tensor

_UPSAMPLING = {"transposed": "deconv", "interpolated": "nontrainable"}  # our word to MONAI's


class UNet(BasicUNet):
    """MONAI's basic U-Net with five levels of `base_filters`, 2, 4, 8 and 16 times as many channels.

    With 32 filters, batch norm and ReLU it is the network of Buda et al., Computers in Biology and Medicine
    109:218-225, 2019: two 3x3 convolutions a level, max pooling, transposed convolutions, skips concatenated, 7.8 M
    parameters in 2D. Only the last up-sampling differs: it keeps its channels. `monai.networks.nets.UNet` is another
    network (strided, residual).

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        spatial_dims: 2 or 3.
        base_filters: channels of the first level.
        normalization: after each convolution.
        upsampling: "transposed" convolutions, or "interpolated" (linear, after a 1x1 convolution), as in `VNet`.
        dropout: share of channels dropped after each convolution.

    Shape: image `(B, in_channels, *spatial)` to logits `(B, out_channels, *spatial)`; each size at least 32.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        spatial_dims: int = 2,
        base_filters: int = 32,
        normalization: Literal["batch", "instance"] = "batch",
        upsampling: Literal["transposed", "interpolated"] = "transposed",
        dropout: float = 0.0,
    ) -> None:
        if upsampling not in _UPSAMPLING:
            raise ValueError(f"upsampling must be one of {', '.join(_UPSAMPLING)}, not {upsampling!r}")
        levels = [base_filters * factor for factor in (1, 2, 4, 8, 16)]
        super().__init__(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            features=(*levels, base_filters),
            act=("relu", {"inplace": True}),
            norm=(normalization, {"affine": True}),
            bias=False,
            dropout=dropout,
            upsample=_UPSAMPLING[upsampling],
        )
        self.decoded_channels = base_filters

    def features(self, image: Tensor) -> list[Tensor]:
        """The map of each level, finest first; see `semi_med.networks.Stepped`."""
        maps = [self.conv_0(image)]
        for down in (self.down_1, self.down_2, self.down_3, self.down_4):
            maps.append(down(maps[-1]))
        return maps

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """The map of the first level after the way down and up."""
        *skips, decoded = features
        for up, skip in zip((self.upcat_4, self.upcat_3, self.upcat_2, self.upcat_1), reversed(skips), strict=True):
            decoded = up(decoded, skip)
        return decoded

    def classify(self, decoded: Tensor, size: Sequence[int]) -> Tensor:
        """Logits of the decoder's map, which is as large as the image."""
        return self.final_conv(decoded)
