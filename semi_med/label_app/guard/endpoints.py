"""What may be asked: every address of MONAI Label that clients use, with what each takes. There is nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, urlencode

from semi_med.label_app.guard.answers import Refused
from semi_med.label_app.guard.store import check_id

Check = Callable[[str], str]  # the value as it goes on; raises Refused
Lane = Literal["quick", "slow", "task"]
Params = Literal["infer", "wsi", "batch", "train", "trainers", "strategy", "scoring", "methods", "info", "session", ""]


@dataclass(frozen=True)
class Endpoint:
    """One address.

    Attributes:
        method: of HTTP.
        template: of its path, with names of ids in braces.
        query: checks of what may follow `?`.
        body: what comes with it.
        fields: of a form, with JSON in them.
        files: of a form, and what each is.
        params: whose settings the JSON holds.
        lane: how long it takes: at once, an inference, a whole training.
    """

    method: str
    template: str
    query: Mapping[str, Check] = field(default_factory=dict)
    body: Literal["", "json", "form"] = ""
    fields: tuple[str, ...] = ()
    files: Mapping[str, Literal["image", "label", "scribbles", "session"]] = field(default_factory=dict)
    params: Params = ""
    lane: Lane = "quick"

    def lane_of(self, query: Mapping[str, str]) -> Lane:
        """Where it waits; `run_sync` keeps a request until the task is done."""
        return "task" if query.get("run_sync") == "true" else self.lane


def _flag(text: str) -> str:
    if text.lower() not in ("true", "false", "1", "0"):
        raise _odd("true or false is wanted")
    return "true" if text.lower() in ("true", "1") else "false"


def _id(text: str) -> str:
    return check_id(text, what="case, tag or session")


def _word(*choices: str) -> Check:
    def check(text: str) -> str:
        if text not in choices:
            raise _odd(f"one of {', '.join(choices)} is wanted")
        return text

    return check


def _whole(low: int, high: int) -> Check:
    def check(text: str) -> str:
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not low <= int(text) <= high:
            raise _odd(f"a whole number from {low} to {high} is wanted")
        return str(int(text))

    return check


def _checksum(text: str) -> str:
    if not re.fullmatch(r"((SHA256|SHA512|MD5):)?[0-9a-f]{32,128}", text):
        raise _odd("a checksum is written SHA256:<hexadecimal digits>")
    return text


def _odd(problem: str) -> Refused:
    return Refused(422, problem, code="QUERY")


_STATUS = {"all": _flag, "check_if_running": _flag}
_SYNC = {"run_sync": _flag}
_IMAGE, _TAGGED = {"image": _id}, {"label": _id, "tag": _id}
_INFER = {**_IMAGE, "session_id": _id}

ENDPOINTS = (
    Endpoint("GET", "/info/"),
    Endpoint("GET", "/model/info/{model}"),
    Endpoint("GET", "/model/{model}"),
    Endpoint(
        "POST",
        "/infer/{model}",
        {**_INFER, "output": _word("image", "json", "all", "dicom_seg")},
        "form",
        ("params",),
        {"file": "image", "label": "scribbles"},
        "infer",
        "slow",
    ),
    Endpoint(
        "POST",
        "/infer/wsi/{model}",
        {**_INFER, "output": _word("asap", "dsa", "json")},
        "json",
        params="wsi",
        lane="slow",
    ),
    Endpoint(
        "POST",
        "/infer/wsi_v2/{model}",
        {**_INFER, "output": _word("asap", "dsa", "json")},
        "form",
        ("wsi",),
        {"file": "image"},
        "wsi",
        "slow",
    ),
    Endpoint("GET", "/batch/infer", _STATUS),
    Endpoint("DELETE", "/batch/infer"),
    Endpoint(
        "POST",
        "/batch/infer/{model}",
        {**_SYNC, "images": _word("all", "labeled", "unlabeled")},
        "json",
        params="batch",
    ),
    Endpoint("GET", "/train/", _STATUS),
    Endpoint("DELETE", "/train/"),
    Endpoint("POST", "/train/", _SYNC, "json", params="trainers"),
    Endpoint("POST", "/train/{model}", {**_SYNC, "enqueue": _flag}, "json", params="train"),
    Endpoint("POST", "/activelearning/{strategy}", {}, "json", params="strategy", lane="slow"),
    Endpoint("GET", "/scoring/", _STATUS),
    Endpoint("DELETE", "/scoring/"),
    Endpoint("POST", "/scoring/", _SYNC, "json", params="methods"),
    Endpoint("POST", "/scoring/{method}", _SYNC, "json", params="scoring"),
    Endpoint("GET", "/datastore/", {"output": _word("train", "stats", "all")}),
    Endpoint("PUT", "/datastore/", _IMAGE, "form", ("params",), {"file": "image"}, "info"),
    Endpoint("DELETE", "/datastore/", {"id": _id}),
    Endpoint("PUT", "/datastore/image", _IMAGE, "form", ("params",), {"file": "image"}, "info"),
    Endpoint("DELETE", "/datastore/image", {"id": _id}),
    Endpoint("HEAD", "/datastore/image", {**_IMAGE, "check_sum": _checksum}),
    Endpoint("GET", "/datastore/image", _IMAGE),
    Endpoint("GET", "/datastore/image/info", _IMAGE),
    Endpoint("PUT", "/datastore/image/info", _IMAGE, "form", ("info",), {}, "info"),
    Endpoint("PUT", "/datastore/label", {**_IMAGE, "tag": _id}, "form", ("params",), {"label": "label"}, "info"),
    Endpoint("DELETE", "/datastore/label", {"id": _id, "tag": _id}),
    Endpoint("HEAD", "/datastore/label", {**_IMAGE, "tag": _id}),
    Endpoint("GET", "/datastore/label", _TAGGED),
    Endpoint("GET", "/datastore/label/info", _TAGGED),
    Endpoint("PUT", "/datastore/label/info", _TAGGED, "form", ("info",), {}, "info"),
    Endpoint("PUT", "/datastore/updatelabelinfo", _TAGGED, "form", ("params",), {}, "info"),
    Endpoint("GET", "/datastore/dataset", {"limit_cases": _whole(1, 10_000)}),
    Endpoint("GET", "/session/{session_id}", {"update_ts": _flag, "image": _flag}),
    Endpoint(
        "PUT",
        "/session/",
        {"uncompress": _flag, "expiry": _whole(0, 86_400)},
        "form",
        ("client_id",),
        {"files": "session"},
        "session",
    ),
    Endpoint("DELETE", "/session/{session_id}"),
    Endpoint("GET", "/openapi.json"),
    Endpoint("GET", "/favicon.ico"),
)

CLOSED = {
    "/proxy": "it would lend the server's DICOMweb password to everybody; viewers ask the DICOMweb server itself",
    "/logs": "logs are read on the server; their page runs scripts of other sites",
    "/docs": "this page runs scripts of other sites; /openapi.json has the same",
    "/reload": "the server is started anew by its operator",
    "/static": "these files are served below /ohif/",
}
_OHIF = re.compile(r"/ohif(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127})*/?")
_DICOM = re.compile(r"/proxy/dicom/(wado|qido)(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){1,12}")


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]{1,400})", template.rstrip("/")) + "/?")


_PATTERNS = [(endpoint, _pattern(endpoint.template)) for endpoint in ENDPOINTS]


def find_endpoint(method: str, path: str, *, proxy: bool = False) -> tuple[Endpoint, str, dict[str, str]]:
    """The endpoint of a request.

    Args:
        method: of HTTP.
        path: decoded.
        proxy: OHIF may read the DICOMweb server through this one.

    Returns:
        The endpoint, the path in its usual form, and the ids in it.

    Raises:
        Refused: 400 for an id that is none, 403 for what is closed, 404, 405.
    """
    if proxy and method == "GET" and _DICOM.fullmatch(path) and ".." not in path:
        return Endpoint(method, "/proxy/dicom/{path}", lane="slow"), path, {}
    for closed, why in CLOSED.items():
        if path == closed or path.startswith(f"{closed}/"):
            raise Refused(403, why, code="CLOSED")
    if _OHIF.fullmatch(path) and ".." not in path and method in ("GET", "HEAD"):
        return Endpoint(method, "/ohif/{path}"), path if path != "/ohif" else "/ohif/", {}
    matching = [(endpoint, match) for endpoint, pattern in _PATTERNS if (match := pattern.fullmatch(path))]
    # `/model/info/x` before `/model/{model}`, which it cannot match, but `/datastore/image` has several methods
    for endpoint, match in matching:
        if endpoint.method == method:
            ids = {name: check_id(text, what=name.removesuffix("_id")) for name, text in match.groupdict().items()}
            return endpoint, endpoint.template.format(**ids), ids
    if path.startswith("/model/") and method in ("PUT", "DELETE"):
        raise Refused(403, "models come from training on the server, not from clients", code="CLOSED")
    if matching:
        allowed = ", ".join(sorted({endpoint.method for endpoint, _ in matching}))
        raise Refused(405, f"this address takes {allowed}", code="METHOD", headers=[("allow", allowed)])
    raise Refused(404, "there is no such address", fix="GET /openapi.json lists them.", code="NOT_FOUND")


def check_query(endpoint: Endpoint, query_string: bytes) -> dict[str, str]:
    """What follows `?`, checked; an empty value is as none.

    Raises:
        Refused: 400 for what cannot be read, 422 for what is not taken.
    """
    if not query_string:
        return {}
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=16,
        )
    except ValueError:
        raise Refused(400, "the query cannot be read", fix="Send it as name=value&name=value.", code="QUERY") from None
    if len({name for name, _ in pairs}) < len(pairs):
        raise Refused(400, "a name is twice in the query", code="QUERY")
    found = {}
    in_session = any(name == "session_id" and text for name, text in pairs)
    for name, text in pairs:
        if name == "image" and in_session and endpoint.lane == "slow":
            continue  # the session has the image; 3D Slicer sends the name of its node, which may be anything
        if name not in endpoint.query:
            taken = ", ".join(endpoint.query) or "nothing"
            raise Refused(422, f"something in the query is not taken here; {taken} is", code="QUERY")
        if text:
            found[name] = endpoint.query[name](text)
    return found


def query_of(found: Mapping[str, str]) -> bytes:
    """A query as it goes on to the stock server."""
    return urlencode(found).encode("ascii")
