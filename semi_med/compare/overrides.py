"""The settings given with `--set`: for all methods, or for one method or variant."""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semi_med.bundle_settings import arguments_of
from semi_med.errors import InputError
from semi_med.launch import parse_setting
from semi_med.recipes.compose import TaskLike, compose_config, methods

Overrides = Mapping[str, Mapping[str, str]]  # "" for all methods, else the name of a method or variant

_RESERVED = {
    "max_iterations": "Use --iterations.",
    "seed": "Use --seeds.",
    "dataset_dir": "Use --dataset-dir.",
    "data_list_file": "Use --data-list.",
    "output_dir": "Every run has its own folder in -o.",
    "bundle_root": "Every method has its own bundle in -o.",
    "resume": "Runs that were interrupted are resumed.",
    "first_iteration": "A method with an earlier run goes on in the stream of batches where that ended.",
    "pretrained": "A method that needs an earlier run gets one of its own.",
    "monitor_pseudo_labels": "It is on wherever labels to watch are known.",
    "sections": "Use --data-list.",
    "early_stop_patience": "All methods are trained for the same number of iterations.",
    "train#trainer#max_iterations": "Use --iterations.",
    "train#trainer#max_epochs": "Use --iterations.",
}
_DECIDED = ("#data", "#output_dir", "#seed")  # ends of settings that decide what is compared


def parse_overrides(texts: Iterable[str], *, variants: Iterable[str] = ()) -> dict[str, dict[str, str]]:
    """Settings by method from `NAME=VALUE` (all methods) and `METHOD:NAME=VALUE`.

    Args:
        texts: what was given.
        variants: names that may stand before the colon as well.

    Raises:
        InputError: code SETTING; it is written otherwise, or is one that the comparison sets itself.
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        name, value = parse_setting(text)
        method, colon, rest = name.partition(":")
        if colon and not rest.startswith(":"):  # MONAI writes a::b for a#b
            check_names("method", [method], known=[*methods(), *variants])
            name = rest
        else:
            method = ""
        name = name.replace("::", "#")
        reserved = next((known for known in (name, name.split("#")[0]) if known in _RESERVED), None)
        if reserved is not None or name.endswith(_DECIDED):
            fix = _RESERVED[reserved] if reserved else "Every run gets it from the plan."
            raise InputError(f"{name} is set by the comparison itself", where="--set", fix=fix, code="SETTING")
        found.setdefault(method, {})[name] = value
    return found


def check_names(kind: str, names: Iterable[str], *, known: Sequence[str], where: Path | None = None) -> None:
    """Refuse a name that is not among those known.

    Raises:
        InputError: code SETTING, with the nearest name.
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            fix = f"Did you mean {near[0]}? " if near else ""
            fix += f"Known: {', '.join(known)}."
            raise InputError(f"there is no {kind} {name!r}", where=where, fix=fix, code="SETTING")


def check_overrides(overrides: Overrides, chosen: Mapping[str, str], *, task: TaskLike) -> None:
    """Refuse a setting that a method does not have, before anything is trained.

    Args:
        overrides: from `parse_overrides`.
        chosen: the methods and variants of the comparison, with those of their earlier runs, to their recipes.
        task: their task.

    Raises:
        InputError: code SETTING.
    """
    recipes = {recipe: compose_config("train", method=recipe, task=task) for recipe in dict.fromkeys(chosen.values())}
    configs = recipes | {name: recipes[recipe] for name, recipe in chosen.items()}
    for method, settings in overrides.items():
        if method and method not in configs:
            raise InputError(
                f"{method}: has settings, but is not among the methods that are compared",
                where="--set",
                fix=f"These are: {', '.join(chosen)}.",
                code="SETTING",
            )
        for name in settings:
            lacking = [each for each in ([method] if method else chosen) if not knows(configs[each], name)]
            if lacking:
                raise _unknown(name, lacking, configs)


def _unknown(name: str, lacking: Sequence[str], configs: Mapping[str, Mapping[str, Any]]) -> InputError:
    having = [method for method in configs if method not in lacking and knows(configs[method], name)]
    if having:
        fix = f"To set it where it is known: {' '.join(f'{method}:{name}=...' for method in having)}"
    else:
        near = difflib.get_close_matches(name, list(_names(configs[lacking[0]])), n=1)
        fix = f"Did you mean {near[0]}?" if near else "The bundle's docs/README.md lists the settings."
    return InputError(f"{', '.join(lacking)}: there is no setting {name}", where="--set", fix=fix, code="SETTING")


def _names(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, Mapping):
        for key in dict.fromkeys([*config, *(_arguments(config) or ())]):
            yield f"{prefix}{key}"
            yield from _names(config.get(key), f"{prefix}{key}#")


def knows(config: Mapping[str, Any], name: str) -> bool:
    """Whether a configuration has a setting, or a component there that takes it, or may take it."""
    *parents, last = name.split("#")
    place: Any = config
    for part in parents:
        place = _inside(place, part)
    if _inside(place, last) is not None or (isinstance(place, Mapping) and last in place):
        return True
    taken = _arguments(place)
    return taken is None or last in taken


def _arguments(place: Any) -> list[str] | None:
    """Names that a component takes, none of what is no component; None where only its training can judge."""
    if not isinstance(place, Mapping) or "_target_" not in place:
        return []
    target = str(place["_target_"])
    return arguments_of(target) if target.startswith("semi_med.") else None


def _inside(place: Any, part: str) -> Any:
    if isinstance(place, list):
        return place[int(part)] if part.isdigit() and int(part) < len(place) else None
    return place.get(part) if isinstance(place, Mapping) else None


def settings_for(
    overrides: Overrides, method: str, *, stage: str, task: TaskLike, recipe: str | None = None
) -> dict[str, str]:
    """The settings of one training.

    Args:
        overrides: from `parse_overrides`.
        method: the method or variant of the job.
        stage: the method that is trained: the job's, or that of its earlier run. What was given for the method goes
            for its earlier run too where that has such a setting, as both must have one network.
        task: their task.
        recipe: the method that a variant is of; what was given for that goes for the variant too, which may change it.
    """
    recipe = recipe or method
    own = {**overrides.get(recipe, {}), **overrides.get(method, {})}
    if stage != recipe:
        config = compose_config("train", method=stage, task=task)
        own = {name: value for name, value in own.items() if knows(config, name)} | dict(overrides.get(stage, {}))
    return {**overrides.get("", {}), **own}


def meaning(value: Any) -> Any:
    """What a setting's text means, so that `true` and `True`, `[1, 2]` and `[1,2]` are equal."""
    if not isinstance(value, str):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(value.lower() if value.lower() in ("true", "false") else value)
            return list(found) if isinstance(found, tuple) else found
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None if value.lower() in ("null", "none") else value
