"""A study of drawn scans, three classes on unequal axes, and a bundle that trains on it in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SHAPE = (18, 22, 20)
AFFINE = np.array([[0, -1.5, 0, 30], [-1.0, 0, 0, 12], [0, 0, 2.0, -5], [0, 0, 0, 1]], dtype=float)
TINY = {
    "crop_size": "[16,16,16]",
    "stride": "[8,8,8]",
    "validation_stride": "[16,16,16]",
    "max_shift": "[2,2,2]",
    "labeled_margin": "2",
    "network_def#base_filters": "2",
    "network_def#levels": "2",
    "batch_size": "1",
    "unlabeled_batch_size": "1",
}


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label: two bright balls, side by side, of class 1 and 2."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij"))
    label = np.zeros(SHAPE, np.uint8)
    for value, middle in ((1, 6), (2, 15)):
        centre = np.array([9, middle, 10])[:, None, None, None] + random.uniform(-1, 1, (3, 1, 1, 1))
        label[((grid - centre) ** 2).sum(0) < 16] = value
    return (label * 60 + random.normal(100, 8, SHAPE)).astype(np.int16), label


def write_study(folder: Path, names: list[str]) -> Path:
    """Scans in a folder of their own, and their labels in another, `<folder>_labels`."""
    for seed, name in enumerate(names):
        image, label = draw(seed)
        for place, array in ((folder, image), (Path(f"{folder}_labels"), label)):
            place.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, AFFINE), place / f"{name}.nii.gz")
    return folder


class Store:
    """What the app asks of MONAI Label's datastore."""

    def __init__(self, folder: Path, labeled: dict[str, dict[str, Any]]) -> None:
        self.folder, self.labeled, self.noted = folder, labeled, {}

    def list_images(self) -> list[str]:
        return sorted(path.name.removesuffix(".nii.gz") for path in self.folder.glob("*.nii.gz"))

    def get_labeled_images(self) -> list[str]:
        return list(self.labeled)

    def get_unlabeled_images(self) -> list[str]:
        return [name for name in self.list_images() if name not in self.labeled]

    def get_image_uri(self, name: str) -> str:
        return str(self.folder / f"{name}.nii.gz")

    def get_label_uri(self, name: str, tag: str) -> str:
        return str(Path(f"{self.folder}_labels") / f"{name}.nii.gz") if tag == "final" else ""

    def get_label_info(self, name: str, tag: str) -> dict[str, Any]:
        return self.labeled[name]

    def get_image_info(self, name: str) -> dict[str, Any]:
        return self.noted.get(name, {})

    def update_image_info(self, name: str, info: dict[str, Any]) -> None:
        self.noted[name] = info
