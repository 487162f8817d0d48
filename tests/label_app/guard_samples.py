"""What the tests of the guard share: small scans, a MONAI Label app that thresholds, and a server on loopback."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.inference.io import nifti_bytes

TOKEN = "a-token-of-some-length"
SHAPE = (6, 5, 4)
AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
MAIN = '''
import tempfile
import time
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.train import TrainTask
from semi_med.inference import read_image, write_label


class Threshold(InferTask):
    """Voxels above a threshold; asked for 0.13 it fails and names a file, asked for 0.99 it takes its time."""

    def __init__(self):
        super().__init__(InferType.SEGMENTATION, {"organ": 1, "left part": 2}, 3, "threshold")

    def is_valid(self):
        return True

    def config(self):
        return {"threshold": 0.5, "device": ["cpu", "cuda"]}

    def __call__(self, request):
        threshold = request.get("threshold", 0.5)
        if threshold == 0.13:
            raise RuntimeError(f"cannot read {request['image']} of Jane Doe")
        if threshold == 0.99:
            time.sleep(0.3)
        image = read_image(request["image"])
        stream = tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False)
        write_label(stream.name, image.array > threshold, affine=image.affine)
        return stream.name, {"label_names": {"organ": 1}}


class Train(TrainTask):
    def __init__(self):
        super().__init__("trains nothing")

    def config(self):
        return {"max_epochs": 5, "device": ["cpu", "cuda"]}

    def stats(self):
        return {}

    def __call__(self, request, datastore):
        return {"epochs": request["max_epochs"]}


class App(MONAILabelApp):
    def __init__(self, app_dir, studies, conf):
        super().__init__(app_dir, studies, conf, name="threshold", description="", labels=["organ", "left part"])

    def init_infers(self):
        return {"threshold": Threshold()}

    def init_trainers(self):
        return {"threshold": Train()}
'''


def image_bytes(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> bytes:
    """A small scan as NIfTI, compressed."""
    import gzip

    array = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return gzip.compress(nifti_bytes(array, AFFINE), 1, mtime=0)


def label_bytes(shape: tuple[int, ...] = SHAPE) -> bytes:
    """A label for it."""
    import gzip

    array = np.zeros(shape, np.uint8)
    array[tuple(slice(1, 3) for _ in shape)] = 1
    return gzip.compress(nifti_bytes(array, AFFINE), 1, mtime=0)


def write_studies(folder: Path, cases: int = 3) -> None:
    """A studies folder with some scans."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(cases):
        (folder / f"case_{number}.nii.gz").write_bytes(image_bytes(number))


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """A server of an ASGI application on loopback; its address."""
    import uvicorn

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
