"""DICOM series as scans. Files are parsed and decoded in a child process; nothing that names a patient comes back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from semi_med.errors import InputError, SemiMedError
from semi_med.inference.byte_check import RawVolume, check_regular_file, decoding
from semi_med.inference.dicom_files import HEAD, is_zip, looks_like_dicom, open_files
from semi_med.inference.dicom_process import TIMEOUT, as_error, ask
from semi_med.inference.dicom_process import stop_reading as stop_reading

if TYPE_CHECKING:
    from semi_med.inference.io import Scan


@dataclass(frozen=True)
class Series:
    """A volume that a folder holds, described without any text from its files.

    Attributes:
        index: number in the list, from 1.
        modality: "CT", "MR" or "PT".
        slices: how many.
        size: columns, rows.
        spacing: mm along columns, rows and slices; None where the geometry is missing or wrong.
        uid_hash: 12 hexadecimal digits from the series' UID.
        study_hash: the same from the study's UID; equal for what one visit made.
        part: what sets it apart from the other volumes of its series, such as `EchoTime 1 of 2`.
        problem: code of what keeps it from being read, "" if nothing in its geometry does.
    """

    index: int
    modality: str
    slices: int
    size: tuple[int, int]
    spacing: tuple[float, float, float] | None
    uid_hash: str
    study_hash: str
    part: str
    problem: str

    def line(self) -> str:
        """One line for a list, with nothing that names anybody."""
        size = f"{self.slices} slices of {self.size[0]} x {self.size[1]}"
        spacing = " x ".join(f"{step:.3g}" for step in self.spacing) + " mm" if self.spacing else "no regular grid"
        words = [f"{self.index}: {self.modality}", size, spacing, self.part, self.problem]
        return ", ".join(word for word in words if word) + f" ({self.uid_hash})"


@dataclass(frozen=True)
class SeriesFound:
    """What a folder holds.

    Attributes:
        series: the volumes.
        ignored: files that are no images of a volume, by kind; scouts are counted by picture.
        problems: files that cannot be used; they keep the volumes that they may belong to from being read.
    """

    series: tuple[Series, ...]
    ignored: Mapping[str, int]
    problems: tuple[SemiMedError, ...]


def is_dicom(path: str | Path) -> bool:
    """Whether this is a DICOM file, a zip archive by name and content, or a folder with a DICOM file at any depth."""
    path = Path(path)
    try:
        if path.is_dir():
            folders = os.walk(path)
            return any(_starts_as_dicom(Path(place) / name) for place, _, names in folders for name in sorted(names))
        return path.is_file() and (_starts_as_dicom(path) or is_zip(path))
    except OSError:
        return False


def find_series(path: str | Path) -> SeriesFound:
    """The volumes in a folder (at any depth), a zip archive, or a file.

    Args:
        path: folder, archive or file.

    Raises:
        InputError: if it cannot be opened at all.
    """
    path = Path(path)
    content, _ = ask_about(path, {"action": "find"})
    series = [
        Series(
            index=index,
            modality=one["modality"],
            slices=one["slices"],
            size=(one["size"][0], one["size"][1]),
            spacing=tuple(one["spacing"]) if one["spacing"] and one["spacing"][2] is not None else None,
            uid_hash=one["uid_hash"],
            study_hash=one["study_hash"],
            part=one["part"],
            problem=one["problem"],
        )
        for index, one in enumerate(content["series"], 1)
    ]
    problems = tuple(_placed(as_error(problem), path) for problem in content["problems"])
    return SeriesFound(tuple(series), dict(content["ignored"]), problems)


def read_dicom(
    path: str | Path | Sequence[str | Path],
    *,
    series: int | str | None = None,
    gaps: Literal["error", "resample"] = "error",
    tilt: Literal["resample", "error"] = "resample",
    burned_in: Literal["warn", "error"] = "warn",
) -> RawVolume:
    """One volume as stored values, with slope and intercept.

    Args:
        path: folder, zip archive, multi-frame file, or the files of one series.
        series: number in the list of `find_series`, or the beginning of a series' hash; None if there is only one.
        gaps: missing or unequally spaced slices are an error, or filled in by linear interpolation.
        tilt: a tilted gantry is resampled to right angles, or an error.
        burned_in: pixels that may show identity are named in a warning, or an error.

    Returns:
        (i, j, k): i along a row, j down a column, k upwards along their normal.

    Raises:
        InputError: code NO_IMAGES, SERIES, SLICE_GAP, DUPLICATE_SLICE, ORIENTATION, GANTRY_TILT, MIXED_SIZE,
            MIXED_SPACING, MIXED_SERIES, NO_GEOMETRY, SINGLE_SLICE, SCALING, DTYPE, NO_DECODER, TRUNCATED, CORRUPT,
            EMPTY_FILE, UNREADABLE, TOO_LARGE, ARCHIVE, PHI_PIXELS, DECODER_CRASH or TIMEOUT.
        ResourceError: code MEMORY.
    """
    choices = {"gaps": gaps, "tilt": tilt, "burned_in": burned_in}
    allowed = {"gaps": ("error", "resample"), "tilt": ("resample", "error"), "burned_in": ("warn", "error")}
    for name, value in choices.items():
        if value not in allowed[name]:
            raise InputError(f"{name} must be {' or '.join(allowed[name])}, not {value!r}", code="SETTING")
    files = Path(path) if isinstance(path, str | Path) else [Path(file) for file in path]
    content, array = ask_about(files, {"action": "read", "series": series, "choices": choices})
    assert array is not None
    affine = np.array(content["affine"], dtype=np.float64)
    return RawVolume(array.T, affine, content["slope"], content["inter"], tuple(content["warnings"]))


def read_series(path: str | Path, **choices: Any) -> Scan:
    """One volume as a scan in float32: `semi_med.inference.io.read_image`, with the choices of `read_dicom`."""
    from semi_med.inference.io import read_image

    return read_image(path, dicom=choices)


def file_name(path: str | Path, number: int) -> str:
    """The name of a file that an error calls `file 7 of 20`, relative to the folder or archive.

    It may hold a patient's name; show it to the person who asked, and write it nowhere.

    Args:
        path: as it was given to `find_series`.
        number: from 1.

    Raises:
        InputError: code NOT_FOUND.
    """
    names = open_files(Path(path)).names
    if not 1 <= number <= len(names):
        raise InputError(f"there are files 1 to {len(names)}, not {number}", where=path, code="NOT_FOUND")
    return names[number - 1]


def _starts_as_dicom(path: Path) -> bool:
    if not path.is_file():  # a pipe would block
        return False
    with path.open("rb") as stream:
        return looks_like_dicom(stream.read(HEAD))


def ask_about(
    files: Path | list[Path], request: dict[str, Any], *, timeout: float = TIMEOUT
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Has the child process do something with a series, and says in errors which folder it is about.

    Args:
        files: folder, archive or file, or the files of one series.
        request: for `dicom_worker`, without the files.
        timeout: seconds without a sign of life.
    """
    where = files if isinstance(files, Path) else files[0].parent if files else None
    if where is None:
        raise InputError("no file was named", fix="Name the files of a series.", code="NO_IMAGES")
    if isinstance(files, Path) and not files.is_dir():
        check_regular_file(files)
    given = str(files.absolute()) if isinstance(files, Path) else [str(file.absolute()) for file in files]
    try:
        with decoding(where):
            return ask({**request, "files": given}, timeout=timeout)
    except SemiMedError as error:
        raise _placed(error, where) from error.__cause__


def _placed(error: SemiMedError, where: Path) -> SemiMedError:
    """The same error, about this folder; which file it is can be asked for."""
    fix = error.fix or ""
    if error.problem.startswith("file ") or " at file " in error.problem:
        fix += " semi-med series FOLDER --file N shows the file's name."
    return type(error)(error.problem, where=error.where or where, fix=fix.strip() or None, code=error.code)
