"""Did the unlabelled scans help? Six methods on MSD Task04 (hippocampus MR), by subject, with several seeds.

    python benchmarks/hippocampus.py <data> <output> [--list-only] [any option of semi-med compare]

<data> holds images/, labels/ and cases.csv (columns id, subject_group). Subjects are split once: 25 for the test, 10
for validation (curves only, nothing is chosen on them), the rest are the training pool. This is written as
<output>/data_list.json; then `semi-med compare` draws the labelled subjects of every seed, trains, tests and reports
in <output>/compare. The command is printed first. What is given after <output> goes to it and comes last, so that
for example `--iterations 500` or `--methods cotrain` takes the place of the value below.
"""

from __future__ import annotations

import argparse
import csv
import random
import shlex
import sys
from pathlib import Path

from semi_med import launch
from semi_med.data.data_list import Case, DataList, save_data_list

TEST, VALIDATION, SPLIT_SEED = 25, 10, 0
METHODS = ("supervised", "mean_teacher", "uamt", "cps", "bcp", "cotrain")
DEFAULTS = {"--methods": METHODS, "--labeled": ("4", "8"), "--seeds": ("3",)}


def split(data: Path) -> DataList:
    """The base list: test and validation by subject, everything else with its labels."""
    with (data / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    subjects = sorted({int(row["subject_group"]) for row in rows})
    random.Random(SPLIT_SEED).shuffle(subjects)

    def cases(chosen: list[int]) -> list[Case]:
        return [
            Case(
                image=f"images/{row['id']}.nii.gz",
                label=f"labels/{row['id']}.nii.gz",
                case=row["id"],
                subject=f"subject-{row['subject_group']}",
            )
            for row in rows
            if int(row["subject_group"]) in chosen
        ]

    return DataList(
        name="hippocampus",
        description=f"Subjects split with seed {SPLIT_SEED}: {TEST} for the test, {VALIDATION} for validation.",
        reference="Antonelli et al., Nature Communications 13:4128, 2022",
        licence="CC BY-SA 4.0",
        modality={"0": "MR"},
        labels={"0": "background", "1": "anterior", "2": "posterior"},
        labeled=cases(subjects[TEST + VALIDATION :]),
        validation=cases(subjects[TEST : TEST + VALIDATION]),
        test=cases(subjects[:TEST]),
    )


def compare_command(data: Path, output: Path, more: list[str]) -> list[str]:
    """`semi-med compare` with the benchmark's settings where `more` gives no others."""
    command = [sys.executable, "-m", "semi_med.cli", "compare", "--task", "hippocampus"]
    command += [
        "--dataset-dir",
        str(data),
        "--data-list",
        str(output / "data_list.json"),
        "-o",
        str(output / "compare"),
    ]
    for option, values in DEFAULTS.items():
        if not any(word.partition("=")[0] == option for word in more):
            command += [option, *values]
    return command + more


def main() -> None:
    """Write the list, then run the comparison unless only the list is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--list-only", action="store_true", help="write the data list and stop")
    arguments, more = parser.parse_known_args()
    data, output = arguments.data.resolve(), arguments.output.resolve()
    save_data_list(split(data), output / "data_list.json")
    print(output / "data_list.json")
    if arguments.list_only:
        return
    command = compare_command(data, output, more)
    print(shlex.join(command), flush=True)
    sys.exit(launch.run(command))


if __name__ == "__main__":
    main()
