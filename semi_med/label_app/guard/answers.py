"""What goes out when something goes wrong: one sentence in JSON, never a path, a stack trace or a patient."""

from __future__ import annotations

import concurrent.futures
import errno
import json
import re
from collections.abc import Sequence
from typing import Any

from semi_med.errors import InputError, ResourceError, SemiMedError, root_cause

_OUT = {
    errno.EMFILE: (503, "the server has too many files open"),
    errno.ENFILE: (503, "the server has too many files open"),
    errno.ENOSPC: (507, "the server's disk is full"),
    errno.EDQUOT: (507, "the server's disk is full"),
}
HELD = 2**16  # bytes of an error's body that are looked at
_PATH = re.compile(r"""(?<![\w.<])(?:file:/*|[A-Za-z]:)?[\\/]{1,2}[^\s'"<>|:;,()\[\]{}]*[^\s'"<>|:;,()\[\]{}.]""")
_SPEAKABLE = re.compile(r"[^\x00-\x1f\x7f]{1,400}")
_KNOWN = {  # exceptions by name: what they come from need not be installed to read this
    "NoSuchProcess": (409, "the task has just ended"),
    "ImageNotFoundException": (404, "this image is not in the datastore"),
    "LabelNotFoundException": (404, "this label is not in the datastore"),
    "MONAILabelException": (422, "the app does not take this request"),
}


class Refused(InputError):
    """A request that is not served.

    Args:
        status: of HTTP.
        problem: what was wanted and what came, in one sentence without a final full stop.
        fix: the next step.
        code: a short stable word for machines.
        headers: further ones, name and value.
    """

    def __init__(
        self,
        status: int,
        problem: str,
        *,
        fix: str | None = None,
        code: str = "REQUEST",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(problem, fix=fix, code=code)
        self.status, self.headers = status, tuple(headers)

    def content(self) -> bytes:
        """The body: `detail`, as MONAI Label's clients show it, and `code`."""
        text = f"{self.problem}. {self.fix}" if self.fix else self.problem
        return json.dumps({"detail": text[:500], "code": self.code}).encode()


def refusal_of(error: BaseException) -> Refused:
    """What a client is told of an exception."""
    cause = error if isinstance(error, Refused) else root_cause(error)
    if isinstance(cause, Refused):
        return cause
    if isinstance(cause, ResourceError):
        return Refused(503, without_paths(cause.problem), fix=_without(cause.fix), code=cause.code)
    if isinstance(cause, SemiMedError):  # `where` may be a path of this machine
        return Refused(422, without_paths(cause.problem), fix=_without(cause.fix), code=cause.code)
    for kind in type(error).__mro__:
        if kind.__name__ in _KNOWN:
            status, problem = _KNOWN[kind.__name__]
            return Refused(status, problem, code="NOT_FOUND" if status == 404 else "REQUEST")
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return Refused(503, "there was not enough memory for this request", fix="Try a smaller one.", code="MEMORY")
    if isinstance(error, OSError) and error.errno in _OUT:
        return Refused(*_OUT[error.errno], code="BUSY" if error.errno != errno.ENOSPC else "DISK_FULL")
    if isinstance(error, TimeoutError | concurrent.futures.TimeoutError):
        return Refused(504, "this took longer than the server allows", code="TIMEOUT")
    if isinstance(error, RuntimeError) and str(error).startswith("File at path"):  # Starlette, of a folder
        return Refused(404, "there is no such file", code="NOT_FOUND")
    if "changed size during iteration" in str(error):  # the datastore was read while a label was saved
        return Refused(503, "the datastore is busy", fix="Try again.", code="BUSY", headers=[("retry-after", "1")])
    return Refused(500, "the server failed on this request", fix="Its log says why.", code="INTERNAL")


def refusal_of_answer(status: int, body: bytes) -> Refused:
    """What a client is told instead of an error answer of the stock server.

    Args:
        status: 400 or more.
        body: the beginning of its content; a sentence in it is kept, without the files that it names.
    """
    fallback = "the server failed on this request" if status >= 500 else "the server does not take this request"
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError, RecursionError):
        detail = None
    if isinstance(detail, list):  # what FastAPI found wrong; its `input` is left out
        detail = "; ".join(_complaint(part) for part in detail[:5])
    speakable = isinstance(detail, str) and _SPEAKABLE.fullmatch(detail)
    codes = {404: "NOT_FOUND", 405: "METHOD", 422: "REQUEST", 429: "BUSY"}
    return Refused(
        status,
        without_paths(detail).removeprefix("<path>: ").rstrip(".") if speakable else fallback,
        code=codes.get(status, "INTERNAL" if status >= 500 else "REQUEST"),
    )


def without_paths(text: str) -> str:
    """A text in which no file of this machine is named."""
    return _PATH.sub("<path>", text)


def without_paths_in(value: Any) -> Any:
    """JSON for a client on another machine: a string that is a path becomes empty, paths inside of texts go."""
    if isinstance(value, str):
        return "" if _PATH.fullmatch(value) else without_paths(value)
    if isinstance(value, list):
        return [without_paths_in(part) for part in value]
    if isinstance(value, dict):
        return {key: without_paths_in(part) for key, part in value.items()}
    return value


def _without(fix: str | None) -> str | None:
    return None if fix is None else without_paths(fix)


def _complaint(part: Any) -> str:
    place = ".".join(str(word) for word in part.get("loc", ())) if isinstance(part, dict) else ""
    return f"{place}: {part.get('msg', 'not accepted')}" if place else "not accepted"
