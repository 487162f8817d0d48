"""The numbers of a comparison: every method at every number of labels, against the baseline and the ceiling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from semi_med.errors import InputError
from semi_med.metrics.case import Row
from semi_med.metrics.comparison import (
    GapShare,
    MethodDifference,
    MethodMean,
    compare_methods,
    method_mean,
    share_of_gap,
)
from semi_med.report.comparison_views import ComparisonView, RunResult
from semi_med.report.comparison_words import Choice, MethodVerdict, brief_names, judge_method, label_words

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Entry:
    """One method at one number of labels.

    `difference`, `share` and `verdict` are None for the baseline itself, where there is no baseline to compare with,
    and where the runs cannot be compared; `problem` then says why.
    """

    method: str
    name: str
    labeled: int | None
    runs: tuple[RunResult, ...]
    mean: MethodMean | None = None
    difference: MethodDifference | None = None
    share: GapShare | None = None
    verdict: MethodVerdict | None = None
    problem: str = ""

    @property
    def minutes(self) -> float:
        """Mean training time of the runs for which it is known."""
        known = [run.minutes for run in self.runs if not math.isnan(run.minutes)]
        return math.fsum(known) / len(known) if known else math.nan

    @property
    def tables(self) -> dict[int, Sequence[Row]]:
        """Seed to rows."""
        return {run.seed: run.table for run in self.runs}


@dataclass(frozen=True)
class Analysis:
    """All entries.

    Attributes:
        view: what was given.
        names: method to the name shown, in order of display, only those that have a run.
        counts: numbers of labels, rising.
        entries: (method, labels) to the entry; labels None are all labels.
    """

    view: ComparisonView
    names: Mapping[str, str]
    counts: tuple[int, ...]
    entries: Mapping[tuple[str, int | None], Entry]

    @property
    def brief(self) -> dict[str, str]:
        """Method to the name that figures and heads of tables have room for."""
        return brief_names({**self.view.method_names, **self.names})

    @property
    def distance(self) -> tuple[str, str]:
        """Column of HD95 that is shown, and its unit: in millimetres wherever there are any."""
        if self.view.thing == "picture":
            return "hd95_voxel", "pixels"
        rows = [row for run in self.view.runs for row in run.table]
        known = {name: any(not math.isnan(float(row[name])) for row in rows) for name in ("hd95_mm", "hd95_voxel")}
        return ("hd95_voxel", "voxels") if known["hd95_voxel"] and not known["hd95_mm"] else ("hd95_mm", "mm")

    @property
    def ceiling(self) -> Entry | None:
        """The baseline trained on all labels."""
        return self.entries.get((self.view.baseline, None))

    def at(self, labeled: int | None) -> list[Entry]:
        """Entries at one number of labels, in order of display."""
        return [self.entries[method, labeled] for method in self.names if (method, labeled) in self.entries]

    def best(self, labeled: int) -> Entry | None:
        """The method with the largest mean difference to the baseline; None if nothing could be compared."""
        compared = [entry for entry in self.at(labeled) if _has_value(entry.difference)]
        return max(compared, key=lambda entry: entry.difference.mean, default=None)  # type: ignore[union-attr]

    def labels(self, labeled: int | None) -> str:
        """Return "8 labelled subjects" or "all labels"."""
        return label_words(labeled, self.view.unit)


def analyse(view: ComparisonView) -> Analysis:
    """Compare every method with the baseline at every number of labels.

    Raises:
        InputError: no run, a run without rows, or one method, number of labels and seed twice.
    """
    groups = _groups(view)
    names = {method: name for method, name in view.method_names.items() if any(key[0] == method for key in groups)}
    names |= {method: method for method, _ in groups if method not in names}
    entries = {key: _measured(key, tuple(runs), view, names[key[0]]) for key, runs in groups.items()}
    counts = tuple(sorted({labeled for _, labeled in groups if labeled is not None}))
    compared = Analysis(view, names, counts, {key: _compared(entry, entries, view) for key, entry in entries.items()})
    best = {labeled: compared.best(labeled) for labeled in counts}
    judged = {
        key: _judged(entry, compared, best_there=best.get(entry.labeled) if entry.labeled is not None else None)
        for key, entry in compared.entries.items()
    }
    return Analysis(view, names, counts, judged)


def _groups(view: ComparisonView) -> dict[tuple[str, int | None], list[RunResult]]:
    if not view.runs:
        raise InputError("wanted finished runs to compare, got none", where=view.title, fix="Train and evaluate first")
    found: dict[tuple[str, int | None], list[RunResult]] = {}
    for run in sorted(view.runs, key=lambda run: run.seed):
        if not run.table:
            raise InputError("has no row of metrics", where=run.name, fix="Evaluate it first")
        there = found.setdefault((run.method, run.labeled), [])
        if there and there[-1].seed == run.seed:
            raise InputError(
                f"has the method, the number of labels and the seed of {there[-1].name}",
                where=run.name,
                fix="Give each run once",
            )
        there.append(run)
    return found


def _measured(key: tuple[str, int | None], runs: tuple[RunResult, ...], view: ComparisonView, name: str) -> Entry:
    entry = Entry(key[0], name, key[1], runs)
    try:
        return replace(entry, mean=method_mean(entry.tables, subjects=view.subjects))
    except InputError as error:
        return replace(entry, problem=str(error))


def _compared(entry: Entry, entries: Mapping[tuple[str, int | None], Entry], view: ComparisonView) -> Entry:
    floor, ceiling = (entries.get((view.baseline, labeled)) for labeled in (entry.labeled, None))
    if entry.method == view.baseline or entry.problem:
        return entry
    if floor is None:
        return replace(entry, problem=f"no finished run of {view.method_names.get(view.baseline, view.baseline)}")
    try:
        difference = compare_methods(entry.tables, floor.tables, subjects=view.subjects)
        if entry.labeled is None or ceiling is None:
            return replace(entry, difference=difference)
        share = _share(entry, floor, ceiling, view)
        return replace(entry, difference=difference, share=share)
    except InputError as error:
        return replace(entry, problem=str(error))


def _share(entry: Entry, floor: Entry, ceiling: Entry, view: ComparisonView) -> GapShare:
    try:
        return share_of_gap(entry.tables, floor.tables, ceiling.tables, subjects=view.subjects)
    except InputError as error:  # for example all labels were trained with other seeds
        return GapShare(math.nan, math.nan, math.nan, math.nan, f"no share: {error}")


def _judged(entry: Entry, found: Analysis, *, best_there: Entry | None) -> Entry:
    if entry.difference is None or not _has_value(entry.difference):
        return entry
    view = found.view
    choice = None
    if entry is best_there:
        several = sum(_has_value(other.difference) for other in found.at(entry.labeled))
        corrected = compare_methods(
            entry.tables,
            found.entries[view.baseline, entry.labeled].tables,
            subjects=view.subjects,
            confidence=1 - (1 - _CONFIDENCE) / several,
        )
        choice = Choice(several, corrected)
    verdict = judge_method(
        entry.difference,
        name=entry.name,
        baseline=found.names[view.baseline],
        labels=found.labels(entry.labeled),
        share=entry.share,
        choice=choice,
    )
    return replace(entry, verdict=verdict)


def _has_value(difference: MethodDifference | None) -> bool:
    return difference is not None and not math.isnan(difference.mean)
