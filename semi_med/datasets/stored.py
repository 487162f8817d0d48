"""How prepared images and labels are stored: NIfTI where the source has a place in space, PNG where it has none.

Photographs that are kept as they are stay the JPEG files that they were.

Arrays are always indexed (i, j[, k][, c]). For photographs i counts columns from left to right and j rows downwards, so
that a stored picture looks as the original does. The same array gives the same bytes.
"""

from __future__ import annotations

import gzip

import numpy as np

from semi_med.inference.label_png import saved_png

NIFTI, PNG, JPEG = ".nii.gz", ".png", ".jpg"
SUFFIXES = (NIFTI, PNG, JPEG)

_KEPT_TYPES = ("uint8", "int16", "uint16")


def image_files(name: str, image: np.ndarray, *, affine: np.ndarray | None) -> dict[str, bytes]:
    """The content of the files of one image, by file name.

    Args:
        name: of the case.
        image: with an affine (i, j), (i, j, k) or (i, j, k, c); without (i, j) or (i, j, c). Without an affine uint8,
            or uint16 for grey values; with one uint8, int16 and uint16 are kept, all else becomes float32.
        affine: 4x4, voxel to RAS mm; None for a photograph.

    Returns:
        one file; of several channels one each, `<name>_0000` and on, but three uint8 channels of a photograph together.

    Raises:
        ValueError: if the array is none of these.
    """
    if affine is not None:
        if image.ndim not in (2, 3, 4):
            raise ValueError(f"(i, j), (i, j, k) or (i, j, k, c) is wanted, not {image.shape}")
        volumes = [image[..., c] for c in range(image.shape[3])] if image.ndim == 4 else [image]
        return dict(zip(_names(name, len(volumes), NIFTI), (nifti_bytes(v, affine) for v in volumes), strict=True))
    if image.ndim not in (2, 3):
        raise ValueError(f"(i, j) or (i, j, c) is wanted without an affine, not {image.shape}")
    if image.ndim == 2 or (image.shape[2] == 3 and image.dtype == np.uint8):
        return {f"{name}{PNG}": png_bytes(image)}
    pictures = [image[..., c] for c in range(image.shape[2])]
    return dict(zip(_names(name, len(pictures), PNG), (png_bytes(p) for p in pictures), strict=True))


def image_names(name: str, *, channels: int = 1, suffix: str = NIFTI) -> tuple[str, ...]:
    """Names of the files that `image_files` gives for so many channels."""
    return _names(name, 1 if suffix == PNG and channels == 3 else channels, suffix)


def _names(name: str, count: int, suffix: str) -> tuple[str, ...]:
    return (f"{name}{suffix}",) if count == 1 else tuple(f"{name}_{c:04d}{suffix}" for c in range(count))


def nifti_bytes(image: np.ndarray, affine: np.ndarray) -> bytes:
    """A .nii.gz file of (i, j) or (i, j, k) voxels; two axes are stored as one slice."""
    import nibabel

    array = image if image.dtype.name in _KEPT_TYPES else np.asarray(image, dtype=np.float32)
    nifti = nibabel.Nifti1Image(array[..., np.newaxis] if array.ndim == 2 else array, affine)
    nifti.set_sform(affine, code=1)
    nifti.set_qform(affine, code=1)
    nifti.header.set_xyzt_units("mm")
    return gzip.compress(nifti.to_bytes(), 2, mtime=0)  # without a time stamp


def png_bytes(image: np.ndarray) -> bytes:
    """A PNG of (i, j) uint8 or uint16 grey values, or of (i, j, 3) uint8 colours."""
    from PIL import Image

    if image.dtype not in (np.uint8, np.uint16) or (image.ndim == 3 and image.dtype != np.uint8):
        raise ValueError(f"uint8, or uint16 grey values, are wanted for a PNG, not {image.dtype} {image.shape}")
    return saved_png(Image.fromarray(np.ascontiguousarray(image.swapaxes(0, 1))))
