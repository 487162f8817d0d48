"""A case as a validation sees it: its section, its files, and whom it shows."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from semi_med.errors import InputError
from semi_med.inference.io import case_name

_BIDS = re.compile(r"(?:^|[/\\_])sub-([A-Za-z0-9]+)")


@dataclass(frozen=True)
class Member:
    """A case in its section. Paths are as given; `key` identifies the image whatever links lead to it."""

    section: str
    case: str
    subject: str
    images: tuple[str, ...]
    label: str | None
    key: tuple[str, ...]

    @staticmethod
    def of(section: str, item: Mapping[str, Any], *, pattern: re.Pattern[str] | None = None) -> Member:
        """The member that an item of a data list stands for.

        Args:
            section: where it is listed.
            item: `image`, and `label`, `monitor_label`, `case` or `subject` if it has them.
            pattern: finds the subject in the path of the image; where it does not match, the item's counts.

        Raises:
            InputError: code MISSING_KEY, without an image.
        """
        image = item.get("image")
        if not image:
            raise InputError(f"an item has no image, but {sorted(item)}", where=section, code="MISSING_KEY")
        images = tuple(str(file) for file in (image if isinstance(image, list | tuple) else [image]))
        case = str(item.get("case") or case_name(images[0]))
        label = item.get("monitor_label" if section == "unlabeled" else "label")
        key = tuple(sorted(os.path.realpath(file) for file in images))
        subject = _found(pattern, images[0]) or _stated(item, case) or subject_in(case) or case
        return Member(section, case, subject, images, None if label is None else str(label), key)

    @property
    def place(self) -> str:
        """Where the case is, in words."""
        return f"{self.section}, case {self.case}" if self.section else f"case {self.case}"


def _stated(item: Mapping[str, Any], case: str) -> str | None:
    """The subject of an item, if it is more than the name of its case."""
    subject = str(item.get("subject") or "")
    return subject if subject and subject != case else None


def subject_in(case: str) -> str | None:
    """The subject in a name after the BIDS scheme: `sub-01_ses-2_T1w` shows `sub-01`."""
    found = _BIDS.search(case)
    return f"sub-{found[1]}" if found else None


def subject_pattern(text: str) -> re.Pattern[str]:
    """A regular expression that finds the subject in a path, by its first group or as a whole.

    Raises:
        InputError: code SETTING, if it is none.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise InputError(
            f"this is no regular expression ({error})",
            where=text,
            fix="For example '(TCGA_\\w+?)_\\d+' or 'patient(\\d+)'.",
            code="SETTING",
        ) from None


def _found(pattern: re.Pattern[str] | None, image: str) -> str | None:
    match = pattern.search(PurePath(image).as_posix()) if pattern else None
    if match is None:
        return None
    return match[1] if match.re.groups and match[1] is not None else match[0]
