"""What is wrong with a set of cases, all of it at once, before anything is computed on them.

Two kinds of fault are looked for: in files (missing, damaged, image and label on different grids, foreign label values)
and between sections (one case or subject in two of them). Every file is read once.

Faults are errors; oddities that may be meant, such as an empty label, are notes.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semi_med.data.case_files import CaseContent, Facts, Look
from semi_med.data.data_list import SECTIONS
from semi_med.data.leaks import shared_cases
from semi_med.data.members import Member
from semi_med.data.notes import all_notes, ignored_note, label_notes
from semi_med.data.read_cases import Job, read_cases
from semi_med.errors import InputError, ProblemsError, ResourceError, SemiMedError

TRAINING_SECTIONS = ("labeled", "unlabeled", "validation")

Sections = Mapping[str, Sequence[Mapping[str, Any]]]
Progress = Callable[[int, int], None]

_FEW = 8  # cases that are read sooner than a process starts


@dataclass(frozen=True)
class Options:
    """How a validation looks.

    Attributes:
        check: "full" reads every file; "structure" sees only that the files are there.
        channels: of an image in one file.
        workers: cases that are read at a time; each is held in memory.
        processes: read in processes of their own, unless there are only a few cases; else in threads.
        transductive: unlabeled cases may be those of the test; a note says so.
        allow_missing_class: a class that no labeled case shows is a note.
        subject_pattern: finds the subject in the path of an image.
        ignored: a value that labels may hold where nothing is known; None for none.
        flat: files of two axes, and frames (i, j, 1, k), are slices: for 2D networks.
        look: is shown each case's arrays; what it gives is in `CaseVerdict.kept`.
        most_looks: of more cases it is shown this many, evenly spread.
    """

    check: str = "full"
    channels: int = 1
    workers: int = 2
    processes: bool = False
    transductive: bool = False
    allow_missing_class: bool = False
    subject_pattern: re.Pattern[str] | None = None
    ignored: int | None = None
    flat: bool = False
    look: Look | None = None
    most_looks: int = 400


@dataclass(frozen=True)
class CaseVerdict:
    """What became of one case.

    Attributes:
        section: "" for a case of a folder.
        case: its name.
        images: files.
        label: file, if it has one that was opened.
        errors: of its files.
        warnings: of its files, each beginning with a code.
        facts: by file, of those that could be read.
        kept: what the look gave.
    """

    section: str
    case: str
    images: tuple[str, ...]
    label: str | None
    errors: tuple[SemiMedError, ...]
    warnings: tuple[str, ...]
    facts: Mapping[str, Facts]
    kept: Any = None

    @property
    def verdict(self) -> str:
        """`sound`, `odd` (readable, with warnings other than that a picture has no place in space) or `refused`."""
        odd = any("PICTURE: " not in warning for warning in self.warnings)
        return "refused" if self.errors else "odd" if odd else "sound"


@dataclass(frozen=True)
class Findings:
    """What a validation found.

    Attributes:
        problems: faults; nothing should be computed before they are mended.
        notes: oddities that may be meant.
        cases: number of cases whose files were read, by section.
        verdicts: of each case that was read.
    """

    problems: list[SemiMedError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cases: dict[str, int] = field(default_factory=dict)
    verdicts: list[CaseVerdict] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, 2 if the input is at fault, 3 if only the machine is."""
        return min((problem.exit_code for problem in self.problems), default=0)


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
    options: Options | None = None,
) -> Findings:
    """As `examine_sections`, but faults are raised.

    Raises:
        ProblemsError: listing every fault, under `title`.
    """
    findings = examine_sections(
        sections, labels=labels, sections_needed=sections_needed, progress=progress, workers=workers, options=options
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
    options: Options | None = None,
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
        workers: cases that are read at a time, in threads; each is held in memory.
        options: more choices; its `workers` then counts.

    Raises:
        InputError: if a section's name is unknown or an item names no image.
    """
    options = options or Options(workers=workers)
    needed = _check_names(sections, sections_needed)
    pattern = options.subject_pattern
    members = [Member.of(name, item, pattern=pattern) for name in SECTIONS for item in sections.get(name, ())]
    read = [member for member in members if member.section in needed]
    ignored = options.ignored
    allowed = (*labels, *(() if ignored is None else (ignored,)))
    contents = _read_all(read, allowed, progress=progress, options=options)
    shared, transductive = shared_cases(members, contents, transductive=options.transductive)
    absent = list(_missing_classes(read, contents, labels) if options.check == "full" else ())
    problems = [
        *_empty_sections(sections, needed),
        *_lacking_labels(read),
        *_file_problems(read, contents),
        *(() if options.allow_missing_class else absent),
        *shared,
        *_repeated_names(members),
    ]
    notes = [*transductive, *all_notes(read, contents, ignored), *ignored_note(read, contents, ignored)]
    notes += [f"{error.code}: {error.problem}" for error in absent if options.allow_missing_class]
    if "validation" in needed and not sections.get("validation"):
        notes.append("validation: no case, so that no checkpoint can be chosen; the last one is the result")
    counts = dict(Counter(member.section for member in read))
    return Findings(problems, notes, counts, _verdicts(read, contents, ignored))


def examine_cases(
    items: Sequence[Mapping[str, Any]], *, progress: Progress | None = None, options: Options | None = None
) -> Findings:
    """Examine cases that are in no section, as a folder holds them: their files, and that none is there twice.

    Args:
        items: `image`, `case`, and `label` where there is one.
        progress: called with (cases done, cases in all) after each case.
        options: choices; labels may hold any class indices.
    """
    options = options or Options()
    members = [Member.of("", item, pattern=options.subject_pattern) for item in items]
    contents = _read_all(members, None, progress=progress, options=options)
    shared, _ = shared_cases(members, contents)
    problems = [*_file_problems(members, contents), *shared]
    counts = {"scans": len(members)} if members else {}
    notes = [*all_notes(members, contents, options.ignored), *ignored_note(members, contents, options.ignored)]
    return Findings(problems, notes, counts, _verdicts(members, contents, options.ignored))


# ---- cases ---------------------------------------------------------------------------------------------------------


def _read_all(
    members: Sequence[Member], labels: tuple[int, ...] | None, *, progress: Progress | None, options: Options
) -> dict[tuple[str, ...], CaseContent]:
    """The content of every image, each file read once however many sections name it."""
    images: dict[tuple[str, ...], tuple[str, ...]] = {}
    label_files: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for member in members:
        images.setdefault(member.key, member.images)
        if member.label is not None:
            label_files[member.key][member.label] = None
    every = -(-len(images) // max(1, options.most_looks))
    jobs = [
        Job(
            files,
            tuple(label_files[key]),
            labels,
            channels=options.channels,
            flat=options.flat,
            look=options.look if number % max(1, every) == 0 else None,
            check=options.check,
        )
        for number, (key, files) in enumerate(images.items())
    ]
    processes = options.processes and len(jobs) > _FEW
    found = read_cases(jobs, workers=options.workers, processes=processes, progress=progress)
    return dict(zip(images, found, strict=True))


def _verdicts(
    members: Sequence[Member], contents: Mapping[tuple[str, ...], CaseContent], ignored: int | None
) -> list[CaseVerdict]:
    found = []
    for member in members:
        content = contents[member.key]
        files = [file for file in (*content.image_errors, member.label) if file is not None]
        errors = [error for errors in content.image_errors.values() for error in errors]
        errors += content.label_errors.get(member.label, []) if member.label else []
        warnings = dict.fromkeys(
            f"{Path(file).name}: {text}" for file in files for text in content.warnings.get(file, ())
        )
        facts = {file: content.facts[file] for file in files if file in content.facts}
        found.append(
            CaseVerdict(
                section=member.section,
                case=member.case,
                images=member.images,
                label=member.label,
                errors=tuple(errors),
                warnings=(*warnings, *label_notes(member, content, ignored)),
                facts=facts,
                kept=content.kept,
            )
        )
    return found


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


def _lacking_labels(members: Sequence[Member]) -> Iterator[SemiMedError]:
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
    members: Sequence[Member], contents: Mapping[tuple[str, ...], CaseContent]
) -> Iterator[SemiMedError]:
    """The files' faults, once a file; a section of which all images or all labels are missing gives one."""
    seen: set[tuple[str, str]] = set()
    for section in dict.fromkeys(member.section for member in members):
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


def _placed(error: SemiMedError, member: Member) -> SemiMedError:
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
    members: Sequence[Member], contents: Mapping[tuple[str, ...], CaseContent], labels: Sequence[int]
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


def _repeated_names(members: Sequence[Member]) -> Iterator[SemiMedError]:
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
