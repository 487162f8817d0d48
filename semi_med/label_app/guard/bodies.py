"""Bodies: counted while they arrive, and written anew, so that the stock server sees only what was checked."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from semi_med.label_app.guard.answers import Refused
from semi_med.label_app.guard.endpoints import Endpoint
from semi_med.label_app.guard.limits import Limits

Receive = Callable[[], Awaitable[dict[str, Any]]]

_CHUNK = 2**20


@dataclass
class Body:
    """A body as it goes on.

    Attributes:
        content: in memory, if there are no files.
        parts: header and file of each part of a form with files.
        content_type: of the whole.
    """

    content: bytes = b""
    content_type: str = ""
    parts: list[tuple[bytes, Path | bytes]] = field(default_factory=list)
    end: bytes = b""

    @property
    def length(self) -> int:
        """Bytes of the whole."""
        sizes = (
            len(head) + (len(part) if isinstance(part, bytes) else part.stat().st_size) for head, part in self.parts
        )
        return len(self.content) + sum(size + 2 for size in sizes) + len(self.end)

    def chunks(self) -> Iterator[bytes]:
        """The whole, piece by piece."""
        if self.content:
            yield self.content
        for head, part in self.parts:
            yield head
            if isinstance(part, bytes):
                yield part
            else:
                with part.open("rb") as stream:
                    while chunk := stream.read(_CHUNK):
                        yield chunk
            yield b"\r\n"
        if self.end:
            yield self.end


@dataclass
class Form:
    """Fields and files of a form.

    Attributes:
        fields: their text by name.
        files: name of the field, name of the file as the client has it, and where it lies.
    """

    fields: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, str, Path]] = field(default_factory=list)

    def written(self) -> Body:
        """The form as a body; files are named as they lie, never as the client named them."""
        if not self.files:
            return _multipart([(_head(name), text.encode()) for name, text in self.fields.items()])
        fields: list[tuple[bytes, Path | bytes]] = [(_head(n), text.encode()) for n, text in self.fields.items()]
        return _multipart([*fields, *((_head(name, path.name), path) for name, _, path in self.files)])


# ---- arriving ------------------------------------------------------------------------------------------------------


def arriving(receive: Receive, *, most: int, announced: str | None, limits: Limits) -> AsyncIterator[bytes]:
    """The pieces of a body, as long as they are not too many and not too slow.

    Args:
        receive: of ASGI.
        most: bytes.
        announced: the header `content-length`, if there is one.
        limits: of time.

    Raises:
        Refused: 413 at once for what is announced; while it arrives 400 if the client leaves, 408, 413.
    """
    if announced is not None and (not re.fullmatch(r"\d{1,18}", announced, re.ASCII) or int(announced) > most):
        raise too_large(most)
    return _counted(receive, most=most, limits=limits)


async def _counted(receive: Receive, *, most: int, limits: Limits) -> AsyncIterator[bytes]:
    seen, deadline = 0, time.monotonic() + limits.body_seconds
    while True:
        patience = min(limits.chunk_seconds, deadline - time.monotonic())
        try:
            message = await asyncio.wait_for(receive(), timeout=max(patience, 0.001))
        except asyncio.TimeoutError:
            raise Refused(408, "the body of this request did not arrive in time", code="TIMEOUT") from None
        if message["type"] == "http.disconnect":
            raise Refused(400, "the client left before its request was complete", code="GONE")
        seen += len(message.get("body", b""))
        if seen > most:
            raise too_large(most)
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def too_large(most: int) -> Refused:
    """The answer to a body beyond the limit; what is left of it is not read."""
    return Refused(413, f"at most {most} bytes are taken here", code="TOO_LARGE", headers=[("connection", "close")])


async def read_json(pieces: AsyncIterator[bytes], headers: Mapping[str, str]) -> bytes:
    """A body that is JSON by its type, or of which no type is said, as QuPath sends it."""
    kind = headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json":
        raise _wrong_type("application/json")
    return b"".join([piece async for piece in pieces])


async def read_form(
    pieces: AsyncIterator[bytes], headers: Mapping[str, str], endpoint: Endpoint, *, folder: Path, limits: Limits
) -> Form:
    """A form; its files lie in `folder` under plain names when it is read.

    Args:
        pieces: of the body.
        headers: of the request.
        endpoint: says which fields and files there may be.
        folder: to be removed after the request.
        limits: of files and bytes.

    Raises:
        Refused: 400 for what is no form, 415, 422.
    """
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if not kind:
        if any([piece async for piece in pieces]):
            raise _wrong_type("multipart/form-data")
        return Form()
    if kind == "application/x-www-form-urlencoded":
        return _urlencoded(b"".join([piece async for piece in pieces]), endpoint)
    if kind != "multipart/form-data":
        raise _wrong_type("multipart/form-data")
    return await _multipart_form(pieces, headers, endpoint, folder=folder, limits=limits)


def _urlencoded(content: bytes, endpoint: Endpoint) -> Form:
    try:
        pairs = parse_qsl(content.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=16)
    except ValueError:
        raise Refused(400, "this form cannot be read", code="FORM") from None
    return Form(fields=_once(pairs, endpoint))


async def _multipart_form(
    pieces: AsyncIterator[bytes], headers: Mapping[str, str], endpoint: Endpoint, *, folder: Path, limits: Limits
) -> Form:
    from starlette.datastructures import Headers, UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    class Parser(MultiPartParser):
        spool_max_size = 2**16

    parser = Parser(
        Headers({"content-type": headers["content-type"]}),
        pieces,
        max_files=limits.files if endpoint.files else 0,
        max_fields=16,
        max_part_size=limits.json,
    )
    try:
        found = (await parser.parse()).multi_items()
    except MultiPartException:
        raise Refused(
            400,
            f"this form cannot be read, or has more than {limits.files} files or a field that is too long",
            code="FORM",
        ) from None
    except (ValueError, LookupError, AssertionError, RecursionError, TypeError):
        raise Refused(400, "this form cannot be read", code="FORM") from None
    uploads = [(name, upload) for name, upload in found if isinstance(upload, UploadFile)]
    try:
        fields = _once([(name, text) for name, text in found if isinstance(text, str)], endpoint)
        for name, _ in uploads:
            if name not in endpoint.files:
                raise Refused(422, "a file is sent in a field that is not taken here", code="FORM")
        files = []
        for number, (name, upload) in enumerate(uploads, 1):
            path = folder / f"{number:06d}"
            await asyncio.to_thread(_keep, upload.file, path)
            files.append((name, upload.filename or "", path))
        return Form(fields, files)
    finally:
        for _, upload in uploads:
            await upload.close()


def _once(pairs: Sequence[tuple[str, str]], endpoint: Endpoint) -> dict[str, str]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise Refused(422, "a field is twice in this form", code="FORM")
    for name, _ in pairs:
        if name not in endpoint.fields:
            taken = ", ".join([*endpoint.fields, *endpoint.files])
            raise Refused(422, f"a field of this form is not taken here; {taken} is", code="FORM")
    return dict(pairs)


def _keep(stream: Any, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(stream, target, _CHUNK)


# ---- written -------------------------------------------------------------------------------------------------------


def json_body(content: Mapping[str, Any]) -> Body:
    """Settings as a body."""
    return Body(json.dumps(content).encode(), "application/json")


def _head(name: str, filename: str | None = None) -> bytes:
    extra = f'; filename="{filename}"\r\nContent-Type: application/octet-stream' if filename else ""
    return f'Content-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode()


def _multipart(parts: Sequence[tuple[bytes, Path | bytes]]) -> Body:
    boundary = secrets.token_hex(16)
    start = f"--{boundary}\r\n".encode()
    return Body(
        content_type=f"multipart/form-data; boundary={boundary}",
        parts=[(start + head, part) for head, part in parts],
        end=f"--{boundary}--\r\n".encode(),
    )


def _wrong_type(wanted: str) -> NoReturn:
    raise Refused(415, f"the type {wanted} is taken here", code="TYPE")
