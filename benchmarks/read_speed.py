"""How much longer reading a sound NIfTI file takes here than in nibabel, which verifies less.

For each data type, size and compression the same file is read in turn by `read_image` and by nibabel (`nib.load`, all
voxels as float32 in memory, the same result), several times; the medians of the processor's time are compared, which
other programs on the machine disturb less than time on the clock. Both use one core. The promise is a ratio of at most
1.3.

    python benchmarks/read_speed.py [--repeats 9] [--json FILE] [FILE ...]

Files that are named are measured instead of the generated ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from semi_med.inference.io import read_image

PROMISE = 1.3
SIZES = {"small": (48, 48, 40), "medium": (160, 160, 96), "large": (320, 320, 180)}
TYPES = ("uint8", "int16", "float32")


def scan_like(shape: tuple[int, int, int], dtype: str, *, seed: int = 0) -> np.ndarray:
    """Voxels that compress about as scans do: a smooth body with noise, surrounded by air."""
    random = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, size) for size in shape]
    distance = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True)))
    body = np.where(distance < 0.9, 80 + 60 * np.cos(5 * distance) + random.normal(0, 8, shape), 0)
    if dtype == "float32":
        return (body / 37.0).astype(np.float32)
    return np.clip(body, 0, 255).astype(dtype)


def with_nibabel(path: Path) -> np.ndarray:
    """All voxels in memory as float32, as `read_image` gives them."""
    image: Any = nibabel.load(path)
    stored = np.asanyarray(image.dataobj)
    # a memory map has read nothing yet
    return np.array(stored, dtype=np.float32, order="K", copy=isinstance(stored, np.memmap) or None)


def seconds(action: Callable[[Path], Any], path: Path) -> float:
    """Of the processor, for one call."""
    started = time.process_time()
    action(path)
    return time.process_time() - started


def compare(path: Path, *, repeats: int) -> dict[str, Any]:
    """Median seconds of both readers, which take turns so that both meet the same load."""
    ours, theirs = [], []
    scan = read_image(path)
    if not np.array_equal(scan.array, with_nibabel(path)):
        raise SystemExit(f"{path}: the readers differ")
    for _ in range(repeats):
        theirs.append(seconds(with_nibabel, path))
        ours.append(seconds(read_image, path))
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "file": path.name,
        "shape": list(scan.array.shape),
        "megabytes": round(path.stat().st_size / 1e6, 3),
        "ours_ms": round(1e3 * statistics.median(ours), 3),
        "nibabel_ms": round(1e3 * statistics.median(theirs), 3),
        "ratio": round(statistics.median(pairs), 3),
    }


def generated(folder: Path) -> list[Path]:
    """One file for each size, type and compression."""
    paths = []
    for size, shape in SIZES.items():
        for dtype in TYPES:
            image = nibabel.Nifti1Image(scan_like(shape, dtype), np.diag([1.0, 1.0, 2.0, 1.0]))
            for suffix in (".nii", ".nii.gz"):
                paths.append(folder / f"{size}_{dtype}{suffix}")
                nibabel.save(image, paths[-1])
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and tell by the exit code whether the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = [compare(path, repeats=options.repeats) for path in options.files or generated(Path(folder))]
    print(f"{'file':28} {'shape':>16} {'MB':>8} {'ours ms':>9} {'nibabel ms':>10} {'ratio':>6}")
    for row in rows:
        shape = "x".join(str(size) for size in row["shape"])
        print(
            f"{row['file'][:28]:28} {shape:>16} {row['megabytes']:8.2f} {row['ours_ms']:9.2f} "
            f"{row['nibabel_ms']:10.2f} {row['ratio']:6.2f}"
        )
    worst = max(row["ratio"] for row in rows)
    total = sum(row["ours_ms"] for row in rows) / sum(row["nibabel_ms"] for row in rows)
    print(f"worst ratio {worst:.2f}, of all time together {total:.2f}; promised at most {PROMISE}")
    if options.json:
        options.json.write_text(
            json.dumps({"rows": rows, "worst": worst, "together": round(total, 3)}, indent=1) + "\n"
        )
    return 0 if worst <= PROMISE else 1


if __name__ == "__main__":
    sys.exit(main())
