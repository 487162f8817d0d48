"""Options that several commands have. Nothing heavy is imported."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer


class Section(str, Enum):
    """Of a data list."""

    labeled = "labeled"
    unlabeled = "unlabeled"
    validation = "validation"
    test = "test"


DataListOption: TypeAlias = Annotated[
    Path | None, typer.Option("--data-list", help="Only the cases of a section of this list.")
]
SectionOption: TypeAlias = Annotated[Section, typer.Option("--section", help="Which section of --data-list.")]


def scans_of(data_list: Path, section: Section, inputs: list[Path]) -> dict[str, tuple[Path, ...]]:
    """The files of a section's cases."""
    from semi_med.data.data_list import load_data_list
    from semi_med.data.listed import section_files

    return section_files(load_data_list(data_list), section.value, inputs)


def labels_of(data_list: Path, section: Section, labels: Path) -> tuple[dict[str, Path], dict[int, str], int | None]:
    """A section's labels by case, the structures of the list, and what it ignores."""
    from semi_med.data.data_list import load_data_list
    from semi_med.data.listed import section_files

    listed = load_data_list(data_list)
    files = section_files(listed, section.value, [labels], labels=True)
    return {case: label for case, (label,) in files.items()}, listed.structures_by_value, listed.ignored
