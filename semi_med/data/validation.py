"""What is wrong with a set of cases, all of it at once, before anything is computed on them.

Two kinds of fault are looked for: in files (missing, damaged, image and label on different grids, foreign label values)
and between sections (one case or subject in two of them). Every file is read once.

Faults are errors; oddities that may be meant, such as an empty label, are notes.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semi_med.data.case_files import CaseContent, read_case_files
from semi_med.data.data_list import SECTIONS
from semi_med.errors import InputError, ProblemsError, ResourceError, SemiMedError
from semi_med.inference.io import case_name

TRAINING_SECTIONS = ("labeled", "unlabeled", "validation")

Sections = Mapping[str, Sequence[Mapping[str, Any]]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Findings:
    """What a validation found.

    Attributes:
        problems: faults; nothing should be computed before they are mended.
        notes: oddities that may be meant.
        cases: number of cases whose files were read, by section.
    """

    problems: list[SemiMedError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cases: dict[str, int] = field(default_factory=dict)


def validate_sections(
    sections: Sections,
    *,
    labels: Sequence[int],
    sections_needed: Collection[str] | None = None,
    progress: Progress | None = None,
    workers: int = 2,
) -> list[SemiMedError]:
    """The faults that `examine_sections` finds; none means that the cases can be used."""
    return examine_sections(
        sections, labels=labels, sections_needed=sections_needed, progress=progress, workers=workers
    ).problems


def check_sections(
    sections: Sections,
    *,
    labels: Sequence[int],
    sections_needed: Collection[str] | None = None,
    progress: Progress | None = None,
    workers: int = 2,
    title: str = "data",
) -> Findings:
    """As `examine_sections`, but faults are raised.

    Raises:
        ProblemsError: listing every fault, under `title`.
    """
    findings = examine_sections(
        sections, labels=labels, sections_needed=sections_needed, progress=progress, workers=workers
    )
    if findings.problems:
        raise ProblemsError(findings.problems, title=title)
    return findings


def examine_sections(
    sections: Sections,
    *,
    labels: Sequence[int],
    sections_needed: Collection[str] | None = None,
    progress: Progress | None = None,
    workers: int = 2,
) -> Findings:
    """Examine cases: their files, and that no case or subject is in two sections.

    A `label` in the unlabeled section is never opened. A `monitor_label` there is checked like a label, since it is
    present only when it was asked for.

    Args:
        sections: from `DataList.sections`, or plain items of `image` and `label`; the case of a plain item is the
            name of its file, and its subject is its case.
        labels: the class indices that labels may hold.
        sections_needed: sections whose files are opened, of which `labeled` and `unlabeled` must not be empty; by
            default all. The others may lack their files: they are compared by path and subject only. A training
            needs `TRAINING_SECTIONS`, a purely supervised one neither the unlabeled cases nor the test.
        progress: called with (cases done, cases in all) after each case read.
        workers: threads that read and decompress; each holds one case in memory.

    Raises:
        InputError: if a section's name is unknown or an item names no image.
    """
    needed = _check_names(sections, sections_needed)
    members = [_Member.of(name, item) for name in SECTIONS for item in sections.get(name, ())]
    read = [member for member in members if member.section in needed]
    contents = _read_all(read, tuple(labels), progress=progress, workers=workers)
    problems = [
        *_empty_sections(sections, needed),
        *_lacking_labels(read),
        *_file_problems(read, contents),
        *_missing_classes(read, contents, labels),
        *_shared_cases(members, contents),
        *_repeated_names(members),
    ]
    notes = [note for member in read for note in _notes(member, contents[member.key])]
    if "validation" in needed and not sections.get("validation"):
        notes.append("validation: no case, so that no checkpoint can be chosen; the last one is the result")
    return Findings(problems, notes, dict(Counter(member.section for member in read)))


# ---- one case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Member:
    """A case in its section. Paths are as given; `key` identifies the image whatever links lead to it."""

    section: str
    case: str
    subject: str
    images: tuple[str, ...]
    label: str | None
    key: tuple[str, ...]

    @staticmethod
    def of(section: str, item: Mapping[str, Any]) -> _Member:
        image = item.get("image")
        if not image:
            raise InputError(f"an item has no image, but {sorted(item)}", where=section, code="MISSING_KEY")
        images = tuple(str(file) for file in (image if isinstance(image, list | tuple) else [image]))
        case = str(item.get("case") or case_name(images[0]))
        label = item.get("monitor_label" if section == "unlabeled" else "label")
        key = tuple(sorted(os.path.realpath(file) for file in images))
        subject = str(item.get("subject") or case)
        return _Member(section, case, subject, images, None if label is None else str(label), key)

    @property
    def place(self) -> str:
        return f"{self.section}, case {self.case}"


def _read_all(
    members: Sequence[_Member], labels: tuple[int, ...], *, progress: Progress | None, workers: int
) -> dict[tuple[str, ...], CaseContent]:
    """The content of every image, each file read once however many sections name it."""
    images: dict[tuple[str, ...], tuple[str, ...]] = {}
    label_files: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for member in members:
        images.setdefault(member.key, member.images)
        if member.label is not None:
            label_files[member.key][member.label] = None
    contents = {}
    pool = ThreadPoolExecutor(max_workers=max(1, workers))
    try:
        jobs = [pool.submit(read_case_files, files, tuple(label_files[key]), labels) for key, files in images.items()]
        for number, (key, job) in enumerate(zip(images, jobs, strict=True)):
            contents[key] = job.result()
            if progress is not None:
                progress(number + 1, len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)
    return contents


# ---- all cases -----------------------------------------------------------------------------------------------------


def _check_names(sections: Sections, needed: Collection[str] | None) -> tuple[str, ...]:
    unknown = [name for name in (*sections, *(needed or ())) if name not in SECTIONS]
    if unknown:
        raise InputError(
            f"the sections are {', '.join(SECTIONS)}, got {', '.join(unknown)}", where="sections", code="SECTIONS"
        )
    return tuple(name for name in SECTIONS if needed is None or name in needed)


def _empty_sections(sections: Sections, needed: Collection[str]) -> Iterator[SemiMedError]:
    fixes = {
        "labeled": "Name at least one case with its label; a handful is enough.",
        "unlabeled": "Name cases without labels, or train a supervised model, which needs none.",
    }
    for name, fix in fixes.items():
        if name in needed and not sections.get(name):
            yield InputError(f"there is no {name} case", where=name, fix=fix, code="NO_CASES")


def _lacking_labels(members: Sequence[_Member]) -> Iterator[SemiMedError]:
    """Cases of plain items that have no label although their section needs one; data lists refuse them earlier."""
    for member in members:
        if member.section != "unlabeled" and member.label is None:
            yield InputError(
                f"no label is given ({member.place})",
                where=member.images[0],
                fix="Name its label, or move the case to the unlabeled section.",
                code="LABEL_KEY",
            )


def _file_problems(
    members: Sequence[_Member], contents: Mapping[tuple[str, ...], CaseContent]
) -> Iterator[SemiMedError]:
    """The files' faults, once a file; a section of which all images or all labels are missing gives one."""
    seen: set[tuple[str, str]] = set()
    for section in SECTIONS:
        own = [member for member in members if member.section == section]
        images = [(m, error) for m in own for errors in contents[m.key].image_errors.values() for error in errors]
        labels = [(m, error) for m in own if m.label for error in contents[m.key].label_errors[m.label]]
        for kind, found in (("images", images), ("labels", labels)):
            missing = {member.case: error for member, error in found if error.code == "NOT_FOUND"}
            if len(own) > 3 and len(missing) == len(own):
                yield _all_missing(section, kind, list(missing.values()))
                found = [(member, error) for member, error in found if error.code != "NOT_FOUND"]
            for member, error in found:
                if (str(error.where), error.problem) not in seen:
                    seen.add((str(error.where), error.problem))
                    yield _placed(error, member)


def _all_missing(section: str, kind: str, errors: Sequence[SemiMedError]) -> InputError:
    folder = os.path.commonpath([str(Path(str(error.where)).parent) for error in errors])
    fix = "Check the data set's folder, or put the files there."
    if section == "test":
        fix += " A training does without the test section, a test does not."
    return InputError(
        f"none of the {len(errors)} {kind} of the section {section} is there (the first is {errors[0].where})",
        where=folder,
        fix=fix,
        code="NOT_FOUND",
    )


def _placed(error: SemiMedError, member: _Member) -> SemiMedError:
    """The same error with its section and case named."""
    kind = ResourceError if isinstance(error, ResourceError) else InputError
    fix = error.fix
    if error.code == "NOT_FOUND" and (similar := _similar_name(Path(str(error.where)))):
        fix = f"{similar} is there, which differs in case or in how Unicode is written: use its exact name."
    return kind(f"{error.problem} ({member.place})", where=error.where, fix=fix, code=error.code)


def _similar_name(path: Path) -> str | None:
    """ASCII spelling of a file beside a missing one whose name a person would read as the same."""
    if not path.parent.is_dir():
        return None
    wanted = unicodedata.normalize("NFC", path.name).casefold()
    for file in path.parent.iterdir():
        if file.name != path.name and unicodedata.normalize("NFC", file.name).casefold() == wanted:
            return ascii(file.name)
    return None


def _missing_classes(
    members: Sequence[_Member], contents: Mapping[tuple[str, ...], CaseContent], labels: Sequence[int]
) -> Iterator[SemiMedError]:
    """Classes that no labeled case shows; nothing is said while a label could not be read."""
    files = [(contents[m.key], m.label) for m in members if m.section == "labeled" and m.label is not None]
    if not files or any(file not in content.counts for content, file in files):
        return
    for value in labels:
        if not any(content.counts[file][value] for content, file in files):
            yield InputError(
                f"the label value {value} is in none of the {len(files)} labeled cases, so it cannot be learned",
                where="labeled",
                fix="Choose labeled cases that show it, or take the class out of the data list's `labels`.",
                code="MISSING_CLASS",
            )


_SAME_SUBJECT = "the same subject is in two sections"


def _shared_cases(
    members: Sequence[_Member], contents: Mapping[tuple[str, ...], CaseContent]
) -> Iterator[SemiMedError]:
    """One case in two sections or twice in one, by path, by content, by subject; each set of cases is named once."""

    def groups(key: Callable[[_Member], Any]) -> Iterator[tuple[_Member, ...]]:
        found: dict[Any, list[_Member]] = defaultdict(list)
        for member in members:
            if (value := key(member)) is not None:
                found[value].append(member)
        return (tuple(group) for group in found.values() if len(group) > 1)

    def digest(member: _Member) -> str | None:
        return contents[member.key].digest if member.key in contents else None

    told: dict[int, list[frozenset[int]]] = defaultdict(list)
    reasons: list[tuple[str, Callable[[_Member], Any], bool]] = [
        ("the same image file is listed twice", lambda m: m.key, True),
        ("the images hold the same voxels", digest, True),
        ("the same label file is used in two sections", lambda m: m.label and os.path.realpath(m.label), False),
        (_SAME_SUBJECT, lambda m: m.subject, False),
    ]
    for reason, key, within in reasons:
        for group in groups(key):
            ids = frozenset(id(member) for member in group)
            across = len({member.section for member in group}) > 1
            if (across or within) and not any(ids <= others for others in told[id(group[0])]):
                for member in group:
                    told[id(member)].append(ids)
                yield _shared(reason, group)


def _shared(reason: str, group: Sequence[_Member]) -> InputError:
    sections = list(dict.fromkeys(member.section for member in group))
    places = "; ".join(f"{member.place} ({member.images[0]})" for member in group[:6])
    more = f"; and {len(group) - 6} more" if len(group) > 6 else ""
    leaks = len(sections) > 1 and bool({"validation", "test"} & set(sections))
    fix = "Keep it in one section only." if len(sections) > 1 else "Keep one of the entries."
    if reason == _SAME_SUBJECT:
        fix = 'Keep a subject in one section only; if these are different people, give each its own "subject".'
    if leaks:
        fix = f"{fix} A figure measured on cases that were trained on, or chosen on, says nothing."
    code = "LEAKAGE" if leaks else "DUPLICATE"
    return InputError(f"{reason}: {places}{more}", where=" and ".join(sections), fix=fix, code=code)


def _repeated_names(members: Sequence[_Member]) -> Iterator[SemiMedError]:
    """Different cases of one section whose outputs would overwrite each other."""
    found: dict[tuple[str, str], dict[tuple[str, ...], str]] = defaultdict(dict)
    for member in members:
        found[member.section, member.case][member.key] = member.images[0]
    for (section, case), images in found.items():
        if len(images) > 1:
            yield InputError(
                f"{len(images)} cases are called {case}: {', '.join(list(images.values())[:6])}",
                where=section,
                fix='Give each its own "case"; outputs are named by it.',
                code="CASE_NAME",
            )


def _notes(member: _Member, content: CaseContent) -> Iterator[str]:
    for file, warnings in content.warnings.items():
        yield from (f"{member.place}: {Path(file).name}: {warning}" for warning in warnings)
    counts = content.counts.get(member.label) if member.label is not None else None
    if counts is not None and not any(number for value, number in counts.items() if value != 0):
        yield f"{member.place}: EMPTY_LABEL: no voxel of any class but the background"
