"""Networks that MONAI does not have as the field uses them."""

from semi_med.networks.discriminator import MaskDiscriminator
from semi_med.networks.efficient_unet import EfficientUNet
from semi_med.networks.unet import UNet
from semi_med.networks.vnet import VNet

__all__ = ["EfficientUNet", "MaskDiscriminator", "UNet", "VNet"]
