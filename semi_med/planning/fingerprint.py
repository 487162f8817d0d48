"""What a person's data are like, in numbers: one pass over the files, a case at a time."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.data.members import subject_in
from semi_med.data.pairs import Pair, Pairs
from semi_med.data.validation import CaseVerdict, Findings, Options, examine_cases
from semi_med.errors import InputError, ProblemsError
from semi_med.ignored import IGNORED
from semi_med.inference.io import PICTURE_SUFFIXES, read_image, stored_shape
from semi_med.planning.look import CaseLook, look_at
from semi_med.planning.structures import Structure, find_structures, measured_on, unknown_share

_COLOURS_TRIED = 8
_MOST_CHANNELS = 8
_MANY_FOLDERS = 5
_SECTION = re.compile(r"train(ing)?|val(id|idation)?|test(ing)?|tr|ts|(un)?labell?ed", re.IGNORECASE)
_SITE = re.compile(
    r"(site|cent(re|er)|hospital|institut(e|ion)|clinic|scanner|vendor|cohort)[ _-]?([a-z]{0,12}|\d{1,3})",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"[ _.-]?[a-z]*[ _.-]?\d+$", re.IGNORECASE)  # the number of a slice at the end of a name
_MANY_PEOPLE = {True: 3, False: 6}  # that the names of one folder seem to show; pictures, volumes
_USUAL = ("PICTURE", "LABEL_NUMBERS", "GREY", "SQUEEZED", "LOSSY", "IGNORED")


@dataclass(frozen=True)
class Spread:
    """A number over cases: its 10th percentile, median and 90th percentile."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of any number of values, at least one."""
        low, median, high = np.percentile(np.asarray(values, float), (10, 50, 90))
        return Spread(float(low), float(median), float(high))


@dataclass(frozen=True)
class Intensities:
    """Of sampled voxels: percentiles, mean and standard deviation."""

    p00_5: float
    median: float
    p99_5: float
    mean: float
    sd: float

    @staticmethod
    def of(values: np.ndarray) -> Intensities | None:
        """Of pooled samples; None of nothing."""
        if not values.size:
            return None
        low, median, high = np.percentile(values, (0.5, 50, 99.5))
        mean, sd = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        return Intensities(float(low), float(median), float(high), mean, sd)


@dataclass(frozen=True)
class Fingerprint:
    """What the rules decide from.

    Attributes:
        cases, labeled: numbers of cases.
        subjects, labeled_subjects: numbers of people.
        subject_rule: how it is known who is shown, in words.
        pictures: whether the files are pictures, without a place in space.
        flat: whether they are NIfTI, NRRD or MetaImage files of two axes.
        oriented: whether files say where right and left are.
        channels: names of the channels.
        files: files of a case's image: one for all channels, or one for each.
        colour: whether the channels are the colours of a picture.
        size: voxels along right, anterior, superior.
        spacing: mm along the same.
        intensities: of all voxels of the first channel.
        foreground: of the voxels inside structures.
        ct: whether intensities look like Hounsfield units.
        zeros: share of voxels that are exactly 0, the median.
        background: the label value of the background.
        ignored: the label value where nothing is known; None if there is none.
        unknown: share of the voxels of the labels that have it.
        classes: structures in the order of their values.
        notes: what is odd.
        shown: by labelled case, the values that its label has; not in `as_json`.
        verdicts: what was found of each case; not in `as_json`.
    """

    cases: int
    labeled: int
    subjects: int
    labeled_subjects: int
    subject_rule: str
    pictures: bool
    oriented: bool
    channels: tuple[str, ...]
    files: int
    colour: bool
    size: tuple[Spread, Spread, Spread]
    spacing: tuple[Spread, Spread, Spread]
    intensities: Intensities
    foreground: Intensities | None
    ct: bool
    zeros: float
    background: int
    classes: tuple[Structure, ...]
    ignored: int | None = None
    unknown: float = 0.0
    flat: bool = False
    notes: tuple[str, ...] = field(default_factory=tuple)
    shown: Mapping[str, frozenset[int]] = field(default_factory=dict)
    verdicts: tuple[CaseVerdict, ...] = ()

    @property
    def median_size(self) -> tuple[int, int, int]:
        """Voxels of the median case."""
        i, j, k = (round(axis.median) for axis in self.size)
        return i, j, k

    @property
    def median_spacing(self) -> tuple[float, float, float]:
        """Mm of the median case."""
        i, j, k = (axis.median for axis in self.spacing)
        return i, j, k

    @property
    def label_values(self) -> list[int]:
        """The number in the files of class 0, 1, ..."""
        return [self.background, *(structure.value for structure in self.classes)]

    def as_json(self) -> dict[str, Any]:
        """For `plan.json`."""
        content = asdict(replace(self, shown={}, verdicts=()))
        del content["shown"], content["verdicts"]
        return content

    def taught_by(self, cases: Container[str]) -> Fingerprint:
        """With what is known of the structures from the labels of these cases alone.

        Choices rest on the labels that train, not on those of validation and test or on hidden ones.
        """
        verdicts = [verdict for verdict in self.verdicts if verdict.label and verdict.case in cases]
        return replace(
            self,
            labeled=len(verdicts),
            classes=measured_on(verdicts, self.classes, ignored=self.ignored),
            foreground=_pooled([verdict.kept.foreground for verdict in verdicts if verdict.kept is not None]),
        )


def take_fingerprint(
    pairs: Pairs,
    *,
    subject_pattern: re.Pattern[str] | None = None,
    class_names: Sequence[str] = (),
    modality: str | None = None,
    ignored: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Fingerprint, dict[str, str]]:
    """Read every case once; and the subject of each case.

    Args:
        pairs: the cases.
        subject_pattern: finds the subject in the path of an image.
        class_names: of the structures, in the order of their values.
        modality: "CT" and "MR" decide what intensities are taken for; None looks at them.
        ignored: what labels hold where nothing is known; None if they do not.
        progress: called with (cases done, cases in all).

    Raises:
        ProblemsError: every fault of the files: damaged ones, labels on another grid, the same scan twice.
        InputError: there is no label, or the labels hold no class, or nothing that is to be ignored.
    """
    if not any(case.label for case in pairs.cases):
        raise InputError(
            f"none of the {len(pairs.cases)} scans has a label, and nothing can be learned without one",
            where=pairs.root,
            fix="Label a handful of scans and name their folder with --labels; a label is named like its image.",
            code="NO_LABELS",
        )
    channels = len(pairs.channels) if len(pairs.channels) > 1 else channels_of(pairs.cases)
    flat = are_flat(pairs.cases)
    items = [_item(case) for case in pairs.cases]
    look = partial(look_at, ignored=ignored)
    options = Options(
        channels=channels,
        look=look,
        most_looks=len(items),
        subject_pattern=subject_pattern,
        ignored=ignored,
        flat=flat,
    )
    findings = examine_cases(items, progress=progress, options=options)
    if problems := [*findings.problems, *_in_colour(findings, channels)]:
        raise ProblemsError(problems, title="the data cannot be used as they are")
    subjects, rule = subjects_of(pairs, pattern=subject_pattern)
    crowded = crowded_folders(pairs, subjects) if subject_pattern is None else ()
    looks = [verdict.kept for verdict in findings.verdicts if verdict.kept is not None]
    pictures = all(str(case.images[0]).lower().endswith(PICTURE_SUFFIXES) for case in pairs.cases)
    unknown = 0.0 if ignored is None else unknown_share(findings.verdicts, ignored)
    background, classes = find_structures(findings.verdicts, class_names, pictures=pictures, ignored=ignored)
    with_label = {subjects[case.case] for case in pairs.cases if case.label}
    colour = pictures and channels == 3 and len(pairs.channels) == 1
    notes = [note for note in findings.notes if not any(f"{word}:" in note for word in _USUAL)]
    made = Fingerprint(
        cases=len(pairs.cases),
        labeled=sum(case.label is not None for case in pairs.cases),
        subjects=len(set(subjects.values())),
        labeled_subjects=len(with_label),
        subject_rule=rule,
        pictures=pictures,
        oriented=not pictures and any(facts.orientation for v in findings.verdicts for facts in v.facts.values()),
        channels=("red", "green", "blue") if colour else _channel_names(pairs.channels, channels),
        files=len(pairs.channels),
        colour=colour,
        size=_spreads([look.shape for look in looks]),
        spacing=_spreads([look.spacing for look in looks]),
        intensities=_pooled([look.voxels for look in looks]) or Intensities(0, 0, 0, 0, 0),
        foreground=_pooled([look.foreground for look in looks]),
        ct=modality.upper() == "CT" if modality else not pictures and channels == 1 and _looks_like_ct(looks),
        zeros=float(np.median([look.zeros for look in looks])),
        background=background,
        classes=classes,
        ignored=ignored,
        unknown=unknown,
        flat=flat,
        notes=(*crowded, *pairs.notes, *notes, *_may_be_unknown(classes, ignored)),
        shown=dict(_shown(findings, ignored)),
        verdicts=tuple(findings.verdicts),
    )
    return made, subjects


def channels_of(cases: Sequence[Pair]) -> int:
    """Channels of an image in one file: 3 if any of a few pictures is in colour, the fourth axis of a volume."""
    step = -(-len(cases) // _COLOURS_TRIED)
    for case in cases[::step]:
        path = case.images[0]
        if str(path).lower().endswith(PICTURE_SUFFIXES):
            array = read_image(path, channels=3).array
            if array.ndim == 4 and np.ptp(array, axis=3).any():
                return 3
            continue
        further = [size for size in _shape_of(path)[3:] if size != 1]
        if len(further) == 1 and further[0] <= _MOST_CHANNELS:
            return further[0]
    return 1


def are_flat(cases: Sequence[Pair]) -> bool:
    """Whether all files are volumes' formats with two axes: pictures with a place in space."""
    return all(len(_shape_of(path)) == 2 for case in cases for path in case.images)


def _shape_of(path: Path) -> tuple[int, ...]:
    """As stored; nothing for other formats, and where the reader that follows says what is wrong."""
    try:
        return stored_shape(path) or ()
    except InputError:
        return ()


def _may_be_unknown(classes: Sequence[Structure], ignored: int | None) -> Iterator[str]:
    """A 255 far above the other numbers, which often says that nothing is known there."""
    if ignored is None and len(classes) > 1 and classes[-1].value == IGNORED > 2 * classes[-2].value:
        yield f"{IGNORED} is taken for a class; if it says that nothing is known there, say --ignored {IGNORED}"


def _shown(findings: Findings, ignored: int | None) -> Iterator[tuple[str, frozenset[int]]]:
    for verdict in findings.verdicts:
        facts = verdict.facts.get(verdict.label or "")
        if facts is not None and facts.values is not None:
            yield verdict.case, frozenset(value for value, number in facts.values.items() if number) - {ignored}


def _in_colour(findings: Findings, channels: int) -> Iterator[InputError]:
    """Pictures in colour among grey ones, which none of the few that `channels_of` looked at showed."""
    for verdict in findings.verdicts if channels == 1 else ():
        for file in verdict.images:
            if file in verdict.facts and len(verdict.facts[file].shape) == 4:
                yield InputError(
                    "this picture is in colour, most others are grey",
                    where=file,
                    fix="Save all of them in grey, or all in colour.",
                    code="CHANNELS",
                )


def subjects_of(pairs: Pairs, *, pattern: re.Pattern[str] | None) -> tuple[dict[str, str], str]:
    """Whom each case shows, and how that is known, in words.

    By the pattern if there is one; by `sub-...` in the names; by the first folder of their own where folders hold
    several cases each and are numbered, or are many; else each case is a person of its own. Folders of sections
    (`train`) and of places (`site1`) show no person.

    Raises:
        InputError: code SETTING, the pattern is found in no path.
    """
    names = {case.case: case.case for case in pairs.cases}
    if pattern is not None:
        found = {case.case: pattern.search(case.images[0].as_posix()) for case in pairs.cases}
        if not any(found.values()):
            raise InputError(
                f"the pattern {pattern.pattern!r} is found in none of the paths, for example "
                f"{pairs.cases[0].images[0].name}",
                where="--subject-pattern",
                fix="It is a regular expression; its first group, or else all of it, is the subject.",
                code="SETTING",
            )
        groups = {case: match[1] if match and pattern.groups else match and match[0] for case, match in found.items()}
        return {case: group or case for case, group in groups.items()}, f"what '{pattern.pattern}' finds in the path"
    bids = {case.case: subject_in(case.case) for case in pairs.cases}
    if all(bids.values()):
        return {case: str(subject) for case, subject in bids.items()}, "sub-... in the name"
    folders = _own_folders(pairs)
    if max(Counter(folders.values()).values(), default=0) > 1:
        labeled = {folders[case.case] for case in pairs.cases if case.label and case.case in folders}
        # people have numbers; a few folders without are kinds, such as benign and malignant
        if len(labeled) >= _MANY_FOLDERS or all(re.search(r"\d", folder) for folder in folders.values()):
            return names | folders, "the folder that a case lies in"
        return names, _not_the_folders(folders.values())
    if sites := {case.folder.split("/")[0] for case in pairs.cases if _SITE.fullmatch(case.folder.split("/")[0])}:
        return names, _not_the_folders(sites)
    return names, "each case counts as a subject of its own (--subject-pattern says otherwise)"


def _not_the_folders(folders: Iterable[str]) -> str:
    named = ", ".join(sorted(set(folders))[:_MANY_FOLDERS])
    return (
        f"each case counts as a subject of its own, not the folders {named}: if these are people, say "
        "--subject-pattern '([^/]+)/[^/]+$'"
    )


def crowded_folders(pairs: Pairs, subjects: Mapping[str, str]) -> Iterator[str]:
    """A note where the cases of one subject, which a folder told, have names as if they showed many people.

    A volume counts as a person; slices do if their names differ in more than a number at the end.
    """
    people: dict[str, set[str]] = defaultdict(set)
    for case in pairs.cases:
        if subjects[case.case] in case.folder.split("/"):
            picture = str(case.images[0]).lower().endswith(PICTURE_SUFFIXES)
            people[subjects[case.case]].add(_COUNTED.sub("", case.case) if picture else case.case)
    pictures = all(str(case.images[0]).lower().endswith(PICTURE_SUFFIXES) for case in pairs.cases)
    crowded = [subject for subject, names in people.items() if len(names) >= _MANY_PEOPLE[pictures]]
    if crowded:
        most = max(crowded, key=lambda subject: len(people[subject]))
        some = ", ".join(sorted(people[most])[:3])
        yield (
            f"SUBJECTS: LOOK AT THIS. {len(crowded)} of {len(set(subjects.values()))} folders that count as one "
            f"subject each seem to show many: {most} has {some}, ... ({len(people[most])}). If these are different "
            "people, say --subject-pattern REGEX, whose brackets hold what tells a person in the path of a scan; "
            "'([^/]+)$' takes each file for one"
        )


def _own_folders(pairs: Pairs) -> dict[str, str]:
    """By case, the first of its folders that others do not share and that is no section or place; none if there is
    only one."""
    places = {
        case.case: [p for p in case.folder.split("/") if p and not _SECTION.fullmatch(p) and not _SITE.fullmatch(p)]
        for case in pairs.cases
    }
    while all(places.values()) and len({parts[0] for parts in places.values()}) == 1:
        places = {case: parts[1:] for case, parts in places.items()}
    return {case: parts[0] for case, parts in places.items() if parts}


def _item(case: Pair) -> dict[str, Any]:
    files = [str(path) for path in case.images]
    item: dict[str, Any] = {"image": files[0] if len(files) == 1 else files, "case": case.case}
    return {**item, "label": str(case.label)} if case.label else item


def _channel_names(endings: Sequence[str], count: int) -> tuple[str, ...]:
    if len(endings) > 1 and not all(ending.isdigit() for ending in endings):
        return tuple(ending.upper() for ending in endings)
    return tuple(f"channel {number}" for number in range(count)) if count > 1 else ("image",)


def _spreads(rows: Sequence[Sequence[float]]) -> tuple[Spread, Spread, Spread]:
    i, j, k = (Spread.of([row[axis] for row in rows]) for axis in range(3))
    return i, j, k


def _pooled(samples: Sequence[np.ndarray]) -> Intensities | None:
    return Intensities.of(np.concatenate(samples)) if samples else None


def _looks_like_ct(looks: Sequence[CaseLook]) -> bool:
    """Air near -1000 and bone or contrast above 200, in whole numbers, in nine cases of ten."""
    fits = [
        look.whole and -3100 <= look.voxels.min() <= -500 and np.percentile(look.voxels, 99.9) >= 100 for look in looks
    ]
    return bool(np.mean(fits) >= 0.9)


def relative(path: Path, root: Path) -> str:
    """A path as a data list has it."""
    return path.relative_to(root).as_posix()
