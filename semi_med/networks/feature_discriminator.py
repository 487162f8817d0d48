"""A discriminator of feature maps."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.layers.factories import Conv
from torch import Tensor, nn


class FeatureDiscriminator(nn.Module):
    """Whether the maps of a decoder come from labelled images: strided convolutions, then a logit at each place.

    Mano et al., VISAPP 2025, arXiv:2604.07122, give neither layers nor sizes; these are the usual ones: 4x4
    convolutions with stride 2, LeakyReLU with a slope of 0.2, no normalisation (Radford et al., ICLR 2016, without
    batch norm, which would mix what is to be told apart).

    Args:
        in_channels: of the maps, `decoded_channels` of the network.
        spatial_dims: 2 or 3.
        widths: channels of the convolutions, each of which halves the size.

    Shape: `(B, in_channels, *spatial)` to logits `(B, 1, *coarse)`, above 0 for "from a labelled image". Maps must have
    2**len(widths) voxels along every axis or more.

    Raises:
        ValueError: from `forward`, maps are smaller.
    """

    def __init__(self, in_channels: int, *, spatial_dims: int = 2, widths: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for first, second in zip((in_channels, *widths), widths, strict=False):
            conv = Conv["conv", spatial_dims](first, second, 4, stride=2, padding=1)
            layers += [conv, nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, Conv["conv", spatial_dims]((in_channels, *widths)[-1], 1, 1))
        self.smallest = 2 ** len(widths)

    def forward(self, maps: Tensor) -> Tensor:
        """Logits of the maps."""
        if min(maps.shape[2:]) < self.smallest:
            raise ValueError(
                f"the maps have {' x '.join(map(str, maps.shape[2:]))} voxels, and {self.smallest} or more are wanted "
                "along every axis: set fewer widths in discriminator_def, or a larger crop_size"
            )
        return self.layers(maps)
