"""`dataset.json`: what lies in a prepared folder, what it was made from and how, and under which terms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from semi_med import __version__
from semi_med.data.data_list import Case
from semi_med.datasets.stored import NIFTI, image_names
from semi_med.errors import InputError
from semi_med.files import write_atomically

RECORD = "dataset.json"
_FORMAT = "semi_med prepared data set, version 1"
_VERSIONED = ("numpy", "scipy", "nibabel", "SimpleITK", "pillow")  # what the bytes that are written depend on


@dataclass(frozen=True)
class About:
    """What a data set is, for its record and its data lists.

    Attributes:
        name: short name, as the command line has it.
        modality: channel number to name, from "0".
        labels: class index to name, from "0", which is the background.
        reference: publication to cite.
        licence: terms of the data.
        origin: who publishes it, and where.
        ignored: `IGNORED` if labels hold it; None, which is not recorded, if they do not.
        count_class_0: True if class 0 is measured like the others; None, which is not recorded, if it is not.
    """

    name: str
    modality: Mapping[str, str]
    labels: Mapping[str, str]
    reference: str
    licence: str
    origin: str
    ignored: int | None = None
    count_class_0: bool | None = None


@dataclass(frozen=True)
class PreparedCase:
    """One case of a prepared folder; paths are relative to it.

    Attributes:
        name: of the case.
        image: one file, or one for each channel.
        label: None if there is none.
        subject: whom it shows.
        group: centre, view, grade or the like.
        split: where the data set's own publication puts it.
        more_labels: other labels of the same image, by name, for example of a second observer.
        details: further facts.
        notes: what was odd.
    """

    name: str
    image: tuple[str, ...]
    label: str | None
    subject: str
    group: str | None = None
    split: str | None = None
    more_labels: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def listed(self, *, unlabeled: bool = False) -> Case:
        """This case as a data list has it; of an unlabeled one the label is there for monitoring only."""
        return Case(
            image=self.image[0] if len(self.image) == 1 else list(self.image),
            label=None if unlabeled else self.label,
            monitor_label=self.label if unlabeled else None,
            case=self.name if len(self.image) > 1 else None,
            subject=self.subject,
        )


def planned(name: str, *, subject: str | None = None, channels: int = 1, suffix: str = NIFTI) -> PreparedCase:
    """The case that a preparation will write, with a label; for lists that are written before the data are there."""
    files = image_names(name, channels=channels, suffix=suffix)
    return PreparedCase(name, tuple(f"images/{file}" for file in files), f"labels/{name}{suffix}", subject or name)


# ---- reading -------------------------------------------------------------------------------------------------------


def read_record(folder: str | Path) -> dict[str, Any]:
    """The content of `dataset.json`; a case that is planned but not written yet is None.

    Raises:
        InputError: code TARGET, if it is not there or was not written by a preparation.
    """
    path = Path(folder) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        entries = [entry for entry in record["cases"].values() if entry is not None]
        needed = {"source", "written", "notes", "image", "label", "subject"}
        if (
            record["format"] == _FORMAT
            and isinstance(record["recipe"], dict)
            and all(needed <= set(e) for e in entries)
        ):
            return record
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(
        "this is no record of a preparation", where=path, fix="Name a folder of `semi-med prepare`.", code="TARGET"
    )


def about_of(record: Mapping[str, Any]) -> About:
    """What a record says of its data set."""
    return About(**record["about"])


def prepared_cases(record: Mapping[str, Any]) -> dict[str, PreparedCase]:
    """The cases of a record that are written, by name."""
    return {name: prepared_case(name, entry) for name, entry in record["cases"].items() if entry is not None}


def prepared_case(name: str, entry: Mapping[str, Any]) -> PreparedCase:
    """One case from its entry in a record."""
    return PreparedCase(
        name=name,
        image=tuple(entry["image"]),
        label=entry["label"],
        subject=entry["subject"],
        group=entry.get("group"),
        split=entry.get("split"),
        more_labels=entry.get("more_labels", {}),
        details=entry.get("details", {}),
        notes=tuple(entry["notes"]),
    )


# ---- writing -------------------------------------------------------------------------------------------------------


def new_record(about: About, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A record without cases."""
    return {
        "format": _FORMAT,
        "about": {name: value for name, value in asdict(about).items() if value is not None},
        "recipe": json.loads(json.dumps(dict(recipe))),
        "versions": {"semi_med": __version__, **{name: metadata.version(name) for name in _VERSIONED}},
        "notes": [],
        "cases": {},
    }


def entry_of(case: PreparedCase, *, source: Mapping[str, str], written: Mapping[str, str]) -> dict[str, Any]:
    """One case for a record.

    Args:
        case: what was made.
        source: SHA-256 of the files it was made from, by their place in the source.
        written: SHA-256 of the files that were written, by their place in the target.
    """
    optional = {"group": case.group, "split": case.split, "more_labels": case.more_labels, "details": case.details}
    return {
        "image": list(case.image),
        "label": case.label,
        "subject": case.subject,
        **{name: value for name, value in optional.items() if value},
        "source": dict(source),
        "written": dict(written),
        "notes": list(case.notes),
    }


def write_record(target: Path, record: Mapping[str, Any], *, order: Sequence[str] = ()) -> None:
    """Write `dataset.json`, one case a line.

    Args:
        target: the folder.
        record: its content.
        order: cases that come first, in this order.
    """
    head = {name: value for name, value in record.items() if name != "cases"}
    names = [*(name for name in order if name in record["cases"]), *sorted(set(record["cases"]) - set(order))]
    lines = [f"  {_plain(name)}: {_plain(record['cases'][name])}" for name in names]
    text = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    write_atomically(target / RECORD, f'{text},\n "cases": {{\n' + ",\n".join(lines) + "\n }\n}\n")


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
