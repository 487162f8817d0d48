"""The data list: which cases are labeled, unlabeled, for validation and for the test.

A JSON file with paths relative to the data set's folder:

    {"name": "la", "description": "", "reference": "", "licence": "",
     "modality": {"0": "LGE-MR"}, "labels": {"0": "background", "1": "left atrium"},
     "labeled": [{"image": "images/A.nii.gz", "label": "labels/A.nii.gz", "subject": "A"}],
     "unlabeled": [{"image": "images/B.nii.gz", "subject": "B"}],
     "validation": [], "test": []}

`image` may be a list of files, one for each channel. `case` (default: the file name of the image) names the outputs,
`subject` (default: the case) says whom it shows: one subject must not be in two sections. An unlabeled entry has no
`label`; its `monitor_label`, if there is one, is opened only on request and never trains anything. Label files that
number the classes otherwise say so once for all: `"file_values": [0, 200]` are the numbers of class 0, 1, ...
`"ignored": 255` says that labels hold this value where nothing is known; without it a 255 that is no class's number is
an error. Beside `file_values`, which a bundle reads labels by, it may be another number. `"count_class_0": true` says
that class 0 is a class to be measured, like the road of a street, and no background.
"""

from __future__ import annotations

import difflib
import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from semi_med.data.strict_json import join_place, parse_json, shorten
from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.files import write_atomically
from semi_med.ignored import IGNORED
from semi_med.inference.io import case_name

SECTIONS = ("labeled", "unlabeled", "validation", "test")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"^[A-Za-z]:")


class Case(BaseModel):
    """One entry of a section. Paths are relative to the data set's folder, with forward slashes.

    Attributes:
        image: a file, or one file for each channel.
        label: class indices on the image's grid; none in the unlabeled section.
        case: name of the case and of its outputs; by default the image's file name without suffix.
        subject: whom it shows; by default the case.
        monitor_label: label of an unlabeled case, to watch pseudo-labels with; opened only on request.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    image: str | list[str]
    label: str | None = None
    case: str | None = None
    subject: str | None = None
    monitor_label: str | None = None

    @field_validator("image", mode="before")
    @classmethod
    def _check_image(cls, value: Any) -> Any:
        if isinstance(value, list) and value and all(isinstance(file, str) for file in value):
            return [_relative_path(file) for file in value]
        if not isinstance(value, str):
            raise PydanticCustomError(
                "TYPE", "a path or a list of paths was wanted, got {got}", {"got": shorten(value)}
            )
        return _relative_path(value)

    @field_validator("label", "monitor_label")
    @classmethod
    def _check_label(cls, value: str | None) -> str | None:
        return None if value is None else _relative_path(value)

    @field_validator("case", "subject")
    @classmethod
    def _check_name(cls, value: str | None) -> str | None:
        if value is not None:
            _check_text(value)
        return value

    @field_validator("case")
    @classmethod
    def _check_case(cls, value: str | None) -> str | None:
        if value is not None and (re.search(r"[/\\]", value) or value.startswith(".")):
            raise PydanticCustomError(
                "NAME", "a case names files: no slash and no dot in front, got {got}", {"got": shorten(value)}
            )
        return value

    @property
    def files(self) -> tuple[str, ...]:
        """The image's files, one for each channel."""
        return (self.image,) if isinstance(self.image, str) else tuple(self.image)

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case or case_name(self.files[0])


class DataList(BaseModel):
    """The cases of a data set in their sections, with what is known about its channels and classes.

    Attributes:
        name: short name of the data set.
        description: where the split comes from.
        reference: publication to cite.
        licence: terms of the data.
        modality: channel number to name, from "0".
        labels: class index to name, from "0", which is the background, or a class like others if `count_class_0`.
        file_values: the number that label files have for class 0, 1, ...; None where it is the class index.
        ignored: what labels hold where nothing is known; None if they do not. `IGNORED`, or with `file_values` any
            other number.
        count_class_0: whether class 0 is measured like the others; None, which is not written, if it is not.
        labeled: cases with labels to train with.
        unlabeled: cases to train with that have none.
        validation: labeled cases to choose a model and its settings with.
        test: labeled cases for the reported result only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(min_length=1)
    description: str = ""
    reference: str = ""
    licence: str = ""
    modality: dict[str, str] = {}
    labels: dict[str, str]
    file_values: list[int] | None = None
    ignored: int | None = None
    count_class_0: bool | None = None
    labeled: list[Case] = []
    unlabeled: list[Case] = []
    validation: list[Case] = []
    test: list[Case] = []

    @model_validator(mode="after")
    def _check_sections(self) -> DataList:
        problems = list(_rule_problems(self))
        if problems:
            raise ProblemsError(problems, title=f"data list {self.name}")
        return self

    @property
    def label_values(self) -> tuple[int, ...]:
        """What label files may hold: the class indices, from 0, or the numbers that stand for them."""
        return tuple(range(len(self.labels)) if self.file_values is None else self.file_values)

    @property
    def names_by_value(self) -> dict[int, str]:
        """Names of the classes by the number that label files have for them."""
        return dict(zip(self.label_values, self.labels.values(), strict=True))

    @property
    def structures_by_value(self) -> dict[int, str]:
        """What is measured: the same without class 0, the background, whatever its number is, unless it counts."""
        if self.count_class_0:
            return self.names_by_value
        background = self.label_values[0]
        return {value: name for value, name in self.names_by_value.items() if value != background}

    def counts(self) -> dict[str, int]:
        """Number of cases in each section."""
        return {section: len(getattr(self, section)) for section in SECTIONS}

    def sections(
        self, dataset_dir: str | Path, *, monitor: bool = False, allow_outside: bool = True
    ) -> dict[str, list[dict[str, Any]]]:
        """The sections with absolute paths, as datasets and `validate_sections` take them.

        Args:
            dataset_dir: the folder that the paths are relative to; no file is opened.
            monitor: also give the `monitor_label` of unlabeled cases.
            allow_outside: allow links in the folder that lead out of it, as a folder of links to a store has them.

        Returns:
            for each section its items: `image` (a path or a list of paths), `case`, `subject`, and `label` but for
            unlabeled cases, which have `monitor_label` if that is asked for and known.

        Raises:
            ProblemsError: code PATH_ESCAPE in each problem, if links lead out of the folder and must not.
        """
        root = Path(dataset_dir).absolute()
        sections = {name: [_item(case, root, monitor=monitor) for case in getattr(self, name)] for name in SECTIONS}
        if not allow_outside:
            _refuse_links_out(sections, root)
        return sections


def load_data_list(path: str | Path) -> DataList:
    """Read a data list and check all that can be checked without the data.

    Raises:
        ProblemsError: naming every problem with its place in the file, such as `labeled[3].image`.
        InputError: if the file cannot be read or is not JSON (with line and column).
    """
    title = f"data list {path}"
    tree = parse_json(Path(path), title=title)
    if not isinstance(tree, dict):
        raise InputError(
            f"an object with the keys {', '.join(DataList.model_fields)} was wanted, got {shorten(tree)}",
            where=path,
            fix="See data_lists/README.md.",
            code="DATA_LIST",
        )
    try:
        return DataList.model_validate(tree)
    except ValidationError as error:
        raise ProblemsError([_explain(details) for details in error.errors()], title=title) from None
    except ProblemsError as error:
        raise ProblemsError(error.problems, title=title) from None


def save_data_list(data_list: DataList, path: str | Path) -> None:
    """Write a data list whole or not at all; the same list gives the same bytes."""
    write_atomically(path, data_list_text(data_list))


def data_list_text(data_list: DataList) -> str:
    """The JSON of a data list, one case a line."""
    parts = []
    for key, value in data_list.model_dump(exclude_none=True).items():
        text = json.dumps(value, ensure_ascii=False)
        if key in SECTIONS and value:
            text = "[\n" + ",\n".join(f"    {json.dumps(item, ensure_ascii=False)}" for item in value) + "\n  ]"
        parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _item(case: Case, root: Path, *, monitor: bool) -> dict[str, Any]:
    files = [str(root / file) for file in case.files]
    item: dict[str, Any] = {"image": files[0] if isinstance(case.image, str) else files}
    if case.label is not None:
        item["label"] = str(root / case.label)
    if monitor and case.monitor_label is not None:
        item["monitor_label"] = str(root / case.monitor_label)
    return {**item, "case": case.name, "subject": case.subject or case.name}


def _refuse_links_out(sections: Mapping[str, list[dict[str, Any]]], root: Path) -> None:
    real_root = os.path.realpath(root)
    problems: list[SemiMedError] = []
    for section, items in sections.items():
        for item in items:
            images = item["image"] if isinstance(item["image"], list) else [item["image"]]
            for file in [*images, *(item[key] for key in ("label", "monitor_label") if key in item)]:
                real = os.path.realpath(file)
                if os.path.commonpath([real_root, real]) != real_root:
                    problems.append(
                        InputError(
                            f"the link leads out of the data set's folder ({section}, case {item['case']})",
                            where=file,
                            fix="Put the file itself there, or allow links that lead out.",
                            code="PATH_ESCAPE",
                        )
                    )
    if problems:
        raise ProblemsError(problems, title=f"data set folder {root}")


# ---- rules ---------------------------------------------------------------------------------------------------------


def _relative_path(value: str) -> str:
    """The path with forward slashes, without `.` and needless `..`."""
    _check_text(value)
    path = value.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path):
        raise PydanticCustomError(
            "PATH_ESCAPE", "a path relative to the data set's folder was wanted, got {got}", {"got": shorten(value)}
        )
    path = posixpath.normpath(path)
    if path == ".." or path.startswith("../"):
        raise PydanticCustomError(
            "PATH_ESCAPE", "the path leads out of the data set's folder: {got}", {"got": shorten(value)}
        )
    return path


def _check_text(value: str) -> None:
    if not value.strip():
        raise PydanticCustomError("EMPTY", "this must not be empty")
    if _CONTROL.search(value):
        raise PydanticCustomError("NAME", "line breaks and control characters are refused: {got}", {"got": repr(value)})
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("NAME", "this is not valid Unicode: {got}", {"got": ascii(value)}) from None


def _rule_problems(data_list: DataList) -> Iterator[InputError]:
    """What a list may not say although each of its parts is well formed."""
    for key in ("labels", "modality"):
        names = getattr(data_list, key)
        if list(names) != [str(number) for number in range(len(names))]:
            yield InputError(
                f'numbers from "0" without gaps, in order, were wanted, got {list(names)}',
                where=key,
                fix="A label's number is the network's output channel: renumber the labels in the files if needed."
                if key == "labels"
                else "Number the channels as the files of an image are ordered.",
                code="NUMBERS",
            )
    if len(data_list.labels) < 2:
        yield InputError(
            "the background and at least one class were wanted",
            where="labels",
            fix='For example {"0": "background", "1": "left atrium"}.',
            code="NUMBERS",
        )
    values = data_list.file_values
    if values is not None and (len(set(values)) != len(data_list.labels) or len(values) != len(set(values))):
        yield InputError(
            f"{len(data_list.labels)} different numbers were wanted, one for each class, got {values}",
            where="file_values",
            fix="Name the number in the label files of class 0, 1, ..., or leave it out if that is the class itself.",
            code="NUMBERS",
        )
    if values is not None and data_list.ignored in values:
        yield InputError(
            f"{data_list.ignored} is both the number of a class and ignored",
            where="file_values",
            fix='Leave "ignored" out if it is a class.',
            code="NUMBERS",
        )
    if len(data_list.labels) > IGNORED:
        yield InputError(
            f"at most {IGNORED} classes were wanted, got {len(data_list.labels)}: {IGNORED} is no class",
            where="labels",
            fix="Merge classes that are told apart nowhere.",
            code="NUMBERS",
        )
    if values is None and data_list.ignored not in (None, IGNORED):
        yield InputError(
            f"{IGNORED} is the one value that is ignored where labels hold class indices, got {data_list.ignored}",
            where="ignored",
            fix=f"Renumber: `semi-med convert LABELS OUTPUT --label --map-labels {data_list.ignored}={IGNORED}`.",
            code="NUMBERS",
        )
    channels = len(data_list.modality) or None
    for section in SECTIONS:
        for number, case in enumerate(getattr(data_list, section)):
            place = f"{section}[{number}]"
            yield from _case_problems(case, section, place)
            if channels is None:
                channels = len(case.files)
            # one file may hold all channels, so only a list of files tells how many there are
            if not isinstance(case.image, str) and len(case.files) != channels:
                yield InputError(
                    f"{channels} files were wanted for the channels, got {len(case.files)}",
                    where=f"{place}.image",
                    fix="Give every case the same channels, as many as `modality` names.",
                    code="CHANNELS",
                )


def _case_problems(case: Case, section: str, place: str) -> Iterator[InputError]:
    if section == "unlabeled" and case.label is not None:
        yield InputError(
            "an unlabeled case must not have a label",
            where=f"{place}.label",
            fix="Remove the key, or call it monitor_label, which never trains anything.",
            code="LABEL_KEY",
        )
    if section != "unlabeled" and case.label is None:
        yield InputError(
            f"a case of the section {section} must have a label",
            where=place,
            fix='Add "label", or move the case to the unlabeled section.',
            code="LABEL_KEY",
        )
    if section != "unlabeled" and case.monitor_label is not None:
        yield InputError(
            "monitor_label is for unlabeled cases only",
            where=f"{place}.monitor_label",
            fix='Remove it; here the key is "label".',
            code="LABEL_KEY",
        )


def _explain(details: Mapping[str, Any]) -> InputError:
    """One of pydantic's findings in the words of this project."""
    place = ""
    for step in details["loc"]:
        place = join_place(place, step)
    kind = str(details["type"])
    if kind == "extra_forbidden":
        known = list(Case.model_fields if len(details["loc"]) > 1 else DataList.model_fields)
        near = difflib.get_close_matches(str(details["loc"][-1]).lower(), known, n=1)
        fix = f"Did you mean {near[0]}?" if near else f"Known keys here: {', '.join(known)}."
        return InputError("this key is unknown", where=place, fix=fix, code="UNKNOWN_KEY")
    if kind == "missing":
        return InputError("this key is missing", where=place, fix="Add it.", code="MISSING_KEY")
    if kind == "PATH_ESCAPE":
        fix = "Write it relative to the folder, and pass the folder itself as the data set's folder."
        return InputError(details["msg"], where=place, fix=fix, code=kind)
    if kind in ("TYPE", "EMPTY", "NAME"):
        return InputError(details["msg"], where=place, fix="Mend this entry.", code=kind)
    wanted = str(details["msg"]).replace("Input should be ", "").partition(" or instance")[0]
    return InputError(
        f"wanted {wanted}, got {shorten(details['input'])}", where=place, fix="Mend this entry.", code="TYPE"
    )
