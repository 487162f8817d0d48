"""Networks that MONAI does not have as the field uses them."""

from semi_med.networks.deeplab import DeepLabV3Plus
from semi_med.networks.discriminator import MaskDiscriminator
from semi_med.networks.efficient_unet import EfficientUNet
from semi_med.networks.feature_discriminator import FeatureDiscriminator
from semi_med.networks.steps import Stepped, stepped
from semi_med.networks.unet import UNet
from semi_med.networks.vnet import VNet

__all__ = [
    "DeepLabV3Plus",
    "EfficientUNet",
    "FeatureDiscriminator",
    "MaskDiscriminator",
    "Stepped",
    "UNet",
    "VNet",
    "stepped",
]
