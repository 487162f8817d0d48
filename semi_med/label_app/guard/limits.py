"""How much one server takes on at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of bodies, time and concurrency.

    Attributes:
        upload: bytes of a body with files.
        json: bytes of a body without files, and of a form's fields together.
        files: of one session; a longer DICOM series is sent as one zip archive.
        free_disk: bytes that stay free on the disk of temporary files and on that of the studies.
        chunk_seconds: without a byte of a body, after which it is given up.
        body_seconds: for a whole body.
        inferences: that run at once; more than one only if the memory of the device suffices.
        waiting: inferences that may wait; one more is told to come again.
        requests: of all kinds that are in hand at once.
        kept_seconds: after which a file is removed that the stock server left in its folder of temporary files.
    """

    upload: int = 2 * 2**30
    json: int = 2**20
    files: int = 500
    free_disk: int = 2**30
    chunk_seconds: float = 30.0
    body_seconds: float = 1800.0
    inferences: int = 1
    waiting: int = 32
    requests: int = 128
    kept_seconds: float = 60.0
