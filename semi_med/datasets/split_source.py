"""What `semi-med split` splits: a prepared folder, a data list, or any folder of images and labels."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from semi_med.data.data_list import Case, DataList, load_data_list
from semi_med.data.folders import find_cases
from semi_med.data.splits import SplitCase, foreground_strata
from semi_med.datasets.record import RECORD, about_of, prepared_cases, read_record
from semi_med.datasets.subjects import Known, read_subjects
from semi_med.errors import InputError
from semi_med.ignored import IGNORED
from semi_med.inference.io import read_label

STRATA = ("none", "group", "foreground")


@dataclass(frozen=True)
class SplitSource:
    """Cases to split, and what their data list says beside them.

    Attributes:
        folder: what the files of the cases are relative to.
        cases: all of them.
        header: keywords of `split_list`.
        notes: what the reader should know.
    """

    folder: Path
    cases: tuple[SplitCase, ...]
    header: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choices:
    """How subjects and strata are found.

    Attributes:
        subjects: a CSV with the columns case and subject, see `read_subjects`.
        pattern: a regular expression; what it finds in the name of a case (its first group) is the subject.
        stratify: "none", "group" (of the prepared folder or the CSV) or "foreground" (reads every label).
        labels: names of the classes from 1; needed for a folder only if the numbers are not to be their names.
    """

    subjects: Path | None = None
    pattern: str | None = None
    stratify: str = "none"
    labels: tuple[str, ...] = field(default=())


def read_source(
    source: str | Path,
    choices: Choices,
    *,
    dataset_dir: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SplitSource:
    """Find the cases of a source.

    Args:
        source: a folder of `semi-med prepare`, a folder with `images/` and `labels/` (or in any of the ways that
            `find_cases` knows), or a data list.
        choices: how subjects and strata are found.
        dataset_dir: of a data list the folder that its paths are relative to; needed only if labels are read.
        progress: called with (labels read, labels in all).

    Raises:
        InputError: if there is no case, or a choice cannot be followed.
    """
    source = Path(source)
    if choices.stratify not in STRATA:
        raise InputError(f"one of {', '.join(STRATA)} was wanted, got {choices.stratify!r}", code="SETTING")
    if source.is_file():
        found = _from_list(source, Path(dataset_dir) if dataset_dir else source.parent)
    elif (source / RECORD).is_file() and (source / "images").is_dir():
        found = _from_prepared(source)
    else:
        found = _from_folder(source, choices.labels, progress)
    return _with_strata(_with_subjects(found, choices), choices, progress)


def write_published(name: str, folder: str | Path) -> tuple[Path, ...]:
    """Write the published lists of a data set into `folder/<name>`, and name the files.

    Raises:
        InputError: code SETTING, if there is no such data set.
    """
    known = published()
    if name not in known:
        raise InputError(
            f"there are no published lists of {name!r}", fix=f"Choose one of {', '.join(known)}.", code="SETTING"
        )
    written: tuple[Path, ...] = known[name].write_lists(Path(folder) / name)
    return written


def published() -> dict[str, ModuleType]:
    """The data sets that have published lists, by name."""
    import semi_med.datasets as room

    names = sorted(found.name for found in pkgutil.iter_modules(room.__path__) if not found.name.endswith("_ids"))
    modules = {name: importlib.import_module(f"semi_med.datasets.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "write_lists")}


# ---- the three kinds -----------------------------------------------------------------------------------------------


def _from_prepared(folder: Path) -> SplitSource:
    record = read_record(folder)
    about, cases = about_of(record), prepared_cases(record)
    header = {
        "name": about.name,
        "labels": dict(about.labels),
        "ignored": about.ignored,
        "count_class_0": about.count_class_0,
        "modality": dict(about.modality),
        "reference": about.reference,
        "licence": about.licence,
    }
    found = [SplitCase(case.listed(unlabeled=case.label is None), stratum=case.group) for case in cases.values()]
    return SplitSource(folder, tuple(found), header, tuple(record.get("notes", ())))


def _from_list(path: Path, folder: Path) -> SplitSource:
    listed: DataList = load_data_list(path)
    header = {
        key: getattr(listed, key)
        for key in ("name", "labels", "file_values", "ignored", "count_class_0", "modality", "reference", "licence")
    }
    cases = [*listed.labeled, *listed.unlabeled, *listed.validation, *listed.test]
    return SplitSource(folder, tuple(SplitCase(case) for case in cases), header)


def _from_folder(folder: Path, names: Sequence[str], progress: Callable[[int, int], None] | None) -> SplitSource:
    found = find_cases(folder)
    cases = [_relative(item, folder) for item in found.items]
    labels = {"0": "background"} | {str(number): name for number, name in enumerate(names, 1)}
    if not names:
        highest = _highest(folder, [case for case in cases if case.label], progress)
        labels |= {str(number): f"class {number}" for number in range(1, highest + 1)}
    header = {"name": folder.resolve().name, "labels": labels}
    return SplitSource(folder, tuple(SplitCase(case) for case in cases), header, found.notes)


def _relative(item: Mapping[str, Any], folder: Path) -> Case:
    files = [item["image"]] if isinstance(item["image"], str) else list(item["image"])
    places = [Path(file).relative_to(folder).as_posix() for file in files]
    case = Case(
        image=places[0] if len(places) == 1 else places,
        label=Path(item["label"]).relative_to(folder).as_posix() if "label" in item else None,
        case=str(item["case"]).replace("/", "_"),
    )
    own_name = Case(image=case.image).name == case.case
    return case.model_copy(update={"case": None}) if own_name else case


def _highest(folder: Path, cases: Sequence[Case], progress: Callable[[int, int], None] | None) -> int:
    """The largest class in any label, at least 1."""
    highest = 1
    for number, case in enumerate(cases, 1):
        highest = max(highest, int(read_label(folder / str(case.label)).array.max()))
        if progress is not None:
            progress(number, len(cases))
    if highest >= IGNORED:
        unknown = f' and add `"ignored": {IGNORED}` to the list if nothing is known there' if highest == IGNORED else ""
        raise InputError(
            f"labels of up to {highest} are no class indices",
            where=folder,
            fix="Renumber them from 1 (`semi-med convert LABELS OUTPUT --label --map-labels "
            f"{highest}=1`), or name the classes{unknown}.",
            code="LABEL_VALUES",
        )
    return highest


# ---- subjects and strata -------------------------------------------------------------------------------------------


def _with_subjects(source: SplitSource, choices: Choices) -> SplitSource:
    table: Mapping[str, Known] = read_subjects(choices.subjects) if choices.subjects else {}
    pattern = _compiled(choices.pattern) if choices.pattern else None
    cases, notes, missed = [], list(source.notes), []
    for case in source.cases:
        name = case.case.name
        known = table.get(name)
        subject, group = case.case.subject, case.stratum
        if known is not None:
            subject, group = known.subject, known.group or group
        elif pattern is not None and (match := pattern.search(name)):
            subject = match[1] if pattern.groups else match[0]
        elif table or pattern is not None:
            missed.append(name)
        cases.append(SplitCase(case.case.model_copy(update={"subject": subject or name}), stratum=group))
    if missed:
        raise InputError(
            f"nothing says whom {len(missed)} cases show: {', '.join(missed[:5])}",
            where=choices.subjects or choices.pattern,
            fix="Add them to the table, or mend the pattern.",
            code="SUBJECT",
        )
    if len({case.subject for case in cases}) == len(cases):
        notes.append("Every case counts as a subject of its own: if several show one person, give --subjects.")
    return replace(source, cases=tuple(cases), notes=tuple(notes))


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"this is no regular expression ({error})", where=pattern, fix="For example 'patient\\d+'.", code="SETTING"
        ) from error


def _with_strata(source: SplitSource, choices: Choices, progress: Callable[[int, int], None] | None) -> SplitSource:
    if choices.stratify == "none":
        return replace(source, cases=tuple(SplitCase(case.case) for case in source.cases))
    if choices.stratify == "group":
        if all(case.stratum is None for case in source.cases):
            raise InputError(
                "no case has a group to stratify by",
                where=source.folder,
                fix="Give --subjects a CSV with a column group, or stratify by foreground.",
                code="SETTING",
            )
        return source
    has_ignored = source.header.get("ignored") == IGNORED
    shares: dict[str, list[float]] = {}
    labeled = [case for case in source.cases if case.label]
    for number, case in enumerate(labeled, 1):
        array = read_label(source.folder / str(case.label)).array
        foreground = np.count_nonzero(array) - np.count_nonzero(array == IGNORED) * has_ignored
        shares.setdefault(case.subject, []).append(foreground / array.size)
        if progress is not None:
            progress(number, len(labeled))
    strata = foreground_strata({subject: float(np.mean(each)) for subject, each in shares.items()})
    return replace(source, cases=tuple(SplitCase(case.case, stratum=strata.get(case.subject)) for case in source.cases))
