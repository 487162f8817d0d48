"""Who may ask: the bearer of the token, or a program of this machine; and no web page of another site."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from semi_med.errors import InputError
from semi_med.label_app.guard.answers import Refused
from semi_med.label_app.guard.store import Store

SHORTEST_TOKEN = 16
PUBLIC = ("/healthz", "/auth", "/auth/", "/auth/token")  # asked before a client has a token
SERVER: Mapping[str, Any] = {  # of uvicorn.run
    "ws": "none",
    "proxy_headers": False,  # a client says of itself what it likes
    "server_header": False,
    "access_log": False,  # addresses hold names of cases
    "h11_max_incomplete_event_size": 2**16,
    "timeout_graceful_shutdown": 10,
}
_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::\d{1,5})?")
_ORIGIN = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_PICKLE = "MONAI_ALLOW_PICKLE"  # MONAI then unpickles what it is given


def check_start(
    host: str,
    *,
    token: str | None = None,
    studies: str | Path | None = None,
    origins: Sequence[str] = (),
    outside: Sequence[str | Path] = (),
) -> None:
    """Refuses to start a server that would be open to others; called before anything listens.

    Args:
        host: what the server listens on.
        token: that every request has to bear.
        studies: the datastore, a folder or an address.
        origins: web pages of other servers that may use this one, such as `https://viewer.example.org`.
        outside: folders beside `studies` that links in it may lead to.

    Raises:
        InputError: code TOKEN, ORIGIN, PICKLE, or as `Store.check`.
    """
    if token is None and not is_loopback(host):
        raise InputError(
            f"without a token the server listens on this machine only (127.0.0.1), {host!r} was asked for",
            where="--host",
            fix="Set a token that the clients are told, or leave out --host and come through an SSH tunnel.",
            code="TOKEN",
        )
    if token is not None:
        check_token(token)
    check_origins(origins)
    if os.environ.get(_PICKLE, "").lower() in ("1", "true", "yes"):
        raise InputError(
            "it lets MONAI run code that hides in a file that is uploaded",
            where=_PICKLE,
            fix="Unset it.",
            code="PICKLE",
        )
    if studies is not None:
        Store(studies, outside=outside).check()


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


def check_token(token: str) -> None:
    """Refuse a token that can be guessed, or that does not fit into a header.

    Raises:
        InputError: code TOKEN.
    """
    if len(token) < SHORTEST_TOKEN or not re.fullmatch(r"[!-~]+", token):
        raise InputError(
            f"a token of at least {SHORTEST_TOKEN} letters and digits without spaces is wanted, this has {len(token)}",
            where="--token",
            fix="Make one: python -c 'import secrets; print(secrets.token_urlsafe(24))'.",
            code="TOKEN",
        )


def check_origins(origins: Sequence[str]) -> None:
    """Refuse what is no origin; `*` is none.

    Raises:
        InputError: code ORIGIN.
    """
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise InputError(
                f"an origin is written https://host or https://host:port, got {origin!r}",
                where="--origin",
                fix="List each web page that may use this server; all of them at once cannot be allowed.",
                code="ORIGIN",
            )


def is_loopback(host: str) -> bool:
    """Whether this name or address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(frozen=True)
class Access:
    """The rules of one server.

    Attributes:
        token: None for a server of this machine only.
        origins: of other sites that may use it.
        hosts: names beside the machine's own that clients call it by.
    """

    token: str | None = None
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    def admit(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """Lets a request in.

        Args:
            scope: of ASGI.
            headers: by lower-case name.

        Returns:
            Headers for its answer: those that let a listed site read it.

        Raises:
            Refused: 400, 401 or 403.
        """
        self._check_peer(scope, headers)
        self._check_host(headers)
        allowed = self._check_origin(scope, headers)
        preflight = scope["method"] == "OPTIONS"  # a browser asks without a token whether it may ask with one
        if not preflight and scope["path"] not in PUBLIC:
            self.check_bearer(headers)
        return allowed

    def check_bearer(self, headers: Mapping[str, str]) -> None:
        """Refuses a request without the token, if there is one.

        It comes as `Authorization: Bearer <token>` from programs, and as the password of `Basic` from browsers, which
        then ask for it by themselves.
        """
        if self.token is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            given = _basic_password(given)
        if kind.lower() not in ("basic", "bearer") or not self.is_token(given):
            raise Refused(
                401,
                "this server asks for its token",
                fix="Log in with any user name and the token as the password.",
                code="TOKEN",
                headers=[("www-authenticate", 'Bearer, Basic realm="semi_med", charset="UTF-8"')],
            )

    def is_token(self, given: str) -> bool:
        """Whether this is the token; takes equally long for every wrong one of its length."""
        return self.token is not None and hmac.compare_digest(given.strip().encode(), self.token.encode())

    def is_far(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
        """Whether a client is on another machine, to which paths of this one say nothing."""
        peer = scope.get("client")
        return bool(peer and not is_loopback(peer[0])) or any(name in headers for name in _FORWARDED)

    def _check_peer(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        if self.token is not None:
            return
        peer = scope.get("client")
        if peer and not is_loopback(peer[0]):
            raise Refused(403, "without a token this server serves its own machine only", code="LOOPBACK")
        if any(name in headers for name in _FORWARDED):
            raise Refused(403, "behind a proxy this server needs a token", fix="Start it with one.", code="LOOPBACK")

    def _check_host(self, headers: Mapping[str, str]) -> None:
        """A page that has its own name lead to this machine (DNS rebinding) is known by that name in `Host`."""
        match = _HOST.fullmatch(headers.get("host", ""))
        name = match[1].lower().rstrip(".") if match else ""
        if name and (is_loopback(name) or name in self.hosts or (self.token is not None and _is_ours(name))):
            return
        raise Refused(400, "the server is not known by this name", fix="Its operator can allow the name.", code="HOST")

    def _check_origin(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> list[tuple[str, str]]:
        origin = headers.get("origin")
        if origin is None:
            self._check_fetch(scope, headers)
            return []
        if origin in self.origins:
            return [
                ("access-control-allow-origin", origin),
                ("access-control-expose-headers", "content-disposition, retry-after"),
                ("vary", "origin"),
            ]
        try:
            place = urlsplit(origin).netloc.lower()
        except ValueError:
            place = ""
        if place and place == headers.get("host", "").lower():
            return []
        raise _cross_site()

    def _check_fetch(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        """A browser says where a request without `Origin` comes from; following a link is harmless."""
        link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not link:
            raise _cross_site()


def preflight_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The answer to a browser that asks for a listed site what it may send."""
    found = [
        ("access-control-allow-methods", "DELETE, GET, HEAD, POST, PUT"),
        ("access-control-allow-headers", "accept, authorization, content-type"),
        ("access-control-max-age", "600"),
    ]
    if headers.get("access-control-request-private-network") == "true":
        found.append(("access-control-allow-private-network", "true"))
    return found


def _cross_site() -> Refused:
    return Refused(
        403, "pages of this site may not use the server", fix="Its operator can list the site.", code="ORIGIN"
    )


def _is_ours(name: str) -> bool:
    """Whether a name is an address, which no page of another site can claim, or the name of this machine."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name in (socket.gethostname().lower(), socket.getfqdn().lower())
    return True


def _basic_password(given: str) -> str:
    try:
        return base64.b64decode(given.strip(), validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
