"""Whether two data lists name the same cases, and two folders hold the same files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from semi_med.data.data_list import SECTIONS, Case, DataList

TRAINING = ("labeled", "unlabeled", "validation")


def cases_digest(data_list: DataList) -> str:
    """SHA-256 over the classes and the cases of all sections: files, names, subjects, in their order.

    How the file is written and what it says about itself (name, description, licence) does not count.
    """
    cases = {section: [_facts(case) for case in getattr(data_list, section)] for section in SECTIONS}
    return _digest({"labels": data_list.labels, **cases})


def files_digest(data_list: DataList, dataset_dir: str | Path) -> str | None:
    """SHA-256 over the names and sizes of the training side's files; None if one of them is not there.

    Sizes tell a data set that was prepared in another way, and cost no reading. The test section is not looked at.
    """
    try:
        return _digest({name: (Path(dataset_dir) / name).stat().st_size for name in sorted(_files(data_list))})
    except OSError:
        return None


def _files(data_list: DataList) -> set[str]:
    cases: Iterable[Case] = (case for section in TRAINING for case in getattr(data_list, section))
    return {file for case in cases for file in (*case.files, *((case.label,) if case.label else ()))}


def _facts(case: Case) -> list[Any]:
    return [case.name, list(case.files), case.label, case.subject or case.name, case.monitor_label]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
