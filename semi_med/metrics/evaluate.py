"""Predictions against labels: folders or files in, a table by case and its summary out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.inference.io import Scan, read_label
from semi_med.metrics.case import DISTANCES, OVERLAPS, Row, case_metrics
from semi_med.metrics.files import write_csv, write_json
from semi_med.metrics.known import without_ignored
from semi_med.metrics.pairing import Pairing, pair_files
from semi_med.metrics.table import summarize

_TOLERANCE = 0.1  # voxels: below what resampling by nearest neighbour could move
_MOST_CLASSES = 255
_DEFINITIONS = {
    "hd95": "95th percentile of the surface distances of both directions, pooled",
    "asd": "mean distance from the prediction's surface to the label's surface",
    "assd": "mean of the asd of both directions",
    "surface": "object minus its erosion with face neighbours",
    "interval": "95 % bootstrap interval (BCa) of the mean over cases",
    "ignored": "voxels where the label says so are background in prediction and label",
    "undefined": "left out of mean, sd and median, and counted in n_undefined",
}


@dataclass(frozen=True)
class EvaluationResult:
    """What was measured and what could not be.

    Attributes:
        rows: one dict for each case and class, as from `case_metrics`, with `case` first.
        summary: one dict for each class and metric, as from `summarize`.
        classes: class index to name.
        problems: one error for each pair that could not be measured; it names the file.
        missing: cases whose prediction is missing; their rows are undefined and counted.
        extra: predictions that have no label; they were not looked at.
        written: the files written.
    """

    rows: list[Row]
    summary: list[Row]
    classes: dict[int, str]
    problems: tuple[SemiMedError, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[Path, ...] = ()
    written: tuple[Path, ...] = ()


def evaluate(
    predictions: Path,
    labels: Path,
    *,
    output: Path | None = None,
    classes: Mapping[int, str] | None = None,
    cases: Collection[str] | None = None,
    report: Callable[[str], None] | None = None,
    allow_missing: bool = False,
    ignored: int | None = None,
) -> EvaluationResult:
    """Measure predictions against labels, case by case.

    Args:
        predictions: a folder of `<case>_seg.nii.gz` or `<case>.nii.gz`, or one file.
        labels: a folder of labels named `<case>` in any readable format, or one file.
        output: CSV to write, one row for each case and class; its summary goes beside it as `<name>_summary.json`.
        classes: class index to name; classes not named are not measured. Without it the classes are those that occur
            in the labels, and a prediction with any other value is a problem.
        cases: the labels of a folder that count, by file name without suffix, for example those of a test section;
            None for all.
        report: called with one line after each case.
        allow_missing: go on where a label has no prediction; the case is then counted as undefined.
        ignored: value of labels where nothing is known, as the data list has it; None if they hold none.

    Returns:
        Rows, summary, and what could not be measured. A pair with a problem does not stop the others.

    Raises:
        InputError: a path is wrong or nothing matches.
        ProblemsError: predictions are missing and `allow_missing` is off, or not one pair could be measured.
    """
    if report is not None and not callable(report):
        raise TypeError(f"report: wanted a function of one line of text, got {type(report).__name__}")
    table = _table_path(output)
    pairing = pair_files(predictions, labels, cases=cases)
    if pairing.missing and not allow_missing:
        raise _missing_predictions(pairing, predictions)

    measured, problems, names = _measure_all(pairing, classes, report or (lambda line: None), ignored=ignored)
    if not measured:
        raise ProblemsError(problems, title=f"Evaluation of {predictions} against {labels}")
    for case in pairing.missing:
        measured += [_undefined_row(case, value, name) for value, name in names.items()]
    rows = sorted(measured, key=lambda row: (row["case"], row["class"]))
    result = EvaluationResult(rows, summarize(rows), names, tuple(problems), pairing.missing, pairing.extra)
    return result if table is None else _written(result, table, ignored=ignored)


def check_same_grid(prediction: Scan, label: Scan, *, where: tuple[Path, Path]) -> None:
    """Raise unless both arrays have one shape and no corner of the volume lies more than 0.1 voxel apart.

    Args:
        prediction: with its affine, voxel to RAS mm.
        label: the same.
        where: both files, for the error.

    Raises:
        InputError: names both files and what differs.
    """
    names = f"{where[0]} and {where[1].name}"
    fix = "Resample the prediction onto the label's grid (nearest neighbour)"
    shape = label.array.shape
    if prediction.array.shape != shape or len(shape) > 3:
        raise InputError(
            f"wanted one shape of at most 3 axes, got {prediction.array.shape} and {shape}",
            where=names,
            fix=fix,
            code="SHAPE",
        )
    ends = [(0, size - 1) for size in shape] + [(0,)] * (3 - len(shape))
    corners = np.array([(*corner, 1) for corner in product(*ends)], float).T
    apart = np.abs(np.linalg.solve(label.affine, prediction.affine @ corners) - corners).max()
    if not apart <= _TOLERANCE:
        raise InputError(
            f"the grids lie up to {apart:.2g} voxels apart (affines differ)", where=names, fix=fix, code="GEOMETRY"
        )


def _table_path(output: Path | None) -> Path | None:
    if output is None:
        return None
    path = Path(output)
    if path.is_dir():
        return path / "table.csv"
    if path.suffix.lower() != ".csv":
        raise InputError("wanted a file that ends in .csv, or a folder that exists", where=path, fix="Rename it")
    return path


def _missing_predictions(pairing: Pairing, predictions: Path) -> ProblemsError:
    problems = [
        InputError("has a label but no prediction", where=case, fix="Predict it, or allow missing ones", code="MISSING")
        for case in pairing.missing
    ]
    return ProblemsError(problems, title=f"Predictions in {predictions}")


def _measure_all(
    pairing: Pairing, classes: Mapping[int, str] | None, report: Callable[[str], None], *, ignored: int | None
) -> tuple[list[Row], list[SemiMedError], dict[int, str]]:
    """Rows of all pairs that could be measured, the problems of the others, and the classes."""
    problems: dict[str, SemiMedError] = {}
    if classes is None:
        names = _classes_of_labels(pairing, problems, ignored=ignored)
    else:
        names = {int(value): str(name) for value, name in classes.items() if int(value) != 0}

    rows: list[Row] = []
    for number, (case, (prediction, label)) in enumerate(pairing.pairs.items(), start=1):
        counter = f"[{number}/{len(pairing.pairs)}] {case}"
        try:
            if case in problems:
                raise problems[case]
            found = _measure_pair(prediction, label, classes=names, closed=classes is None, ignored=ignored)
        except SemiMedError as error:
            problems[case] = error
            report(f"{counter}: not measured. {error}")
            continue
        rows += [{"case": case} | row for row in found]
        report(f"{counter}: " + ", ".join(_line(row) for row in found))
    return rows, [problems[case] for case in pairing.pairs if case in problems], names


def _classes_of_labels(pairing: Pairing, problems: dict[str, SemiMedError], *, ignored: int | None) -> dict[int, str]:
    """Names for the values that occur in the labels; a label that cannot be read goes to `problems`."""
    values: set[int] = set()
    for case, (_, label) in pairing.pairs.items():
        try:
            found = _values(read_label(label).array)
            if len(found) > _MOST_CLASSES + 1:
                raise InputError(
                    f"wanted class indices, got {len(found)} different values",
                    where=label,
                    fix="Give the labels, not the images",
                    code="CLASSES",
                )
            values.update(found)
        except SemiMedError as error:
            problems[case] = error
    values -= {0, ignored}
    if not values and not problems:
        raise InputError(
            "wanted a label with a class above 0, but all are empty", fix="Check the labels or name the classes"
        )
    return {value: f"class {value}" for value in sorted(values)}


def _values(array: np.ndarray) -> list[int]:
    # Counting is several times faster than sorting; slab by slab, because it takes eight bytes a voxel.
    if array.dtype.itemsize > 2:
        return np.unique(array).tolist()
    found: set[int] = set()
    for slab in array:
        found.update(np.flatnonzero(np.bincount(slab.ravel())).tolist())
    return sorted(found)


def _measure_pair(
    prediction: Path, label: Path, *, classes: Mapping[int, str], closed: bool, ignored: int | None
) -> list[Row]:
    predicted, expert = read_label(prediction), read_label(label)
    check_same_grid(predicted, expert, where=(prediction, label))
    unknown = sorted(set(_values(predicted.array)) - {0, *classes}) if closed else []
    if unknown:
        raise InputError(
            f"wanted the values of the labels (0, {', '.join(map(str, classes))}), but the prediction also has "
            f"{', '.join(map(str, unknown[:5]))}",
            where=prediction,
            fix="Check that both use the same numbers for the classes, or name the classes to measure",
            code="CLASSES",
        )
    spacing = [float(size) for size in expert.spacing[: expert.array.ndim]]
    arrays = without_ignored(predicted.array, expert.array, ignored=ignored)
    return case_metrics(*arrays, classes=classes, spacing=spacing)


def _line(row: Row) -> str:
    text = f"{row['class_name']} Dice {row['dice']:.4f}, HD95 {row['hd95_mm']:.2f} mm"
    return text if row["status"] == "ok" else f"{text} ({row['status']})"


def _undefined_row(case: str, value: int, name: str) -> Row:
    undefined = dict.fromkeys((*OVERLAPS, *DISTANCES, "prediction_ml", "label_ml"), math.nan)
    return {"case": case, "class": value, "class_name": name, **undefined, "status": "missing prediction"}


def _written(result: EvaluationResult, table: Path, *, ignored: int | None) -> EvaluationResult:
    content = {
        "schema": 1,
        "cases": len({row["case"] for row in result.rows}),
        "classes": result.classes,
        "ignored": ignored,
        "missing_predictions": result.missing,
        "predictions_without_label": [path.name for path in result.extra],
        "problems": [{"code": problem.code, "problem": str(problem)} for problem in result.problems],
        "definitions": _DEFINITIONS,
        "summary": result.summary,
    }
    written = (
        write_csv(table, result.rows),
        write_json(table.with_name(f"{table.stem}_summary.json"), content),
    )
    return EvaluationResult(
        result.rows, result.summary, result.classes, result.problems, result.missing, result.extra, written
    )
