"""Named variants: a method with other settings, compared under a name of its own beside the method and the others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_med.compare.overrides import Overrides, check_names, meaning
from semi_med.errors import InputError
from semi_med.recipes.compose import methods

_NAME = re.compile(r"[a-z][a-z0-9._-]*")
_KEYS = ("method", "settings")


@dataclass(frozen=True)
class Arms:
    """What is compared.

    Attributes:
        names: of methods and variants, in order.
        variants: name of each variant to the method that it is of.
        settings: of variants as a file gives them, as texts `VARIANT:NAME=VALUE`.
    """

    names: tuple[str, ...]
    variants: Mapping[str, str]
    settings: tuple[str, ...] = ()


def parse_arms(texts: Iterable[str], *, file: Path | None = None, known: Mapping[str, str] | None = None) -> Arms:
    """Methods and variants from `METHOD` and `NAME=METHOD`, then those of a file.

    Args:
        texts: what the command line says.
        file: JSON, `{"nogate": {"method": "fixmatchseg", "settings": {"method#threshold": 0}}, ...}`.
        known: variants of an earlier plan, which may be named again without their method.

    Raises:
        InputError: code SETTING, there is no such method or entry, or a name cannot be used; code VARIANTS, the file
            is not as described.
    """
    told = _read(file) if file else {}
    names: list[str] = []
    variants = dict(known or {})
    for name, method in (*map(_pair, texts), *((name, one["method"]) for name, one in told.items())):
        if method is None:
            check_names("method", [name], known=[*methods(), *variants])
        else:
            _check_name(name)
            check_names("method", [method], known=methods())
            if variants.setdefault(name, method) != method:
                raise InputError(
                    f"{name} is a variant of {variants[name]}, and of {method} here",
                    where="--methods",
                    fix="Give one of them another name.",
                    code="SETTING",
                )
        names.append(name)
    settings = [f"{name}:{key}={value}" for name, one in told.items() for key, value in one["settings"].items()]
    return Arms(tuple(dict.fromkeys(names)), variants, tuple(settings))


def _pair(text: str) -> tuple[str, str | None]:
    name, equals, method = text.partition("=")
    return name, method if equals else None


def _check_name(name: str) -> None:
    """A name is a part of file names and stands before a colon in `--set`."""
    if not _NAME.fullmatch(name) or name in methods():
        said = "is a method" if name in methods() else "cannot be the name of a variant"
        raise InputError(
            f"{name!r} {said}",
            where="--methods",
            fix="NAME=METHOD wants a name of its own of small letters, digits, '.', '-' and '_', for example "
            "nogate=fixmatchseg.",
            code="SETTING",
        )


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The variants of a file, each with `method` and `settings` as texts."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the variants cannot be read ({error})", where=path, fix=_FIX, code="VARIANTS") from error
    if not isinstance(content, dict) or not all(isinstance(one, dict) for one in content.values()):
        raise InputError("an object of objects was wanted", where=path, fix=_FIX, code="VARIANTS")
    for name, one in content.items():
        check_names(f"entry of {name}", one, known=_KEYS, where=path)
        if not isinstance(one.get("method"), str) or not isinstance(one.get("settings", {}), dict):
            raise InputError(f"{name} needs a method, and its settings by name", where=path, fix=_FIX, code="VARIANTS")
    return {
        name: {
            "method": one["method"],
            "settings": {key: _text(value) for key, value in one.get("settings", {}).items()},
        }
        for name, one in content.items()
    }


_FIX = 'For example {"nogate": {"method": "fixmatchseg", "settings": {"method#threshold": 0}}}.'


def _text(value: Any) -> str:
    """As it would be written after `--set NAME=`."""
    return value if isinstance(value, str) else json.dumps(value)


def check_variants(variants: Mapping[str, str], settings: Overrides, *, compared: Sequence[str]) -> None:
    """Refuse a variant that would train what another arm trains.

    Args:
        variants: name to method.
        settings: from `parse_overrides`.
        compared: the methods and variants of the comparison.

    Raises:
        InputError: code SETTING.
    """
    seen: dict[str, str] = {}
    for name in (name for name in compared if name in variants):
        own = {key: meaning(value) for key, value in settings.get(name, {}).items()}
        if not own:
            raise InputError(
                f"{name} has no settings of its own, so that it would be {variants[name]} under another name",
                where="--methods",
                fix=f"Say what is different: --set {name}:NAME=VALUE.",
                code="SETTING",
            )
        twin = seen.setdefault(json.dumps([variants[name], own], sort_keys=True, default=str), name)
        if twin != name:
            raise InputError(
                f"{twin} and {name} are both {variants[name]} with the same settings",
                where="--methods",
                fix="Leave one out.",
                code="SETTING",
            )
