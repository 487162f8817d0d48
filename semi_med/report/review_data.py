"""Collecting what a report needs: a training run, a folder of predictions, and the scans that belong to it."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semi_med.errors import InputError
from semi_med.inference.batch_files import BatchCase, collect_cases, listed_cases
from semi_med.inference.io import READ_SUFFIXES, case_name
from semi_med.inference.manifest import sha256
from semi_med.metrics.pairing import PREDICTION_ENDING
from semi_med.report.records import read_record, texts, without_places
from semi_med.report.review_labels import Beside, with_labels
from semi_med.report.review_view import ReviewCase, ReviewView

RECORD, VOLUMES = "run.json", "volumes.csv"
_MAP_ENDINGS = ("_uncertainty.nii.gz", "_desc-uncertainty_map.nii.gz")
_MAP_FOLDERS = ("maps", "")
_OF_EVERY_PICTURE = "PICTURE:"  # a warning that says nothing about one of them


def collect_review(
    places: Sequence[Path], beside: Beside | None = None, *, say: Callable[[str], None] = lambda line: None
) -> ReviewView:
    """Everything that stands on the page of a run, of a folder of predictions, or of both.

    Args:
        places: the folder of a training run, the folder of its predictions, or both.
        beside: scans and labels.
        say: told what is measured, a line at a time.

    Raises:
        InputError: a place is neither, or there are two of a kind; scans, labels or the table cannot be used.
        ProblemsError: not one pair of prediction and label could be measured.
    """
    beside = beside or Beside()
    training, predictions = folders_of(places)
    records = {} if training is None else _training_records(training)
    if predictions is None:
        return ReviewView(
            title=f"Training of {_name(training)}", identity=_identity(records), training=training, records=records
        )
    record = read_record(predictions / RECORD)
    cases, notes = _cases(predictions, record)
    records["Prediction"] = without_places({name: value for name, value in record.items() if name != "cases"})
    cases = _with_images(predictions, cases, record, beside.images)
    cases, table, classes, more = with_labels(cases, _names(record), beside, say=say)
    bundle = record.get("settings", {}).get("bundle") if isinstance(record.get("settings"), Mapping) else None
    return ReviewView(
        title=f"Predictions of {bundle}" if bundle else f"Predictions in {_name(predictions)}",
        identity=_identity([(case.name, case.key) for case in cases]),
        cases=cases,
        table=table,
        classes=classes,
        training=training,
        records=records,
        notes=[*notes, *more],
    )


def _name(folder: Path | None) -> str:
    return "" if folder is None else folder.resolve().name


def _identity(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode("utf-8")).hexdigest()[:16]


def _key(case: str, mask: Path | None) -> str:
    """Of a mask and the case it is of: what a mark is kept under. When and how it was predicted does not matter."""
    return "" if mask is None else _identity((case, sha256(mask)))


def folders_of(places: Sequence[Path]) -> tuple[Path | None, Path | None]:
    """The folder of the training and that of the predictions, told apart by what lies in them.

    Raises:
        InputError: as `collect_review`.
    """
    found: dict[str, Path] = {}
    for place in map(Path, places):
        kind = _kind(place)
        if kind in found:
            raise InputError(
                f"one folder of a {kind} is wanted, {found[kind].name} and {place.name} are both",
                fix="Make a report of each; semi-med compare compares runs.",
                code="SETTING",
            )
        found[kind] = place
    if not found:
        raise InputError("the folder of a run or of predictions is wanted", fix="Name one.", code="SETTING")
    return found.get("training"), found.get("prediction")


def _kind(place: Path) -> str:
    if not place.is_dir():
        raise InputError("there is no such folder", where=place, fix="Check the path.", code="NOT_FOUND")
    if (place / VOLUMES).is_file() or "cases" in read_record(place / RECORD):
        return "prediction"
    if (place / "logs").is_dir() and ((place / "configs").is_dir() or (place / RECORD).is_file()):
        return "training"
    if _masks(place):
        return "prediction"
    raise InputError(
        "this is neither the folder of a training run (logs/, run.json) nor one of predictions (run.json, volumes.csv "
        f"and masks called <case>{PREDICTION_ENDING}.nii.gz)",
        where=place,
        fix="Name the output folder of semi-med train or of semi-med predict.",
        code="NOT_FOUND",
    )


def _masks(folder: Path) -> dict[str, Path]:
    """Masks by case, by their file names."""
    names = sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().endswith(READ_SUFFIXES))
    cases = {path: case_name(path) for path in names}
    return {
        case.removesuffix(PREDICTION_ENDING): path for path, case in cases.items() if case.endswith(PREDICTION_ENDING)
    }


def _training_records(folder: Path) -> dict[str, dict[str, Any]]:
    record = without_places(read_record(folder / RECORD))
    plan = read_record(folder / "configs" / "metadata.json")
    about = {name: plan[name] for name in ("name", "task", "data_source", "intended_use") if plan.get(name)}
    return {"Training": {**about, **record}}


def _cases(folder: Path, record: Mapping[str, Any]) -> tuple[list[ReviewCase], list[str]]:
    """The cases of the record, or of the masks if there is no record; and what is odd."""
    volumes = _volumes(folder / VOLUMES)
    rows = [row for row in record.get("cases", ()) if isinstance(row, Mapping) and "case" in row]
    if not rows:
        masks = _masks(folder)
        note = f"There is no record of the predictions ({RECORD}): failed cases, warnings and settings are not known."
        found = [
            ReviewCase(case, path, key=_key(case, path), volumes=volumes.get(case, {})) for case, path in masks.items()
        ]
        return found, [note]
    return [_case(folder, row, volumes.get(str(row["case"]), {})) for row in rows], []


def _case(folder: Path, row: Mapping[str, Any], volumes: Mapping[str, Mapping[str, str]]) -> ReviewCase:
    output = row.get("output")
    prediction = _inside(folder, output) if output else None
    return ReviewCase(
        name=str(row["case"]),
        prediction=prediction,
        key=_key(str(row["case"]), prediction),
        uncertainty_map=_map_of(folder, row),
        confidence=_number(row.get("confidence")),
        volumes=volumes,
        warnings=tuple(text for text in texts(row.get("warnings")) if not text.startswith(_OF_EVERY_PICTURE)),
        error="its mask is no longer in the folder" if output and prediction is None else str(row.get("error") or ""),
        seconds=_number(row.get("seconds")),
    )


def _inside(folder: Path, name: Any) -> Path | None:
    """A file below the folder, by its relative name; None if it is not there, or would lie elsewhere."""
    path = folder / str(name)
    return path if path.is_file() and path.resolve().is_relative_to(folder.resolve()) else None


def _map_of(folder: Path, row: Mapping[str, Any]) -> Path | None:
    """The map of uncertainty among the files that the record has; by its name only if it does not say which they are.

    Another map that lies there is of an earlier run, and of another mask.
    """
    outputs = row.get("outputs")
    if isinstance(outputs, Mapping):
        names = [str(name) for name in outputs if str(name).endswith(_MAP_ENDINGS)]
    else:
        names = [str(Path(place) / f"{row['case']}{_MAP_ENDINGS[0]}") for place in _MAP_FOLDERS]
    return next((found for name in names if (found := _inside(folder, name)) is not None), None)


def _names(record: Mapping[str, Any]) -> list[str]:
    """Structures in the order of their classes, as the record has them."""
    rows = [row for row in record.get("cases", ()) if isinstance(row, Mapping) and row.get("voxels")]
    return [str(name) for name in rows[0]["voxels"]] if rows else []


def names_beside(prediction: Path) -> list[str]:
    """Structures of a mask in the order of their classes, from the record beside it; none if there is no record."""
    return _names(read_record(Path(prediction).absolute().parent / RECORD))


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _volumes(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Case to structure to the other columns of the table of volumes; empty if there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    found: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        case, name = row.pop("case", None), row.pop("class", None)
        if case is not None and name is not None:
            found.setdefault(case, {})[name] = {column: value or "" for column, value in row.items() if column}
    return found


def _with_images(
    folder: Path,
    cases: Sequence[ReviewCase],
    record: Mapping[str, Any],
    images: Sequence[Path] | Mapping[str, Path],
) -> list[ReviewCase]:
    """The cases with their scans, found by the name of the file in the record, else by the name of the case.

    One to which several scans may belong has none, and a warning that says so.
    """
    if isinstance(images, Mapping):
        series = _series_in(record)
        listed = {one.name: one for one in listed_cases(_of_cases(images, cases), folder, series=series)}
        return [_with_scan(case, listed.get(case.name)) for case in cases]
    if not images:
        return list(cases)
    found = collect_cases([Path(path) for path in images], folder, series="all", several_channels=True)
    files = {str(row.get("case")): str(row.get("image")) for row in record.get("cases", ()) if isinstance(row, Mapping)}
    by_file, by_case = _grouped(found, lambda one: one.image.name), _grouped(found, lambda one: one.name)
    shared = Counter(files.values())
    given, unclear = [], None
    for case in cases:
        file, called = files.get(case.name, ""), by_case.get(case.name, [])
        scans = called if len(called) == 1 else _scans_of(case.name, by_file.get(file) or called, shared[file])
        if len(scans) > 1:
            unclear = unclear or _unclear(case.name, scans)
            told = f"AMBIGUOUS: drawn without its scan, since {_unclear(case.name, scans).problem}"
            given.append(replace(case, warnings=(*case.warnings, told)))
        else:
            given.append(_with_scan(case, scans[0] if scans else None))
    if all(case.image is None for case in given):
        raise unclear or InputError(
            f"none of the {len(found)} scans belongs to one of the {len(cases)} predictions (for example "
            f"{found[0].name!r} and {cases[0].name if cases else ''!r})",
            where=", ".join(map(str, images)),
            fix="Name the scans that were predicted, under the names that they had then.",
            code="NO_PAIRS",
        )
    return given


def _series_in(record: Mapping[str, Any]) -> int | str | None:
    """The series that was predicted of DICOM folders with several, as it was chosen."""
    settings: Any = record.get("settings")
    dicom = settings.get("dicom") if isinstance(settings, Mapping) else None
    series = dicom.get("series") if isinstance(dicom, Mapping) else None
    return series if isinstance(series, int | str) else None


def _of_cases(images: Mapping[str, Path], cases: Sequence[ReviewCase]) -> dict[str, list[Path]]:
    names = {case.name for case in cases}
    return {name: [path] for name, path in images.items() if name in names}


def _with_scan(case: ReviewCase, scan: BatchCase | None) -> ReviewCase:
    return case if scan is None else replace(case, image=scan.image, series=scan.series)


def _grouped(scans: Sequence[BatchCase], key: Callable[[BatchCase], str]) -> dict[str, list[BatchCase]]:
    groups: dict[str, list[BatchCase]] = {}
    for scan in scans:
        groups.setdefault(key(scan), []).append(scan)
    return groups


def _scans_of(case: str, scans: Sequence[BatchCase], cases: int) -> Sequence[BatchCase]:
    """Which of the scans whose file is called as that of a case may be its own; none if it is somebody else's.

    A file name that several scans or several cases have, as with a folder for each case, tells nothing: then it is the
    folder that has to be called after the case.
    """
    if len(scans) == 1 and cases <= 1:
        return scans
    beside = [scan for scan in scans if scan.image.resolve().parent.name == case]
    if len(beside) == 1:
        return beside
    return scans if len(scans) > 1 else []


def _unclear(case: str, scans: Sequence[BatchCase]) -> InputError:
    return InputError(
        f"{len(scans)} scans are called {scans[0].image.name}, and none of their folders alone is called {case}",
        where=case,
        fix="Name the scans of the cases with --data-list.",
        code="AMBIGUOUS",
    )
