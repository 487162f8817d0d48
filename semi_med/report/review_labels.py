"""What belongs to predictions and lies elsewhere: the experts' labels, and how well the predictions agree with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.inference.io import READ_SUFFIXES, case_name
from semi_med.metrics.case import Row
from semi_med.metrics.evaluate import undefined_row
from semi_med.metrics.files import read_table
from semi_med.metrics.pair import measure_pair, read_classes, values_in
from semi_med.metrics.pairing import case_of
from semi_med.report.review_view import ReviewCase

_ANY_SUFFIX = ".nii.gz"  # of a name that is compared as if it were a file's


@dataclass(frozen=True)
class Beside:
    """What belongs to the predictions and is not in their folder.

    Attributes:
        images: the scans, files or folders as for `predict`; or each case's file.
        labels: the experts' labels, a folder or a file.
        label_files: the label of each case; None to look through `labels`.
        classes: number in the masks to name; None where nobody says.
        ignored: value of labels where nothing is known.
        table: the CSV of an earlier `evaluate`, instead of measuring again.
    """

    images: Sequence[Path] | Mapping[str, Path] = ()
    labels: Path | None = None
    label_files: Mapping[str, Path] | None = None
    classes: Mapping[int, str] | None = None
    ignored: int | None = None
    table: Path | None = None


def with_labels(
    cases: Sequence[ReviewCase], names: Sequence[str], beside: Beside, *, say: Callable[[str], None]
) -> tuple[list[ReviewCase], list[Row], dict[int, str], list[str]]:
    """Find the labels of the cases, and measure.

    Args:
        cases: as recorded.
        names: of the structures, in the order of their classes; empty if they are not known.
        beside: where labels and the table are.
        say: told what was measured, a line at a time.

    Returns:
        The cases with their labels, rows of metrics, class number to name, and notes.

    Raises:
        InputError: no label belongs to a case, or the table holds none of the cases.
        ProblemsError: not one pair of prediction and label could be measured.
    """
    found, notes = list(cases), []
    labels = {} if beside.labels is None else _labels(Path(beside.labels), beside.label_files)
    named = {case.name: case_of(Path(f"{case.name}{_ANY_SUFFIX}"), labels) for case in cases}
    if labels:
        found = [replace(case, label=labels.get(named[case.name])) for case in cases]
        left_out = len(labels.keys() - set(named.values()))
        if left_out == len(labels):
            raise InputError(
                f"none of the {len(labels)} labels belongs to one of the {len(cases)} predictions (for example "
                f"{min(labels)!r} and {min(named, default='')!r})",
                where=beside.labels,
                fix="Name labels like the scans that were predicted.",
                code="NO_PAIRS",
            )
        notes += [f"{left_out} labels have no prediction here and are left out."] if left_out else []
    if beside.table is not None:
        back = {label: name for name, label in named.items()}
        rows = [{**row, "case": back.get(row["case"], row["case"])} for row in read_table(beside.table)]
        rows = _named(_only_of(cases, rows, where=beside.table), names)
        return found, rows, dict(beside.classes or {int(row["class"]): str(row["class_name"]) for row in rows}), notes
    if not labels:
        return found, [], dict(beside.classes or {}), notes
    rows, classes, problems = _measure(found, names, beside, say=say)
    return found, rows, classes, [*notes, *(f"Not measured: {problem.problem}" for problem in problems)]


def _labels(place: Path, files: Mapping[str, Path] | None) -> dict[str, Path]:
    """Labels by case."""
    if files is not None:
        return dict(files)
    if not place.exists():
        raise InputError("does not exist", where=place, fix="Check the path.", code="MISSING")
    paths = sorted(place.iterdir()) if place.is_dir() else [place]
    found = [path for path in paths if path.name.lower().endswith(READ_SUFFIXES) and not path.name.startswith(".")]
    if not found:
        raise InputError(
            "holds no label", where=place, fix=f"Give files that end in {', '.join(READ_SUFFIXES)}", code="EMPTY"
        )
    return {case_name(path): path for path in found}


def _only_of(cases: Sequence[ReviewCase], rows: Sequence[Row], *, where: Path) -> list[Row]:
    known = {case.name for case in cases}
    found = [row for row in rows if row["case"] in known]
    if not found:
        raise InputError(
            f"the table holds none of the {len(known)} predicted cases",
            where=where,
            fix="Give the table of semi-med evaluate on these predictions.",
            code="NO_PAIRS",
        )
    return found


def _named(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Rows with the names of the record, where the table was made without names and has the classes 1, 2, ..."""
    if not names or any(row["class_name"] != f"class {row['class']}" for row in rows):
        return list(rows)
    if not {row["class"] for row in rows} <= set(range(1, len(names) + 1)):
        return list(rows)
    return [{**row, "class_name": names[row["class"] - 1]} for row in rows]


def _measure(
    cases: Sequence[ReviewCase], names: Sequence[str], beside: Beside, *, say: Callable[[str], None]
) -> tuple[list[Row], dict[int, str], list[SemiMedError]]:
    labelled = [case for case in cases if case.label is not None]
    classes = dict(beside.classes or {}) or _classes(labelled, names, ignored=beside.ignored)
    classes = {value: name for value, name in classes.items() if value != 0}
    rows: list[Row] = []
    problems: list[SemiMedError] = []
    for number, case in enumerate(labelled, start=1):
        if case.prediction is None or case.label is None:
            rows += [undefined_row(case.name, value, name) for value, name in classes.items()]
            continue
        try:
            found, _ = measure_pair(case.prediction, case.label, classes=classes, ignored=beside.ignored)
        except SemiMedError as error:
            problems.append(error)
            say(f"[{number}/{len(labelled)}] {case.name}: not measured. {error}")
            continue
        rows += [{"case": case.name} | row for row in found]
        dice = ", ".join(f"{row['class_name']} Dice {row['dice']:.4f}" for row in found)
        say(f"[{number}/{len(labelled)}] {case.name}: {dice}")
    if problems and not rows:
        raise ProblemsError(problems, title="Predictions against labels")
    return rows, classes, problems


def _classes(cases: Sequence[ReviewCase], names: Sequence[str], *, ignored: int | None) -> dict[int, str]:
    """Names of the numbers in masks and labels.

    The record names structures in the order of their classes: those are the numbers 1, 2, ..., or as many others, in
    order. Where that cannot be, a class is called by its number.
    """
    values: set[int] = set()
    for path in [path for case in cases for path in (case.prediction, case.label) if path is not None]:
        try:
            values.update(values_in(read_classes(path).array))
        except SemiMedError:  # named when it is measured
            continue
    values -= {0, ignored} if ignored is not None else {0}
    if names and values <= set(range(1, len(names) + 1)):
        return dict(enumerate(names, start=1))
    if names and len(values) == len(names):
        return dict(zip(sorted(values), names, strict=True))
    return {value: f"class {value}" for value in sorted(values)}
