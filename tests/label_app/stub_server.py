"""The guard round a stub of MONAI Label, asked in memory: neither a server nor MONAI Label is needed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from semi_med.label_app.guard import Limits, guarded

INFO = {
    "models": {
        "net": {"labels": {"organ": 1}, "config": {"threshold": 0.5, "device": ["cpu", "cuda"], "largest": True}}
    },
    "trainers": {"net": {"config": {"max_epochs": 50, "run": "", "device": ["cpu"]}}},
    "strategies": {"random": {}},
    "scoring": {"dice": {}},
    "labels": ["organ", "left part"],
}
LOCAL = ("127.0.0.1", 5000)
FAR = ("192.0.2.7", 5000)


class Stub:
    """An application that notes what it is asked, and answers with `answer`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, bytes]] = []
        self.headers: dict[bytes, bytes] = {}
        self.answer: tuple[int, list[tuple[bytes, bytes]], bytes] = (200, [], b"{}")
        self.error: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        status, headers, content = self.answer
        if scope["path"] == "/info/":
            status, headers, content = 200, [], json.dumps(INFO).encode()
        else:
            self.asked.append((scope["method"], scope["path"], scope["query_string"].decode(), body))
            self.headers = dict(scope["headers"])
            if self.error is not None:
                raise self.error
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


class Answer:
    """What came back."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.status = messages[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])

    @property
    def detail(self) -> str:
        return json.loads(self.body)["detail"]

    @property
    def code(self) -> str:
        return json.loads(self.body)["code"]


class Asker:
    """Asks one guard.

    Args:
        store: the studies.
        choices: of `guarded`.
    """

    def __init__(self, store: Path, **choices: Any) -> None:
        self.stub = Stub()
        choices.setdefault("limits", Limits(upload=2**20, json=2**14))
        self.guard = guarded(self.stub, store=store, **choices)

    def __call__(
        self,
        method: str,
        address: str,
        body: bytes | list[bytes] = b"",
        *,
        headers: dict[str, str] | None = None,
        host: str = "127.0.0.1:8000",
        client: tuple[str, int] = LOCAL,
        raw_headers: list[tuple[bytes, bytes]] | None = None,
    ) -> Answer:
        path, _, query = address.partition("?")
        pieces = list(body) if isinstance(body, list) else [body]
        sent: list[dict[str, Any]] = []
        given = {"host": host, **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "surrogateescape"),
            "query_string": query.encode("utf-8"),
            "root_path": "",
            "headers": [(n.encode(), v.encode("latin-1")) for n, v in given.items()] + (raw_headers or []),
            "client": client,
            "server": ("127.0.0.1", 8000),
        }

        async def receive() -> dict[str, Any]:
            if not pieces:
                await asyncio.Event().wait()
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self.guard(scope, receive, send))
        return Answer(sent)

    def json(self, method: str, address: str, content: Any, **more: Any) -> Answer:
        return self(method, address, json.dumps(content).encode(), headers={"content-type": "application/json"}, **more)

    def form(self, method: str, address: str, parts: list[tuple[str, str | None, bytes]], **more: Any) -> Answer:
        """Parts are a field's name, a file's name or None, and content."""
        body = b""
        for name, filename, content in parts:
            extra = f'; filename="{filename}"' if filename is not None else ""
            body += (
                f'--limit\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + content + b"\r\n"
            )
        body += b"--limit--\r\n"
        return self(method, address, body, headers={"content-type": "multipart/form-data; boundary=limit"}, **more)
