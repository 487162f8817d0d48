"""What a batch of predictions reads and leaves behind: input files, a table of volumes and a record of the run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.files import write_atomically
from semi_med.inference.io import IMAGE_SUFFIXES, case_name
from semi_med.runtime import versions


class CaseRow(TypedDict):
    """What became of one case. `error` and `code` are None if `status` is "done", `output` if it is "failed"."""

    case: str
    image: str  # file name without its folder
    status: str  # "done" or "failed"
    output: str | None  # file name in the output folder
    volumes_ml: dict[str, float]  # by class name, background left out
    voxels: dict[str, int]
    warnings: list[str]
    error: str | None
    code: str | None
    seconds: float


@dataclass(frozen=True)
class BatchCase:
    """One scan to segment and the file its label goes to."""

    name: str
    image: Path
    target: Path


def collect_cases(inputs: Sequence[Path], output: Path) -> list[BatchCase]:
    """The scans that were named, and those in the folders that were named, with the names of their outputs.

    Hidden files are passed over; folders are not searched deeper. Nothing is guessed from file names: a label in an
    input folder is a scan like any other.

    Args:
        inputs: files and folders.
        output: where the labels will be written.

    Raises:
        ProblemsError: listing every input that does not exist, is no scan, or would overwrite something.
        InputError: code NO_SCANS.
    """
    problems: list[SemiMedError] = []
    images: dict[Path, Path] = {}  # by resolved path: what is named twice is segmented once
    for given in inputs:
        try:
            images.update({path.resolve(): path for path in _scans(given, output)})
        except InputError as error:
            problems.append(error)
    cases = [BatchCase(case_name(path), path, output / f"{case_name(path)}_seg.nii.gz") for path in images.values()]
    problems += _clashes(cases, set(images))
    if problems:
        raise ProblemsError(problems, title="inputs")
    if not cases:
        raise InputError("no scan was named", fix="Name files or folders with scans.", code="NO_SCANS")
    return cases


def _scans(given: Path, output: Path) -> list[Path]:
    if not given.exists():
        raise InputError("this does not exist", where=given, fix="Check the path.", code="NOT_FOUND")
    if not given.is_dir():
        if not given.name.lower().endswith(IMAGE_SUFFIXES):
            raise InputError(
                f"the file name ends in none of {', '.join(IMAGE_SUFFIXES)}",
                where=given,
                fix="Convert the scan to NIfTI; a DICOM series for example with dcm2niix.",
                code="FORMAT",
            )
        return [given]
    if given.resolve() == output.resolve():
        raise InputError(
            "the output folder is also an input: the next run would take the results for scans",
            where=given,
            fix="Choose another output folder.",
            code="OUTPUT_CLASH",
        )
    found = sorted(
        path for path in given.iterdir() if path.name.lower().endswith(IMAGE_SUFFIXES) and path.name[0] != "."
    )
    if not found:
        raise InputError(
            f"this folder holds no file that ends in {', '.join(IMAGE_SUFFIXES)}",
            where=given,
            fix="Name the folder that holds the scans; a DICOM series is converted first, for example with dcm2niix.",
            code="NO_SCANS",
        )
    return found


def _clashes(cases: Sequence[BatchCase], images: set[Path]) -> list[SemiMedError]:
    """Outputs that two cases share, and outputs that are somebody's input."""
    problems: list[SemiMedError] = []
    seen: dict[Path, Path] = {}
    for case in cases:
        first = seen.setdefault(case.target, case.image)
        if first is not case.image:
            problem = f"its output {case.target.name} would also be that of {first}"
        elif case.target.resolve() in images:
            problem = f"its output {case.target.name} would overwrite an input"
        else:
            continue
        problems.append(
            InputError(problem, where=case.image, fix="Rename one, or predict them apart.", code="OUTPUT_CLASH")
        )
    return problems


def make_output_folder(output: Path) -> None:
    """Creates the folder if need be and tries it, before any work is done.

    Raises:
        InputError: code NOT_WRITABLE.
        ResourceError: code DISK_FULL.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the output folder cannot be made ({error.strerror})",
            where=output,
            fix="Choose another output folder.",
            code="NOT_WRITABLE",
        ) from error
    probe = output / ".semi_med_probe"
    write_atomically(probe, b"")
    probe.unlink()


def write_volumes(path: Path, rows: Sequence[CaseRow]) -> None:
    """Writes one line per case and class: `case,class,millilitres,voxels`."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["case", "class", "millilitres", "voxels"])
    for row in rows:
        for name, voxels in row["voxels"].items():
            table.writerow([row["case"], name, f"{row['volumes_ml'][name]:.4f}", voxels])
    write_atomically(path, text.getvalue())


def write_record(
    path: Path, settings: dict[str, Any], *, rows: Sequence[CaseRow], started: str, seconds: float
) -> None:
    """Writes what is needed to tell later how these labels came about.

    Folders are left out: they may bear names of patients. File names remain.

    Args:
        path: the JSON file.
        settings: bundle, weights and choices.
        rows: the cases.
        started: ISO 8601, UTC.
        seconds: of the whole run.
    """
    record = {
        "started": started,
        "seconds": round(seconds, 3),
        "versions": versions(),
        "settings": settings,
        "cases": rows,
    }
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
