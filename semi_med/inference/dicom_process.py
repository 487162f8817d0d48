"""The parent's side of the child process that parses and decodes DICOM.

A child is started with the first series, serves the next ones too, and ends by itself when it is idle. It is a new
interpreter, not a fork: threads and CUDA of this process do not matter, and it works in data-loading workers.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from semi_med.errors import InputError, ResourceError, SemiMedError
from semi_med.inference.byte_check import COPY_AGAIN, MAX_VOXELS
from semi_med.inference.dicom_worker import FRAME

TIMEOUT = 60.0  # seconds without a sign of life from the child
_MAX_JSON = 2**28
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from semi_med.inference.dicom_worker import serve; serve()"
)


class _ChildEnded(Exception):
    """The child closed its output.

    Args:
        started: whether it had begun to work on the request.
    """

    def __init__(self, started: bool) -> None:
        super().__init__()
        self.started = started


class Child:
    """One child process.

    Args:
        command: what is run.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        # the same packages as here, but never a module from the folder that the user happens to be in
        paths = json.dumps([str(Path(path).absolute()) for path in sys.path if path])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command or [sys.executable, "-c", _START, paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what a decoder prints may quote the file
            env=environment,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for this process, which may wait for what the child is writing
        )
        self._file = -1  # index of the file that is being looked at
        self.stopped = False

    def ask(self, request: dict[str, Any], *, timeout: float) -> tuple[dict[str, Any], np.ndarray | None]:
        """Sends a request and waits for its answer.

        Args:
            request: for `dicom_worker`.
            timeout: seconds without a sign of life.

        Returns:
            The JSON and, if voxels were asked for and read, the array (slices, rows, columns).

        Raises:
            InputError: what the child found wrong; code DECODER_CRASH or TIMEOUT if it died or hung.
            ResourceError: if memory ran out.
        """
        self._file = -1
        try:
            self._send(json.dumps(request).encode() + b"\n")
            return self._receive(timeout)
        except _ChildEnded as ended:
            self.kill()
            if self._file < 0:
                raise
            self._blame("the decoder crashed", code="DECODER_CRASH", cause=ended)
        except TimeoutError as error:
            self.kill()
            self._blame(f"nothing came out of it for {timeout:g} seconds", code="TIMEOUT", cause=error)
        except BaseException:
            self.kill()  # whatever is left in the pipe belongs to this request
            raise

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends the process while another thread waits for its answer."""
        self.stopped = True
        self._process.kill()

    def kill(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _blame(self, what: str, *, code: str, cause: BaseException) -> NoReturn:
        where = f" at file {self._file + 1}" if self._file >= 0 else ""
        raise InputError(f"{what}{where}", fix=f"The file is damaged, or worse. {COPY_AGAIN}", code=code) from cause

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
        except OSError:
            raise _ChildEnded(started=False) from None

    def _receive(self, timeout: float) -> tuple[dict[str, Any], np.ndarray | None]:
        while True:
            kind, size = FRAME.unpack(self._bytes(FRAME.size, timeout))
            if kind == b"P" and size == 8:
                (self._file,) = struct.unpack(">Q", self._bytes(8, timeout))
            elif kind == b"R" and size <= _MAX_JSON:
                content = json.loads(self._bytes(size, timeout))
                break
            else:
                raise _ChildEnded(started=True)
        if "shape" not in content:
            return content, None
        dtype, shape = np.dtype(content["dtype"]), tuple(content["shape"])
        kind, size = FRAME.unpack(self._bytes(FRAME.size, timeout))
        if kind != b"V" or len(shape) != 3 or size != int(np.prod(shape)) * dtype.itemsize or size > 8 * MAX_VOXELS:
            raise _ChildEnded(started=True)
        return content, self._into(np.empty(shape, dtype), timeout)

    def _bytes(self, size: int, timeout: float) -> bytes:
        return self._into(np.empty(size, np.uint8), timeout).tobytes()

    def _into(self, array: np.ndarray, timeout: float) -> np.ndarray:
        """Fills an array from the pipe."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        view = memoryview(array.reshape(-1).view(np.uint8).data)
        while view:
            if not select.select([descriptor], [], [], timeout)[0]:
                raise TimeoutError
            count = os.readv(descriptor, [view])
            if count == 0:
                raise _ChildEnded(started=self._file >= 0)
            view = view[count:]
        return array


_idle: list[Child] = []
_reading: set[Child] = set()
_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # a forked worker must not talk to the children of its parent
    os.register_at_fork(after_in_child=_idle.clear)
    os.register_at_fork(after_in_child=_reading.clear)


def ask(request: dict[str, Any], *, timeout: float = TIMEOUT) -> tuple[dict[str, Any], np.ndarray | None]:
    """Has a child answer a request; see `Child.ask`. Can be called from several threads.

    Raises:
        SemiMedError: as it was raised in the child, or because the child died.
    """
    for _ in range(2):
        with _lock:
            child = next((child for child in (_idle.pop() for _ in range(len(_idle))) if child.alive), None)
        fresh = child is None
        child = child or Child()
        try:
            content, array = _asked(child, request, timeout=timeout)
        except _ChildEnded:
            if fresh:
                raise ResourceError(
                    "the process that reads DICOM could not be started",
                    fix="Look at the memory limits of this account.",
                    code="MEMORY",
                ) from None
            continue  # it had just gone to its rest
        with _lock:
            _idle.append(child)
        _raise_error(content)
        return content, array
    raise AssertionError("a fresh child either answers or raises")


def _asked(child: Child, request: dict[str, Any], *, timeout: float) -> tuple[dict[str, Any], np.ndarray | None]:
    """As `Child.ask`; a child that reads can be stopped."""
    if request["action"] != "segment":
        with _lock:
            _reading.add(child)
    try:
        return child.ask(request, timeout=timeout)
    except (_ChildEnded, SemiMedError):
        if child.stopped:
            raise InputError("reading was stopped", code="STOPPED") from None
        raise
    finally:
        with _lock:
            _reading.discard(child)


def stop_reading() -> None:
    """Ends the children that read, so that nobody waits for what is not wanted any more; those that write go on."""
    with _lock:
        for child in _reading:
            child.stop()


@atexit.register
def close() -> None:
    """Ends the children that wait for work."""
    with _lock:
        for child in _idle:
            child.kill()
        _idle.clear()


def _raise_error(content: dict[str, Any]) -> None:
    if "bug" in content:
        raise RuntimeError(f"{content['bug']} at {content['at']} while DICOM was read")
    if "error" in content:
        raise as_error(content)


def as_error(content: dict[str, Any]) -> SemiMedError:
    """An error that came as JSON."""
    kind = ResourceError if content["error"] == "ResourceError" else InputError
    return kind(content["problem"], fix=content["fix"], code=content["code"])
