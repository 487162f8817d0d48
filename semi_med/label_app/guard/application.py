"""The wall itself: an ASGI application round MONAI Label's."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semi_med.label_app.guard import params as rules
from semi_med.label_app.guard.access import Access, check_origins, check_token, preflight_headers
from semi_med.label_app.guard.answers import Refused, refusal_of
from semi_med.label_app.guard.bodies import Body, Receive, arriving, json_body, read_form, read_json
from semi_med.label_app.guard.endpoints import Endpoint, check_query, find_endpoint, query_of
from semi_med.label_app.guard.lanes import Gone, Lane
from semi_med.label_app.guard.limits import Limits
from semi_med.label_app.guard.offers import Offers
from semi_med.label_app.guard.replies import Reply, Send
from semi_med.label_app.guard.store import Store, check_id
from semi_med.label_app.guard.temporary import TemporaryFiles
from semi_med.label_app.guard.uploads import stem, verify_files

_LOG = logging.getLogger(__name__)
_PASSED = (b"host", b"accept", b"authorization", b"range", b"if-range", b"user-agent")
_ONCE = ("host", "authorization", "content-length", "content-type", "origin", "transfer-encoding")


def guarded(
    app: Any,
    *,
    token: str | None = None,
    origins: Sequence[str] = (),
    hosts: Sequence[str] = (),
    store: str | Path | None = None,
    outside: Sequence[str | Path] = (),
    proxy: bool = False,
    limits: Limits | None = None,
) -> Guard:
    """MONAI Label's application behind a wall.

    Args:
        app: `monailabel.app:app`, or any ASGI application with the same addresses.
        token: that every request has to bear; without one, only requests from this machine are served.
        origins: web pages of other servers that may use this one, such as `https://viewer.example.org`.
        hosts: names beside the machine's own that clients call it by.
        store: the studies folder, or the address of a DICOMweb server; None for what MONAI Label is set to.
        outside: folders beside `store` that links in it may lead to.
        proxy: OHIF may read the DICOMweb server through this one, with this one's password.
        limits: of sizes and numbers.

    Raises:
        InputError: code TOKEN or ORIGIN.
    """
    if token is not None:
        check_token(token)
    check_origins(origins)
    access = Access(token, tuple(origins), tuple(host.lower() for host in hosts))
    return Guard(app, access=access, store=store, outside=outside, proxy=proxy, limits=limits or Limits())


class Guard:
    """See `guarded`.

    Args:
        app: that is guarded.
        access: who may ask.
        store: the studies.
        outside: folders that links in it may lead to.
        proxy: whether DICOMweb is passed through.
        limits: of sizes and numbers.
    """

    def __init__(
        self,
        app: Any,
        *,
        access: Access,
        store: str | Path | None,
        outside: Sequence[str | Path],
        proxy: bool,
        limits: Limits,
    ) -> None:
        self.app, self.access, self.limits, self.proxy = app, access, limits, proxy
        self._given_store, self._outside = store, outside
        self._temporary = TemporaryFiles(kept_seconds=limits.kept_seconds, free=limits.free_disk)
        self._active = 0
        self._lanes = {
            "quick": Lane("quick", workers=1, waiting=limits.requests),
            "slow": Lane("infer", workers=limits.inferences, waiting=limits.waiting),
            "task": Lane("task", workers=1, waiting=1),  # who has just got an answer may ask again at once
            "check": Lane("check", workers=2, waiting=limits.requests),
        }
        self._offers = Offers(self._ask_info)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serves one connection of ASGI."""
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, send)
            finally:
                self.close()
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # MONAI Label has no web sockets
            await send({"type": "websocket.close", "code": 1008})

    def close(self) -> None:
        """Ends the threads that are idle, and removes temporary files."""
        for lane in self._lanes.values():
            lane.close()
        self._temporary.close()

    @property
    def store(self) -> Store:
        """The studies."""
        config = sys.modules.get("monailabel.config")
        given = self._given_store or (config.settings.MONAI_LABEL_STUDIES if config else "")
        return Store(given or ".", outside=self._outside)

    # ---- one request -----------------------------------------------------------------------------------------------

    async def _http(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        reply = Reply(send, head=scope["method"] == "HEAD")
        self._active += 1
        try:
            if self._active > self.limits.requests:
                raise Refused(503, "too many requests at once", code="BUSY", headers=[("retry-after", "5")])
            headers = _headers(scope)
            reply.far = self.access.is_far(scope, headers)
            reply.extra = self.access.admit(scope, headers)
            if not await self._own(scope, headers, receive, reply):
                await self._passed_on(scope, headers, receive, reply)
        except Gone:
            pass
        except Exception as error:
            refused = refusal_of(error)
            if refused.status >= 500 and not isinstance(error, Refused):
                _LOG.error("%s on %s %s", type(error).__name__, scope["method"], _shown(scope), exc_info=error)
                _free_memory()
            await reply.refuse(refused)
        finally:
            self._active -= 1
            if not self._active:
                self._temporary.sweep()

    async def _own(self, scope: Mapping[str, Any], headers: Mapping[str, str], receive: Receive, reply: Reply) -> bool:
        """Answers what the guard itself answers; tells whether it did."""
        asked = scope["method"], scope["path"].rstrip("/") or "/"
        if scope["method"] == "OPTIONS":
            if not reply.extra or "access-control-request-method" not in headers:
                raise Refused(405, "OPTIONS is for the web pages that are listed", code="METHOD")
            await reply.empty(preflight_headers(headers))
        elif asked == ("GET", "/healthz"):
            await reply.json({"status": "ok"})
        elif asked == ("GET", "/queue"):
            await reply.json(self._queue())
        elif asked == ("GET", "/"):
            await reply.json({"name": "semi_med", "info": "/info/", "interface": "/openapi.json", "viewer": "/ohif/"})
        elif asked == ("GET", "/auth"):
            await reply.json({"enabled": self.access.token is not None, "client_id": "semi_med", "realm": "semi_med"})
        elif asked == ("GET", "/auth/token/valid"):
            await reply.json({"username": "annotator"})
        elif asked == ("POST", "/auth/token"):
            await reply.json(await self._log_in(headers, receive))
        else:
            return False
        return True

    def _queue(self) -> dict[str, Any]:
        lane = self._lanes["slow"]
        return {
            "running": lane.running,
            "waiting": lane.waiting,
            "at_once": lane.workers,
            "may_wait": lane.most_waiting,
            "seconds": round(lane.seconds, 2),
        }

    async def _log_in(self, headers: Mapping[str, str], receive: Receive) -> dict[str, str | None]:
        """How 3D Slicer and QuPath get a token: they ask a person for a name and a password."""
        if self.access.token is None:
            return {"access_token": None, "token_type": None}
        pieces = arriving(receive, most=4096, announced=headers.get("content-length"), limits=self.limits)
        endpoint = Endpoint("POST", "/auth/token", body="form", fields=_LOGIN)
        form = await read_form(pieces, headers, endpoint, folder=self._temporary.root, limits=self.limits)
        if not self.access.is_token(form.fields.get("password", "")):
            raise Refused(401, "the password is not the token of this server", code="TOKEN")
        return {"access_token": self.access.token, "token_type": "Bearer"}

    async def _passed_on(
        self, scope: dict[str, Any], headers: Mapping[str, str], receive: Receive, reply: Reply
    ) -> None:
        endpoint, path, ids = find_endpoint(scope["method"], scope["path"], proxy=self.proxy)
        reply.far = reply.far and path != "/openapi.json"
        query = {} if endpoint.template.endswith("{path}") else check_query(endpoint, scope["query_string"])
        await self._check_names(endpoint, ids, query)
        with self._temporary.folder() as folder:
            body = await self._body(endpoint, ids, query, headers, receive, folder=Path(folder))
            inner = _inner_scope(scope, path, query, body)
            lane = self._lanes[endpoint.lane_of(query)]
            loop = asyncio.get_running_loop()

            def work() -> None:
                asyncio.run(_serve(self.app, inner, body, reply, loop))

            try:
                await lane.run(work, gone=lambda: _left(receive))
            except AssertionError as error:
                if endpoint.template == "/datastore/dataset":
                    raise Refused(404, "no case has a final label yet", code="NOT_FOUND") from error
                raise
        await reply.finish()

    async def _check_names(self, endpoint: Endpoint, ids: Mapping[str, str], query: Mapping[str, str]) -> None:
        """Models, strategies and methods must be offered, cases must lie in the store."""
        await self._offers.check(endpoint.params, ids)
        store = self.store
        image = query.get("image") or query.get("label") or query.get("id")
        if image:
            await asyncio.to_thread(store.check_inside, image, tag=query.get("tag"))
        if query.get("output") == "dicom_seg" and not store.remote:
            raise Refused(422, "DICOM segmentations are for studies on a DICOMweb server", code="QUERY")
        if endpoint.params in ("infer", "wsi"):
            await self._check_input(query, image)

    async def _check_input(self, query: Mapping[str, str], image: str | None) -> None:
        """What is to be segmented must be there; the stock server finds out in the middle of its work."""
        if "session_id" in query:
            asked = f"/session/{query['session_id']}"
        elif image and self.store.remote:
            asked = f"/datastore/image/info?image={image}"
        else:
            if image and not await asyncio.to_thread(self.store.has, image):
                raise Refused(404, "this image is not in the datastore", code="NOT_FOUND")
            if image and Path(image).exists():  # the stock server would take that instead
                raise Refused(
                    409,
                    "the folder in which the server was started has something of this image's name",
                    fix="Start it in another folder.",
                    code="NAME",
                )
            return
        status, content = await self._ask(asked)
        if status != 200 or content in (b"{}", b"null"):
            raise Refused(404, "there is no such session or image", code="NOT_FOUND")

    # ---- its body --------------------------------------------------------------------------------------------------

    async def _body(
        self,
        endpoint: Endpoint,
        ids: Mapping[str, str],
        query: dict[str, str],
        headers: Mapping[str, str],
        receive: Receive,
        *,
        folder: Path,
    ) -> Body:
        if not endpoint.body:
            return Body()
        most = self.limits.upload if endpoint.files else self.limits.json
        pieces = arriving(receive, most=most, announced=headers.get("content-length"), limits=self.limits)
        if endpoint.body == "json":
            content = await read_json(pieces, headers)
            if not content:
                _need_input(endpoint, query, has_file=False)
                return Body()
            given = rules.parse_json(content)
            await self._offers.check_params(endpoint.params, ids, given)
            _need_input(endpoint, query, has_file=False)
            return json_body(given)
        if endpoint.files:
            known = int(headers.get("content-length", "0"))  # `arriving` has seen that it is a number
            self._temporary.check_room(*([] if self.store.remote else [self.store.root]), announced=known)
        form = await read_form(pieces, headers, endpoint, folder=folder, limits=self.limits)
        for name, text in form.fields.items():
            given = {"client_id": text} if name == "client_id" else rules.parse_json(text or "{}")
            await self._offers.check_params(endpoint.params, ids, given)
            form.fields[name] = text if name == "client_id" else json_body(given).content.decode()
        _need_input(endpoint, query, has_file=any(name == "file" for name, _, _ in form.files))
        if endpoint.method == "PUT" and endpoint.files and not form.files:
            raise Refused(422, f"a file is wanted in the field {', '.join(endpoint.files)}", code="FORM")
        _name_the_image(endpoint, query, form.files)
        if form.files:
            await self._verify(endpoint, query, form)
            query.pop("uncompress", None)  # what was packed is unpacked
        return form.written() if form.fields or form.files else Body()

    async def _verify(self, endpoint: Endpoint, query: Mapping[str, str], form: Any) -> None:
        store, image = self.store, query.get("image")

        def work() -> None:
            labeled = store.file_of(image) if image and "label" in endpoint.files else None
            verify_files(form, endpoint, limits=self.limits, remote=store.remote, labeled=labeled)

        if image and endpoint.files.get("file") == "image":
            await asyncio.to_thread(store.check_inside, image)
        await self._lanes["check"].run(work)

    async def _ask_info(self) -> bytes:
        """What the stock server says that it offers."""
        return (await self._ask("/info/"))[1]

    async def _ask(self, address: str) -> tuple[int, bytes]:
        """Status and content of what the stock server answers to the guard itself."""
        status, content = 0, bytearray()

        async def keep(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            content.extend(message.get("body", b""))

        path, _, query = address.partition("?")
        scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET"}
        scope |= {"path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": ""}
        scope |= {"scheme": "http", "headers": [(b"host", b"localhost")], "client": None, "server": ("localhost", 80)}
        loop = asyncio.get_running_loop()

        def work() -> None:
            asyncio.run(_serve(self.app, scope, Body(), keep, loop))

        await self._lanes["quick"].run(work)
        return status, bytes(content)


_LOGIN = ("username", "password", "grant_type", "scope", "client_id", "client_secret")


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Headers by lower-case name; those that decide something come once.

    Raises:
        Refused: 400.
    """
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in _ONCE:
            raise Refused(400, f"the header {key} is there twice", code="HEADER")
        found[key] = value.decode("latin-1")
    return found


def _inner_scope(scope: Mapping[str, Any], path: str, query: Mapping[str, str], body: Body) -> dict[str, Any]:
    """The request as the stock server sees it: only what was checked."""
    headers = [(name, value) for name, value in scope["headers"] if name.lower() in _PASSED]
    if body.content_type:
        headers += [(b"content-type", body.content_type.encode()), (b"content-length", str(body.length).encode())]
    return {
        **{key: value for key, value in scope.items() if key not in ("extensions", "state")},
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": query_of(query),
        "headers": headers,
    }


async def _serve(app: Any, scope: dict[str, Any], body: Body, reply: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Runs the stock server in the event loop of this thread; answers go to the server's own loop."""
    chunks = iter(body.chunks())
    take = reply.take if isinstance(reply, Reply) else reply
    complete = False

    async def receive() -> dict[str, Any]:
        nonlocal complete
        if complete:
            await asyncio.Event().wait()  # nothing more comes
        chunk = next(chunks, b"")
        complete = not chunk
        return {"type": "http.request", "body": chunk, "more_body": not complete}

    async def send(message: dict[str, Any]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(take(message), loop))

    await app(scope, receive, send)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _need_input(endpoint: Endpoint, query: Mapping[str, str], *, has_file: bool) -> None:
    if endpoint.params in ("infer", "wsi") and not has_file and not query.keys() & {"image", "session_id"}:
        raise Refused(422, "an image, a session or a file is wanted", code="QUERY")


def _name_the_image(endpoint: Endpoint, query: dict[str, str], files: Sequence[tuple[str, str, Path]]) -> None:
    """An image that is sent without an id is named after its file."""
    if endpoint.method == "PUT" and endpoint.files.get("file") == "image" and files and "image" not in query:
        query["image"] = check_id(stem(files[0][1]), what="case (here the name of the file)")


def _shown(scope: Mapping[str, Any]) -> str:
    """The first words of a path: what follows may name a case."""
    return "/".join(scope["path"].split("/")[:2])


def _free_memory() -> None:
    """Gives back what a failed inference held."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
