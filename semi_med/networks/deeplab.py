"""DeepLabv3+ on a ResNet encoder, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from monai.networks.nets.resnet import ResNet, get_inplanes, resnet_params
from torch import Tensor, nn
from torch.nn import functional

from semi_med.errors import InputError
from semi_med.networks.encoder_weights import fill_encoder, published_weights, require_flat

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
_URL = "https://huggingface.co/timm/{backbone}.tv_in1k/resolve/main/pytorch_model.bin"
_LOW_CHANNELS = 48


class DeepLabV3Plus(nn.Module):
    """DeepLabv3+ (Chen et al., ECCV 2018, arXiv:1802.02611) with the decoder of the semi-supervised benchmarks.

    The encoder is MONAI's ResNet (He et al., CVPR 2016), whose fourth stage is dilated instead of strided, so that its
    map has a sixteenth of the image's size. Atrous pyramid pooling reads it; the decoder joins that with the map of the
    first stage, a quarter of the image's size, by two 3x3 convolutions, and the logits are interpolated to the image.
    Convolutions are full, not separable, as in UniMatch.

    segmentation-models-pytorch has this network in 2D. Its ResNets need torchvision, whose compiled part must match
    the build of torch; here nothing but MONAI is needed, and volumes can be segmented.

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        spatial_dims: 2 or 3; ImageNet weights exist for 2.
        backbone: "resnet18", "resnet34", "resnet50" or "resnet101".
        encoder_weights: None for random ones; "imagenet" for those of torchvision (IMAGENET1K_V1), downloaded once into
            torch's hub folder from timm's copy; or a file of theirs, from either. The first convolution is summed over
            its three colours for one channel, and repeated in turn for other numbers.
        decoder_channels: of pyramid pooling and decoder.
        dilations: of the three atrous convolutions of the pyramid.
        dropout: share of the pyramid's channels that is dropped in training.

    Shape: image `(B, in_channels, *spatial)` of any size to logits `(B, out_channels, *spatial)`. In training B is 2 or
    more: the pyramid's mean over the image is normalised over the batch.

    Raises:
        InputError: there is no such backbone or file, or it holds no weights of this encoder.
        ResourceError: the weights could not be downloaded.
        ValueError: from `forward`, one image in training.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 2,
        *,
        spatial_dims: int = 2,
        backbone: str = "resnet101",
        encoder_weights: str | Path | None = None,
        decoder_channels: int = 256,
        dilations: Sequence[int] = (6, 12, 18),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise InputError(
                f"there is no backbone {backbone!r}", fix=f"Choose one of {', '.join(BACKBONES)}", code="SETTING"
            )
        self.backbone, self.spatial_dims, self.decoded_channels = backbone, spatial_dims, decoder_channels
        self.encoder = _encoder(backbone, in_channels, spatial_dims)
        expansion = 4 if resnet_params[backbone][0] == "bottleneck" else 1
        low, high = (get_inplanes()[stage] * expansion for stage in (0, 3))
        self.pyramid = _Pyramid(high, decoder_channels, spatial_dims=spatial_dims, dilations=dilations, dropout=dropout)
        self.reduce = _conv(low, _LOW_CHANNELS, spatial_dims=spatial_dims)
        self.fuse = nn.Sequential(
            _conv(decoder_channels + _LOW_CHANNELS, decoder_channels, spatial_dims=spatial_dims, size=3),
            _conv(decoder_channels, decoder_channels, spatial_dims=spatial_dims, size=3),
        )
        self.head = Conv["conv", spatial_dims](decoder_channels, out_channels, 1)
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
        weights = published_weights(
            str(source),
            backbone=self.backbone,
            url=_URL.format(backbone=self.backbone),
            check_hash=False,
            name=f"{self.backbone}.tv_in1k.bin",
        )
        # older files of these weights have no counters
        names = {name: name for name in self.encoder.state_dict() if not name.endswith("num_batches_tracked")}
        fill_encoder(self.encoder, weights, names, source=str(source))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of an image batch."""
        return self.classify(self.decode(self.features(image)), image.shape[2:])

    def features(self, image: Tensor) -> list[Tensor]:
        """The maps of the first and the fourth stage; see `semi_med.networks.Stepped`."""
        encoder = self.encoder
        low = encoder.layer1(encoder.maxpool(encoder.act(encoder.bn1(encoder.conv1(image)))))
        return [low, encoder.layer4(encoder.layer3(encoder.layer2(low)))]

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """The map that the classes are read from, a quarter of the image's size."""
        low, high = features
        context = _resized(self.pyramid(high), low.shape[2:])
        return self.fuse(torch.cat([context, self.reduce(low)], dim=1))

    def classify(self, decoded: Tensor, size: Sequence[int]) -> Tensor:
        """Logits of the decoder's map, interpolated to the size."""
        return _resized(self.head(decoded), size)


class _Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: one pointwise, three dilated convolutions and the mean over the image."""

    def __init__(
        self, in_channels: int, channels: int, *, spatial_dims: int, dilations: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                _conv(in_channels, channels, spatial_dims=spatial_dims),
                *(_conv(in_channels, channels, spatial_dims=spatial_dims, size=3, dilation=d) for d in dilations),
            ]
        )
        self.pool = nn.Sequential(
            Pool["adaptiveavg", spatial_dims](1), _conv(in_channels, channels, spatial_dims=spatial_dims)
        )
        self.project = _conv((len(self.branches) + 1) * channels, channels, spatial_dims=spatial_dims)
        self.dropout = nn.Dropout2d(dropout) if spatial_dims == 2 else nn.Dropout3d(dropout)

    def forward(self, high: Tensor) -> Tensor:
        if self.training and len(high) == 1:
            raise ValueError(
                "DeepLabV3Plus normalises the mean over the image over the batch and needs two images or more in "
                "training: set batch_size and unlabeled_batch_size to at least 2"
            )
        pooled = self.pool(high).expand(-1, -1, *high.shape[2:])
        return self.dropout(self.project(torch.cat([*(branch(high) for branch in self.branches), pooled], dim=1)))


def _encoder(backbone: str, in_channels: int, spatial_dims: int) -> ResNet:
    """MONAI's ResNet with torchvision's shortcuts, the fourth stage dilated as torchvision does it."""
    block, layers = resnet_params[backbone][:2]
    encoder = ResNet(
        block,
        layers,
        get_inplanes(),
        spatial_dims=spatial_dims,
        n_input_channels=in_channels,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
        feed_forward=False,
    )
    for place, part in enumerate(encoder.layer4):
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                module.stride = (1,) * spatial_dims
                if place > 0 and module.kernel_size[0] > 1:
                    module.dilation = module.padding = (2,) * spatial_dims
    return encoder


def _conv(in_channels: int, out_channels: int, *, spatial_dims: int, size: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    return nn.Sequential(
        Conv["conv", spatial_dims](in_channels, out_channels, size, padding=padding, dilation=dilation, bias=False),
        Norm["batch", spatial_dims](out_channels),
        nn.ReLU(inplace=True),
    )


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    mode = "bilinear" if maps.dim() == 4 else "trilinear"
    return functional.interpolate(maps, size=tuple(size), mode=mode, align_corners=False)
