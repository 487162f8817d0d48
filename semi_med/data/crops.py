"""Random crops out of cached cases, each batch a pure function of a seed and the iteration.

Because nothing but (seed, stream, iteration) decides a batch, training resumes at any iteration by asking for that
batch; no random state of a loader has to be saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch

from semi_med.data.cases import CachedCases, case_of
from semi_med.errors import InputError
from semi_med.ignored import IGNORED

SecondCrop = Literal["same", "overlap", "any"]
Sampling = Literal["explicit", "implicit"]


class CropBatches:
    """Crops with a margin around them, cut before anything else is done to them.

    Every pass over the cases is a new permutation of them; inside a case the crop's place is uniform.

    Args:
        cases: the cases to draw from.
        crop_size: voxels along each axis, in the frame of the cached arrays. Two numbers for arrays of three axes mean
            crops of single slices: the slice is drawn uniformly along the last axis, of which a picture has one.
        batch_size: crops a batch.
        margin: voxels kept around the crop on every side of each axis, for shifted crops and for rotations that
            would otherwise bring in corners from nowhere.
        seed: of the run.
        stream: name of this stream of batches, so that labelled and unlabelled draws are independent and the
            labelled ones are the same whatever else is trained.
        rank, world_size: of this process, when several train together; each takes its own part of every batch.
        label_fill: label of what lies outside the scan: the background, or `IGNORED` where nobody knows.
        second_crop: where a second crop of each sample lies, for a view of its own: "same" gives none, as it is the
            first one; "overlap" moves it from the first by up to half a crop along each axis, and no further than the
            scan goes; "any" draws it anywhere in the scan.

    A batch has `context` `(B, C, *(crop + 2 margin))` (zeros outside the scan), `margin` int64 `(B, n, 2)`: voxels of
    the scan on each side of the crop, at most the margin asked for; `scan` int64 `(B, n, 2)`: where in the context the
    scan begins and ends; `label_context` `(B, 1, ...)` uint8 where cases
    have a label; and `case`, a list of names. With a second crop also `context_2`, `margin_2` and
    `scan_2`, and `offset` int64 `(B, n)`: voxels from the first to the second.

    Raises:
        InputError: there is no case, or a size or `second_crop` is none.
    """

    def __init__(
        self,
        cases: CachedCases,
        crop_size: Sequence[int],
        batch_size: int,
        *,
        margin: Sequence[int] | int = 0,
        seed: int = 0,
        stream: str = "labeled",
        rank: int = 0,
        world_size: int = 1,
        label_fill: int = 0,
        second_crop: SecondCrop = "same",
    ) -> None:
        if len(cases) == 0:
            raise InputError(f"the {stream} section has no case to draw crops from", fix="Add cases to the data list")
        if batch_size < 1:
            raise InputError(f"the {stream} batch size must be at least 1, not {batch_size}")
        self.cases, self.batch_size, self.seed, self.stream = cases, batch_size, seed, stream
        self.crop_size = tuple(int(s) for s in crop_size)
        margins = (margin,) * len(self.crop_size) if isinstance(margin, int) else margin
        self.margin = tuple(int(m) for m in margins)
        if len(self.margin) != len(self.crop_size):
            raise InputError(f"margin {self.margin} and crop size {self.crop_size} differ in length")
        if min(self.crop_size) < 1 or min(self.margin) < 0:
            raise InputError(f"crop size {self.crop_size} must be at least 1 and margin {self.margin} at least 0")
        _require_one_of(SecondCrop, second_crop, "second_crop")
        self._check_same_keys()
        self.rank, self.world_size, self.label_fill = rank, world_size, label_fill
        self.second_crop = second_crop
        self._stream_key = [int(b) for b in stream.encode()]

    def _check_same_keys(self) -> None:
        kept = [{key for key in item if key in self.cases.keys} for item in self.cases.data]
        for index, keys in enumerate(kept):
            if keys != kept[0]:
                odd = ", ".join(sorted(keys ^ kept[0]))
                raise InputError(
                    f"some cases of the {self.stream} section have {odd} and others have not",
                    where=self.cases.name(index),
                    fix="Crops of different cases go into one batch: give all of them the same keys",
                )

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *self._stream_key, *key])

    def case_index(self, sample: int) -> int:
        """Which case the `sample`-th crop of this stream comes from."""
        return self.place(sample, len(self.cases))

    def place(self, sample: int, count: int) -> int:
        """Where the `sample`-th draw of this stream from `count` things falls: each pass is a permutation of them."""
        turn, place = divmod(sample, count)
        return int(self._generator(0, turn).permutation(count)[place])

    def batch(self, iteration: int) -> dict[str, Any]:
        """The batch of that iteration (0-based)."""
        first = (iteration * self.world_size + self.rank) * self.batch_size
        return self.crops([(sample, self.case_index(sample)) for sample in range(first, first + self.batch_size)])

    def crops(self, places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """A batch of crops, each the `sample`-th of this stream and of the case with that index."""
        crops = [self._crop(sample, index) for sample, index in places]
        batch: dict[str, Any] = {"case": [crop["case"] for crop in crops]}
        for key in crops[0]:
            if key != "case":
                batch[key] = torch.from_numpy(np.stack([crop[key] for crop in crops]))
        return batch

    def _crop(self, sample: int, index: int) -> dict[str, Any]:
        arrays: Mapping[str, np.ndarray] = self.cases.arrays(index)
        generator = self._generator(1, sample)
        size = arrays["image"].shape[1:]
        if (len(size), len(self.crop_size)) == (3, 2):
            place = int(generator.integers(0, size[2])) if size[2] > 1 else 0
            arrays, size = {key: array[..., place] for key, array in arrays.items()}, size[:2]
        if len(size) != len(self.crop_size):
            raise InputError(
                f"the image has {len(size)} axes, the crop size {self.crop_size} has {len(self.crop_size)}",
                where=self.cases.name(index),
            )
        # A scan smaller than the crop lies in the middle of it and leaves no margin to shift into.
        start = [
            int(generator.integers(0, s - c + 1)) if s > c else -((c - s) // 2)
            for s, c in zip(size, self.crop_size, strict=True)
        ]
        crop: dict[str, Any] = {"case": self.cases.name(index)}
        crop["margin"], crop["scan"] = self._free(start, size), self._scan(start, size)
        for key, array in arrays.items():
            name = "context" if key == "image" else f"{key}_context"
            crop[name] = self._cut(array, start, fill=0 if key == "image" else self.label_fill)
        if self.second_crop != "same":
            second = self._second(start, size, generator)
            crop["context_2"] = self._cut(arrays["image"], second, fill=0)
            crop["margin_2"], crop["scan_2"] = self._free(second, size), self._scan(second, size)
            crop["offset"] = np.array(second, dtype=np.int64) - np.array(start, dtype=np.int64)
        return crop

    def _free(self, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
        """Voxels of the scan on each side of a crop that begins at `start`, at most the margin."""
        sides = zip(start, size, self.crop_size, self.margin, strict=True)
        free = [(min(m, first), min(m, s - c - first)) if s > c else (0, 0) for first, s, c, m in sides]
        return np.array(free, dtype=np.int64)

    def _scan(self, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
        """First and last voxel, plus one, of the scan in the context of a crop that begins at `start`."""
        begins = [m - first for first, m in zip(start, self.margin, strict=True)]
        extents = [c + 2 * m for c, m in zip(self.crop_size, self.margin, strict=True)]
        ends = [(max(b, 0), min(b + s, e)) for b, s, e in zip(begins, size, extents, strict=True)]
        return np.array(ends, dtype=np.int64)

    def _second(self, start: Sequence[int], size: Sequence[int], generator: np.random.Generator) -> list[int]:
        """Where the second crop begins."""
        second = []
        for first, s, c in zip(start, size, self.crop_size, strict=True):
            if s > c and self.second_crop == "any":
                first = int(generator.integers(0, s - c + 1))
            elif s > c:
                first = min(max(first + round(generator.uniform(-0.5, 0.5) * c), 0), s - c)
            second.append(first)
        return second

    def _cut(self, array: np.ndarray, start: Sequence[int], *, fill: int) -> np.ndarray:
        shape = tuple(c + 2 * m for c, m in zip(self.crop_size, self.margin, strict=True))
        out = np.full((array.shape[0], *shape), fill, dtype=array.dtype)
        source, target = [slice(None)], [slice(None)]
        for first, m, extent, size in zip(start, self.margin, shape, array.shape[1:], strict=True):
            begin = first - m
            low, high = max(begin, 0), min(begin + extent, size)
            source.append(slice(low, high))
            target.append(slice(low - begin, high - begin))
        out[tuple(target)] = array[tuple(source)]
        return out


class PairedBatches:
    """Labelled and unlabelled batches side by side, one pair an iteration, without end.

    Args:
        labeled: batches of cases with a label.
        unlabeled: batches of cases without one; None for methods that use none, which then get empty batches.
        first: place in both streams of the run's first pair, for a run that goes on where an earlier one ended.
        sampling: "explicit" takes a whole batch of each. "implicit" draws as many cases from all of them alike, so
            that a pair has as many with a label as chance gives; a case that is on both sides goes to both. A side
            without any gets one case all the same; the label of a labelled one is `IGNORED` then.

    Raises:
        InputError: `first` is below 0, or `sampling` is none or wants an unlabelled side.
    """

    def __init__(
        self,
        labeled: CropBatches,
        unlabeled: CropBatches | None = None,
        *,
        first: int = 0,
        sampling: Sampling = "explicit",
    ) -> None:
        if first < 0:
            raise InputError(f"the first iteration must be at least 0, not {first}", code="SETTING")
        _require_one_of(Sampling, sampling, "sampling")
        if sampling == "implicit" and unlabeled is None:
            raise InputError(
                "implicit sampling draws from labelled and unlabelled cases, and there are no unlabelled ones",
                fix="Set sampling to explicit",
                code="SETTING",
            )
        self.labeled, self.unlabeled, self.first, self.sampling = labeled, unlabeled, first, sampling
        self.position = 0

    def seek(self, iteration: int) -> None:
        """The next pair that is given is that of this iteration (0-based)."""
        self.position = iteration

    def pair(self, iteration: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The pair of an iteration."""
        place = self.first + iteration
        if self.sampling == "implicit" and self.unlabeled is not None:
            return self._implicit(self.unlabeled, place)
        unlabeled = self.unlabeled.batch(place) if self.unlabeled is not None else {"case": []}
        return self.labeled.batch(place), unlabeled

    def _implicit(self, unlabeled: CropBatches, place: int) -> tuple[dict[str, Any], dict[str, Any]]:
        labeled = self.labeled
        sides = [{case_of(item): i for i, item in enumerate(side.cases.data)} for side in (labeled, unlabeled)]
        names = list(dict.fromkeys([*sides[0], *sides[1]]))
        total = labeled.batch_size + unlabeled.batch_size
        first = (place * labeled.world_size + labeled.rank) * total
        drawn = [(sample, names[labeled.place(sample, len(names))]) for sample in range(first, first + total)]
        chosen = [[(sample, side[name]) for sample, name in drawn if name in side] for side in sides]
        pair = [
            side.crops(places or [(first, side.case_index(first))])
            for side, places in zip((labeled, unlabeled), chosen, strict=True)
        ]
        if not chosen[0]:
            pair[0]["label_context"] = torch.full_like(pair[0]["label_context"], IGNORED)
        return pair[0], pair[1]

    def __iter__(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Pairs from the position on, the next one being prepared by a thread while one is used."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
            iteration = self.position
            coming = pool.submit(self.pair, iteration)
            while True:
                current = coming.result()
                iteration += 1
                coming = pool.submit(self.pair, iteration)
                yield current


def _require_one_of(known: Any, value: str, name: str) -> None:
    if value not in get_args(known):
        raise InputError(f"{name} is one of {', '.join(get_args(known))}, not {value!r}", code="SETTING")
