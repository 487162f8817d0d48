"""Pure functions on tensors `(B, C, *spatial)`: no state, no files, 2D and 3D without a branch."""

from semi_med.ignored import IGNORED
from semi_med.ops import affine
from semi_med.ops.class_masks import class_masks, mask_dice, mean_by_owner
from semi_med.ops.components import largest_components
from semi_med.ops.distances import signed_distance, signed_distance_on_device
from semi_med.ops.dropout import drop_channels
from semi_med.ops.ema import bare, early_decay, ema_copy, ema_update
from semi_med.ops.filters import gaussian_blur
from semi_med.ops.known import known
from semi_med.ops.misplace import draw_misplacements, lent, misplaced
from semi_med.ops.mixing import (
    MIXINGS,
    Mixed,
    Mixing,
    draw_boxes,
    draw_class_regions,
    draw_cutmix_regions,
    draw_rectangles,
    mix,
    partner,
    paste,
    repeated,
)
from semi_med.ops.pseudo_labels import class_agreement, entropy, image_confidence, overlap, pseudo_label
from semi_med.ops.ramps import gaussian_ramp
from semi_med.ops.shifts import SHIFT_DIRECTIONS, com, crop_at, draw_offsets
from semi_med.ops.warps import seen, warp

__all__ = [
    "IGNORED",
    "MIXINGS",
    "SHIFT_DIRECTIONS",
    "Mixed",
    "Mixing",
    "affine",
    "bare",
    "class_agreement",
    "class_masks",
    "com",
    "crop_at",
    "draw_boxes",
    "draw_class_regions",
    "draw_cutmix_regions",
    "draw_misplacements",
    "draw_offsets",
    "draw_rectangles",
    "drop_channels",
    "early_decay",
    "ema_copy",
    "ema_update",
    "entropy",
    "gaussian_blur",
    "gaussian_ramp",
    "image_confidence",
    "known",
    "largest_components",
    "lent",
    "mask_dice",
    "mean_by_owner",
    "misplaced",
    "mix",
    "overlap",
    "partner",
    "paste",
    "pseudo_label",
    "repeated",
    "seen",
    "signed_distance",
    "signed_distance_on_device",
    "warp",
]
