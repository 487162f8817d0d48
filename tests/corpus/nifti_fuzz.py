"""Seeded damage to a small NIfTI file, and a child process in which each damaged copy is read under limits."""

from __future__ import annotations

import gzip
import multiprocessing
import resource
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tests.corpus.nifti_corpus import AFFINE, HEADER, sound

SHAPE = (24, 20, 18)
HANG = 10.0  # seconds
ADDRESS_SPACE = 4 * 2**30  # bytes; the reader must keep to less by itself
KINDS = ("bytes", "header", "cut", "longer", "gzip bytes", "gzip cut", "gzip header", "gzip level")

# (offset, layout) of every field of the NIfTI-1 header that reading depends on
_FIELDS = [
    (0, "i"),
    *((40 + 2 * n, "h") for n in range(8)),
    (70, "h"),
    (72, "h"),
    *((76 + 4 * n, "f") for n in range(8)),
]
_FIELDS += [(108, "f"), (112, "f"), (116, "f"), (123, "b"), (252, "h"), (254, "h")]
_FIELDS += [*((256 + 4 * n, "f") for n in range(6)), *((280 + 4 * n, "f") for n in range(12)), (344, "i")]
_VALUES = {
    "h": (0, 1, -1, 2, 4, 7, 8, 16, 64, 128, 255, 256, 512, 1024, 2304, 32767, -32768),
    "i": (0, 1, -1, 347, 349, 540, 1543569408, 2**31 - 1, -(2**31), 0x00312B6E),
    "b": (0, 1, 2, 3, 4, 10, 127, -128),
    "f": (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-3, 1e3, 1e9, 3e38, -3e38, float("nan"), float("inf"), float("-inf"), 352.5),
}


def original() -> np.ndarray:
    """The voxels of the file that is damaged: (24, 20, 18) int16."""
    return np.random.default_rng(11).normal(300, 100, SHAPE).clip(0, 700).astype(np.int16)


def damaged(seed: int, source: bytes) -> tuple[str, str, bytes]:
    """One copy: what was done to it, the suffix of its name, its bytes.

    Args:
        seed: the same seed gives the same copy.
        source: an uncompressed NIfTI file.
    """
    random = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    data = bytearray(source)
    if "header" in kind:
        for _ in range(random.integers(1, 4)):
            offset, layout = _FIELDS[random.integers(len(_FIELDS))]
            struct.pack_into("<" + layout, data, offset, _VALUES[layout][random.integers(len(_VALUES[layout]))])
    if kind == "bytes":
        _change(data, random, within=HEADER if random.random() < 0.7 else len(data))
    if kind == "cut":
        del data[random.integers(len(data)) :]
    if kind == "longer":
        data += random.bytes(int(random.integers(1, 5000)))
    if not kind.startswith("gzip"):
        return kind, ".nii", bytes(data)
    packed = bytearray(gzip.compress(bytes(data), int(random.integers(0, 10)), mtime=0))
    if kind == "gzip bytes":
        _change(packed, random, within=len(packed))
    if kind == "gzip cut":
        del packed[random.integers(len(packed)) :]
    return kind, ".nii.gz", bytes(packed)


def _change(data: bytearray, random: np.random.Generator, *, within: int) -> None:
    for _ in range(random.integers(1, 9)):
        data[random.integers(within)] = random.integers(256)


@dataclass
class Outcome:
    """What many damaged copies led to.

    Attributes:
        refused: by code of the error.
        same: read, and every voxel as in the sound file.
        other: read as a sane volume with other voxels, shape or place: damage that no reader can tell from data.
        insane: read with voxels that are not finite or an affine that cannot be.
        escaped: other exceptions, by type.
        crashed: copies that ended the child.
        hung: copies that took longer than `HANG`.
        slowest: seconds.
        peak: megabytes that the child took at most.
        examples: seeds of what must not be.
    """

    refused: Counter[str] = field(default_factory=Counter)
    same: int = 0
    other: int = 0
    insane: int = 0
    escaped: Counter[str] = field(default_factory=Counter)
    crashed: int = 0
    hung: int = 0
    slowest: float = 0.0
    peak: float = 0.0
    examples: dict[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        """Copies that led to what must not be."""
        return self.insane + sum(self.escaped.values()) + self.crashed + self.hung


def fuzz(folder: Path, count: int, *, first_seed: int = 0, labels: bool = False) -> Outcome:
    """Read damaged copies, each in a child process with a time limit and a limit on its memory.

    Args:
        folder: for the copies.
        count: of copies.
        first_seed: of the first one.
        labels: read them as labels instead of images.
    """
    outcome, source = Outcome(), sound(original(), AFFINE)
    child = _Child(labels)
    try:
        for seed in range(first_seed, first_seed + count):
            kind, suffix, data = damaged(seed, source)
            path = folder / f"copy{suffix}"
            path.write_bytes(data)
            started = time.perf_counter()
            word, peak = child.read(path)
            outcome.slowest = max(outcome.slowest, time.perf_counter() - started)
            outcome.peak = max(outcome.peak, peak)
            _count(outcome, word, f"{kind} {seed}", seed)
            if word in ("crashed", "hung"):
                child.close()
                child = _Child(labels)
    finally:
        child.close()
    return outcome


def _count(outcome: Outcome, word: str, what: str, seed: int) -> None:
    kind, _, detail = word.partition(" ")
    if kind == "refused":
        outcome.refused[detail] += 1
        return
    if kind == "escaped":
        outcome.escaped[detail] += 1
    else:
        setattr(outcome, kind, getattr(outcome, kind) + 1)
    if kind not in ("same", "other"):
        outcome.examples.setdefault(f"{word} ({what})", seed)


class _Child:
    """A process that reads files and says in one word what became of each."""

    def __init__(self, labels: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, labels), daemon=True)
        self._process.start()
        theirs.close()
        if not self._ours.poll(120):
            raise RuntimeError("the reading process did not start")
        self._ours.recv()

    def read(self, path: Path) -> tuple[str, float]:
        """The verdict, and the peak of the child's memory in MB."""
        self._ours.send(str(path))
        try:
            if not self._ours.poll(HANG):
                return "hung", 0.0
            return self._ours.recv()
        except (EOFError, ConnectionError):
            return "crashed", 0.0

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._ours.close()


def _serve(connection: Connection, labels: bool) -> None:
    from semi_med.inference.io import read_image, read_label

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    connection.send("ready")
    expected = original()
    while True:
        path = connection.recv()
        word = _verdict((read_label if labels else read_image), path, expected)
        status = Path("/proc/self/status").read_text().splitlines()
        peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024
        connection.send((word, peak))


def _verdict(read: object, path: str, expected: np.ndarray) -> str:
    from semi_med.errors import SemiMedError
    from semi_med.inference.grids import check_affine

    try:
        scan = read(path)  # type: ignore[operator]
    except SemiMedError as error:
        return f"refused {error.code}"
    except BaseException as error:
        return f"escaped {type(error).__name__}"
    try:
        check_affine(scan.affine, path=Path(path))
    except SemiMedError:
        return "insane"
    if scan.array.ndim != 3 or not np.isfinite(scan.array).all():
        return "insane"
    same = scan.array.shape == expected.shape and np.array_equal(scan.array, expected)
    return "same" if same and np.allclose(scan.affine, AFFINE) else "other"
