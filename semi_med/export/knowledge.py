"""What is known about a trained bundle: read from its own files, and nothing made up."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from semi_med.errors import InputError
from semi_med.inference.bundle import Bundle
from semi_med.inference.trained_with import read_trained_with
from semi_med.report.records import read_record, without_places

SUMMARY = "*_summary.json"
_PLACES = ("", "evaluation", "predictions", "tables")  # in a bundle, where tables of evaluate may lie


@dataclass(frozen=True)
class Metrics:
    """Figures of one table.

    Attributes:
        source: name of the file.
        cases: that were measured.
        rows: one for each class and metric, as `evaluate` writes them.
    """

    source: str
    cases: int
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Knowledge:
    """What the files of a bundle say. Empty where they say nothing.

    Attributes:
        bundle: its name.
        metadata: `configs/metadata.json`.
        preparation: transforms before the network, in order, with their arguments, as the configuration has them.
        training: `run.json`, without places on a machine.
        data_list: header of the list that it was trained with, and the number of cases in each section.
        validation: the last line of `logs/validation.csv`.
        metrics: tables of evaluate that were found or named.
        networks: how many networks were trained.
        licence: first line of `LICENSE`.
    """

    bundle: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    preparation: Sequence[tuple[str, Mapping[str, Any]]] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    data_list: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[Metrics] = ()
    networks: int = 1
    licence: str = ""


def gather(folder: Path, opened: Bundle, *, metrics: Sequence[Path]) -> Knowledge:
    """Read what lies in a bundle.

    Args:
        folder: of the bundle.
        opened: the same.
        metrics: summaries of `evaluate` to take too.

    Raises:
        InputError: code TABLE, a summary that was named is none.
    """
    training = read_record(folder / "run.json")
    found = [path for place in _PLACES for path in sorted((folder / place).glob(SUMMARY))]
    named = [_metrics(path) for path in metrics]
    for path, one in zip(metrics, named, strict=True):
        if one is None:
            raise InputError(
                "a summary of semi-med evaluate is wanted (<table>_summary.json)",
                where=path,
                fix="Name the JSON file that lies beside the table.",
                code="TABLE",
            )
    return Knowledge(
        bundle=folder.resolve().name,
        metadata=read_record(folder / "configs" / "metadata.json"),
        preparation=_preparation(
            {**read_record(folder / "configs" / "inference.json"), **read_trained_with(opened.weights, folder)}
        ),
        training=without_places(training),
        data_list=_data_list(folder, training),
        validation=_last_line(folder / "logs" / "validation.csv"),
        metrics=[one for one in [*named, *map(_metrics, found)] if one is not None],
        networks=_networks(opened.weights),
        licence=_first_line(folder / "LICENSE"),
    )


def _metrics(path: Path) -> Metrics | None:
    content = read_record(path)
    rows = content.get("summary")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "metric" in row for row in rows):
        return None
    return Metrics(path.name, int(content.get("cases", 0)), rows)


def _preparation(config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    composed = config.get("preprocessing")
    transforms = composed.get("transforms", []) if isinstance(composed, Mapping) else []
    found: list[tuple[str, Mapping[str, Any]]] = []
    for one in transforms:
        if isinstance(one, Mapping) and "_target_" in one:
            name = str(one["_target_"]).rsplit(".", 1)[-1]
            skipped = ("_target_", "keys", "reader")
            settings = {key: _resolved(value, config) for key, value in one.items() if key not in skipped}
            found.append((name, settings))
    return found


def _resolved(value: Any, config: Mapping[str, Any]) -> Any:
    """What a plain reference means; everything else as it stands."""
    for _ in range(8):  # a reference may lead to another one
        if not (isinstance(value, str) and value.startswith("@")):
            return value
        place: Any = config
        for part in value[1:].replace("::", "#").split("#"):
            place = place.get(part) if isinstance(place, Mapping) else None
        if place is None:
            return value
        value = place
    return value


def _data_list(folder: Path, training: Mapping[str, Any]) -> dict[str, Any]:
    """Of the list that the training names, if the bundle has it: what it says, and how many cases."""
    settings = training.get("settings")
    name = settings.get("data_list_file") if isinstance(settings, Mapping) else None
    path = folder / "data_lists" / Path(str(name)).name if name else None
    content = read_record(path) if path is not None and path.is_file() else {}
    counts = {f"{key} cases of the list": len(value) for key, value in content.items() if isinstance(value, list)}
    told = ("name", "description", "reference", "licence", "modality")
    return {**{key: content[key] for key in told if content.get(key)}, **counts}


def _last_line(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if None not in row.values()]
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return {str(name): str(value) for name, value in rows[-1].items()} if rows else {}


def _networks(weights: Path) -> int:
    content = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
    return sum(bool(content.get(key)) for key in ("model", "peer"))


def _first_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in lines if line.strip()), "")


def as_text(value: Any) -> str:
    """A value of a record for a table."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(as_text(one) for one in value.values())
    return json.dumps(value, ensure_ascii=False)
