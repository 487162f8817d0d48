"""Data lists that are drawn with a seed, by subject: a subject's cases are never in two sections."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from semi_med.data.data_list import Case, DataList
from semi_med.datasets.prepared import some
from semi_med.datasets.record import About, PreparedCase
from semi_med.errors import InputError

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
        return DataList(
            name=self.about.name,
            description=description,
            reference=self.about.reference,
            licence=self.about.licence,
            modality=dict(self.about.modality),
            labels=dict(self.about.labels),
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
