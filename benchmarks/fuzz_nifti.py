"""Damages a small NIfTI file thousands of times and counts what reading each copy leads to.

    python benchmarks/fuzz_nifti.py --count 10000 -o benchmarks/results/fuzz_nifti.json

Copies have bytes changed, header fields set to hostile values, ends cut off or added, in plain files and in gzip of
every level. Each is read in a child process under a time limit and a limit on its address space. The same count and
seed give the same copies. What must be 0: volumes that are not finite or lie nowhere, exceptions that are not ours,
crashes, hangs; the child's peak memory must stay below 1 GB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.corpus.nifti_fuzz import KINDS, fuzz

PEAK = 1000  # MB


def main() -> int:
    """Run it, print a summary, write JSON; the exit code says whether all went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10000, help="damaged copies")
    parser.add_argument("--seed", type=int, default=0, help="of the first copy")
    parser.add_argument("--labels", action="store_true", help="read them as labels")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome = fuzz(Path(folder), arguments.count, first_seed=arguments.seed, labels=arguments.labels)
    seconds = time.perf_counter() - started
    refused = ", ".join(f"{code} {count}" for code, count in outcome.refused.most_common())
    print(f"{arguments.count} copies in {seconds:.0f} s, damaged in {len(KINDS)} ways")
    print(f"refused {sum(outcome.refused.values())}: {refused}")
    print(f"read: {outcome.same} unchanged, {outcome.other} as sane volumes with other content")
    print(
        f"not sane {outcome.insane}, other exceptions {sum(outcome.escaped.values())} {dict(outcome.escaped)}, "
        f"crashes {outcome.crashed}, hangs {outcome.hung}; slowest {outcome.slowest:.2f} s, peak {outcome.peak:.0f} MB"
    )
    if outcome.examples:
        print(f"seeds: {outcome.examples}")
    if arguments.output:
        content = {"count": arguments.count, "seed": arguments.seed, "seconds": round(seconds), **vars(outcome)}
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if outcome.faults or outcome.peak > PEAK else 0


if __name__ == "__main__":
    sys.exit(main())
