"""Settings of the runs of a comparison: what all share, and what differs between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semi_med.report.comparison_data import Analysis
from semi_med.report.comparison_views import RunResult

_NONE = "–"


def shared_settings(found: Analysis) -> list[tuple[str, str]]:
    """What is the same for all runs: the summary of the comparison, then the settings that no run changes."""
    given = flattened(found.view.summary)
    names = {name for name, _ in given}
    flat = _flat(found)
    same = [
        (name, value)
        for name, value in next(iter(flat.values())).items()
        if name not in names and all(settings.get(name, _NONE) == value for settings in flat.values())
    ]
    return given + same


def method_settings(found: Analysis) -> list[dict[str, Any]]:
    """Settings that differ: a value for each method, in order of display, or one for each number of labels or seed.

    Left out is what the name of a run already says (method, labels, seed), and what differs from run to run: see
    `run_settings`.
    """
    flat = _flat(found)
    runs = {method: [run for run in found.view.runs if run.method == method] for method in found.names}
    lines = []
    for name in _differing(found, flat):
        cells = [
            _cell(several, {run.name: flat[run.name].get(name, _NONE) for run in several}) for several in runs.values()
        ]
        if None not in cells:
            lines.append({"name": name, "cells": cells})
    return lines


def run_settings(found: Analysis) -> dict[str, str]:
    """Run to the settings that only the single run tells, as `name: value` joined by semicolons."""
    flat = _flat(found)
    told = {line["name"] for line in method_settings(found)}
    names = [name for name in _differing(found, flat) if name not in told]
    return {
        run: "; ".join(f"{name}: {settings[name]}" for name in names if name in settings)
        for run, settings in flat.items()
    }


def flattened(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and text."""
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += flattened(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)))
    return found


def _flat(found: Analysis) -> dict[str, dict[str, str]]:
    return {run.name: dict(flattened(run.settings)) for run in found.view.runs}


def _differing(found: Analysis, flat: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Settings with several values, without those that repeat the method, the labels or the seed of each run."""
    names = dict.fromkeys(name for settings in flat.values() for name in settings)
    known = {run.name: (run.method, str(run.labeled), str(run.seed)) for run in found.view.runs}
    return [
        name
        for name in names
        if len({settings.get(name, _NONE) for settings in flat.values()}) > 1
        and not any(all(flat[run].get(name) == said[place] for run, said in known.items()) for place in range(3))
    ]


def _cell(runs: Sequence[RunResult], values: Mapping[str, str]) -> str | None:
    """One value if all runs of the method have it, else the values by labels or by seed, else None."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    for words in (
        {run.name: "all labels" if run.labeled is None else f"{run.labeled} labelled" for run in runs},
        {run.name: f"seed {run.seed}" for run in runs},
    ):
        found: dict[str, set[str]] = {}
        for run, where in words.items():
            found.setdefault(where, set()).add(values[run])
        if all(len(several) == 1 for several in found.values()):
            return "; ".join(f"{where}: {next(iter(several))}" for where, several in found.items())
    return None
