"""Do unlabelled pictures help a 2D network? Any methods on slices of Sunnybrook or LGG, with several seeds.

    python benchmarks/slices.py sunnybrook <data> <output> [--list-only] [any option of semi-med compare]
    python benchmarks/slices.py lgg <folder of `semi-med prepare lgg`> <output> ...

Patients are split once: 8 of Sunnybrook's 30 and 3 of LGG's 12 for the test, 3 and 2 for validation (curves only,
nothing is chosen on them). The rest are the pool, whose labels are drawn **by picture**: `--labeled 4` means 4 slices.
Within the pool each slice counts as a subject, since a labelled and an unlabelled slice of one patient are both of the
training side; in the test the patient is the subject. Of LGG, labels are drawn among the slices that show a tumour; the
others are unlabelled. The list goes to <output>/data_list.json, the comparison to <output>/compare; the command is
printed first. `--variants benchmarks/fixmatchseg.json` adds FixMatchSeg as published, both without boundary loss, and
the floor with batch norm.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from semi_med import launch
from semi_med.data.data_list import Case, DataList, save_data_list
from semi_med.inference.io import read_label

SPLIT_SEED = 0
DEFAULTS = {"--methods": ("fixmatchseg",), "--labeled": ("4", "16"), "--seeds": ("3",)}


@dataclass(frozen=True)
class Source:
    """What differs between the two data sets."""

    test: int
    validation: int
    labels: dict[str, str]
    modality: dict[str, str]
    reference: str
    licence: str


SOURCES = {
    "sunnybrook": Source(
        8,
        3,
        {"0": "background", "1": "left ventricular cavity"},
        {"0": "short-axis cine MR"},
        "Radau et al., The MIDAS Journal, 2009",
        "CC0 1.0",
    ),
    "lgg": Source(
        3,
        2,
        {"0": "background", "1": "FLAIR abnormality"},
        {"0": "before contrast agent", "1": "FLAIR", "2": "after contrast agent"},
        "Buda et al., Computers in Biology and Medicine 109:218-225, 2019",
        "believed to be CC BY-NC-SA 4.0",
    ),
}


def patients(task: str, data: Path) -> dict[str, str]:
    """Case to patient."""
    if task == "lgg":
        cases = json.loads((data / "dataset.json").read_text(encoding="utf-8"))["cases"]
        return {name: case["subject"] for name, case in cases.items()}
    with (data / "cases.csv").open(newline="") as file:
        return {row["id"]: row["patient"] for row in csv.DictReader(file)}


def split(task: str, data: Path) -> DataList:
    """The base list: test and validation by patient, the pool by picture."""
    source, of = SOURCES[task], patients(task, data)
    order = sorted(set(of.values()))
    random.Random(SPLIT_SEED).shuffle(order)
    test, validation = order[: source.test], order[source.test : source.test + source.validation]

    def case(name: str, subject: str, *, labeled: bool = True) -> Case:
        label = f"labels/{name}.png" if labeled else None
        return Case(image=f"images/{name}.png", label=label, case=name, subject=subject)

    pool = sorted(name for name, patient in of.items() if patient not in {*test, *validation})
    shown = {name for name in pool if task != "lgg" or read_label(data / "labels" / f"{name}.png").array.any()}
    return DataList(
        name=task,
        description=f"Patients split with seed {SPLIT_SEED}: {source.test} for the test, {source.validation} for "
        "validation. Labels are drawn by picture.",
        reference=source.reference,
        licence=source.licence,
        modality=source.modality,
        labels=source.labels,
        labeled=[case(name, name) for name in pool if name in shown],
        unlabeled=[case(name, name, labeled=False) for name in pool if name not in shown],
        validation=[case(name, patient) for name, patient in of.items() if patient in validation],
        test=[case(name, patient) for name, patient in of.items() if patient in test],
    )


def main() -> None:
    """Write the list, then run the comparison unless only the list is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("task", choices=sorted(SOURCES))
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--list-only", action="store_true", help="write the data list and stop")
    arguments, more = parser.parse_known_args()
    data, output = arguments.data.resolve(), arguments.output.resolve()
    data_list = split(arguments.task, data)
    save_data_list(data_list, output / "data_list.json")
    print(output / "data_list.json", data_list.counts())
    if arguments.list_only:
        return
    places = ["--dataset-dir", str(data), "--data-list", str(output / "data_list.json"), "-o", str(output / "compare")]
    command = [sys.executable, "-m", "semi_med.cli", "compare", "--task", arguments.task, *places]
    for option, values in DEFAULTS.items():
        if not any(word.partition("=")[0] == option for word in more):
            command += [option, *values]
    print(shlex.join([*command, *more]), flush=True)
    sys.exit(launch.run([*command, *more]))


if __name__ == "__main__":
    main()
