"""The child process in which DICOM files are parsed and decoded, under limits of memory.

DICOM parsers and decoders have had faults that a hostile file turns into a crash. Here a crash costs one series, not
the program. Requests come as lines of JSON on the standard input; answers are frames on the standard output, each a
letter, a length of 8 bytes and a payload: P (index of the file that is looked at next), R (JSON) and V (voxels).
No text of a file leaves this process.
"""

from __future__ import annotations

import json
import os
import select
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from semi_med.errors import InputError, ResourceError, SemiMedError

if TYPE_CHECKING:
    from semi_med.inference.dicom_series import Survey

IDLE_SECONDS = 60.0  # without a request, after which the process ends
FRAME = struct.Struct(">cQ")
_BASE_MEMORY = 2**30  # bytes of address space: libraries (0.2 GB), headers, one slice
_SEG_LIBRARIES = 2**29  # bytes of address space that writing segmentations takes beside
_MEMORY_FACTOR = 6  # of the volume: stored, real, resampled, and what a decoder needs


def serve() -> None:
    """Answers requests until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what decoders print must not get among the answers
    allow_memory()
    requests = os.fdopen(0, "rb", buffering=0)
    _prepare()
    while (line := _next_line(requests)) is not None:
        allow_memory()
        exhausted = _answer(json.loads(line), answers)
        answers.flush()
        if exhausted:  # a fresh process is surer than one that ran out of memory
            return


def allow_memory(volume: int = 0, unpacked: int = 0) -> None:
    """Sets the limit of this process.

    Args:
        volume: bytes of the volume that is to be read.
        unpacked: bytes of the largest file that has to be held in memory as a whole.
    """
    try:
        import resource
    except ImportError:  # not on Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = _BASE_MEMORY + _MEMORY_FACTOR * volume + 2 * unpacked
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _prepare() -> None:
    """Keeps pydicom quiet: its warnings quote what they warn about."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    try:
        import pydicom.config
    except ImportError:
        return
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


def _next_line(requests: BinaryIO) -> bytes | None:
    """A request, or None when there will be no more."""
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([requests], [], [], IDLE_SECONDS)[0]:
            return None
        chunk = requests.read(2**16)
        if not chunk:
            return None
        line += chunk
    return line


def _answer(request: dict[str, Any], answers: BinaryIO) -> bool:
    """Sends the frames for one request; tells whether memory ran out."""
    exhausted = False
    voxels = None
    try:
        result, voxels = _result(request, answers)
    except SemiMedError as error:
        result = error_content(error)
    except MemoryError:
        exhausted = True
        problem = "there is not enough memory for this series, or a file announces more than it holds"
        fix = "Crop it, free memory, or copy the files again."
        result = error_content(ResourceError(problem, fix=fix, code="MEMORY"))
    except (
        Exception
    ) as error:  # a bug of ours must not pass for a damaged file; the text of a file must not pass at all
        result = {"bug": type(error).__name__, "at": _where(error)}
    payload = json.dumps(result).encode()
    answers.write(FRAME.pack(b"R", len(payload)) + payload)
    if voxels is not None:
        answers.write(FRAME.pack(b"V", voxels.nbytes))
        answers.write(voxels)
    return exhausted


def error_content(error: SemiMedError) -> dict[str, Any]:
    """An error as JSON."""
    kind = "ResourceError" if isinstance(error, ResourceError) else "InputError"
    return {"error": kind, "problem": error.problem, "fix": error.fix, "code": error.code}


def _where(error: Exception) -> str:
    """File and line of our own code that raised, without any value."""
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "semi_med" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _result(request: dict[str, Any], answers: BinaryIO) -> tuple[dict[str, Any], Any]:
    try:
        import pydicom  # noqa: F401
    except ImportError:
        raise InputError(
            "DICOM needs pydicom, which is not installed", fix="pip install 'semi-med[dicom]'.", code="NO_DECODER"
        ) from None
    from semi_med.inference.dicom_files import DiskFiles, open_files
    from semi_med.inference.dicom_series import choose, survey
    from semi_med.inference.dicom_volume import Choices, ignored_warning, read_volume

    def progress(index: int) -> None:
        answers.write(FRAME.pack(b"P", 8) + struct.pack(">Q", index))
        answers.flush()

    given = request["files"]
    files = open_files([Path(name) for name in given] if isinstance(given, list) else Path(given))
    allow_memory(0, files.unpacked)
    found = survey(files, progress=progress)
    if request["action"] == "find":
        return _listing(found), None
    volume = choose(found, request["series"])
    if isinstance(given, str) and Path(given).is_file() and isinstance(files, DiskFiles) and len(volume.slices) == 1:
        raise InputError(
            "this file is one slice of a series", fix="Name the folder of the whole series.", code="SINGLE_SLICE"
        )
    choices = Choices(**request["choices"])
    if request["action"] == "segment":
        from semi_med.inference.dicom_seg_writer import write_segmentation

        allow_memory(2 * Path(request["label"]).stat().st_size, _SEG_LIBRARIES + files.unpacked)
        tilt = choices.tilt == "resample"
        write_segmentation(volume, files, request, fill_gaps=choices.gaps == "resample", allow_tilt=tilt)
        return {}, None
    voxels = read_volume(
        volume,
        files,
        choices,
        progress=progress,
        allow_memory=lambda size: allow_memory(size, files.unpacked),
    )
    content = {
        "shape": voxels.array.shape,
        "dtype": voxels.array.dtype.str,
        "slope": voxels.slope,
        "inter": voxels.inter,
        "affine": voxels.affine.tolist(),
        "warnings": [*voxels.warnings, *ignored_warning(found)],
    }
    return content, voxels.array


def _listing(found: Survey) -> dict[str, Any]:
    from semi_med.inference.dicom_series import geometry

    volumes = []
    for volume in found.volumes:
        header, plane = volume.slices[0].header, volume.slices[0].plane
        step, problem = geometry(volume)
        volumes.append(
            {
                "modality": header.modality,
                "slices": len(volume.slices),
                "size": (plane.columns, plane.rows),
                "spacing": (*plane.spacing[::-1], step) if plane.spacing else None,
                "uid_hash": header.series,
                "study_hash": header.study,
                "part": volume.part,
                "problem": problem,
            }
        )
    problems = [error_content(error) for _, error in found.problems]
    return {"series": volumes, "ignored": dict(found.ignored), "problems": problems}


if __name__ == "__main__":
    serve()
