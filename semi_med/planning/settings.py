"""Settings that a person gives as text: numbers, and `NAME=VALUE` for any setting of the bundle."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from pydoc import locate
from typing import Any

from semi_med.errors import InputError
from semi_med.launch import parse_setting
from semi_med.planning.parts import Parts
from semi_med.planning.rules import Choice
from semi_med.planning.trial import write_parts

_OPTIONS = {
    "crop_size": "--crop",
    "batch_size": "--batch",
    "unlabeled_batch_size": "--batch",
    "max_iterations": "--iterations",
    "network_def#base_filters": "--filters",
    "network_def#spatial_dims": "--dimensions",
    "dataset_dir": "--images",
    "data_list_file": "--images and --labels",
    "classes": "--labels",
}


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """`64,64,48` or `64x64x48` as numbers; `none` as none at all; None stays.

    Raises:
        InputError: code SETTING.
    """
    if text is None:
        return None
    if text.strip().lower() == "none":
        return ()
    try:
        found = tuple(float(part) for part in re.split(r"[,x\s]+", text.strip().lower()))
    except ValueError:
        found = (-1.0,)
    if any(not 0 <= number < 1e6 for number in found):
        raise InputError(
            f"numbers such as 64,64,48 were wanted, got {text!r}", where=option, fix="Or leave it out.", code="SETTING"
        )
    return found


def whole_numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """As `numbers`, for voxels and axes.

    Raises:
        InputError: code SETTING.
    """
    found = numbers(text, option)
    if found is not None and any(number != int(number) for number in found):
        raise InputError(f"whole numbers were wanted, got {text!r}", where=option, code="SETTING")
    return None if found is None else tuple(int(number) for number in found)


def check_name(kind: str, name: str, *, known: Iterable[str]) -> None:
    """Refuse a name that is not among those known.

    Raises:
        InputError: code SETTING, with the nearest.
    """
    choices = list(known)
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
        fix = f"Did you mean {near[0]}? " if near else ""
        raise InputError(f"there is no {kind} {name!r}", fix=f"{fix}Known: {', '.join(choices)}.", code="SETTING")


def with_settings(parts: Parts, texts: Iterable[str], *, method: str) -> Parts:
    """The parts with settings changed; what only the method has goes into a part of its own.

    Args:
        parts: of the task.
        texts: `NAME=VALUE`, nested names with `#`.
        method: of the bundle.

    Raises:
        InputError: code SETTING, there is no such setting, it is an option of its own, or it is of another kind.
    """
    from semi_med.recipes.compose import about_over, compose_config

    given = [parse_setting(text) for text in texts]
    if not given:
        return parts
    with tempfile.TemporaryDirectory(prefix="semi_med_") as folder:
        write_parts(parts, Path(folder))
        config = compose_config("train", method=method, task=Path(folder))
        plain = compose_config("train", method="supervised", task=Path(folder))
        inference = compose_config("inference", method=method, task=Path(folder))
    over = about_over(method)
    made: Parts = {name: json.loads(json.dumps(content)) for name, content in parts.items()}
    for name, text in given:
        name = name.replace("::", "#")
        value = _value(text)
        _check(name, value, {**inference, **config})
        if isinstance(value, dict) and "_target_" in value:
            value = {"_replace_": True, **value}  # a component of its own, without the arguments of the one before
        top = name.split("#")[0]
        own = top not in plain or top == "method" or top in over
        part = "shared" if top in made["shared"] else f"{method}/train" if own else "train"
        if top == "peer_def":
            part = f"{method}/shared"
        elif top not in config:
            part = "inference"
        place = made.setdefault(part, {})
        *parents, last = name.split("#")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return made


def with_given(choices: Mapping[str, Choice], texts: Iterable[str]) -> dict[str, Choice]:
    """The choices, with the values that `--set` gives to some of them: for tables and `plan.json`, not for parts."""
    given = {name.replace("::", "#"): _value(text) for name, text in map(parse_setting, texts)}
    return {name: _given(choice, given) for name, choice in choices.items()}


def _given(choice: Choice, given: Mapping[str, Any]) -> Choice:
    if not choice.option.startswith("--set "):
        return choice
    setting = choice.option.removeprefix("--set ").partition("=")[0]
    value = choice.value
    if isinstance(value, Mapping):  # one setting for each of its numbers
        names = {key: f"{setting.rpartition('#')[0]}#{key}" for key in value}
        if not given.keys() & names.values():
            return choice
        value = {key: given.get(names[key], number) for key, number in value.items()}
    elif setting in given:
        value = bool(given[setting]) if isinstance(value, bool) else given[setting]
    else:
        return choice
    return replace(choice, value=value, reason="as --set says", given=True)


def _check(name: str, value: Any, config: Mapping[str, Any]) -> None:
    if name in _OPTIONS:
        raise InputError(
            f"{name} is decided by {_OPTIONS[name]}", where="--set", fix=f"Use {_OPTIONS[name]}.", code="SETTING"
        )
    known = dict(_names(config))
    parent = known.get(name.rpartition("#")[0])
    if isinstance(parent, Mapping) and "_target_" in parent:
        known |= dict.fromkeys(f"{name.rpartition('#')[0]}#{argument}" for argument in _arguments(parent["_target_"]))
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        fix = f"Did you mean {near[0]}?" if near else "docs/README.md of a bundle lists the settings."
        raise InputError(f"there is no setting {name}", where="--set", fix=fix, code="SETTING")
    default = known.get(name)
    if isinstance(default, list) and any(isinstance(one, Mapping) for one in default):
        raise InputError(
            f"{name} is a list of components", where="--set", fix="Change it in the bundle.", code="SETTING"
        )
    number = isinstance(default, int | float) and not isinstance(default, bool)
    wrong = number and (isinstance(value, bool) or not isinstance(value, int | float | None))
    wrong = wrong and not (isinstance(value, str) and value.startswith(("$", "@")))
    wrong = wrong or (isinstance(default, bool) and not isinstance(value, bool))
    wrong = wrong or (isinstance(default, list) and not isinstance(value, list))
    if wrong:
        wanted = "a number" if number else "true or false" if isinstance(default, bool) else "a list such as [1, 2]"
        raise InputError(
            f"{name} wants {wanted}, got {value!r}", where="--set", fix=f"By the rules it is {default}.", code="SETTING"
        )


def _arguments(target: str) -> list[str]:
    """What a component of ours takes."""
    found = locate(target)
    return list(inspect.signature(found).parameters) if callable(found) else []


def _names(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield f"{prefix}{key}", value
            yield from _names(value, f"{prefix}{key}#")


def _value(text: str) -> Any:
    """What a text means, as JSON if it is that."""
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except ValueError:
        return text
