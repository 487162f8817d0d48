"""Seeded damage to one slice of a small series, and what reading the series then leads to."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from semi_med.errors import SemiMedError
from semi_med.inference.io import check_affine, read_image
from tests.corpus.dicom_corpus import JPEG_2000, JPEG_LOSSLESS, JPEG_LS, RLE, compress, plan_series, restart_uids

SHAPE = (4, 64, 48)
SYNTAXES = {"native": None, "rle": RLE, "jpeg2000": JPEG_2000, "jpeg_lossless": JPEG_LOSSLESS, "jpeg_ls": JPEG_LS}
HANG = 10.0  # seconds


@dataclass
class Outcome:
    """What many damaged copies led to.

    Attributes:
        refused: by code of the error.
        same: read, and every voxel as in the sound series.
        other: read as a sane volume of the whole size with other values: damage that no reader can tell from data.
        partial: read with another shape.
        insane: read with an affine that cannot be.
        escaped: other exceptions, by type.
        crashes: codes that say that the child died or hung (they are among the refused, too).
        slowest: seconds.
        examples: seeds of what must not be, by kind.
    """

    refused: Counter[str] = field(default_factory=Counter)
    same: int = 0
    other: int = 0
    partial: int = 0
    insane: int = 0
    escaped: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    examples: dict[str, int] = field(default_factory=dict)


def write_sound(folder: Path, syntax: str) -> np.ndarray:
    """Writes the series; returns what it must read as."""
    restart_uids()  # the same damage to the same bytes
    plan = plan_series(shape=SHAPE)
    plan.write(folder)
    if coded := SYNTAXES[syntax]:
        for path in folder.iterdir():
            compress(path, coded)
    return plan.real


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """One to four changes, most of them in the header; most keep the length, so that the parser stays in step."""
    out = bytearray(data)
    header = data.find(b"\xe0\x7f\x10\x00")
    for _ in range(int(random.integers(1, 5))):
        limit = header + 16 if random.random() < 0.8 else len(out)
        place = int(random.integers(0, max(1, min(limit, len(out)))))
        kind = int(random.choice(7, p=[0.4, 0.2, 0.1, 0.05, 0.05, 0.15, 0.05]))
        if kind == 0 and out:
            out[place % len(out)] ^= 1 << int(random.integers(0, 8))
        elif kind == 1 and out:
            out[place % len(out)] = int(random.integers(0, 256))
        elif kind == 2:
            out[place : place + 4] = random.choice([b"\xff\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f", b"\0\0\0\x80"])
        elif kind == 3:
            del out[place : place + int(random.integers(1, 64))]
        elif kind == 4:
            out[place:place] = bytes(random.integers(0, 256, int(random.integers(1, 64)), dtype=np.uint8))
        elif kind == 5:
            other = int(random.integers(0, max(1, len(out))))
            out[place : place + 16] = out[other : other + 16]
        else:
            del out[int(random.integers(0, max(1, len(out)))) :]
    return bytes(out)


def fuzz(folder: Path, count: int, *, syntax: str = "native", first_seed: int = 0) -> Outcome:
    """Reads `count` copies of a series, in each of which one slice is damaged."""
    real = write_sound(folder, syntax)
    paths = sorted(folder.iterdir())
    sound = {path: path.read_bytes() for path in paths}
    outcome = Outcome()
    for seed in range(first_seed, first_seed + count):
        random = np.random.default_rng(seed)
        path = paths[int(random.integers(0, len(paths)))]
        path.write_bytes(mutate(sound[path], random))
        started = time.perf_counter()
        _judge(folder, real, seed, outcome)
        outcome.slowest = max(outcome.slowest, time.perf_counter() - started)
        path.write_bytes(sound[path])
    return outcome


def _judge(folder: Path, real: np.ndarray, seed: int, outcome: Outcome) -> None:
    try:
        scan = read_image(folder)
    except SemiMedError as error:
        outcome.refused[error.code] += 1
        if error.code in ("DECODER_CRASH", "TIMEOUT"):
            outcome.crashes[error.code] += 1
            outcome.examples.setdefault(error.code, seed)
        return
    except Exception as error:
        outcome.escaped[f"{type(error).__name__}: {error}"] += 1
        outcome.examples.setdefault(type(error).__name__, seed)
        return
    try:
        check_affine(scan.affine, path=folder)
    except SemiMedError:
        outcome.insane += 1
        outcome.examples.setdefault("insane", seed)
    # a tilt is resampled, which gives the volume another size; it is announced
    if scan.array.shape != real.shape and not any(text.startswith("GANTRY_TILT") for text in scan.warnings):
        outcome.partial += 1
        outcome.examples.setdefault("partial", seed)
    elif np.array_equal(scan.array, real):
        outcome.same += 1
    else:
        outcome.other += 1
