"""The V-Net that the published figures of the field were obtained with (16 base filters, about 9.4 M parameters)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from monai.networks.layers.factories import Conv, Dropout, Norm
from torch import Tensor, nn

Normalization = Literal["batch", "instance", "group", "none"]
Upsampling = Literal["transposed", "interpolated"]


def _norm(kind: Normalization, spatial_dims: int, channels: int) -> list[nn.Module]:
    if kind == "none":
        return []
    if kind == "group":
        return [Norm["group", spatial_dims](num_groups=min(16, channels), num_channels=channels)]
    return [Norm[kind, spatial_dims](channels)]


def _convs(
    count: int, in_channels: int, out_channels: int, *, spatial_dims: int, normalization: Normalization
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(count):
        conv = Conv["conv", spatial_dims](in_channels if i == 0 else out_channels, out_channels, 3, padding=1)
        layers += [conv, *_norm(normalization, spatial_dims, out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _up(
    in_channels: int, out_channels: int, *, spatial_dims: int, normalization: Normalization, upsampling: Upsampling
) -> nn.Sequential:
    layers: list[nn.Module]
    if upsampling not in ("transposed", "interpolated"):
        raise ValueError(f"upsampling must be 'transposed' or 'interpolated', not {upsampling!r}")
    if upsampling == "transposed":
        layers = [Conv["convtrans", spatial_dims](in_channels, out_channels, 2, stride=2)]
    else:
        mode = "trilinear" if spatial_dims == 3 else "bilinear"
        layers = [
            nn.Upsample(scale_factor=2, mode=mode, align_corners=False),
            Conv["conv", spatial_dims](in_channels, out_channels, 3, padding=1),
        ]
    return nn.Sequential(*layers, *_norm(normalization, spatial_dims, out_channels), nn.ReLU(inplace=True))


class VNet(nn.Module):
    """V-Net with additive skips and no residual inside a level.

    Milletari et al., 3DV 2016, arXiv:1606.04797, in the variant of the semi-supervised benchmarks (UA-MT and its
    descendants): 3x3x3 convolutions, strided 2x2x2 down-sampling, skips added instead of concatenated, dropout after
    the deepest and the last level. With `base_filters=16`, batch norm and 2 classes it has 9,448,866 parameters.
    `monai.networks.nets.VNet` is another network (5x5x5 kernels, 45.6 M parameters).

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        spatial_dims: 2 or 3.
        base_filters: channels of the first level; doubled at each of the `levels`.
        levels: resolutions, each half of the one above; the published network has 5.
        normalization: after each convolution. Instance norm has no learnt scale, as in the benchmark code.
        upsampling: "transposed" convolutions, or "interpolated" (linear, then a 3x3x3 convolution): the difference
            between the two networks of co-training.
        dropout: share of channels dropped at the two places.

    Shape: image `(B, in_channels, *spatial)` to logits `(B, out_channels, *spatial)`; each spatial size must be
    divisible by 2**(levels - 1).

    Raises:
        ValueError: `upsampling` is none of the two; from `forward`, when a size is not divisible.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        spatial_dims: int = 3,
        base_filters: int = 16,
        levels: int = 5,
        normalization: Normalization = "batch",
        upsampling: Upsampling = "transposed",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.divisor = 2 ** (levels - 1)
        self.decoded_channels = base_filters
        widths = [base_filters * 2**i for i in range(levels)]
        depths = [min(i + 1, 3) for i in range(levels)]
        self.encoders = nn.ModuleList()
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        self.decoders = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            first = in_channels if i == 0 else width
            self.encoders.append(_convs(depth, first, width, spatial_dims=spatial_dims, normalization=normalization))
        for i in range(levels - 1):
            down = Conv["conv", spatial_dims](widths[i], widths[i + 1], 2, stride=2)
            norm = _norm(normalization, spatial_dims, widths[i + 1])
            self.downs.append(nn.Sequential(down, *norm, nn.ReLU(inplace=True)))
            self.ups.append(
                _up(
                    widths[i + 1],
                    widths[i],
                    spatial_dims=spatial_dims,
                    normalization=normalization,
                    upsampling=upsampling,
                )
            )
            self.decoders.append(
                _convs(depths[i], widths[i], widths[i], spatial_dims=spatial_dims, normalization=normalization)
            )
        self.dropout_deep = Dropout["dropout", spatial_dims](dropout)
        self.dropout_last = Dropout["dropout", spatial_dims](dropout)
        self.head = Conv["conv", spatial_dims](widths[0], out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of an image batch."""
        return self.classify(self.decode(self.features(image)), image.shape[2:])

    def features(self, image: Tensor) -> list[Tensor]:
        """The map of each level, finest first; see `semi_med.networks.Stepped`."""
        self._check(image.shape[2:])
        maps: list[Tensor] = []
        for i, encoder in enumerate(self.encoders):
            maps.append(encoder(image if i == 0 else self.downs[i - 1](maps[-1])))
        return maps

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """The map of the first level after the way down and up."""
        decoded = self.dropout_deep(features[-1])
        for i in reversed(range(len(self.decoders))):
            decoded = self.decoders[i](self.ups[i](decoded) + features[i])
        return self.dropout_last(decoded)

    def classify(self, decoded: Tensor, size: Sequence[int]) -> Tensor:
        """Logits of the decoder's map, which is as large as the image."""
        return self.head(decoded)

    def _check(self, size: Sequence[int]) -> None:
        if not torch.jit.is_scripting() and any(s % self.divisor for s in size):
            raise ValueError(
                f"VNet with {len(self.encoders)} levels needs sizes divisible by {self.divisor}, not {tuple(size)}: "
                "choose another crop size, or fewer levels"
            )
