"""Networks that judge: does this mask fit this image?"""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn


class MaskDiscriminator(nn.Module):
    """One number for an image and one binary mask: the logit of how well the mask fits.

    It does not know which class the mask is of. Strided convolutions of the mask, of the image and of the image inside
    the mask are added, then 4x4 convolutions of stride 2 double the channels, each with a group norm of one group and
    a leaky ReLU of slope 0.2; a linear layer makes one number of their mean and their greatest value over space. An
    image's score does not depend on the rest of the batch. Without the image inside the mask, and with the mean alone,
    it learnt to judge the image and not the mask; without the norm, bright images drove it to -30
    (docs/methods/segmatch.md).

    Args:
        image_channels: channels of the image.
        spatial_dims: 2 or 3.
        base_filters: channels of the first level.
        levels: strided levels, the first one included.
        dropout: share of channels dropped after each level but the last.

    Shape: image `(B, image_channels, *spatial)` and mask `(B, 1, *spatial)`, 0 or 1, to logits `(B,)`; each size at
    least 2 ** levels.
    """

    def __init__(
        self,
        image_channels: int = 1,
        *,
        spatial_dims: int = 2,
        base_filters: int = 64,
        levels: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        convolution = Conv["conv", spatial_dims]
        share = nn.Dropout2d if spatial_dims == 2 else nn.Dropout3d
        self.of_mask = convolution(1, base_filters, 4, 2, 1)
        self.of_image = convolution(image_channels, base_filters, 4, 2, 1)
        self.of_inside = convolution(image_channels, base_filters, 4, 2, 1)
        layers: list[nn.Module] = [nn.LeakyReLU(0.2, inplace=True)]
        for level in range(levels - 1):
            channels = base_filters * 2**level
            layers += [share(dropout), convolution(channels, 2 * channels, 4, 2, 1)]
            layers += [nn.GroupNorm(1, 2 * channels), nn.LeakyReLU(0.2, inplace=True)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * base_filters * 2 ** (levels - 1), 1)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Logits `(B,)`; above 0 the mask is more likely an expert's."""
        mask = mask.to(image.dtype)
        features = self.body(self.of_mask(mask) + self.of_image(image) + self.of_inside(image * mask)).flatten(2)
        logits: Tensor = self.head(torch.cat([features.mean(2), features.amax(2)], dim=1))[:, 0]
        return logits
