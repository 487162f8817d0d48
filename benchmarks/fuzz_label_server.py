"""Asks the annotation server a thousand malformed requests, then twenty inferences at once.

    python benchmarks/fuzz_label_server.py --bundle <a trained bundle> [--images <folder>] [-o out.json]

The server is the one that `semi-med label` starts, in a process of its own on loopback; run this in the environment
that `make label` makes. The same seed makes the same requests: paths for ids, broken queries, JSON, forms, scans, DICOM
and archives, settings that reach beyond, false headers, wrong methods, bodies that are too long or end too early, and
what scanners look for. Outside of the study lie files that must be neither read nor written. What must be 0: answers
with 500, answers that say a path, a stack trace or the name of such a file, requests that pass, changed files; and
twenty inferences at once must give the masks that they give one by one. `--big` also streams more than 2 GiB at an
upload. `--unguarded` asks the same of the same app without the guard: it shows that the requests can do harm.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import http.client
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from semi_med.inference.io import nifti_bytes, read_label  # noqa: E402
from tests.corpus.label_requests import Requests, judge, send  # noqa: E402

MARK = "JaneDoe"
START_SECONDS = 300
_UNGUARDED = """
import semi_med.label_app.serve as serve
serve.guarded = lambda app, **choices: app
from semi_med.cli import main
main()
"""


def main() -> int:
    """Run it, print a summary, write JSON; the exit code says whether all went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of a trained bundle")
    parser.add_argument("--images", type=Path, help="scans that it can segment; without, noise is drawn")
    parser.add_argument("--requests", type=int, default=1000, help="malformed ones")
    parser.add_argument("--seed", type=int, default=0, help="of the requests")
    parser.add_argument("--inferences", type=int, default=20, help="at once")
    parser.add_argument("--unguarded", action="store_true", help="ask MONAI Label itself, for comparison")
    parser.add_argument("--big", action="store_true", help="stream more than 2 GiB at an upload")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Path(folder).resolve()
        study, canary = lay_out(place, arguments.images)
        before = contents(place)
        with serving(study, arguments.bundle, place, guarded=not arguments.unguarded) as (address, process, seconds):
            print(f"server up after {seconds:.1f} s")
            found = fuzz(address, process, arguments, study=study, canary=canary)
            found["start_seconds"] = round(seconds, 1)
            if arguments.big:
                found["big"] = stream_too_much(address, place)
            found["concurrent"] = at_once(address, arguments.bundle.name, study, arguments.inferences, place)
            found["temporary_files_left"] = [path.name for path in (place / "tmp").glob("semi_med_label_*/*")]
        found["temporary_folders_after_stop"] = [path.name for path in (place / "tmp").glob("semi_med_label_*")]
        found["changed"] = changed(before, contents(place), study)
        found["canaries_read"] = [path.name for path in canary.parent.iterdir() if path.stat().st_atime > 1000]
    faults = {key: value for key, value in found["faults"].items() if value}
    print(json.dumps(found, indent=2))
    if arguments.output:
        content = {"requests": arguments.requests, "seed": arguments.seed, **found}
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    clean = not (faults or found["changed"] or found["canaries_read"] or found["temporary_folders_after_stop"])
    return 0 if clean and found["concurrent"]["equal"] else 1


def lay_out(place: Path, images: Path | None) -> tuple[Path, Path]:
    """The study, and beside it files that nobody may reach: each is noted as last read in 1970."""
    study, outside = place / "study", place / "outside"
    study.mkdir()
    outside.mkdir()
    (place / "tmp").mkdir()
    (place / "cwd").mkdir()
    sources = sorted(images.glob("*.nii.gz"))[:20] if images else []
    for source in sources:
        shutil.copyfile(source, study / source.name)
    for number in range(0 if sources else 20):
        noise = np.random.default_rng(number).normal(100, 20, (32, 40, 36)).astype(np.float32)
        (study / f"case_{number:02d}.nii.gz").write_bytes(gzip.compress(nifti_bytes(noise, np.eye(4)), 1))
    first = next(iter(sorted(study.glob("*.nii.gz"))))
    shutil.copyfile(first, outside / f"{MARK}.nii.gz")
    (outside / "secret.json").write_text(json.dumps({"name": MARK}))
    for path in outside.iterdir():
        os.utime(path, (0, time.time()))  # reading it would set the first
    return study, outside / f"{MARK}.nii.gz"


@contextlib.contextmanager
def serving(
    study: Path, bundle: Path, place: Path, *, guarded: bool = True
) -> Iterator[tuple[tuple[str, int], subprocess.Popen[bytes], float]]:
    """The server, when it answers; its address, its process, and the seconds that took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from semi_med.cli import main; main()" if guarded else _UNGUARDED, "label"]
    command += ["--studies", str(study), "--bundle", str(bundle.resolve()), "--device", "cpu", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(place / "tmp")}
    started = time.monotonic()
    with (place / "tmp" / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=place / "cwd", env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = ("127.0.0.1", port)
    try:
        while True:
            with contextlib.suppress(OSError):
                if get(address, "/info/")[0] == 200:
                    break
            if process.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise SystemExit(f"the server did not start:\n{(place / 'tmp' / 'server.log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield address, process, time.monotonic() - started
    finally:
        process.terminate()
        process.wait(60)
        failures = [line for line in (place / "tmp" / "server.log").read_text().splitlines() if "Error" in line]
        print("\n".join(f"server log: {line}" for line in failures[:20]))


def fuzz(
    address: tuple[str, int],
    process: subprocess.Popen[bytes],
    arguments: argparse.Namespace,
    *,
    study: Path,
    canary: Path,
) -> dict[str, Any]:
    """Sends the malformed requests."""
    cases = sorted(study.glob("*.nii.gz"))
    model, case = arguments.bundle.name, cases[0].name.removesuffix(".nii.gz")
    forbidden = tuple(word.encode() for word in (str(study.parent), str(ROOT), sys.prefix, str(Path.home()), MARK))
    forbidden += (b"Traceback", b"site-packages", b'File "', b"/tmp/", b"SECRET")
    requests = Requests(arguments.seed, model=model, case=case, image=cases[0].read_bytes(), canary=str(canary))
    statuses: dict[str, Counter[Any]] = {}
    faults: dict[str, list[str]] = {name: [] for name in ("500", "leak", "accepted", "no JSON", "no answer")}
    memory, slowest, started = resident(process), 0.0, time.monotonic()
    for number, asked in enumerate(itertools.islice(requests, arguments.requests)):
        begun = time.monotonic()
        status, head, body = send(asked, address)
        slowest = max(slowest, time.monotonic() - begun)
        statuses.setdefault(asked.kind, Counter())["cut" if asked.cut else status] += 1
        said = tuple(word for word in forbidden if word.decode() not in asked.start[1])  # its own words may come back
        if fault := judge(asked, status, head, body, forbidden=said):
            line = " ".join(asked.start)[:90]
            faults[fault].append(f"{number} {asked.kind}: {line} -> {status} {body[:120]!r}")
    seconds = time.monotonic() - started
    alive = get(address, "/info/")[0] == 200
    total: Counter[Any] = sum(statuses.values(), Counter())
    return {
        "seconds": round(seconds, 1),
        "slowest": round(slowest, 2),
        "alive": alive,
        "statuses": {str(key): count for key, count in sorted(total.items(), key=str)},
        "by_kind": {kind: {str(k): v for k, v in sorted(found.items(), key=str)} for kind, found in statuses.items()},
        "faults": faults,
        "memory_mb": [memory, resident(process)],
    }


def stream_too_much(address: tuple[str, int], place: Path) -> dict[str, Any]:
    """A form without a length that does not end; how much the disk grew by it."""
    head = "PUT /datastore/image?image=big HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    head += "Content-Type: multipart/form-data; boundary=limit\r\nConnection: close\r\n\r\n"
    part = b'--limit\r\nContent-Disposition: form-data; name="file"; filename="a.nii.gz"\r\n\r\n'
    piece, sent, most, started = os.urandom(2**20), 0, 0, time.monotonic()
    free = shutil.disk_usage(place).free
    with socket.create_connection(address, timeout=120) as connection:
        connection.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(part), part))
        try:
            while sent < 3 * 2**30:
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                sent += len(piece)
                most = max(most, free - shutil.disk_usage(place).free) if sent % 2**27 == 0 else most
        except OSError:
            pass
        try:
            answer = connection.recv(2**16)
        except OSError:
            answer = b""
    return {
        "sent_mb": sent >> 20,
        "disk_grew_mb": most >> 20,
        "seconds": round(time.monotonic() - started, 1),
        "answer": answer.split(b"\r\n")[0].decode() or "connection closed",
    }


def at_once(address: tuple[str, int], model: str, study: Path, count: int, place: Path) -> dict[str, Any]:
    """Inferences one by one, then at once; who is told to come again does."""
    cases = [path.name.removesuffix(".nii.gz") for path in sorted(study.glob("*.nii.gz"))]
    chosen = list(itertools.islice(itertools.cycle(cases), count))
    told = Counter[int]()

    def infer(number: int) -> str:
        while True:
            status, body = get(address, f"/infer/{model}?image={chosen[number]}&output=image", method="POST")
            told[status] += 1
            if status != 503:
                break
            time.sleep(0.5)
        if status != 200:
            return f"{status} {body[:200]!r}"
        path = place / "tmp" / f"mask_{number}_{time.monotonic_ns()}.nii.gz"
        path.write_bytes(body)
        array = read_label(path).array
        return f"{int((array > 0).sum())} {hashlib.sha256(array.tobytes()).hexdigest()}"

    started = time.monotonic()
    serial = [infer(number) for number in range(count)]
    between = time.monotonic()
    with ThreadPoolExecutor(max(count, 1)) as pool:
        found = list(pool.map(infer, range(count)))
    return {
        "inferences": count,
        "equal": found == serial and all(not one.startswith(("4", "5")) or len(one) > 60 for one in serial),
        "voxels": [int(one.split()[0]) for one in serial],
        "seconds_serial": round(between - started, 1),
        "seconds_at_once": round(time.monotonic() - between, 1),
        "statuses": {str(key): value for key, value in told.items()},
    }


def get(address: tuple[str, int], target: str, *, method: str = "GET") -> tuple[int, bytes]:
    """Status and content of an answer."""
    connection = http.client.HTTPConnection(*address, timeout=300)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def contents(place: Path) -> dict[str, str]:
    """Checksums of all files but those of the server's own folders; of canaries without reading them."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_file() and not name.startswith("tmp/"):
            facts = path.stat()
            content = "" if name.startswith("outside/") else hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = f"{facts.st_size} {facts.st_mtime_ns} {content}"
    return found


def changed(before: dict[str, str], after: dict[str, str], study: Path) -> list[str]:
    """Files that are other than before, or new where nothing new may be."""
    own = tuple(f"{study.name}/{name}" for name in ("labels/", "semi_med/", "datastore_v2.json", ".lock", "fuzz."))
    gone_or_other = [name for name, facts in before.items() if after.get(name) != facts]
    return gone_or_other + [name for name in after if name not in before and not name.startswith(own)]


def resident(process: subprocess.Popen[bytes]) -> int:
    """Memory of a process in MB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) >> 10
    return 0


if __name__ == "__main__":
    sys.exit(main())
