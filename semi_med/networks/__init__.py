"""Networks: thin, configurable, 2D and 3D."""

from semi_med.networks.vnet import VNet

__all__ = ["VNet"]
