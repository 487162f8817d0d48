"""Pure functions on tensors `(B, C, *spatial)`: no state, no files, 2D and 3D without a branch."""

from semi_med.ignored import IGNORED
from semi_med.ops import affine
from semi_med.ops.class_masks import class_masks, mean_by_owner
from semi_med.ops.components import largest_components
from semi_med.ops.distances import signed_distance, signed_distance_on_device
from semi_med.ops.ema import bare, early_decay, ema_copy, ema_update
from semi_med.ops.filters import gaussian_blur
from semi_med.ops.known import known
from semi_med.ops.mixing import draw_boxes, draw_cutmix_regions, partner, paste
from semi_med.ops.pseudo_labels import class_agreement, entropy, overlap, pseudo_label
from semi_med.ops.ramps import gaussian_ramp
from semi_med.ops.shifts import SHIFT_DIRECTIONS, com, crop_at, draw_offsets
from semi_med.ops.warps import seen, warp

__all__ = [
    "IGNORED",
    "SHIFT_DIRECTIONS",
    "affine",
    "bare",
    "class_agreement",
    "class_masks",
    "com",
    "crop_at",
    "draw_boxes",
    "draw_cutmix_regions",
    "draw_offsets",
    "early_decay",
    "ema_copy",
    "ema_update",
    "entropy",
    "gaussian_blur",
    "gaussian_ramp",
    "known",
    "largest_components",
    "mean_by_owner",
    "overlap",
    "partner",
    "paste",
    "pseudo_label",
    "seen",
    "signed_distance",
    "signed_distance_on_device",
    "warp",
]
