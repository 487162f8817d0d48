"""Settings in JSON: only those that the app offers, or that a known client sends, and only with sane values.

MONAI Label merges them into its own request, where `image` is a path, and hands those of a training to a MONAI
config, where a text that begins with `$` is code.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from semi_med.label_app.guard.answers import Refused
from semi_med.label_app.guard.store import is_id

DEPTH, VALUES = 8, 20_000
LARGEST = 1e6  # of a number without a range of its own
RANGES: Mapping[str, tuple[float, float]] = {
    "max_epochs": (1, 10_000),
    "max_iterations": (1, 1_000_000),
    "train_batch_size": (1, 64),
    "batch_size": (1, 64),
    "val_batch_size": (1, 64),
    "sw_batch_size": (1, 64),
    "num_workers": (0, 16),
    "max_workers": (0, 16),
    "max_batch_size": (0, 100_000),
    "overlap": (0, 0.95),
    "val_split": (-1, 0.9),
    "level": (0, 20),
    "min_poly_area": (0, 1e6),
    "seed": (-1, 2**31),
    "slice": (-1, 100_000),
    "idx": (0, 65_535),
}
_TEXT = re.compile(
    r"(?!.*\.\.)[A-Za-z0-9 _.,:;+=()\[\]-]{0,128}"
)  # no $, @, %, #, quote or slash: data, not code or a path
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\$@%#{}<>]{0,128}")  # a person's or a computer's, in any language
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_NEVER = {"image", "file", "session", "model", "strategy", "method", "bundle_path", "local_rank", "datastore", "path"}
_OWN = {"path", "name", "ts", "checksum", "strategy"}  # what the datastore notes itself; clients take `name` for a file


def parse_json(text: str | bytes) -> dict[str, Any]:
    """A JSON object: no key twice, no NaN, not deep, not endless.

    Raises:
        Refused: 400 for what is no JSON, 422 for what is no such object.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Refused(422, "a setting is given twice", code="PARAMS")
        return found

    def no_constant(name: str) -> NoReturn:
        raise Refused(422, f"{name} is no number that can be set", code="PARAMS")

    try:
        tree = json.loads(text, object_pairs_hook=once, parse_constant=no_constant)
    except RecursionError:
        raise Refused(422, "the settings are nested too deeply", code="PARAMS") from None
    except (ValueError, UnicodeDecodeError):
        raise Refused(400, "this is no JSON", fix="Send a JSON object.", code="JSON") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise Refused(422, "a JSON object is wanted", fix='Send settings as {"name": value}.', code="PARAMS")
    if _depth_and_count(tree)[0] > DEPTH or _depth_and_count(tree)[1] > VALUES:
        raise Refused(422, "the settings are nested too deeply, or too many", code="PARAMS")
    return tree


def as_object(value: Any) -> dict[str, Any]:
    """Settings within settings.

    Raises:
        Refused: 422, if they are none.
    """
    if not isinstance(value, dict):
        raise Refused(422, "a JSON object is wanted", fix='Send settings as {"name": value}.', code="PARAMS")
    return value


def check_params(
    given: Mapping[str, Any],
    offered: Mapping[str, Any],
    *,
    known: Mapping[str, Callable[[str, Any], None]],
    labels: Iterable[str] = (),
) -> None:
    """Refuses settings that are neither offered nor known, and values out of range.

    Args:
        given: of the request.
        offered: the app's `config`, with a default, or a list of choices, for each.
        known: checks of what clients send beside.
        labels: names of structures, under which clients send the points of a prompt.

    Raises:
        Refused: 422.
    """
    names = set(labels)
    for key, value in given.items():
        if key in _NEVER:
            _refuse(key, "cannot be set by a client")
        elif key in offered:
            _check_offered(key, value, offered[key])
        elif key in known:
            known[key](key, value)
        elif key in names:
            points(key, value)
        else:
            _refuse(key, "is no setting of it")


def check_info(given: Mapping[str, Any]) -> None:
    """Refuses notes about an image or a label that are more than notes.

    Raises:
        Refused: 422.
    """
    for key in given:
        if key in _OWN:
            _refuse(key, "is noted by the server itself")
    _check_note("", given)


def _check_offered(key: str, value: Any, offer: Any) -> None:
    if type(value) is type(offer) and value == offer:
        return
    if isinstance(offer, bool):
        return flag(key, value)
    if isinstance(offer, int | float):
        return number(key, value)
    if isinstance(offer, list | dict):
        choices = [*offer, *(offer.values() if isinstance(offer, dict) else ())]
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            _refuse(key, "is none of its choices")
        return None
    return text(key, value)


# ---- checks of single values ---------------------------------------------------------------------------------------


def flag(key: str, value: Any) -> None:
    """True or false."""
    if not isinstance(value, bool):
        _refuse(key, "must be true or false")


def number(key: str, value: Any) -> None:
    """A finite number in the range of its name."""
    low, high = RANGES.get(key, (-LARGEST, LARGEST))
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        _refuse(key, f"must be a number from {low:g} to {high:g}")


def text(key: str, value: Any) -> None:
    """A few words; nothing that could be a path, a command or an expression."""
    if value is not None and not (isinstance(value, str) and _TEXT.fullmatch(value)):
        _refuse(key, "must be a few plain words")


def name(key: str, value: Any) -> None:
    """What a client calls itself."""
    if value is not None and not (isinstance(value, str) and _NAME.fullmatch(value)):
        _refuse(key, "must be a name")


def points(key: str, value: Any) -> None:
    """Numbers, in lists at most two deep."""
    for part in value if isinstance(value, list) else [None]:
        if isinstance(part, list) and len(part) <= 6:
            for step in part:
                number("", step) if _is_number(step) else _refuse(key, "must be a list of points")
        elif not _is_number(part):
            _refuse(key, "must be a list of points")
        else:
            number("", part)


def one_of(*choices: str) -> Callable[[str, Any], None]:
    """One of these words."""

    def check(key: str, value: Any) -> None:
        if value not in choices:
            _refuse(key, f"must be one of {', '.join(choices)}")

    return check


def sizes(count: int, low: float, high: float) -> Callable[[str, Any], None]:
    """So many whole numbers of a range."""

    def check(key: str, value: Any) -> None:
        fits = isinstance(value, list) and len(value) == count
        if not fits or not all(isinstance(v, int) and not isinstance(v, bool) and low <= v <= high for v in value):
            _refuse(key, f"must be {count} whole numbers from {low:g} to {high:g}")

    return check


def draft_tag(key: str, value: Any) -> None:
    """A tag under which a model's masks are stored; `final` is for what a person approved."""
    if not (isinstance(value, str) and is_id(value)) or value.lower() == "final":
        _refuse(key, "must be a tag other than final")


def label_info(key: str, value: Any) -> None:
    """What 3D Slicer and OHIF say about the structures of a label: a list of short notes."""
    if not isinstance(value, list) or len(value) > 512 or not all(isinstance(part, dict) for part in value):
        _refuse(key, "must be a list of structures")
    for part in value:
        _check_note(key, part)


ANYWHERE = {"client_id": name}
DRAFT = {"save_label": flag, "label_tag": draft_tag}
INFER = {
    **ANYWHERE,
    **DRAFT,
    "result_extension": one_of(".nii.gz", ".nii", ".nrrd"),
    "result_dtype": one_of("uint8", "uint16", "int8", "int16", "int32", "float32"),
    "result_compress": flag,
    "restore_label_idx": flag,
    "foreground": points,
    "background": points,
    "roi": points,
    "label_prompt": points,
    "slice": number,
    "reset_state": flag,
    "label_info": label_info,
    "label": text,
}
BATCH = {**ANYWHERE, **DRAFT, "max_workers": number, "max_batch_size": number, "multi_gpu": flag}
WSI_INFER = {**INFER, "max_workers": number}
WSI = {
    **ANYWHERE,
    "level": number,
    "location": sizes(2, -1e6, 1e6),
    "size": sizes(2, 0, 1e5),
    "tile_size": sizes(2, 1, 8192),
    "min_poly_area": number,
}


def _check_note(key: str, value: Any) -> None:
    if isinstance(value, dict):
        for word, part in value.items():
            if not _KEY.fullmatch(word) or len(value) > 256:
                _refuse(key, "has a name that is no plain word")
            _check_note(word, part)
    elif isinstance(value, list):
        for part in value:
            _check_note(key, part)
    elif isinstance(value, str):
        if len(value) > 4000 or _CONTROL.search(value):
            _refuse(key, "has a text that is too long, or is no text")
    elif _is_number(value) and not math.isfinite(float(value)):
        _refuse(key, "has a number that is none")


def _is_number(value: Any) -> bool:
    """Whether JSON has a number here; of more than 300 digits it is none that anybody meant."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _depth_and_count(tree: Any) -> tuple[int, int]:
    parts = list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, list) else None
    if parts is None:
        return 0, 1
    below = [_depth_and_count(part) for part in parts]
    return 1 + max((depth for depth, _ in below), default=0), sum(count for _, count in below)


def _refuse(key: str, problem: str) -> NoReturn:
    what = f"the setting {key!r} " if _KEY.fullmatch(key) else "a setting "
    raise Refused(422, what + problem, fix="GET /info/ lists the settings.", code="PARAMS")
