"""Data lists of prepared data sets: published splits, and those that are drawn with a seed, by subject.

A subject's cases are never in two sections.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from semi_med.data.data_list import Case, DataList, save_data_list
from semi_med.datasets.prepared import PreparedDataset, some
from semi_med.datasets.record import About, PreparedCase
from semi_med.errors import InputError

Subject: TypeAlias = Sequence[PreparedCase]  # all cases of one subject

SEEDS = (1, 2, 3)
SPLIT_SEED = 0  # of validation and test, where a data set's publication does not name them


@dataclass(frozen=True)
class Parts:
    """Subjects of the parts that a split has.

    Attributes:
        train: labeled and unlabeled ones are drawn from these.
        validation: to choose a model with.
        test: for the reported result.
        further: always unlabeled.
    """

    train: Sequence[str]
    validation: Sequence[str]
    test: Sequence[str]
    further: Sequence[str] = ()


def shuffled(names: Iterable[str], *, seed: int) -> list[str]:
    """The names in an order that only depends on them and the seed."""
    ordered = sorted(set(names))
    return random.Random(seed).sample(ordered, len(ordered))


def data_list_of(
    about: About,
    *,
    description: str,
    labeled: Iterable[Case],
    unlabeled: Iterable[Case],
    validation: Iterable[Case],
    test: Iterable[Case],
) -> DataList:
    """The data list of a data set with these cases."""
    return DataList(
        name=about.name,
        description=description,
        reference=about.reference,
        licence=about.licence,
        modality=dict(about.modality),
        labels=dict(about.labels),
        ignored=about.ignored,
        count_class_0=about.count_class_0,
        labeled=list(labeled),
        unlabeled=list(unlabeled),
        validation=list(validation),
        test=list(test),
    )


class ListMaker:
    """Makes data lists from the names of subjects; their cases come in the order of their names.

    Args:
        about: the data set.
        cases: those there are.
    """

    def __init__(self, about: About, cases: Mapping[str, PreparedCase]) -> None:
        self.about = about
        self._subjects: dict[str, list[tuple[Case | None, Case]]] = {}
        for name in sorted(cases):
            case = cases[name]
            listed = case.listed() if case.label is not None else None
            self._subjects.setdefault(case.subject, []).append((listed, case.listed(unlabeled=True)))

    def __call__(
        self,
        *,
        labeled: Sequence[str],
        unlabeled: Sequence[str],
        validation: Sequence[str],
        test: Sequence[str],
        description: str,
    ) -> DataList:
        """A data list of these subjects; where a label is needed, cases without one are left out.

        Raises:
            InputError: code DUPLICATE, if a subject is in two sections.
        """
        uses = Counter((*labeled, *unlabeled, *validation, *test))
        if twice := sorted(name for name, count in uses.items() if count > 1):
            found = f"{len(twice)} subjects are in two sections: {some(twice)}"
            raise InputError(found, where=self.about.name, code="DUPLICATE")
        return data_list_of(
            self.about,
            description=description,
            labeled=self._with_label(labeled),
            unlabeled=[case for name in unlabeled for _, case in self._subjects.get(name, ())],
            validation=self._with_label(validation),
            test=self._with_label(test),
        )

    def _with_label(self, subjects: Sequence[str]) -> list[Case]:
        return [case for name in subjects for case, _ in self._subjects.get(name, ()) if case is not None]


def drawn_lists(
    about: About,
    cases: Mapping[str, PreparedCase],
    parts: Parts,
    *,
    counts: Mapping[str, int],
    unit: str,
    rest: str,
    seeds: Sequence[int] = SEEDS,
    prefix: str = "",
    most_unlabeled: int | None = None,
) -> dict[str, DataList]:
    """Lists `<prefix>labeled_<count>_seed<seed>` and `<prefix>all_labeled`.

    For one seed a smaller number of labeled subjects is always among a larger one.

    Args:
        about: the data set.
        cases: those there are.
        parts: of the split.
        counts: subjects to label, by the number as it is to stand in the name.
        unit: what a subject is, for the description, in the plural.
        rest: the sentence of the description about validation and test.
        seeds: of the draw of the labeled ones.
        prefix: of the names.
        most_unlabeled: subjects of `parts.train` that are unlabeled at most; None for all that are left.

    Raises:
        InputError: code NO_CASES, if there are too few subjects.
    """
    if max(counts.values(), default=0) > len(parts.train):
        raise InputError(
            f"{max(counts.values())} {unit} are to be labeled, {len(parts.train)} are there to be trained with",
            where=about.name,
            code="NO_CASES",
        )
    make, lists = ListMaker(about, cases), {}
    for name, count in counts.items():
        for seed in seeds:
            order = shuffled(parts.train, seed=seed)
            left = order[count:] if most_unlabeled is None else order[count : count + most_unlabeled]
            lists[f"{prefix}labeled_{name}_seed{seed}"] = make(
                labeled=sorted(order[:count]),
                unlabeled=[*sorted(left), *parts.further],
                validation=parts.validation,
                test=parts.test,
                description=f"Labeled: {count} {unit} drawn with seed {seed}. {rest}",
            )
    lists[f"{prefix}all_labeled"] = make(
        labeled=sorted(parts.train),
        unlabeled=[],
        validation=parts.validation,
        test=parts.test,
        description=f"Labeled: all {len(parts.train)} {unit} (upper bound). {rest}",
    )
    return lists


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
    sections = {"train": train, "validation": validation, "test": test}
    names = {section: [subject[0].subject for subject in subjects] for section, subjects in sections.items()}
    make = ListMaker(about, {case.name: case for each in sections.values() for subject in each for case in subject})
    order, ways = names["train"], {}
    for count in labeled:
        name = f"labeled_{count:0{width}d}"
        ways[name] = order[:count], f"the first {count} {unit} of the published order."
        for seed in seeds:
            rng = random.Random(seed)
            drawn = sorted(order, key=lambda _: rng.random())
            ways[f"{name}_seed{seed}"] = drawn[:count], f"{count} {unit} drawn with seed {seed}."
    ways["all_labeled"] = order, f"all {len(order)} {unit} that are not for validation (upper bound)."
    return {
        name: make(
            labeled=chosen,
            unlabeled=[subject for subject in order if subject not in set(chosen)],
            validation=names["validation"],
            test=names["test"],
            description=f"Labeled: {how} {rest}",
        )
        for name, (chosen, how) in ways.items()
    }


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
