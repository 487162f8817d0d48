"""Kinds of DICOM objects: which are images, which can be passed over, and which may be damaged slices."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from semi_med.inference.byte_check import COPY_AGAIN

# SOP classes that are read, PS3.4 annex B, and the modality each stands for
IMAGES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",  # enhanced
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",  # legacy converted enhanced
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
    "1.2.840.10008.5.1.4.1.1.130": "PT",
    "1.2.840.10008.5.1.4.1.1.128.1": "PT",
}
# beginnings of the SOP classes that are passed over, and what they are called
_OTHERS = {
    "1.2.840.10008.1.3.10": "DICOMDIR",
    "1.2.840.10008.5.1.4.1.1.7": "secondary capture",
    "1.2.840.10008.5.1.4.1.1.88": "structured report",
    "1.2.840.10008.5.1.4.1.1.104": "document",
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.66": "registration",
    "1.2.840.10008.5.1.4.1.1.481": "radiotherapy object",
    "1.2.840.10008.5.1.4.1.1.11": "presentation state",
    "1.2.840.10008.5.1.4.1.1.6": "ultrasound",
    "1.2.840.10008.5.1.4.1.1.3": "ultrasound",
}
_VENDORS = ("1.2.840.113619.", "1.3.12.2.1107.", "1.3.46.670589.", "1.2.392.200036.")  # private objects of scanners


@dataclass(frozen=True)
class Other:
    """A sound DICOM object that is no image of a volume: what it is, and the hash of its series."""

    kind: str
    series: str


class Unusable(Exception):
    """A file that cannot be used. The text is ours and names nobody.

    Args:
        problem: what is wrong with it.
        fix: the next step.
        code: as of `InputError`.
    """

    def __init__(self, problem: str, *, fix: str = COPY_AGAIN, code: str = "CORRUPT") -> None:
        super().__init__(problem)
        self.problem, self.fix, self.code = problem, fix, code
        self.series = ""  # hash of the series, if its UID could be read


def hashed(uid: str) -> str:
    """A short name for a UID, that cannot be turned back: 12 hexadecimal digits."""
    return hashlib.sha256(uid.encode()).hexdigest()[:12] if uid else ""


def uid(data: Any, name: str) -> str:
    """Text of a UID, "" if the file does not give it."""
    value = data.get(name)
    return "" if value is None else str(value).strip().strip("\0")


def sop_class(data: Any) -> str:
    """UID of the SOP class, which the file says twice; damage must not turn a slice into something to pass over."""
    kind, announced = uid(data, "SOPClassUID"), uid(data.file_meta, "MediaStorageSOPClassUID")
    if kind and announced and kind != announced and {kind, announced} & IMAGES.keys():
        raise Unusable("it names two kinds of object; its header may be damaged")
    if not kind and not announced:
        raise Unusable("it does not say what kind of object it is; it may be cut off")
    return kind or announced


def other_object(data: Any, kind: str) -> Other:
    """What a file holds that is no image of a volume.

    Raises:
        Unusable: if that kind of object is not known.
    """
    from pydicom.uid import UID_dictionary

    beginnings = sorted((start for start in _OTHERS if f"{kind}.".startswith(f"{start}.")), key=len)
    if kind not in UID_dictionary and not beginnings and not kind.startswith(_VENDORS):
        raise Unusable(
            "it is an object of an unknown kind; its header may be damaged",
            fix=f"{COPY_AGAIN} If it is no slice, take it out of the folder.",
        )
    return Other(_OTHERS[beginnings[-1]] if beginnings else "other object", hashed(uid(data, "SeriesInstanceUID")))
