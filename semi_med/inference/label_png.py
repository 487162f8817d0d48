"""Class indices as a PNG with a palette: readers see the indices, people see colours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semi_med.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

# colours that are told apart also by readers who do not see red and green; background is black
_COLOURS = (
    *((0, 0, 0), (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)),
    *((86, 180, 233), (213, 94, 0), (240, 228, 66)),
)
_OTHER = (255, 255, 255)


def label_png(label: np.ndarray, *, path: Path) -> bytes:
    """The file of a label; the same label gives the same bytes.

    Args:
        label: (i, j) bool or integers from 0 to 255; i counts columns from left to right, j rows downwards.
        path: the file it is for, for the error.

    Raises:
        InputError: code LABEL_VALUES.
    """
    from PIL import Image

    if label.dtype.kind not in "bui" or label.ndim != 2 or int(label.min()) < 0 or int(label.max()) > 255:
        raise InputError(
            f"class indices from 0 to 255 on (i, j) are wanted, not {label.dtype} {label.shape} from {label.min()} to "
            f"{label.max()}",
            where=path,
            code="LABEL_VALUES",
        )
    picture = Image.fromarray(np.ascontiguousarray(label.astype(np.uint8).swapaxes(0, 1)))
    picture.putpalette([part for colour in _palette() for part in colour])
    return saved_png(picture)


def saved_png(picture: Image) -> bytes:
    """The PNG file of a picture of Pillow."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def _palette() -> Sequence[tuple[int, int, int]]:
    return [*_COLOURS, *((index, index, 255 - index) for index in range(len(_COLOURS), 255)), _OTHER]
