"""Answers on their way out: without the stock server's CORS, and errors without what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from semi_med.label_app.guard.answers import HELD, Refused, refusal_of_answer, without_paths_in

Send = Callable[[dict[str, Any]], Awaitable[None]]

_ALWAYS = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-resource-policy", "same-site"),
]
# OHIF compiles code, and asks a DICOMweb server that may be another one; fonts and scripts of other sites stay out
_PAGE = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; connect-src * blob: data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_DROPPED = (b"access-control-", b"server", b"x-powered-by", b"cache-control")
LONGEST_JSON = 64 * 2**20


class Reply:
    """One answer.

    Args:
        send: of ASGI.
        head: nothing but the headers is wanted.

    Attributes:
        extra: headers for it.
        far: the client is on another machine, to which paths of this one say nothing.
        started: it is on its way.
    """

    def __init__(self, send: Send, *, head: bool = False) -> None:
        self._send, self._head, self.far = send, head, False
        self.extra: Sequence[tuple[str, str]] = ()
        self.started = False
        self._status = 0
        self._start: dict[str, Any] | None = None  # held back until the body is known
        self._body = bytearray()

    async def json(self, content: Any, *, status: int = 200) -> None:
        """Sends JSON of the guard itself."""
        await self._whole(status, json.dumps(content).encode(), [])

    async def empty(self, headers: Sequence[tuple[str, str]]) -> None:
        """Sends headers alone."""
        await self._whole(204, b"", headers)

    async def refuse(self, refused: Refused) -> None:
        """Sends an error; nothing, if an answer is already on its way."""
        if not self.started:
            await self._whole(refused.status, refused.content(), refused.headers)

    async def take(self, message: dict[str, Any]) -> None:
        """Passes on what the stock server answers; an error, and JSON for a client far away, once it is complete."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            kept = [(n, v) for n, v in message.get("headers", []) if not n.lower().startswith(_DROPPED)]
            self._start = {**message, "headers": kept}
            if not self._is_held():
                await self._begin()
            return
        if message["type"] != "http.response.body":
            return
        if self._start is None:
            await self._send(message)
            return
        most = HELD if self._status >= 400 else LONGEST_JSON
        self._body += message.get("body", b"")[: max(0, most + 1 - len(self._body))]
        if self._status < 400 and len(self._body) > most:
            raise Refused(413, "this answer is too long", code="TOO_LARGE")
        if self._status < 400 and not message.get("more_body", False):
            await self._send_scrubbed()

    async def finish(self) -> None:
        """To be called when the stock server is done.

        Raises:
            Refused: instead of the error that it answered.
        """
        if self._start is not None and self._status >= 400:
            raise refusal_of_answer(self._status, bytes(self._body[:HELD]))

    def _is_held(self) -> bool:
        return self._status >= 400 or (self.far and self._content_type() == "application/json" and not self._head)

    def _content_type(self) -> str:
        found = dict((self._start or {}).get("headers", []))
        return found.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")

    async def _begin(self) -> None:
        assert self._start is not None
        headers = [*self._start["headers"], *_encoded([*_ALWAYS, *self.extra])]
        if self._content_type() == "text/html":
            headers += _encoded([("content-security-policy", _PAGE)])
        self.started = True
        message, self._start = {**self._start, "headers": headers}, None
        await self._send(message)

    async def _send_scrubbed(self) -> None:
        assert self._start is not None
        content = json.dumps(without_paths_in(json.loads(self._body))).encode()
        kept = [(n, v) for n, v in self._start["headers"] if n.lower() != b"content-length"]
        self._start["headers"] = [*kept, (b"content-length", str(len(content)).encode())]
        await self._begin()
        await self._send({"type": "http.response.body", "body": content})

    async def _whole(self, status: int, content: bytes, headers: Sequence[tuple[str, str]]) -> None:
        found = [*_ALWAYS, *self.extra, *headers]
        if status != 204:
            found += [("content-type", "application/json"), ("content-length", str(len(content)))]
        self.started, self._start = True, None
        await self._send({"type": "http.response.start", "status": status, "headers": _encoded(found)})
        await self._send({"type": "http.response.body", "body": b"" if self._head else content})


def _encoded(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
