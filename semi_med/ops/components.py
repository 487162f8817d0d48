"""Connected components of labels."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def largest_components(label: Tensor) -> Tensor:
    """Of each foreground class of each image keep the largest connected component; the rest becomes background.

    Voxels are connected across faces, edges and corners. Of two components of one size the first in array order stays.

    Args:
        label: class indices `(B, 1, *spatial)`, any integer type; counted on the CPU.

    Returns:
        A tensor like `label`.
    """
    found = label.detach().cpu().numpy()
    kept = np.zeros_like(found)
    for image, result in zip(found[:, 0], kept[:, 0], strict=True):
        structure = np.ones((3,) * image.ndim, dtype=bool)
        for value in np.unique(image[image > 0]):
            components, _ = ndimage.label(image == value, structure)
            sizes = np.bincount(components.ravel())
            sizes[0] = 0
            result[components == sizes.argmax()] = value
    return torch.from_numpy(kept).to(label.device)
