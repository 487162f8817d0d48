"""A folder of prepared cases: `images/`, `labels/` and `dataset.json`, the record of what each was made from.

A data set's module finds its cases (`SourceCase`), says how one is made (`MadeCase`), and leaves the rest to
`prepare_cases`: threads, checksums, writing, going on after an interruption, refusing what does not belong together.

A case is written whole or not at all, and the record after it, so that a preparation that was interrupted goes on where
it stopped. A folder that holds anything else is refused.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.data.data_list import DataList, data_list_text, save_data_list
from semi_med.datasets.checksums import digest, place
from semi_med.datasets.record import About, PreparedCase, entry_of, prepared_case, read_record, write_record
from semi_med.datasets.stored import JPEG, NIFTI, PNG, image_files
from semi_med.datasets.target import check_source, open_target, some
from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.files import write_atomically
from semi_med.inference.io import write_label
from semi_med.inference.label_png import label_png

_RECORD_EVERY = 2.0  # seconds; a case whose entry is lost is made again
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class PreparedDataset:
    """What a preparation left behind.

    Attributes:
        folder: the target, the `dataset_dir` of its data lists.
        cases: names of all cases there.
        written: those made by this call.
        kept: those that an earlier call had made from the same files.
        without_label: those that have no label.
        lists: data lists written.
        notes: what a reader of results should know.
        entries: each case's files, subject, group and published section, by name.
    """

    folder: Path
    cases: tuple[str, ...]
    written: tuple[str, ...]
    kept: tuple[str, ...]
    without_label: tuple[str, ...] = ()
    lists: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    entries: Mapping[str, PreparedCase] = field(default_factory=dict)

    def summary(self) -> str:
        """The outcome in a few lines."""
        lines = [f"{self.folder}: {len(self.cases)} cases ({len(self.written)} written, {len(self.kept)} were there)"]
        if self.without_label:
            lines.append(f"without a label: {len(self.without_label)} ({some(self.without_label)})")
        lines.append(f"data lists: {', '.join(path.name for path in self.lists) or 'none'}")
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True)
class SourceCase:
    """The files of one case as its data set provides them.

    Attributes:
        name: of the case and of the files made from it.
        image: a file, the folder of a DICOM series, or several of these, for example one for each channel.
        label: a file, or several, for example one for each structure; None if there is none.
        extra: further files that the case is made from, by a name of the data set's choice.
        subject: whom it shows; by default the case.
        group: centre, view, grade or the like, to stratify and to report by.
        split: the section or fold that the data set's own publication puts it into.
        details: further facts, JSON values; they go into the record.
    """

    name: str
    image: Path | tuple[Path, ...]
    label: Path | tuple[Path, ...] | None = None
    extra: Mapping[str, Path] = field(default_factory=dict)
    subject: str | None = None
    group: str | None = None
    split: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> tuple[Path, ...]:
        """The image's files."""
        return self.image if isinstance(self.image, tuple) else (self.image,)

    @property
    def labels(self) -> tuple[Path, ...]:
        """The label's files, none if there is no label."""
        return () if self.label is None else self.label if isinstance(self.label, tuple) else (self.label,)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files and folders of the case."""
        return (*self.images, *self.labels, *self.extra.values())


@dataclass(frozen=True)
class MadeCase:
    """One case ready to be written. Axes are (i, j[, k][, c]); of photographs i counts columns, j rows downwards.

    Attributes:
        image: with an affine (i, j), (i, j, k) or (i, j, k, c); without one (i, j) or (i, j, c). Or a complete .nii.gz
            file, or .png or .jpg, to be copied byte by byte. What is stored of which type: `stored.image_files`.
        label: (i, j[, k]) class indices on the image's grid, None if there is none.
        affine: 4x4, voxel to RAS mm; None if the source has no place in space: images are then stored as PNG.
        notes: what was odd.
        more_labels: other labels on the same grid, by name; each gets a folder `labels_<name>`.
        details: facts that were found while it was made, JSON values; they go into the record.
    """

    image: np.ndarray | Path
    label: np.ndarray | None
    affine: np.ndarray | None
    notes: tuple[str, ...] = ()
    more_labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


def prepare_cases(
    cases: Sequence[SourceCase],
    target: str | Path,
    *,
    source: str | Path,
    about: About,
    recipe: Mapping[str, Any],
    make: Callable[[SourceCase], MadeCase],
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Make all cases and write them to `target/images` and `target/labels` as `<name>.nii.gz`, or `.png` and `.jpg`.

    Args:
        cases: what there is.
        target: a folder that is missing, empty, or holds cases of an earlier call with the same recipe.
        source: the folder that the cases were found in; the record names their files relative to it.
        about: the data set.
        recipe: settings that the outcome depends on (protocol, source layout, spacing ...), JSON values; a folder made
            by another recipe is refused.
        make: from a case's files to its arrays; runs in threads.
        progress: called with (cases done, cases in all) after each case.
        workers: threads; each holds one case in memory.

    Returns:
        what was done; `lists` is empty.

    Raises:
        InputError: if there is no case, the target holds something else, or is the source.
        ProblemsError: listing every case that could not be made; the others are written.
    """
    source, target = Path(source), Path(target)
    _refuse_source(cases, source, target)
    record = open_target(target, about, recipe, [case.name for case in cases])
    job = _Job(source, target, make, _shared_digests(cases))
    kept, problems = _run(job, cases, record, progress=progress, workers=workers)
    if problems:
        raise ProblemsError(problems, title=f"preparing {len(cases)} cases")
    names = tuple(case.name for case in cases)
    entries = {name: prepared_case(name, record["cases"][name]) for name in names}
    return PreparedDataset(
        folder=target,
        cases=names,
        written=tuple(name for name in names if name not in kept),
        kept=tuple(name for name in names if name in kept),
        without_label=tuple(name for name in names if entries[name].label is None),
        notes=tuple(f"{name}: {note}" for name in names for note in entries[name].notes),
        entries=entries,
    )


def finish(
    done: PreparedDataset, lists: Mapping[str, DataList] | None = None, *, notes: Sequence[str] = ()
) -> PreparedDataset:
    """Put data lists and notes into a prepared folder. A list that a person edited is kept as it is, which is noted.

    Args:
        done: what `prepare_cases` gave.
        lists: by file name without suffix.
        notes: about the data set as a whole; they go before those about cases, and into the record.
    """
    written, remarks = [], list(notes)
    for name, data_list in (lists or {}).items():
        path = done.folder / f"{name}.json"
        if path.exists() and path.read_bytes() != data_list_text(data_list).encode():
            remarks.append(f"{path.name} was there, differs from the one that belongs here, and is kept as it is.")
        else:
            save_data_list(data_list, path)
            written.append(path)
    write_record(done.folder, {**read_record(done.folder), "notes": list(notes)}, order=done.cases)
    return replace(done, lists=(*done.lists, *written), notes=(*remarks, *done.notes))


# ---- one case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What making a case needs beside the case: `digests` are those of files that several cases share."""

    source: Path
    target: Path
    make: Callable[[SourceCase], MadeCase]
    digests: Mapping[Path, str]


def _run(
    job: _Job,
    cases: Sequence[SourceCase],
    record: dict[str, Any],
    *,
    progress: Callable[[int, int], None] | None,
    workers: int,
) -> tuple[set[str], list[SemiMedError]]:
    """Make the cases and enter them into the record: which were there, and what went wrong."""
    kept: set[str] = set()
    problems: list[SemiMedError] = []
    order, saved = [case.name for case in cases], time.monotonic()
    pool = ThreadPoolExecutor(max_workers=max(1, workers))
    try:
        jobs = [pool.submit(_prepare_case, case, record["cases"].get(case.name), job) for case in cases]
        for number, (case, future) in enumerate(zip(cases, jobs, strict=True)):
            try:
                record["cases"][case.name], was_there = future.result()
                kept |= {case.name} if was_there else set()
            except SemiMedError as error:
                problems.append(error)
            if time.monotonic() - saved > _RECORD_EVERY:
                write_record(job.target, record, order=order)
                saved = time.monotonic()
            if progress is not None:
                progress(number + 1, len(cases))
    finally:
        pool.shutdown(cancel_futures=True)
        write_record(job.target, record, order=order)
    return kept, problems


def _prepare_case(case: SourceCase, entry: Mapping[str, Any] | None, job: _Job) -> tuple[dict[str, Any], bool]:
    """The record of a case, and whether it was there already."""
    source = {place(path, job.source): job.digests.get(path) or digest(path) for path in case.files}
    if entry is not None:
        if sorted(entry["source"].values()) != sorted(source.values()):
            raise InputError(
                f"the case {case.name} was prepared from other files than these",
                where=job.target,
                fix="Choose an empty folder.",
                code="OTHER_SOURCE",
            )
        if all((job.target / file).is_file() for file in entry["written"]):
            _refuse_changed(entry["written"], job.target)
            return dict(entry), True
    made = job.make(case)
    _check_made(case, made)
    written = _write_image(case.name, made, job.target)
    labels = {"labels": made.label} if made.label is not None else {}
    labels |= {f"labels_{name}": label for name, label in made.more_labels.items()}
    label_files = {
        folder: _write_label(f"{folder}/{case.name}", label, made, job.target) for folder, label in labels.items()
    }
    prepared = PreparedCase(
        name=case.name,
        image=tuple(written),
        label=label_files.get("labels"),
        subject=case.subject or case.name,
        group=case.group,
        split=case.split,
        more_labels={name: label_files[f"labels_{name}"] for name in made.more_labels},
        details={**case.details, **made.details},
        notes=made.notes,
    )
    digests = {file: digest(job.target / file) for file in (*written, *label_files.values())}
    return entry_of(prepared, source=source, written=digests), False


def _check_made(case: SourceCase, made: MadeCase) -> None:
    """Labels lie on the image's grid: a data set's module that breaks this is at fault, not its user."""
    if isinstance(made.image, Path):
        return
    axes = 2 if made.affine is None else min(made.image.ndim, 3)
    for label in (*([made.label] if made.label is not None else ()), *made.more_labels.values()):
        if label.shape != made.image.shape[:axes]:
            raise ValueError(f"{case.name}: a label of {label.shape} for an image of {made.image.shape}")


def _write_image(name: str, made: MadeCase, target: Path) -> list[str]:
    if isinstance(made.image, Path):
        kind = JPEG if made.image.suffix.lower() == JPEG else PNG
        suffix = NIFTI if made.affine is not None else kind
        contents = {f"{name}{suffix}": made.image.read_bytes()}
    else:
        contents = image_files(name, made.image, affine=made.affine)
    for file, content in contents.items():
        write_atomically(target / "images" / file, content)
    return [f"images/{file}" for file in contents]


def _write_label(stem: str, label: np.ndarray, made: MadeCase, target: Path) -> str:
    file = f"{stem}{PNG if made.affine is None else NIFTI}"
    if made.affine is None:
        write_atomically(target / file, label_png(label, path=target / file))
    else:
        write_label(target / file, label[..., np.newaxis] if label.ndim == 2 else label, affine=made.affine)
    return file


def _refuse_changed(written: Mapping[str, str], target: Path) -> None:
    for file, wanted in written.items():
        if digest(target / file) != wanted:
            raise InputError(
                "this prepared file was changed afterwards and is not overwritten",
                where=target / file,
                fix="Move it away to have it made again, or choose an empty folder.",
                code="CHANGED",
            )


def _shared_digests(cases: Sequence[SourceCase]) -> dict[Path, str]:
    """Checksums of the files that several cases are made from, each read once."""
    uses = Counter(path for case in cases for path in set(case.files))
    return {path: digest(path) for path, count in uses.items() if count > 1}


def _refuse_source(cases: Sequence[SourceCase], source: Path, target: Path) -> None:
    check_source(source, target)
    if not cases:
        raise InputError("there is no case", where=source, fix="Check the path.", code="NO_CASES")
    twice = sorted(name for name, count in Counter(case.name.casefold() for case in cases).items() if count > 1)
    if twice:
        raise InputError(
            f"{len(twice)} cases are there twice: {some(twice)}", where=source, fix="Remove one.", code="DUPLICATE"
        )
    odd = [case.name for case in cases if not _NAME.fullmatch(case.name) or case.name.startswith(".")]
    if odd:
        raise InputError(f"these names cannot be file names: {some(odd)}", where=source, fix="Rename.", code="NAME")
