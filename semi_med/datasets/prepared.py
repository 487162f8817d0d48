"""A folder of prepared cases: `images/`, `labels/` and a record of what each was made from.

A case is written whole or not at all, and the record after it, so that a preparation that was interrupted goes on where
it stopped. A folder that holds anything else is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.files import TEMPORARY_NAMES, write_atomically
from semi_med.inference.byte_check import check_regular_file
from semi_med.inference.io import write_label

RECORD = "prepared.json"
_IDLE = (".DS_Store", "Thumbs.db")


@dataclass(frozen=True)
class PreparedDataset:
    """What a preparation left behind.

    Attributes:
        folder: the target, the `dataset_dir` of its data lists.
        cases: names of all cases there.
        written: those made by this call.
        kept: those that an earlier call had made from the same files.
        without_label: those for which the source has no label.
        lists: data lists written.
        notes: what a reader of results should know.
    """

    folder: Path
    cases: tuple[str, ...]
    written: tuple[str, ...]
    kept: tuple[str, ...]
    without_label: tuple[str, ...] = ()
    lists: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """The outcome in a few lines."""
        lines = [f"{self.folder}: {len(self.cases)} cases ({len(self.written)} written, {len(self.kept)} were there)"]
        if self.without_label:
            lines.append(f"without a label: {len(self.without_label)} ({_some(self.without_label)})")
        lines.append(f"data lists: {', '.join(path.name for path in self.lists) or 'none'}")
        return "\n".join([*lines, *self.notes])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


@dataclass(frozen=True)
class SourceCase:
    """The files of one case as its data set provides them."""

    name: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class MadeCase:
    """One case ready to be written.

    Attributes:
        image: (i, j, k) float32, or a complete .nii.gz file to be copied byte by byte.
        label: (i, j, k) class indices, None if there is none.
        affine: 4x4, voxel to RAS mm.
        notes: what was odd.
    """

    image: np.ndarray | Path
    label: np.ndarray | None
    affine: np.ndarray
    notes: tuple[str, ...] = ()


def prepare_cases(
    cases: Sequence[SourceCase],
    target: str | Path,
    *,
    recipe: Mapping[str, Any],
    make: Callable[[SourceCase], MadeCase],
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Make all cases and write them to `target/images` and `target/labels` as `<name>.nii.gz`.

    Args:
        cases: what there is.
        target: a folder that is missing, empty, or holds cases of an earlier call with the same recipe.
        recipe: data set and settings, JSON values; a folder made by another recipe is refused.
        make: from a case's files to its arrays; runs in threads.
        progress: called with (cases done, cases in all) after each case.
        workers: threads; each holds one case in memory.

    Returns:
        what was done; `lists` is empty.

    Raises:
        InputError: if the target holds something else.
        ProblemsError: listing every case that could not be made; the others are written.
    """
    target = Path(target)
    record = _open_target(target, recipe, [case.name for case in cases])
    kept: list[str] = []
    notes: list[str] = []
    problems: list[SemiMedError] = []
    pool = ThreadPoolExecutor(max_workers=max(1, workers))
    try:
        jobs = [pool.submit(_prepare_case, case, target, record["cases"].get(case.name), make) for case in cases]
        for number, (case, job) in enumerate(zip(cases, jobs, strict=True)):
            try:
                entry, was_there = job.result()
                record["cases"][case.name] = entry
                notes.extend(f"{case.name}: {note}" for note in entry["notes"])
                if was_there:
                    kept.append(case.name)
                else:
                    _write_record(target, record)
            except SemiMedError as error:
                problems.append(error)
            if progress is not None:
                progress(number + 1, len(cases))
    finally:
        pool.shutdown(cancel_futures=True)
    if problems:
        raise ProblemsError(problems, title=f"preparing {len(cases)} cases")
    names = tuple(case.name for case in cases)
    return PreparedDataset(
        folder=target,
        cases=names,
        written=tuple(name for name in names if name not in set(kept)),
        kept=tuple(kept),
        without_label=tuple(case.name for case in cases if case.label is None),
        notes=tuple(notes),
    )


def _prepare_case(
    case: SourceCase, target: Path, entry: Mapping[str, Any] | None, make: Callable[[SourceCase], MadeCase]
) -> tuple[dict[str, Any], bool]:
    """The record of a case, and whether it was there already."""
    source = {"image": _digest(case.image), "label": _digest(case.label) if case.label else None}
    outputs = {"image": target / "images" / f"{case.name}.nii.gz", "label": target / "labels" / f"{case.name}.nii.gz"}
    if entry:
        if entry["source"] != source:
            raise InputError(
                f"the case {case.name} was prepared from other files than these",
                where=target,
                fix="Choose an empty folder.",
                code="OTHER_SOURCE",
            )
        if all(path.is_file() for key, path in outputs.items() if source[key]):
            _refuse_changed(entry, outputs)
            return dict(entry), True
    made = make(case)
    if made.label is not None:
        write_label(outputs["label"], made.label, affine=made.affine)
    if isinstance(made.image, Path):
        write_atomically(outputs["image"], made.image.read_bytes())
    else:
        write_atomically(outputs["image"], _nifti_bytes(made.image, made.affine))
    written = {key: _digest(path) for key, path in outputs.items() if source[key]}
    return {"source": source, "written": written, "notes": list(made.notes)}, False


def _refuse_changed(entry: Mapping[str, Any], outputs: Mapping[str, Path]) -> None:
    for key, digest in entry["written"].items():
        if _digest(outputs[key]) != digest:
            raise InputError(
                "this prepared file was changed afterwards and is not overwritten",
                where=outputs[key],
                fix="Move it away to have it made again, or choose an empty folder.",
                code="CHANGED",
            )


def _nifti_bytes(image: np.ndarray, affine: np.ndarray) -> bytes:
    """A .nii.gz file of a float32 volume; the same volume gives the same bytes."""
    import nibabel

    nifti = nibabel.Nifti1Image(np.asarray(image, dtype=np.float32), affine)
    nifti.set_sform(affine, code=1)
    nifti.set_qform(affine, code=1)
    nifti.header.set_xyzt_units("mm")
    return gzip.compress(nifti.to_bytes(), 2, mtime=0)


def _digest(path: Path) -> str:
    check_regular_file(path)
    state = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(2**20):
                state.update(chunk)
    except OSError as error:
        raise InputError(
            f"reading failed ({error.strerror})", where=path, fix="Check the file and its permissions."
        ) from error
    return state.hexdigest()


# ---- the target ----------------------------------------------------------------------------------------------------


def _open_target(target: Path, recipe: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The record of a target that is ready to be written to."""
    if target.exists() and not target.is_dir():
        raise InputError("a folder was wanted, this is a file", where=target, fix="Choose another.", code="TARGET")
    path = target / RECORD
    record: dict[str, Any] = {"recipe": dict(recipe), "cases": {}}
    if path.is_file():
        record = _read_record(path)
        _refuse_other(target, record, recipe, names)
    elif target.exists() and (others := [p.name for p in sorted(target.iterdir()) if p.name not in _IDLE]):
        raise InputError(
            f"the folder is not empty and holds no {RECORD}, but {', '.join(others[:5])}",
            where=target,
            fix="Choose an empty folder.",
            code="TARGET",
        )
    for folder in ("images", "labels"):
        try:
            (target / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the folder cannot be made ({error.strerror})",
                where=target / folder,
                fix="Choose another.",
                code="TARGET",
            ) from error
        for left in (target / folder).glob(TEMPORARY_NAMES):  # of a call that was killed while it wrote
            left.unlink()
    # planned cases are entered first: a file whose entry was not written yet is then known as this call's own
    record["cases"] = {**dict.fromkeys(names), **record["cases"]}
    _write_record(target, record)
    return record


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        entries = [entry for entry in record["cases"].values() if entry is not None]
        if isinstance(record["recipe"], dict) and all({"source", "written", "notes"} <= set(e) for e in entries):
            return record
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError("this record cannot be read", where=path, fix="Choose an empty folder.", code="TARGET")


def _refuse_other(target: Path, record: Mapping[str, Any], recipe: Mapping[str, Any], names: Sequence[str]) -> None:
    if record["recipe"] != recipe:
        raise InputError(
            f"the folder was prepared by another recipe ({record['recipe']}, wanted {dict(recipe)})",
            where=target,
            fix="Choose an empty folder.",
            code="TARGET",
        )
    others = sorted(name for name, entry in record["cases"].items() if entry and name not in names)
    known = {f"{name}.nii.gz" for name in {*record["cases"], *names}}
    for folder in ("images", "labels"):
        files = (target / folder).iterdir() if (target / folder).is_dir() else ()
        others += sorted(p.name for p in files if p.name not in known and not p.name.startswith("."))
    if others:
        raise InputError(
            f"the folder holds {len(others)} cases that the source does not have: {', '.join(others[:5])}",
            where=target,
            fix="Choose an empty folder, or the source that it was prepared from.",
            code="TARGET",
        )


def _write_record(target: Path, record: Mapping[str, Any]) -> None:
    write_atomically(target / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
