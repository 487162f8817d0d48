"""Data lists of a published split: for each number of labels the published one, and draws with seeds."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from semi_med.data.data_list import DataList, save_data_list
from semi_med.datasets.prepared import PreparedDataset, some
from semi_med.datasets.record import About, PreparedCase

SEEDS = (1, 2, 3)

Subject: TypeAlias = Sequence[PreparedCase]  # all cases of one subject


def published_lists(
    about: About,
    *,
    train: Sequence[Subject],
    validation: Sequence[Subject],
    test: Sequence[Subject],
    labeled: Sequence[int],
    unit: str,
    rest: str,
    seeds: Sequence[int] = SEEDS,
    width: int = 2,
) -> dict[str, DataList]:
    """The lists of one split by file name without suffix.

    `labeled_04`, ...: labeled are the first subjects of the published order. `..._seed1` and on: labeled are drawn; for
    one seed the 4 are among the 8. `all_labeled`: the upper bound.

    Args:
        about: the data set.
        train: subjects for training in the published order, without those for validation.
        validation: subjects of the validation section, the same in every list.
        test: subjects of the test section, the same in every list.
        labeled: numbers of labeled subjects.
        unit: what is counted, for the description: `training scans`.
        rest: where validation and test come from, for the description.
        seeds: of the draws; none for the published lists only.
        width: digits of the number in a file name.
    """
    ways: dict[str, tuple[Sequence[Subject], str]] = {}
    for count in labeled:
        name = f"labeled_{count:0{width}d}"
        ways[name] = train[:count], f"the first {count} {unit} of the published order."
        for seed in seeds:
            rng = random.Random(seed)
            drawn = sorted(train, key=lambda _: rng.random())
            ways[f"{name}_seed{seed}"] = drawn[:count], f"{count} {unit} drawn with seed {seed}."
    ways["all_labeled"] = train, f"all {len(train)} {unit} that are not for validation (upper bound)."
    return {
        name: _list(about, chosen, train, validation, test, description=f"Labeled: {how} {rest}")
        for name, (chosen, how) in ways.items()
    }


def _list(
    about: About,
    labeled: Sequence[Subject],
    train: Sequence[Subject],
    validation: Sequence[Subject],
    test: Sequence[Subject],
    *,
    description: str,
) -> DataList:
    known = {case.name for subject in labeled for case in subject}
    return DataList(
        name=about.name,
        description=description,
        reference=about.reference,
        licence=about.licence,
        modality=dict(about.modality),
        labels=dict(about.labels),
        labeled=[case.listed() for subject in labeled for case in subject],
        unlabeled=[case.listed(unlabeled=True) for subject in train for case in subject if case.name not in known],
        validation=[case.listed() for subject in validation for case in subject],
        test=[case.listed() for subject in test for case in subject],
    )


def write_all(lists: Mapping[str, DataList], folder: str | Path) -> tuple[Path, ...]:
    """Write lists as `<folder>/<name>.json`, and name the files."""
    paths = []
    for name, data_list in lists.items():
        paths.append(Path(folder) / f"{name}.json")
        save_data_list(data_list, paths[-1])
    return tuple(paths)


def possible_lists(
    done: PreparedDataset, lists: Mapping[str, DataList], *, unit: str
) -> tuple[dict[str, DataList], list[str]]:
    """Those published lists whose training and validation cases are all prepared with a label.

    Args:
        done: what was prepared.
        lists: all of the data set.
        unit: what cases are, for the notes: `scans`.

    Returns:
        the lists, and what stands in the way of the others; a missing test case does not.
    """
    labeled = set(done.cases) - set(done.without_label)
    needed = {
        name: {case.name for case in (*each.labeled, *each.unlabeled, *each.validation)} for name, each in lists.items()
    }
    test = {case.name for each in lists.values() for case in each.test}
    notes = []
    if others := [name for name in done.cases if name not in test.union(*needed.values())]:
        notes.append(f"{len(others)} cases are not in the published split, and in no list: {some(others)}")
    possible = {name: each for name, each in lists.items() if needed[name] <= labeled}
    wanted = set().union(*needed.values())
    if missing := sorted(wanted - labeled):
        left = "no data list is written" if not possible else f"{len(lists) - len(possible)} data lists are not written"
        count = f"{len(missing)} of the {len(wanted)} published training {unit}"
        notes.append(f"{count} are not there with a label, so {left}: {some(missing)}")
    if possible and (absent := sorted(test - labeled)):
        notes.append(
            f"{len(absent)} of the {len(test)} test {unit} are not there with a label: training needs none of them."
        )
    return possible, notes
