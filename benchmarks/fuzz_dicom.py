"""Damages one slice of a small DICOM series thousands of times and counts what reading leads to.

    python benchmarks/fuzz_dicom.py --count 5000 -o benchmarks/results/fuzz_dicom.json

A fifth of the copies each is uncompressed, RLE, JPEG 2000, JPEG lossless and JPEG-LS; the same count and seed give the
same copies.
What must be 0: volumes with a slice less, impossible affines, exceptions that are not ours, hangs.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from semi_med.inference.dicom_process import close
from tests.corpus.dicom_fuzz import HANG, SYNTAXES, fuzz


def main() -> None:
    """Run it, print a summary, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="damaged copies in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first copy")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    started = time.perf_counter()
    results = {}
    for number, syntax in enumerate(SYNTAXES):
        share = arguments.count // len(SYNTAXES) + (number < arguments.count % len(SYNTAXES))
        with tempfile.TemporaryDirectory() as folder:
            outcome = fuzz(Path(folder) / "series", share, syntax=syntax, first_seed=arguments.seed)
        results[syntax] = vars(outcome)
        print(f"{syntax}: {share} copies: {_line(results[syntax])}", flush=True)
    seconds = time.perf_counter() - started
    close()  # what the child took is counted when it has ended
    peak = {
        "parent_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "children_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }
    faults = {
        "partial volumes": sum(result["partial"] for result in results.values()),
        "impossible affines": sum(result["insane"] for result in results.values()),
        "other exceptions": sum(sum(result["escaped"].values()) for result in results.values()),
        "children that died or hung": sum(sum(result["crashes"].values()) for result in results.values()),
        f"over {HANG:g} s": sum(result["slowest"] > HANG for result in results.values()),
    }
    print(f"{arguments.count} copies in {seconds:.0f} s; peak memory {peak}; {faults}")
    if arguments.output:
        content = {"count": arguments.count, "seed": arguments.seed, "seconds": round(seconds), "peak": peak}
        arguments.output.write_text(json.dumps({**content, "faults": faults, "syntaxes": results}, indent=2) + "\n")
    sys.exit(1 if any(faults.values()) else 0)


def _line(result: dict) -> str:
    refused = Counter(result["refused"])
    return (
        f"{sum(refused.values())} refused ({', '.join(f'{code} {count}' for code, count in refused.most_common())}), "
        f"{result['same']} read unchanged, {result['other']} read as a sane volume with other values, "
        f"slowest {result['slowest']:.2f} s, {result['examples']}"
    )


if __name__ == "__main__":
    main()
