"""Predictions against labels: folders or files in, a table by case and its summary out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.metrics.breakdown import VOLUME_COLUMNS, NamePattern, break_down, name_pattern, pool_volumes
from semi_med.metrics.case import DISTANCES, OVERLAPS, Row
from semi_med.metrics.confidence import CURVE_COLUMNS, Ranking, as_content, rank_structures, read_scores
from semi_med.metrics.files import TABLE_COLUMNS, recorded_classes, write_csv, write_json
from semi_med.metrics.iou import counts_of, iou_of
from semi_med.metrics.pair import measure_pair, read_classes, values_in
from semi_med.metrics.pairing import Pairing, pair_files
from semi_med.metrics.regions import Region, parse_regions
from semi_med.metrics.table import metrics_in, summarize

_MOST_CLASSES = 255
_DEFINITIONS = {
    "hd95": "95th percentile of the surface distances of both directions, pooled",
    "asd": "mean distance from the prediction's surface to the label's surface",
    "assd": "mean of the asd of both directions",
    "surface": "object minus its erosion with face neighbours",
    "interval": "95 % bootstrap interval (BCa) of the mean over cases",
    "ignored": "voxels where the label says so are of no class in prediction and label",
    "undefined": "left out of mean, sd and median, and counted in n_undefined",
}
_MORE_DEFINITIONS = {
    "region": "its classes measured as one object",
    "volume": "overlaps of all slices of a volume together, by the sums of their pixels; without one of them undefined",
}
_DEFINITION_OF_IOU = {
    "iou": "of the pixels of all cases together, background included; mean IoU over the classes that occur"
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
        region_rows: one dict for each case and region, as `rows`; `class` is the text `1+2`.
        volume_rows: one dict for each volume and class or region, as from `pool_volumes`.
        breakdown: summaries of regions, groups and volumes, as from `break_down`; empty if none was asked for.
        iou: as from `semi_med.metrics.iou.iou_of`, of the cases that could be measured; empty if it was not asked for.
        rankings: how the scores go with Dice, if there are any.
    """

    rows: list[Row]
    summary: list[Row]
    classes: dict[int, str]
    problems: tuple[SemiMedError, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[Path, ...] = ()
    written: tuple[Path, ...] = ()
    region_rows: tuple[Row, ...] = ()
    volume_rows: tuple[Row, ...] = ()
    breakdown: tuple[Row, ...] = ()
    iou: dict[str, float] = field(default_factory=dict)
    rankings: tuple[Ranking, ...] = ()


@dataclass(frozen=True)
class _Asked:
    """What was asked for beyond classes and cases."""

    regions: tuple[Region, ...] = ()
    group: NamePattern | None = None
    volume: NamePattern | None = None

    @property
    def anything(self) -> bool:
        return bool(self.regions) or self.group is not None or self.volume is not None


def evaluate(
    predictions: Path,
    labels: Path,
    *,
    output: Path | None = None,
    classes: Mapping[int, str] | None = None,
    cases: Collection[str] | Mapping[str, Path] | None = None,
    report: Callable[[str], None] | None = None,
    allow_missing: bool = False,
    regions: Sequence[str] = (),
    group_pattern: str | None = None,
    volume_pattern: str | None = None,
    ignored: int | None = None,
    count_class_0: bool = False,
    iou: bool = False,
    scores: Path | None = None,
) -> EvaluationResult:
    """Measure predictions against labels, case by case.

    Args:
        predictions: a folder of `<case>_seg.nii.gz`, `<case>.nii.gz` or pictures of these names, or one file.
        labels: a folder of labels named `<case>` in any readable format, or one file. Of pictures the numbers of the
            palette or the grey values are class indices; they have no size in mm, so distances are in pixels only.
        output: CSV to write, one row for each case and class; its summary goes beside it as `<name>_summary.json`, and
            regions and volumes, if there are any, as `<name>_regions.csv` and `<name>_volumes.csv`.
        classes: class index to name; classes not named are not measured. Without it the classes are those that occur
            in the labels, called as the record of the predictions has them, and a prediction with any other value is a
            problem.
        cases: the labels of a folder that count, by file name without suffix, for example those of a test section;
            None for all. A mapping names the label of each case, wherever it lies.
        report: called with one line after each case.
        allow_missing: go on where a label has no prediction; the case is then counted as undefined.
        regions: classes to measure as one structure beside each alone, each as `epi=1+2`, with numbers or names.
        group_pattern: a regular expression that finds the group of a case in its name, to summarise each group too.
        volume_pattern: one that finds the volume in the name of a slice, to pool the slices of each volume.
        ignored: value of labels where nothing is known, as the data list has it; None if they hold none.
        count_class_0: measure class 0 like the others; else it is the background, also where `classes` names it.
        iou: also the IoU of every class, background included, over the pixels of all cases together.
        scores: the `volumes.csv` of the predictions, whose confidence is compared with Dice; `<name>_confidence.json`
            and `<name>_risk_coverage.csv` are written then.

    Returns:
        Rows, summary, and what could not be measured. A pair with a problem does not stop the others.

    Raises:
        InputError: a path is wrong or nothing matches; code REGION or PATTERN for a region or a pattern, TABLE or
            SCORES for scores.
        ProblemsError: predictions are missing and `allow_missing` is off, or not one pair could be measured.
    """
    if report is not None and not callable(report):
        raise TypeError(f"report: wanted a function of one line of text, got {type(report).__name__}")
    table = _table_path(output)
    known = None if scores is None else read_scores(scores)
    pairing = pair_files(predictions, labels, cases=cases)
    if pairing.missing and not allow_missing:
        raise _missing_predictions(pairing, predictions)
    every = [*pairing.pairs, *pairing.missing]
    group = _pattern(group_pattern, "--group-pattern", cases=every)
    volume = _pattern(volume_pattern, "--volume-pattern", cases=every)

    problems: dict[str, SemiMedError] = {}
    if classes is None:
        names = _classes_of_labels(pairing, problems, ignored=ignored, known=recorded_classes(predictions))
    else:
        names = dict(classes)
    names = {int(value): str(name) for value, name in names.items() if count_class_0 or int(value) != 0}
    asked = _Asked(parse_regions(regions, classes=names) if regions else (), group, volume)
    measured, of_regions = _measure_all(
        pairing,
        names,
        problems,
        asked.regions,
        closed=classes is None,
        ignored=ignored,
        report=report or (lambda line: None),
    )
    found = tuple(problems[case] for case in pairing.pairs if case in problems)
    if not measured:
        raise ProblemsError(found, title=f"Evaluation of {predictions} against {labels}")
    for case in pairing.missing:
        measured += [undefined_row(case, value, name) for value, name in names.items()]
        of_regions += [undefined_row(case, region.text, region.name) for region in asked.regions]
    rows = sorted(measured, key=lambda row: (row["case"], row["class"]))
    of_regions.sort(key=lambda row: str(row["case"]))
    result = EvaluationResult(
        rows, summarize(rows, metrics=metrics_in(rows)), names, found, pairing.missing, pairing.extra
    )
    if asked.anything:
        result = _broken_down(result, of_regions, asked, unmeasured=list(problems))
    if iou:
        whole = {case: files for case, files in pairing.pairs.items() if case not in problems}
        counts = counts_of(whole, classes=names, ignored=ignored)
        result = replace(result, iou=iou_of(counts, classes=names))
    if known is not None:
        result = replace(result, rankings=tuple(rank_structures(known, rows)))
    return result if table is None else _written(result, table, asked, ignored=ignored)


def _pattern(text: str | None, option: str, *, cases: Collection[str]) -> NamePattern | None:
    """A pattern that is known to match every case."""
    if text is None:
        return None
    pattern = name_pattern(text, option=option)
    pattern.check(cases)
    return pattern


def _broken_down(
    result: EvaluationResult, of_regions: Sequence[Row], asked: _Asked, *, unmeasured: Collection[str]
) -> EvaluationResult:
    rows, group, volume = result.rows, asked.group, asked.volume
    if group is not None:
        rows, of_regions = ([{**row, "group": group(row["case"])} for row in table] for table in (rows, of_regions))
    volumes = [] if volume is None else pool_volumes([*rows, *of_regions], volume, unmeasured=unmeasured)
    return replace(
        result,
        rows=rows,
        region_rows=tuple(of_regions),
        volume_rows=tuple(sorted(volumes, key=lambda row: str(row["volume"]))),
        breakdown=tuple(break_down(rows, of_regions, group=group, volume=volume, unmeasured=unmeasured)),
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
    pairing: Pairing,
    names: Mapping[int, str],
    problems: dict[str, SemiMedError],
    regions: Sequence[Region],
    *,
    closed: bool,
    ignored: int | None,
    report: Callable[[str], None],
) -> tuple[list[Row], list[Row]]:
    """Rows of classes and of regions of all pairs that could be measured; the others go to `problems`."""
    rows: list[Row] = []
    of_regions: list[Row] = []
    for number, (case, (prediction, label)) in enumerate(pairing.pairs.items(), start=1):
        counter = f"[{number}/{len(pairing.pairs)}] {case}"
        try:
            if case in problems:
                raise problems[case]
            found, more = measure_pair(
                prediction, label, classes=names, regions=regions, closed=closed, ignored=ignored
            )
        except SemiMedError as error:
            problems[case] = error
            report(f"{counter}: not measured. {error}")
            continue
        rows += [{"case": case} | row for row in found]
        of_regions += [{"case": case} | row for row in more]
        report(f"{counter}: " + ", ".join(_line(row) for row in found))
    return rows, of_regions


def _classes_of_labels(
    pairing: Pairing, problems: dict[str, SemiMedError], *, ignored: int | None, known: Mapping[int, str]
) -> dict[int, str]:
    """Names for 0 and the values that occur in the labels; a label that cannot be read goes to `problems`."""
    values: set[int] = set()
    for case, (_, label) in pairing.pairs.items():
        try:
            found = values_in(read_classes(label).array)
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
    values -= {ignored}
    if not values - {0} and not problems:
        raise InputError(
            "wanted a label with a class above 0, but all are empty", fix="Check the labels or name the classes"
        )
    return {value: known.get(value, f"class {value}") for value in sorted(values | {0})}


def _line(row: Row) -> str:
    distance = f"{row['hd95_voxel']:.2f} pixels" if math.isnan(row["hd95_mm"]) else f"{row['hd95_mm']:.2f} mm"
    text = f"{row['class_name']} Dice {row['dice']:.4f}, HD95 {distance}"
    return text if row["status"] == "ok" else f"{text} ({row['status']})"


def undefined_row(case: str, value: int | str, name: str) -> Row:
    """The row of a case that has a label and no prediction: nothing is defined."""
    undefined = dict.fromkeys((*OVERLAPS, *DISTANCES, "prediction_ml", "label_ml"), math.nan)
    return {"case": case, "class": value, "class_name": name, **undefined, "status": "missing prediction"}


def _written(result: EvaluationResult, table: Path, asked: _Asked, *, ignored: int | None) -> EvaluationResult:
    content: dict[str, Any] = {
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
    if asked.anything:
        content |= {
            "definitions": _DEFINITIONS | _MORE_DEFINITIONS,
            "regions": {region.name: region.values for region in asked.regions},
            "group_pattern": asked.group and asked.group.expression.pattern,
            "volume_pattern": asked.volume and asked.volume.expression.pattern,
            "breakdown": result.breakdown,
        }
    if result.iou:
        content |= {"iou": result.iou, "definitions": content["definitions"] | _DEFINITION_OF_IOU}
    columns = (*TABLE_COLUMNS, "group") if asked.group else TABLE_COLUMNS
    written = [write_csv(table, result.rows, columns=columns)]
    if result.region_rows:
        written.append(write_csv(table.with_name(f"{table.stem}_regions.csv"), result.region_rows, columns=columns))
    if result.volume_rows:
        path = table.with_name(f"{table.stem}_volumes.csv")
        written.append(write_csv(path, result.volume_rows, columns=VOLUME_COLUMNS))
    written.append(write_json(table.with_name(f"{table.stem}_summary.json"), content))
    if result.rankings:
        curves = [row for one in result.rankings for row in one.curve]
        path = table.with_name(f"{table.stem}_risk_coverage.csv")
        written.append(write_csv(path, curves, columns=CURVE_COLUMNS))
        path = table.with_name(f"{table.stem}_confidence.json")
        written.append(write_json(path, as_content(result.rankings)))
    return replace(result, written=tuple(written))
