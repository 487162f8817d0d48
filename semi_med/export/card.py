"""The model card: what is known about a model, in the order of Mitchell et al., FAT* 2019, arXiv:1810.03993.

Nothing on it is written for the occasion: what it says comes from a file of the bundle or from the check of the export,
and what no file says is "not recorded".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from semi_med.export.knowledge import Knowledge, Metrics, as_text
from semi_med.report.records import flattened

NOT_RECORDED = "not recorded"
_METRICS = {
    "dice": ("Dice", 4),
    "hd95_mm": ("HD95, mm", 2),
    "asd_mm": ("ASD, mm", 2),
    "hd95_voxel": ("HD95, voxels", 2),
    "asd_voxel": ("ASD, voxels", 2),
}


def model_card(known: Knowledge, record: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        known: what the bundle's files say.
        record: of the export.
    """
    environment = Environment(
        loader=PackageLoader("semi_med", "export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: NOT_RECORDED if value is None or value == "" else value,
    )
    environment.filters["cell"] = cell
    settings = known.training.get("settings") or {}
    return environment.get_template("card.md.j2").render(
        known=known,
        about=_Known(known.metadata),
        record=record,
        classes=dict(record["output"]["classes"]),
        settings=dict(flattened({**settings, **(known.training.get("changed") or {})})),
        data=flattened(known.training.get("data") or {}),
        data_list={name: as_text(value) for name, value in known.data_list.items()},
        preparation=[
            (name, ", ".join(f"{key} {as_text(value)}" for key, value in given.items()))
            for name, given in known.preparation
        ],
        metrics=[(one.source, one.cases, _lines(one)) for one in known.metrics],
        trained_with=known.training.get("versions") or {},
        flat=len(record["input"]["window"]) == 2,
    )


class _Known(dict[str, Any]):
    """Entries of the metadata; one that is missing is None, not an error."""

    def __init__(self, entries: Mapping[str, Any]) -> None:
        super().__init__({name: value for name, value in entries.items() if value not in ("", [], {})})

    def __missing__(self, name: str) -> None:
        return None


def cell(value: Any) -> str:
    """A text as a cell of a Markdown table, whatever it holds."""
    text = "" if value is None else re.sub(r"\s+", " ", as_text(value)).strip()
    text = re.sub(r"([\\`*\[\]<>|])", r"\\\1", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text) or NOT_RECORDED  # inside a word it is no emphasis


def _lines(metrics: Metrics) -> list[dict[str, str]]:
    """Rows of a table of figures: mean, SD, interval of each class and metric that is known."""
    lines = []
    in_mm = any(row["metric"] == "hd95_mm" and row.get("mean") is not None for row in metrics.rows)
    for row in metrics.rows:
        name, digits = _METRICS.get(str(row["metric"]), ("", 0))
        if not name or row.get("mean") is None or (in_mm and str(row["metric"]).endswith("_voxel")):
            continue
        numbers = {key: _number(row.get(key), digits) for key in ("mean", "sd", "low", "high")}
        lines.append(
            {
                "class": str(row.get("class_name", "")),
                "metric": name,
                "mean": numbers["mean"],
                "sd": numbers["sd"],
                "interval": f"{numbers['low']} to {numbers['high']}" if row.get("low") is not None else NOT_RECORDED,
                "cases": str(row.get("n", "")),
                "undefined": str(row.get("n_undefined", "")),
            }
        )
    return lines


def _number(value: Any, digits: int) -> str:
    return NOT_RECORDED if value is None else f"{float(value):.{digits}f}"
