"""What the app offers: its models, trainers, strategies and scoring methods, with their settings."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from semi_med.label_app.guard import params as rules
from semi_med.label_app.guard.answers import Refused

_FRESH = 2.0  # seconds that an answer of /info/ is believed
_SECTIONS = {
    "infer": ("models",),
    "wsi": ("models",),
    "batch": ("models",),
    "train": ("trainers",),
    "strategy": ("strategies",),
    "scoring": ("scoring",),
    "": ("models", "trainers"),
}


class Offers:
    """`/info/`, asked again when it is not fresh.

    Args:
        ask: gives its JSON.
    """

    def __init__(self, ask: Callable[[], Awaitable[bytes]]) -> None:
        self._ask = ask
        self._asked = -_FRESH
        self._info: dict[str, Any] = {}

    async def check(self, kind: str, ids: Mapping[str, str]) -> None:
        """Refuses the name of a model, strategy or method that the app does not have.

        Args:
            kind: for what it is asked, see `Endpoint.params`.
            ids: of the request.

        Raises:
            Refused: 404, with the names that there are.
        """
        for word, name in ids.items():
            if word not in ("model", "strategy", "method"):
                continue
            info = await self._fresh()
            names = {each for section in _SECTIONS[kind] for each in info.get(section) or ()}
            if name not in names:
                have = ", ".join(sorted(names)[:10]) or "none yet"
                raise Refused(404, f"there is no such {word}; there is {have}", code="NOT_FOUND")

    async def check_params(self, kind: str, ids: Mapping[str, str], given: dict[str, Any]) -> None:
        """Refuses settings that are not offered.

        Args:
            kind: whose settings they are, see `Endpoint.params`.
            ids: of the request.
            given: the settings.

        Raises:
            Refused: 422.
        """
        if kind == "info":
            return rules.check_info(given)
        info = await self._fresh()
        name = ids.get("model") or ids.get("strategy") or ids.get("method") or ""
        labels = _labels(info, name)
        if kind == "infer":
            rules.check_params(given, _config(info, "models", name), known=rules.INFER, labels=labels)
        elif kind == "wsi":
            inner = given.pop("params", None)
            rules.check_params(given, {}, known=rules.WSI)
            if inner is not None:
                given["params"] = rules.as_object(inner)
                rules.check_params(inner, _config(info, "models", name), known=rules.WSI_INFER, labels=labels)
        elif kind == "batch":
            rules.check_params(given, _config(info, "models", name), known=rules.BATCH, labels=labels)
        elif kind in ("trainers", "methods"):
            self._check_each(info, "trainers" if kind == "trainers" else "scoring", given)
        else:
            section = {"train": "trainers", "strategy": "strategies", "scoring": "scoring"}.get(kind)
            offered = _config(info, section, name) if section else {}
            rules.check_params(given, offered, known=rules.ANYWHERE)
        return None

    def _check_each(self, info: Mapping[str, Any], section: str, given: Mapping[str, Any]) -> None:
        """Settings of all at once: by name, or together."""
        names = info.get(section) or {}
        together = {key: value for name in names for key, value in _config(info, section, name).items()}
        loose = {key: value for key, value in given.items() if key not in names}
        rules.check_params(loose, together, known=rules.ANYWHERE)
        for name in names:
            if name in given:
                rules.check_params(rules.as_object(given[name]), _config(info, section, name), known=rules.ANYWHERE)

    async def _fresh(self) -> dict[str, Any]:
        if time.monotonic() - self._asked > _FRESH:
            try:
                self._info = json.loads(await self._ask())
            except ValueError:
                raise Refused(503, "the app does not answer", fix="Its log says why.", code="APP") from None
            self._asked = time.monotonic()
        return self._info


def _config(info: Mapping[str, Any], section: str, name: str) -> dict[str, Any]:
    return ((info.get(section) or {}).get(name) or {}).get("config") or {}


def _labels(info: Mapping[str, Any], model: str) -> list[str]:
    own = ((info.get("models") or {}).get(model) or {}).get("labels") or []
    return [str(label) for label in [*own, *(info.get("labels") or [])]]
