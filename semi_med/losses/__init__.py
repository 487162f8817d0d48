"""Tensors to a scalar. A loss never calls a network."""

from semi_med.losses.boundary import boundary_loss, dice_boundary, soft_dice
from semi_med.losses.consistency import squared_difference
from semi_med.losses.cross_entropy import cross_entropy
from semi_med.losses.dice_ce import dice_ce

__all__ = ["boundary_loss", "cross_entropy", "dice_boundary", "dice_ce", "soft_dice", "squared_difference"]
