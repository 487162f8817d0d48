"""Requests that no client should send, made by chance from a seed, and raw enough that no library mends them."""

from __future__ import annotations

import gzip
import io
import json
import random
import socket
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

import numpy as np

TRAVERSALS = (
    *("../x", "..", ".", "../../../../etc/passwd", "..\\..\\x", "/etc/passwd", "C:\\Windows\\win.ini", "....//x"),
    *("a/../../x", "%2e%2e%2f", "%252e%252e%252f", "..%c0%af", "..%00/", "\0", "a\0.nii.gz", "file:///etc/passwd"),
    *("~/x", "$HOME", "`id`", "$(id)", "a;id", "a|id", "a&b=c", "CON", "nul.nii.gz", "COM1", "a" * 129, "a" * 4000),
    *(".hidden", "-rf", "_x", "a b", "a..b", "a.", "ü", "病人", "a\u202eb", "a\u0300", "\ufeffa", "\U0001f9e0"),
    *("%ff", "%", "a\r\nX: y", "a\n", "\t", "*", "?", "[a]", "{a}", "<script>alert(1)</script>", "'; DROP TABLE x;--"),
    *("{{7*7}}", "${7*7}", "%s%n", "\\\\host\\share", "a/b"),
)
WORDS = ("image", "label", "id", "tag", "session_id", "output", "params", "run_sync", "limit_cases", "expiry", "x")
_PLACES = """
    GET / | GET /info/ | GET /train/ | GET /scoring/ | DELETE /train/x | GET /ohif/{} | GET /logs/{} | GET /static/{}
    POST /infer/{} | POST /infer/wsi/{} | POST /infer/wsi_v2/{} | POST /batch/infer/{} | POST /train/{}
    POST /activelearning/{} | POST /scoring/{} | GET /model/{} | GET /model/info/{} | PUT /model/{} | DELETE /model/{}
    GET /session/{} | DELETE /session/{} | GET /datastore/image?image={} | HEAD /datastore/image?image={}
    DELETE /datastore/image?id={} | DELETE /datastore/?id={} | PUT /datastore/image?image={} | PUT /datastore/?image={}
    GET /datastore/label?label={}&tag=final | GET /datastore/label?label={case}&tag={}
    PUT /datastore/label?image={case}&tag={} | DELETE /datastore/label?id={case}&tag={}
    GET /datastore/image/info?image={} | PUT /datastore/image/info?image={}
    GET /datastore/label/info?label={}&tag=final
    PUT /datastore/label/info?label={case}&tag={} | PUT /datastore/updatelabelinfo?label={}&tag=x
    GET /proxy/dicom/{} | GET /proxy/dicom/wado/{} | POST /reload{} | GET /docs{} | GET /{} | PUT /{}
"""
_SETTINGS = """
    image device label session timeout logging gpus result_extension roi_size run_id max_iterations seed model strategy
    bundle_path save_label label_tag foreground client_id a/b tracking_uri local_rank __class__ constructor max_workers
    start_from_last_model
"""
PLACES = [(*place.split(),) for line in _PLACES.strip().splitlines() for place in line.split("|")]


@dataclass
class Asked:
    """One request.

    Attributes:
        kind: in what way it is wrong.
        start: method and target.
        headers: in this order, perhaps twice.
        body: its pieces.
        may_pass: chance may have left it sound.
        cut: the connection is closed after the body, without waiting for an answer.
    """

    kind: str
    start: tuple[str, str]
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)
    may_pass: bool = False
    cut: bool = False

    def head(self, host: str) -> bytes:
        """The bytes before the body."""
        names = {name.lower() for name, _ in self.headers}
        lines = [f"{self.start[0]} {self.start[1]} HTTP/1.1"]
        lines += [] if "host" in names else [f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body and not names & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {sum(map(len, self.body))}")
        return ("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode("utf-8", "surrogateescape")


class Requests:
    """Makes them.

    Args:
        seed: the same seed gives the same requests.
        model: a model of the server.
        case: an image of the server.
        image: bytes of a sound scan, compressed NIfTI, which is damaged.
        canary: a file outside the store.
    """

    def __init__(self, seed: int, *, model: str, case: str, image: bytes, canary: str) -> None:
        self.random = random.Random(seed)
        self.model, self.case, self.image, self.canary = model, case, image, canary
        self.kinds: tuple[Callable[[], Asked], ...] = (
            self.bad_id,
            self.bad_id,
            self.bad_place,
            self.bad_query,
            self.bad_json,
            self.bad_setting,
            self.bad_setting,
            self.bad_method,
            self.bad_header,
            self.bad_form,
            self.bad_file,
            self.bad_file,
            self.bad_archive,
            self.bad_annotations,
            self.bad_dicom,
            self.bad_notes,
            self.too_long,
            self.cut_off,
            self.unknown_address,
        )

    def __iter__(self) -> Iterator[Asked]:
        while True:
            yield self.random.choice(self.kinds)()

    # ---- kinds ----------------------------------------------------------------------------------------------------

    def bad_id(self) -> Asked:
        """A path where an id is wanted, written in several ways."""
        method, target = self.random.choice([place for place in PLACES if "{}" in place[1]])
        text = self.random.choice((*TRAVERSALS, self.canary))
        write = self.random.choice((quote, _quoted, lambda t: _quoted(_quoted(t)), _plain))
        written = write(text)
        sound = not written or (written.isascii() and written.isalnum() and written != text)  # what was odd is gone
        target = target.replace("{case}", self.case).replace("{}", written)
        return Asked("id", (method, target), may_pass=sound)

    def bad_place(self) -> Asked:
        """A sound scan for a place where nothing may be written, or an inference on a file of another place."""
        outside = self.canary.rpartition("/")[0]
        name = self.random.choice(("../planted", "../outside/planted", f"{outside}/planted", "labels/../../planted"))
        tag = self.random.choice(("../..", "../../../outside", outside))
        return self.random.choice(
            (
                lambda: self._form("place", "PUT", f"/datastore/image?image={_quoted(name)}", self._sound("file")),
                lambda: self._form(
                    "place", "PUT", f"/datastore/label?image={self.case}&tag={_quoted(tag)}", self._sound("label")
                ),
                lambda: self._form(
                    "place",
                    "POST",
                    f"/infer/{self.model}?image={self.case}",
                    [("params", None, json.dumps({"image": self.canary}).encode())],
                ),
                lambda: Asked("place", ("POST", f"/infer/{self.model}?image={_quoted(self.canary)}")),
            )
        )()

    def bad_query(self) -> Asked:
        """Words that are not taken, or are there twice, or hold nonsense."""
        method, target = self.random.choice(PLACES)
        words = [(self.random.choice(WORDS), self.random.choice((*TRAVERSALS, "true", "1"))) for _ in range(3)]
        words.append(self.random.choice((("zz", "1"), words[0])))
        query = "&".join(f"{name}={quote(text, safe='')}" for name, text in words)
        target = target.replace("{case}", self.case).replace("{}", self.model)
        return Asked("query", (method, f"{target}{'&' if '?' in target else '?'}{query}"))

    def bad_json(self) -> Asked:
        """What is no JSON, or no object, or too deep."""
        depth = self.random.choice((20, 1000, 50_000))
        texts = [b"{", b"[]", b'"x"', b"1", b"\0", b"\xff\xfe", b"{'a': 1}", b'{"a": NaN}', b'{"a": 1e999}', b"a=b"]
        texts += [b"[" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b'{"max_iterations": 1' + b"0" * 5000 + b"}"]
        texts += [b'{"\\ud800": 1}', b'{"a": "\\u0000"}', gzip.compress(b"{}"), b"<?xml version='1.0'?>"]
        texts += [b'{"max_iterations": 1, "max_iterations": 2}']
        places = (f"/train/{self.model}", "/train/", "/activelearning/random", f"/batch/infer/{self.model}")
        target = self.random.choice(places)
        kind = self.random.choice(("application/json", "text/plain", "application/json; charset=utf-7", "x" * 200))
        return Asked("json", ("POST", target), [("Content-Type", kind)], [self.random.choice(texts)])

    def bad_setting(self) -> Asked:
        """Settings that are not offered, or have values that reach beyond them."""
        evil = (self.canary, "/etc/passwd", "../x", "$__import__('os').system('id')", "@network", "%x")
        values = (*evil, {"_target_": "os.system"}, -1, 1e9, 2**70, 1e300, True, None, [], {}, [[[]]], "", "x" * 10_000)
        values += ("\0", "\ud800", [1e9] * 3)
        names = _SETTINGS.split()
        given = {self.random.choice(names): self.random.choice(values) for _ in range(self.random.randint(1, 4))}
        given[self.random.choice(("image", "zz", "bundle_path"))] = self.random.choice(evil)
        text = json.dumps(given).encode()
        if self.random.random() < 0.5:
            target = self.random.choice((f"/train/{self.model}", "/scoring/dice", "/activelearning/random", "/train/"))
            return Asked("setting", ("POST", target), [("Content-Type", "application/json")], [text])
        target = f"/infer/{self.model}?image={self.case}"
        return self._form("setting", "POST", target, [("params", None, text)])

    def bad_method(self) -> Asked:
        """A method that an address does not take."""
        _, target = self.random.choice(PLACES)
        method = self.random.choice(("PATCH", "TRACE", "CONNECT", "OPTIONS", "PROPFIND", "XYZ", "get", "G\x7fT"))
        return Asked("method", (method, target.replace("{case}", self.case).replace("{}", self.model)))

    def bad_header(self) -> Asked:
        """Names, origins and lengths that are not true."""
        tricks = [
            [("Host", "evil.example.org")],
            [("Host", "127.0.0.1"), ("Host", "evil.example.org")],
            [("Host", "")],
            [("Origin", "https://evil.example.org")],
            [("Origin", "null")],
            [("Sec-Fetch-Site", "cross-site")],
            [("X-Forwarded-For", "127.0.0.1")],
            [("Forwarded", "for=127.0.0.1")],
            [("Authorization", "Bearer \u00ff")],
            [("Authorization", "Basic !!!"), ("Authorization", "Bearer x")],
            [("Content-Length", "-5")],
            [("Content-Length", "5"), ("Content-Length", "6")],
            [("Content-Length", "99999999999999")],
            [("Content-Length", "5"), ("Transfer-Encoding", "chunked")],
            [("Transfer-Encoding", "gzip, chunked")],
            [("X-Long", "x" * 70_000)],
            [(f"X-{number}", "y") for number in range(300)],
            [("X\0Y", "z")],
            [("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")],
        ]
        chosen = self.random.choice(tricks)
        passes = chosen[0][0] in ("Authorization", "Upgrade", "X-Long", "X-0")
        target = self.random.choice((f"/train/{self.model}", f"/infer/{self.model}?image={self.case}zz", "/scoring/zz"))
        return Asked("header", ("POST", target), chosen, may_pass=passes)

    def bad_form(self) -> Asked:
        """Forms that end too early, or have what is not wanted."""
        part = b'--limit\r\nContent-Disposition: form-data; name="file"; filename="a.nii.gz"\r\n\r\n'
        text = b'--limit\r\nContent-Disposition: form-data; name="a%d"\r\n\r\nx\r\n'
        bodies = [b"", b"x", b"--limit", b"--limit\r\n\r\n", part, part + self.image[:50], b"--other\r\n" + part]
        bodies += [part.replace(b"name=", b"nam="), part * 600 + b"--limit--\r\n", b"--limit\r\nA: " + b"b" * 20_000]
        bodies += [b"".join(text % number for number in range(99)) + b"--limit--"]
        bodies += [part.replace(b"a.nii.gz", b"\xff\xfe\x00") + b"x\r\n--limit--\r\n"]
        boundaries = ("; boundary=limit", "", '; boundary="', "; boundary=" + "x" * 5000)
        kinds = [*(f"multipart/form-data{each}" for each in boundaries), "multipart/mixed; boundary=limit", "image/png"]
        target = self.random.choice(("/datastore/image?image=fuzz", f"/datastore/label?image={self.case}", "/session/"))
        header = ("Content-Type", self.random.choice(kinds))
        return Asked("form", ("PUT", target), [header], [self.random.choice(bodies)])

    def bad_file(self) -> Asked:
        """Damaged scans, and what only has a scan's name."""
        name, content, may_pass = self._damaged()
        field_name, method, target = self.random.choice(
            (
                ("file", "PUT", "/datastore/image?image=fuzz"),
                ("label", "PUT", f"/datastore/label?image={self.case}&tag=fuzz"),
                ("file", "POST", f"/infer/{self.model}?output=json"),
                ("files", "PUT", "/session/"),
                ("label", "POST", f"/infer/{self.model}?image={self.case}zz"),
            )
        )
        asked = self._form("file", method, target, [(field_name, name, content)])
        asked.may_pass = may_pass
        return asked

    def bad_archive(self) -> Asked:
        """Archives that point outside, unpack without end, or are none."""
        content = self.random.choice(
            (
                lambda: _zip({"../../x.nii.gz": self.image}),
                lambda: _zip({self.canary: self.image}),
                lambda: _zip({"bomb.nii": b"\0" * 2**26}),
                lambda: _zip({f"{n}.dcm": b"x" for n in range(3000)}),
                lambda: _zip({"a.zip": _zip({"a.zip": _zip({"x.nii.gz": self.image})})}),
                lambda: _zip({"x.nii.gz": self.image})[:-30],
                lambda: _zip({"x.nii.gz": b"no scan", "C:\\y": b""}),
                lambda: _link(self.canary),
                lambda: _tar({"../x": b"x"}),
                lambda: b"PK\3\4" + self.random.randbytes(200),
                lambda: b"Rar!" + self.random.randbytes(200),
            )
        )()
        name = self.random.choice(("a.zip", "a.tar.gz", "a.rar", "../a.zip", "a.ZIP"))
        return self._form("archive", "PUT", "/session/?uncompress=true", [("files", name, content)])

    def bad_annotations(self) -> Asked:
        """Polygons that open files, grow without end, or are none; and sound ones for what is no picture."""
        point = '<Coordinate Order="{}" X="{}" Y="{}"/>'
        sound = "".join(point.format(*place) for place in ((0, 1, 1), (1, 4, 1), (2, 4, 4)))
        shape = '<Annotation Name="a" PartOfGroup="a" Type="{}"><Coordinates>{}</Coordinates></Annotation>'
        whole = f"<ASAP_Annotations><Annotations>{shape}</Annotations></ASAP_Annotations>"
        entity = f'<!DOCTYPE a [<!ENTITY a SYSTEM "file://{self.canary}">]>'
        laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
        texts = [whole.format("Polygon", sound), whole.format("Ellipse", sound), whole.format("Polygon", "")]
        texts += [entity + whole.format("Polygon", sound).replace('Name="a"', 'Name="&a;"'), "<a>" * 50_000, "<kml/>"]
        texts += [f'<!DOCTYPE a [<!ENTITY a0 "a">{laughs}]><ASAP_Annotations>&a9;</ASAP_Annotations>', "", "\0", "&a;"]
        texts += [whole.format("Polygon", point.format("x", "nan", "1e999") * 3), whole[:-20].format("Polygon", sound)]
        texts += [f'<?xml version="1.0" encoding="cp037"?>{entity}', f"<?xml-stylesheet href='{self.canary}'?><a/>"]
        content = self.random.choice(texts).encode(self.random.choice(("utf-8", "utf-16", "utf-8")))
        target = f"/datastore/label?image={self.random.choice((self.case, f'{self.case}zz'))}&tag=fuzz"
        return self._form("annotations", "PUT", target, [("label", "a.xml", content)])

    def bad_dicom(self) -> Asked:
        """Files that begin as DICOM does and go on otherwise."""
        start = b"\0" * 128 + b"DICM"
        group = b"\x02\0\0\0UL\x04\0" + (200).to_bytes(4, "little")
        bodies = [start, start + self.random.randbytes(500), start + group + self.random.randbytes(300)]
        bodies += [b"\x08\0\x05\0" * 90, start + b"\xe0\x7f\x10\0OW\0\0\xff\xff\xff\xff" + self.random.randbytes(64)]
        parts = [("files", f"{n}.dcm", self.random.choice(bodies)) for n in range(self.random.randint(1, 3))]
        return self._form("dicom", "PUT", "/session/", parts)

    def bad_notes(self) -> Asked:
        """Notes about a case that are more than notes."""
        choices = ({"name": "../x"}, {"path": self.canary}, {"a/b": 1}, {"a": "x" * 9000}, {"a": "\0"}, {"ts": "x"})
        notes = self.random.choice((*choices, [1], "x", 1))
        case = self.random.choice((self.case, f"{self.case}zz"))
        return self._form(
            "notes", "PUT", f"/datastore/image/info?image={case}", [("info", None, json.dumps(notes).encode())]
        )

    def too_long(self) -> Asked:
        """Bodies beyond the limit, with and without their length."""
        piece = b"x" * 2**16
        target = self.random.choice((f"/train/{self.model}", "/activelearning/random"))
        kind = ("Content-Type", "application/json")
        if self.random.random() < 0.5:
            return Asked("too long", ("POST", target), [kind, ("Content-Length", str(2**40))], [piece])
        chunks = [b"10000\r\n" + piece + b"\r\n"] * 24
        return Asked("too long", ("POST", target), [kind, ("Transfer-Encoding", "chunked")], [*chunks, b"0\r\n\r\n"])

    def cut_off(self) -> Asked:
        """A client that leaves in the middle."""
        asked = self.random.choice((self.bad_file, self.bad_setting, self.bad_json))()
        length = sum(map(len, asked.body))
        asked.headers.append(("Content-Length", str(length + 1000)))
        asked.kind, asked.cut = "cut off", True
        return asked

    def unknown_address(self) -> Asked:
        """What scanners look for."""
        targets = ("/wp-admin", "/.git/config", "/.env", "/..;/", "//info/", "/info/../logs/", "/%2e%2e/logs/", "*")
        targets += ("http://evil.example.org/info/", "/info/?" + "a" * 9000, "/" + "a" * 30_000, "/\u00e9")
        targets += ("/cgi-bin/x", "/auth/token/x")
        return Asked("address", (self.random.choice(("GET", "POST", "PUT")), self.random.choice(targets)))

    # ---- parts ----------------------------------------------------------------------------------------------------

    def _form(self, kind: str, method: str, target: str, parts: list[tuple[str, str | None, bytes]]) -> Asked:
        body = b""
        for name, filename, content in parts:
            extra = f'; filename="{filename}"' if filename is not None else ""
            head = f'--limit\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
            body += head.encode() + content + b"\r\n"
        header = ("Content-Type", "multipart/form-data; boundary=limit")
        return Asked(kind, (method, target), [header], [body + b"--limit--\r\n"])

    def _sound(self, name: str) -> list[tuple[str, str | None, bytes]]:
        return [(name, "../../../planted.nii.gz", self.image)]

    def _damaged(self) -> tuple[str, bytes, bool]:
        """A file's name, its content, and whether it may still be sound."""
        plain = bytearray(gzip.decompress(self.image))
        way = self.random.randrange(8)
        if way == 0:
            return "a.nii.gz", self.image[: self.random.randrange(len(self.image))], False
        if way == 1:
            packed = bytearray(self.image)
            packed[self.random.randrange(len(packed))] ^= 1 << self.random.randrange(8)
            return "a.nii.gz", bytes(packed), True
        if way == 2:  # a header that announces what is not there
            place, value = self.random.choice(((40, 99), (42, 32767), (44, 0), (70, 9999), (108, 7), (0, 1)))
            plain[place : place + 2] = int(value).to_bytes(2, "little", signed=True)
            return "a.nii", bytes(plain), True
        if way == 3:
            plain[self.random.randrange(348)] ^= 0xFF
            return "a.nii", bytes(plain), True
        if way == 4:
            return "a.nii.gz", gzip.compress(np.zeros(2**24, np.uint8).tobytes()), False
        if way == 5:
            return self.random.choice(("a.exe", "a.svs", "a.json", "a", "a.nii.gz.sh", "a.php")), self.image, False
        if way == 6:
            return "../../../a.nii.gz", b"", False
        return self.random.choice(("a.png", "a.jpg", "a.tif", "a.nrrd", "a.nii")), self.random.randbytes(500), False


def send(asked: Asked, address: tuple[str, int], *, seconds: float = 60.0) -> tuple[int, bytes, bytes]:
    """Sends a request.

    Returns:
        Status, head and body of the answer; status 0 if the connection ended without one.
    """
    with socket.create_connection(address, timeout=seconds) as connection:
        try:
            connection.sendall(asked.head(f"127.0.0.1:{address[1]}"))
            for piece in asked.body:
                connection.sendall(piece)
        except OSError:
            pass  # refused before it was read
        if asked.cut:
            return 0, b"", b""
        content = b""
        try:
            while piece := connection.recv(2**16):
                content += piece
        except OSError:  # reset, or nothing came in time
            pass
    head, _, body = content.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split(b" ")
    return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), head, body


def judge(asked: Asked, status: int, head: bytes, body: bytes, *, forbidden: tuple[bytes, ...]) -> str:
    """What is wrong with an answer; nothing if it is as it should be.

    Args:
        asked: the request.
        status: of the answer, 0 if there was none.
        head: its headers.
        body: its content.
        forbidden: what no error may say.
    """
    if asked.cut:
        return ""
    if status == 0:
        return "no answer"
    if status == 500:
        return "500"
    if status < 400:
        harmless = asked.may_pass or asked.start[1].startswith(("/ohif", "/?"))
        return "" if harmless else "accepted"
    if any(word in head + body for word in forbidden):
        return "leak"
    if asked.start[0] == "HEAD" or body == b"Invalid HTTP request received.":
        return ""
    try:
        return "" if set(json.loads(body)) == {"detail", "code"} else "no JSON"
    except ValueError:
        return "no JSON"


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _plain(text: str) -> str:
    """As it is, but for what would end the request's first line."""
    return "".join(character for character in text if character not in " \r\n\t\0")


def _zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _link(target: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("x.nii.gz")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, target)
    return stream.getvalue()


def _tar(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()
