"""Cases read once, normalised, and kept as small arrays in memory or in memory-mapped files."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semi_med.errors import InputError, SemiMedError, root_cause


def case_of(item: Mapping[str, Any]) -> str:
    """Name of a data-list item: its `case`, else the file name of its image."""
    from semi_med.inference.io import case_name

    image = item["image"]
    return str(item.get("case") or case_name(image[0] if isinstance(image, list | tuple) else image))


class CachedCases:
    """A dataset that reads every case once, through a deterministic MONAI transform.

    Images are kept as float16 (their values are normalised: the rounding is below 0.001 SD within 4 SD of the mean, and
    below 1/2048 of the value beyond), labels as uint8.

    Args:
        data: items of a data list: `image`, for labelled cases `label`, optionally `case`, `monitor_label`.
        transform: from an item to channel-first arrays or tensors of the same keys (reading, orientation,
            normalisation).
        cache_dir: a folder for memory-mapped files when the cases do not fit into memory; a private subfolder is
            made there and removed when this object goes.
        workers: threads that read.
        keys: which keys of an item are read; others, such as a label of a case that is to be unlabelled, are left
            alone and their files are never opened.

    Raises:
        SemiMedError: the reader's own error of the first case that fails, or an error that names the case: it cannot be
            read, an image value does not fit float16, a label is not whole numbers from 0 to 255.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[dict[str, Any]], Mapping[str, Any]],
        *,
        cache_dir: str | Path | None = None,
        workers: int = 2,
        keys: Sequence[str] = ("image", "label"),
    ) -> None:
        self.data = list(data)
        self.transform = transform
        self.workers = workers
        self.keys = tuple(keys)
        self.cache_dir = Path(cache_dir) if cache_dir is not None else None
        self._cache: list[dict[str, np.ndarray]] | None = None

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One whole case as float32 image and uint8 label tensors (C, *spatial), for validation."""
        arrays = self.arrays(index)
        item: dict[str, Any] = {"case": self.name(index)}
        for key, array in arrays.items():
            item[key] = torch.from_numpy(array.astype(np.float32 if key == "image" else np.uint8))
        return item

    def name(self, index: int) -> str:
        """Name of a case."""
        return case_of(self.data[index])

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        """The cached arrays of a case (C, *spatial); everything is read at the first call."""
        if self._cache is None:
            self.load()
        assert self._cache is not None
        return self._cache[index]

    def load(self) -> None:
        """Read all cases now."""
        folder: Path | None = None
        if self.cache_dir is not None:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="cases-", dir=self.cache_dir))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        with ThreadPoolExecutor(max_workers=max(1, self.workers)) as pool:
            self._cache = list(pool.map(lambda i: self._read(i, folder), range(len(self.data))))

    def _read(self, index: int, folder: Path | None) -> dict[str, np.ndarray]:
        item = {key: value for key, value in self.data[index].items() if key in self.keys}
        try:
            values = self.transform(item)
        except Exception as error:
            cause = root_cause(error)
            if not isinstance(cause, SemiMedError):
                raise InputError(f"the case could not be read: {cause}", where=self.name(index)) from error
            if cause.where is None:
                cause.where = self.name(index)
                cause.args = (f"{cause.where}: {cause}",)
            # `from error` would close a circle: the cause is already what `error` was raised from.
            raise cause from None
        arrays = {}
        for key in item:
            array = self._small(np.asarray(values[key]), key, index)
            if folder is not None:
                path = folder / f"{index}_{key}.npy"
                np.save(path, array)
                array = np.load(path, mmap_mode="r")
            arrays[key] = array
        return arrays

    def _small(self, array: np.ndarray, key: str, index: int) -> np.ndarray:
        """The array in the type it is kept in; a value that this would change is an error."""
        with np.errstate(over="ignore", invalid="ignore"):
            small = np.ascontiguousarray(array, dtype=np.float16 if key == "image" else np.uint8)
        if key == "image" and not np.isfinite(small).all():
            raise InputError(
                f"the {key} has values that are not finite or beyond 65504 after the transform",
                where=self.name(index),
                fix="Normalise intensities in the transform",
            )
        if key != "image" and not np.array_equal(small, array):
            raise InputError(
                f"the {key} must hold whole numbers from 0 to 255",
                where=self.name(index),
                fix="Store class indices, and resample labels by nearest neighbour",
            )
        return small
