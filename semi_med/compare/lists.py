"""Which cases each run of a comparison trains on: drawn from one base list, or as published."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semi_med.data.data_list import DataList, data_list_text, load_data_list
from semi_med.data.subsets import check_apart, counts_scans, draw_labeled, pool_subjects
from semi_med.errors import InputError
from semi_med.inference.io import PICTURE_SUFFIXES
from semi_med.recipes.compose import Task, TaskLike, find_task

ALL = "all_labeled"
_LISTS_OF_A_BUNDLE = re.compile(r"/data_lists/([a-z_]*)%02d([a-z_]*)\.json'")


@dataclass(frozen=True)
class Base:
    """What lists are made from.

    Attributes:
        lists: the base list as "base"; or the published lists, as `labeled_<number>` and `all_labeled`.
        source: where it came from, for people.
        published: whether the lists are used as they are.
    """

    lists: Mapping[str, DataList]
    source: str
    published: bool = False

    @property
    def sha256(self) -> str:
        """Of the canonical text of all lists."""
        digest = hashlib.sha256()
        for name in sorted(self.lists):
            digest.update(f"{name}\n{data_list_text(self.lists[name])}".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class RunLists:
    """The lists of the runs.

    Attributes:
        lists: by file name without suffix.
        names: name of the list for a number of labelled subjects (None for all) and a seed.
        unit: what the number counts, "subject", "scan" or "picture".
        pool: how many of them have labels that are known.
        notes: what a reader of the result should know.
    """

    lists: Mapping[str, DataList]
    names: Mapping[tuple[int | None, int], str]
    unit: str
    pool: int
    notes: tuple[str, ...] = field(default_factory=tuple)


def find_base(task: TaskLike, *, dataset_dir: Path, data_list: Path | None) -> Base:
    """The base list that was named, else the published lists of the task, else that of its bundle or of the data set.

    That is `data_list.json`, or `all_labeled.json` as `semi-med prepare` writes it.

    Raises:
        InputError: there is none.
    """
    task = find_task(task)
    if data_list is None and (published := _published_lists(task)):
        return Base(published, f"published lists of {task.name}", published=True)
    of_bundle = task.folder.parents[1] / "data_lists" / "labeled.json"
    if data_list is None and not task.recipe and of_bundle.is_file():
        data_list = of_bundle
    path = data_list or dataset_dir / "data_list.json"
    if data_list is None and not path.is_file() and (dataset_dir / f"{ALL}.json").is_file():
        path = dataset_dir / f"{ALL}.json"
    if data_list is None and not path.is_file():
        raise InputError(
            "there is no data list", where=path, fix="Name one with --data-list; docs/data.md says how.", code="MISSING"
        )
    return Base({"base": load_data_list(path)}, path.name)


def load_base(folder: Path, *, published: bool, source: str) -> Base:
    """The base that an earlier plan kept in its folder."""
    return Base({path.stem: load_data_list(path) for path in sorted(folder.glob("*.json"))}, source, published)


def _published_lists(task: Task) -> dict[str, DataList]:
    """The lists that the task's bundles choose among by their setting `labeled`, and that of all labels."""
    from semi_med.recipes.compose import compose, compose_config

    chosen = str(compose_config("train", method="supervised", task=task).get("data_list_file", ""))
    if (pattern := _LISTS_OF_A_BUNDLE.search(chosen)) is None:
        return {}
    before, after = pattern.groups()
    with tempfile.TemporaryDirectory() as temporary:
        folder = compose("supervised", task, Path(temporary) / "bundle") / "data_lists"
        name = re.compile(rf"{before}(\d+){after}\.json")
        found = {f"labeled_{int(m[1])}": path for path in folder.glob("*.json") if (m := name.fullmatch(path.name))}
        whole = folder / f"{ALL}{after}.json"
        found |= {ALL: whole} if found and whole.is_file() else {}
        return {name: load_data_list(path) for name, path in found.items()}


def make_lists(base: Base, *, labeled: Sequence[int], seeds: Sequence[int], all_labels: bool) -> RunLists:
    """The list of every number of labels and seed, checked to be comparable. No file of the data set is opened.

    Args:
        base: what they are made from.
        labeled: numbers of labelled subjects.
        seeds: of the runs, and of the draws where the lists are drawn.
        all_labels: also the list of the ceiling, where more labels are known than the largest number.

    Raises:
        InputError: a number cannot be had.
        ProblemsError: a case or subject is in two sections, or the lists contradict each other.
    """
    check_apart(base.lists if not base.published else {f"{name}.json": one for name, one in base.lists.items()})
    made = _taken(base, labeled, seeds) if base.published else _drawn(base.lists["base"], labeled, seeds)
    lists, names, notes = made
    first = base.lists.get(ALL) or next(iter(base.lists.values()))
    unit, pool = "subject", len(pool_subjects(first))
    if counts_scans(first):
        unit = "picture" if shows_pictures(first) else "scan"
    if all_labels and (base.published and ALL not in base.lists):
        notes.append("There is no published list of all labels, so that there is no ceiling.")
    elif all_labels and pool <= max(labeled):
        notes.append(f"No more than {pool} labelled {unit}s are known, so that there is no ceiling to compare with.")
    elif all_labels:
        lists[ALL] = base.lists[ALL] if base.published else draw_labeled(base.lists["base"], count=None, seed=0)
        names |= {(None, seed): ALL for seed in seeds}
    check_apart({f"{name}.json": data_list for name, data_list in lists.items()})
    hidden = {case.name for one in lists.values() for case in one.unlabeled if case.monitor_label is None}
    if hidden:
        things = "pictures" if shows_pictures(first) else "scans"
        notes.append(
            f"{len(hidden)} unlabelled {things} have no label to watch: pseudo-labels are not compared with it."
        )
    return RunLists(lists, names, unit, pool, tuple(notes))


def shows_pictures(listed: DataList) -> bool:
    """Whether the cases are pictures (.png, .jpg, ...), which have pixels and no millimetres."""
    cases = (*listed.labeled, *listed.unlabeled, *listed.validation, *listed.test)
    return bool(cases) and all(file.lower().endswith(PICTURE_SUFFIXES) for case in cases for file in case.files)


_Made = tuple[dict[str, DataList], dict[tuple[int | None, int], str], list[str]]


def _drawn(base: DataList, labeled: Sequence[int], seeds: Sequence[int]) -> _Made:
    names: dict[tuple[int | None, int], str] = {(n, seed): f"labeled_{n}_seed{seed}" for n in labeled for seed in seeds}
    lists = {name: draw_labeled(base, count=n, seed=seed) for (n, seed), name in names.items()}
    return lists, names, []


def _taken(base: Base, labeled: Sequence[int], seeds: Sequence[int]) -> _Made:
    there = sorted(int(name.removeprefix("labeled_")) for name in base.lists if name != ALL)
    for number in labeled:
        if number not in there:
            raise InputError(
                f"{base.source}: there is none with {number} labelled, there are {_words(there)}",
                where="--labeled",
                fix="Choose among these, or give a base list to draw from with --data-list.",
                code="LABELED",
            )
    names: dict[tuple[int | None, int], str] = {(n, seed): f"labeled_{n}" for n in labeled for seed in seeds}
    note = (
        f"{_words(labeled)} labelled: the published lists, the same for every seed. Seeds differ in what networks "
        "start from and in the order of crops, not in which scans are labelled."
    )
    return {name: base.lists[name] for name in dict.fromkeys(names.values())}, names, [note]


def _words(numbers: Iterable[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last
