"""`semi-med label` in a process of its own, for tests that ask it with MONAI Label's own client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from monailabel.client import MONAILabelClient

# refuses, and writes down, every connection that leaves the machine
OFFLINE = """
import os, socket
_connect = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        with open(os.environ["CONNECTIONS"], "a") as file:
            file.write(f"{address}\\n")
        raise OSError("offline")
    return _connect(self, address)
socket.socket.connect = connect
"""


class Server:
    """Serves a study; labels to be submitted lie in `<study>_labels`.

    Args:
        study: its folder.
        bundles: folders.
        settings: of the bundles.
    """

    def __init__(self, study: Path, bundles: list[Path], settings: Mapping[str, str]) -> None:
        folder, self.study, self.labels = study.parent, study, Path(f"{study}_labels")
        self.connections, self.log = folder / "connections", folder / "log"
        (folder / "offline").mkdir()
        (folder / "offline" / "sitecustomize.py").write_text(OFFLINE)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "semi_med.cli", "label", "--studies", self.study, "--port", self.port]
        command += ["--device", "cpu", "--iterations", 4]
        command += [word for bundle in bundles for word in ("--bundle", bundle)]
        command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        path = os.pathsep.join([str(folder / "offline"), str(Path(__file__).parents[2])])
        environment = {**os.environ, "PYTHONPATH": path, "CONNECTIONS": str(self.connections)}
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(list(map(str, command)), stdout=stream, stderr=stream, env=environment)
        self.client = MONAILabelClient(f"http://127.0.0.1:{self.port}", tmpdir=str(folder))
        self.given = ""  # the scan that the first Next Sample gave

    def wait(self, ready: Callable[[], object], *, seconds: float = 500) -> None:
        until = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < until and self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def is_up(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.client.info())
        return False

    def is_idle(self) -> bool:
        return self.client.train_status()["status"] not in ("SUBMITTED", "RUNNING")

    def post(self, path: str) -> object:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method="POST")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def submit(self, scan: str, suffix: str = ".nii.gz") -> None:
        self.client.save_label(scan, str(self.labels / f"{scan}{suffix}"), params={})

    def train(self, model: str, **params: object) -> dict:
        """Trains to the end."""
        self.client.train_start(model, params)
        self.wait(self.is_idle)
        return self.client.train_status()


@contextlib.contextmanager
def running(study: Path, bundles: list[Path], settings: Mapping[str, str]) -> Iterator[Server]:
    server = Server(study, bundles, settings)
    try:
        server.wait(server.is_up)
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=120)
