"""What a batch of predictions reads and leaves behind: input files, a table of volumes and a record of the run."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.files import write_atomically
from semi_med.inference.channels import group_channels, in_order
from semi_med.inference.dicom import find_series, is_dicom
from semi_med.inference.dicom_files import is_zip
from semi_med.inference.io import (
    IMAGE_SUFFIXES,
    LABEL_PICTURE_SUFFIX,
    PICTURE_SUFFIXES,
    READ_SUFFIXES,
    case_name,
)
from semi_med.runtime import versions

Format: TypeAlias = Literal["auto", "nifti", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)


class CaseRow(TypedDict):
    """What became of one case. `error` and `code` are None if `status` is "done".

    A case that failed has no `output`, unless its label was written and what belongs beside it was not.
    """

    case: str
    image: str  # file name without its folder
    status: str  # "done" or "failed"
    output: str | None  # the label, relative to the output folder
    outputs: dict[str, str]  # SHA-256 of every file that was written, by its name relative to the output folder
    volumes_ml: dict[str, float]  # by class name, background left out; empty for a picture, which has no size in mm
    voxels: dict[str, int]  # of a picture, pixels
    structures: dict[str, dict[str, Any]]  # as `semi_med.inference.structures.Structure`; what is unknown is None
    confidence: float | None  # the mean over structures
    expected_dice: float | None  # what that means, if there is a calibration
    warnings: list[str]
    error: str | None
    code: str | None
    seconds: float
    timings: dict[str, float]  # seconds of read, network, finish and write; they overlap with those of other cases
    skipped: bool  # whether an earlier run did it


@dataclass(frozen=True)
class BatchCase:
    """One scan to segment and the file its label goes to.

    Attributes:
        name: of the case and its output.
        image: the scan: a file, or the folder or archive of a DICOM series.
        target: the label file.
        series: of a DICOM folder, the number of the series that is meant; None if there is one.
        further: the files of the other channels, where each has one.
    """

    name: str
    image: Path
    target: Path
    series: int | None = None
    further: tuple[Path, ...] = ()


def join_channels(
    cases: Sequence[BatchCase],
    output: Path,
    *,
    channels: int,
    names: Sequence[str] = (),
    in_one_file: bool = False,
    format: Format = "auto",
) -> list[BatchCase]:
    """The cases, those that are the channels of one image made one, for a network that wants several.

    Files of a folder belong together where their endings tell exactly as many channels apart, `a_0000` and `a_0001` or
    `a_flair` and `a_t1`; a file that is called `flair` belongs to the case of its folder's name. Beside them `a_seg`
    and `seg` are labels of such a case and are left out.

    Args:
        cases: one for each file.
        output: folder of the labels.
        channels: that the network wants.
        names: of these channels, which the endings must be where both are names of modalities.
        in_one_file: whether the network was trained on files that hold all channels, such as pictures in colour; then
            `a_0000` and `a_0001` are two cases.
        format: of the labels, see `label_name`.

    Raises:
        ProblemsError: naming each case that has other channels than are wanted, and outputs that two cases share.
    """
    folders: dict[Path, dict[str, BatchCase]] = {}
    joined: list[BatchCase] = []
    problems: list[SemiMedError] = []
    for case in cases:
        first = folders.setdefault(case.image.parent, {}).setdefault(case.name, case)
        if first is not case:
            problems += clashes([first, case], set())
    for folder, groups in group_channels(folders, numbered=not in_one_file).items():
        found = folders[folder]
        whole_cases = {base for base, endings in groups.items() if len(endings) == channels > 1}
        for base, endings in groups.items():
            if base not in whole_cases:
                joined += [found[name] for name in endings.values() if not _is_label(name, whole_cases)]
                continue
            whole, order = base or folder.resolve().name, in_order(endings, names)
            if order is None:
                problems.append(_other_channels(whole, folder, found=endings, wanted=names))
                continue
            image, *further = (found[name].image for name in order)
            target = output / label_name(image, format=format, case=whole)
            joined.append(BatchCase(whole, image, target, further=tuple(further)))
    problems += clashes(joined, {case.image.resolve() for case in cases})
    if problems:
        raise ProblemsError(problems, title="inputs")
    return joined


def _is_label(name: str, cases: Collection[str]) -> bool:
    """Whether a file is named as the label of one of the cases."""
    from semi_med.data.pairs import without_ending

    return without_ending(name) != name and without_ending(name) in cases


def listed_cases(
    files: Mapping[str, Sequence[Path]], output: Path, *, series: int | str | None = None, format: Format = "auto"
) -> list[BatchCase]:
    """The cases of a data list, whose names and files are known.

    Args:
        files: of each case.
        output: where the labels will be written.
        series: see `collect_cases`.
        format: of the labels, see `label_name`.

    Raises:
        ProblemsError: naming each output that would overwrite something.
        InputError: code SERIES.
    """
    cases = []
    for name, (first, *further) in files.items():
        chosen = [] if series is None or not is_dicom(first) else _series_of(first, series)
        number = chosen[0][2] if len(chosen) == 1 else None
        cases.append(
            BatchCase(name, first, output / label_name(first, format=format, case=name), number, tuple(further))
        )
    if problems := clashes(cases, {path.resolve() for paths in files.values() for path in paths}):
        raise ProblemsError(problems, title="inputs")
    return cases


def _other_channels(case: str, folder: Path, *, found: Iterable[str], wanted: Iterable[str]) -> InputError:
    return InputError(
        f"the network wants the channels {', '.join(wanted)}; case {case} has {', '.join(found)}",
        where=folder,
        fix="Give it the files of these channels, or leave the case out.",
        code="CHANNELS",
    )


def label_name(scan: Path, *, format: Format = "auto", case: str | None = None) -> str:
    """File name of a scan's label: `<case>_seg.png` for a picture, `<case>_seg.nii.gz` for all else.

    Args:
        scan: the file or folder.
        format: "nifti" or "png" whatever the scan is.
        case: name of the case, if it is not that of the file.
    """
    picture = format == "png" or (format == "auto" and scan.name.lower().endswith(PICTURE_SUFFIXES))
    return f"{case or case_name(scan)}_seg{LABEL_PICTURE_SUFFIX if picture else '.nii.gz'}"


def collect_cases(
    inputs: Sequence[Path],
    output: Path,
    *,
    series: int | str | None = None,
    format: Format = "auto",
    several_channels: bool = False,
) -> list[BatchCase]:
    """The scans that were named, and those in the folders that were named, with the names of their outputs.

    A folder holds either volumes or pictures, of which hidden ones are passed over and which are not searched deeper,
    or one case as DICOM at any depth, which is named after the folder. Beside volumes each folder with DICOM is a case,
    and so is each zip archive. Nothing is guessed from file names: a label in an input folder is a scan like any other.

    Args:
        inputs: files and folders.
        output: where the labels will be written.
        series: of DICOM folders with several series: a number, the beginning of a hash, or "all".
        format: of the labels, see `label_name`.
        several_channels: a case may have several files, so that it is `join_channels` that looks for outputs which
            two share.

    Raises:
        ProblemsError: listing every input that does not exist, is no scan, holds several series and none is chosen,
            or would overwrite something.
        InputError: code NO_SCANS.
    """
    if format not in FORMATS:
        raise InputError(f"one of {', '.join(FORMATS)} is wanted, not {format!r}", where="format", code="SETTING")
    problems: list[SemiMedError] = []
    found: dict[tuple[Path, int | None], BatchCase] = {}  # what is named twice is segmented once
    for given in inputs:
        try:
            for name, path, number in _scans(given, output, series):
                case = BatchCase(name, path, output / label_name(path, format=format, case=name), number)
                found.setdefault((path.resolve(), number), case)
        except InputError as error:
            problems.append(error)
    cases = list(found.values())
    if not several_channels:
        problems += clashes(cases, {path for path, _ in found})
    if problems:
        raise ProblemsError(problems, title="inputs")
    if not cases:
        raise InputError("no scan was named", fix="Name files or folders with scans.", code="NO_SCANS")
    return cases


def _scans(given: Path, output: Path, series: int | str | None) -> list[tuple[str, Path, int | None]]:
    """Case name, path and, where it was chosen, number of the series of each scan."""
    if not given.exists():
        raise InputError("this does not exist", where=given, fix="Check the path.", code="NOT_FOUND")
    if not given.is_dir():
        if given.name.lower().endswith(READ_SUFFIXES):
            return [(case_name(given), given, None)]
        if is_dicom(given):
            return _series_of(given, series)
        raise InputError(
            f"the file name ends in none of {', '.join(READ_SUFFIXES)}, and it is no DICOM",
            where=given,
            fix="Convert the scan to NIfTI; of a DICOM series name the folder.",
            code="FORMAT",
        )
    if given.resolve() == output.resolve():
        raise InputError(
            "the output folder is also an input: the next run would take the results for scans",
            where=given,
            fix="Choose another output folder.",
            code="OUTPUT_CLASH",
        )
    found = scan_files(given)
    inside = sorted(path for path in given.iterdir() if path.name[0] != "." and path.resolve() != output.resolve())
    archives = [path for path in inside if path.is_file() and is_zip(path)]
    pictures = bool(found) and found[0].name.lower().endswith(PICTURE_SUFFIXES)
    loose = any(path.is_file() and path not in {*found, *archives} and is_dicom(path) for path in inside)
    if (pictures or not found) and (loose or not archives) and is_dicom(given):  # with previews and other things
        return _series_of(given, series)
    if loose:
        raise InputError(
            "this folder holds DICOM files and other scans",
            where=given,
            fix="Name the files that are meant, or give DICOM a folder of its own.",
            code="MIXED_FORMATS",
        )
    apart = [*archives, *(path for path in inside if path.is_dir() and is_dicom(path))]
    if not found and not apart:
        raise InputError(
            f"this folder holds no file that ends in {', '.join(READ_SUFFIXES)}, and no DICOM",
            where=given,
            fix=_where_scans_are(given),
            code="NO_SCANS",
        )
    named: list[tuple[str, Path, int | None]] = [(case_name(path), path, None) for path in found]
    return named + [one for path in apart for one in _series_of(path, series)]


def _where_scans_are(folder: Path) -> str:
    """The next step for a folder without scans: some of its subfolders may hold them, one a patient."""
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."]
    with_scans = [path for path in inside if any(file.name.lower().endswith(READ_SUFFIXES) for file in path.iterdir())]
    if not with_scans:
        return "Name the folder that holds the scans."
    return f"{len(with_scans)} of its folders do, the first is {with_scans[0].name}: name them, as {folder}/*."


def scan_files(folder: Path) -> list[Path]:
    """The scans that lie in a folder, sorted, hidden ones passed over: volumes, or pictures.

    Raises:
        InputError: code MIXED_FORMATS, if both lie there: pictures beside volumes are often no scans.
    """
    files = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    volumes = [path for path in files if path.name.lower().endswith(IMAGE_SUFFIXES)]
    pictures = [path for path in files if path.name.lower().endswith(PICTURE_SUFFIXES)]
    if volumes and pictures:
        raise InputError(
            f"this folder holds volumes and pictures (for example {volumes[0].name} and {pictures[0].name})",
            where=folder,
            fix="Name the files that are meant, or give the pictures a folder of their own.",
            code="MIXED_FORMATS",
        )
    return volumes or pictures


def _series_of(given: Path, wanted: int | str | None) -> list[tuple[str, Path, int | None]]:
    """The series of a DICOM folder that are meant; names come from the folder, never from what lies in it."""
    name = case_name(given.resolve())
    try:
        found = find_series(given).series
    except SemiMedError as error:
        if error.code == "ARCHIVE":
            raise
        return [(name, given, None)]  # fails in its turn and is recorded, while the others go on
    if not found or (wanted is None and len(found) == 1):
        return [(name, given, None)]
    text = "" if wanted is None else str(wanted).lower()
    numbered = text.isdecimal() and len(text) < 6
    chosen = [
        one
        for one in found
        if text == "all" or (one.index == int(text) if numbered else bool(text) and one.uid_hash.startswith(text))
    ]
    if not chosen or (len(chosen) > 1 and text != "all"):
        listed = "; ".join(one.line() for one in found[:20])
        raise InputError(
            f"this folder holds {len(found)} series: {listed}",
            where=given,
            fix="Choose with --series N or --series all, or name the folder of one series.",
            code="SERIES",
        )
    if len(found) == 1:
        return [(name, given, 1)]
    return [(f"{name}_series{one.index}", given, one.index) for one in chosen]


def clashes(
    cases: Sequence[BatchCase],
    images: set[Path],
    written: Callable[[BatchCase], Sequence[Path]] = lambda case: (case.target,),
) -> list[SemiMedError]:
    """Outputs that two cases share, and outputs that are somebody's input; of each case the first such.

    Args:
        cases: of the batch.
        images: all inputs, resolved.
        written: the files of a case; its label, if nothing else is said.
    """
    problems: list[SemiMedError] = []
    seen: dict[Path, BatchCase] = {}
    for case in cases:
        for target in written(case):
            first = seen.setdefault(target, case)
            if first is not case:
                problem = f"its output {target.name} would also be that of {first.image}"
            elif target.resolve() in images:
                problem = f"its output {target.name} would overwrite an input"
            else:
                continue
            problems.append(
                InputError(problem, where=case.image, fix="Rename one, or predict them apart.", code="OUTPUT_CLASH")
            )
            break
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
    """Writes one line per case and class: its measures, its confidence and the Dice that is to be expected of that.

    A picture has no size in mm: its millilitres are `nan`, its voxels are pixels.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        [
            *("case", "class", "millilitres", "voxels", "components", "touches_border"),
            *("mean_intensity", "confidence", "expected_dice"),
        ]
    )
    for row in rows:
        for name, one in row["structures"].items():
            numbers = [f"{_or_nan(one[key]):.4f}" for key in ("mean_intensity", "confidence", "expected_dice")]
            size = [f"{_or_nan(one['millilitres']):.4f}", one["voxels"], one["components"]]
            table.writerow([row["case"], name, *size, "yes" if one["touches_border"] else "no", *numbers])
    write_atomically(path, text.getvalue())


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


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
