"""What the header of a DICOM file says about its slices, read without names, dates, descriptions or pixels.

Only the tags of `_TAGS` are ever looked at. No text of a file leaves this module: UIDs are hashed, words are ours.
Works with pydicom 2.4 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from semi_med.inference.dicom_geometry import Plane
from semi_med.inference.dicom_objects import IMAGES, Other, Unusable, hashed, other_object, sop_class, uid

_DEFLATED = "1.2.840.10008.1.2.1.99"

SPLITTING = (  # what tells the volumes of one series apart, in the order in which it is tried
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoTime",
    "EffectiveEchoTime",
    "DiffusionBValue",
    "InversionTime",
    "FlipAngle",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "ImageType",
    "ComplexImageComponent",
    "AcquisitionNumber",
    "AcquisitionTime",
    "ContentTime",
)
_TAGS = [
    *SPLITTING,
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SeriesNumber"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation"),
    *("BitsAllocated", "BitsStored", "HighBit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "BurnedInAnnotation", "LossyImageCompression"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ImagesInAcquisition"),
]


@dataclass(frozen=True)
class Header:
    """What the slices of one file share. UIDs are hashed.

    Attributes:
        file: index of the file.
        frames: how many pictures the file has.
        modality: "CT", "MR" or "PT", from the SOP class.
        study: of the study's UID.
        series: of the series' UID.
        instance: of the object's UID.
        frame_of_reference: of the UID of the coordinate system.
        number: of the series, for sorting.
        stored: (bits allocated, bits stored, high bit, signed, samples, MONOCHROME1) of the pixels.
        padding: lowest and highest stored value that means "no data", None without.
        warnings: codes of what is odd.
        announced: slices of the acquisition, 0 if the file does not say.
    """

    file: int
    frames: int
    modality: str
    study: str
    series: str
    instance: str
    frame_of_reference: str
    number: int
    stored: tuple[int, int, int, bool, int, bool]
    padding: tuple[int, int] | None
    warnings: tuple[str, ...]
    announced: int


@dataclass(frozen=True)
class Slice:
    """One plane of one file.

    Attributes:
        header: of its file.
        frame: index in the file.
        plane: where it lies.
        slope: factor from stored to real values.
        inter: added after the factor.
        localizer: whether it is a scout.
        tells: values of the tags of `SPLITTING`, for comparison only.
    """

    header: Header
    frame: int
    plane: Plane
    slope: float
    inter: float
    localizer: bool
    tells: dict[str, Any]


def read_header(stream: BinaryIO, index: int) -> list[Slice] | Other:
    """The slices of one file.

    Args:
        stream: at its beginning.
        index: the file's.

    Raises:
        Unusable: if the header is damaged, lacks what every image has, or describes values that are not read.
    """
    import pydicom

    series = ""
    try:
        data = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=_TAGS)
        kind = sop_class(data)
        if kind not in IMAGES:
            return other_object(data, kind)
        _check_pixels_follow(stream, data)
        if uid(data, "SeriesInstanceUID"):
            series = _series(data)
        header = _header(data, index, IMAGES[kind])
        frames = _integer(data, "NumberOfFrames", 1)
        if "PerFrameFunctionalGroupsSequence" in data:
            return _frames(data, header, frames)
        if frames != 1:
            raise Unusable(f"it has {frames} frames, but does not say where each of them lies")
        return [_slice(header, 0, [data], _size(data))]
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises whatever a damaged element leads to; its text may quote the element
        unusable = error if isinstance(error, Unusable) else Unusable(f"its header is damaged ({type(error).__name__})")
        unusable.series = series
        raise unusable from None


def _check_pixels_follow(stream: BinaryIO, data: Any) -> None:
    """Where a file is cut off inside its header, pydicom returns what was there, even half of a value."""
    if str(data.file_meta.get("TransferSyntaxUID", "")) == _DEFLATED:  # inflated as a whole, or not at all
        return
    following = stream.read(2)
    if following not in (b"\xe0\x7f", b"\x7f\xe0"):  # group 7FE0
        raise Unusable(
            "it is cut off before its pixels" if not following else "its header is damaged",
            code="CORRUPT" if following else "TRUNCATED",
        )


def _series(data: Any) -> str:
    """Hash of the series' UID; anonymised files may lack it, then of what else ties slices together."""
    ties = [uid(data, name) for name in ("StudyInstanceUID", "FrameOfReferenceUID")]
    return hashed(uid(data, "SeriesInstanceUID") or f"unnamed {' '.join(ties)}")


def _header(data: Any, index: int, modality: str) -> Header:
    if "ModalityLUTSequence" in data:
        raise Unusable(
            "the values are given by a lookup table instead of a slope",
            fix="Convert the series with a slope and an intercept.",
            code="SCALING",
        )
    stored = _stored(data)
    warnings = []
    if str(data.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        warnings.append("PHI_PIXELS")
    if str(data.get("LossyImageCompression", "")).strip() == "01":
        warnings.append("LOSSY")
    return Header(
        file=index,
        frames=_integer(data, "NumberOfFrames", 1),
        modality=modality,
        study=hashed(uid(data, "StudyInstanceUID")),
        series=_series(data),
        instance=hashed(uid(data, "SOPInstanceUID")),
        frame_of_reference=hashed(uid(data, "FrameOfReferenceUID")),
        number=_integer(data, "SeriesNumber", 0),
        stored=stored,
        padding=_padding(data, stored[1], signed=stored[3]),
        warnings=tuple(warnings),
        announced=_integer(data, "ImagesInAcquisition", 0),
    )


def _stored(data: Any) -> tuple[int, int, int, bool, int, bool]:
    allocated, samples = _integer(data, "BitsAllocated", 0), _integer(data, "SamplesPerPixel", 1)
    bits = _integer(data, "BitsStored", allocated)
    high = _integer(data, "HighBit", bits - 1)
    signed = _integer(data, "PixelRepresentation", 0)
    look = str(data.get("PhotometricInterpretation", "")).strip()
    if samples != 1 or look not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unusable(
            "grey values are wanted, these are colours or of an unknown kind",
            fix="Name the folder of the original CT or MR series.",
            code="DTYPE",
        )
    if allocated not in (8, 16, 32) or not 1 <= bits <= allocated or not bits - 1 <= high < allocated:
        raise Unusable(f"{bits} of {allocated} bits for each pixel are impossible or not read")
    if signed not in (0, 1):
        raise Unusable("it does not say whether its pixels have a sign")
    return allocated, bits, high, bool(signed), samples, look == "MONOCHROME1"


def _padding(data: Any, bits: int, *, signed: bool) -> tuple[int, int] | None:
    """Lowest and highest stored value outside of the picture, from values that may come with the wrong sign."""
    if (first := data.get("PixelPaddingValue")) in (None, ""):
        return None
    last = data.get("PixelPaddingRangeLimit", first)
    ends = []
    for value in (first, last if last not in (None, "") else first):
        number = int(value) & ((1 << bits) - 1)
        ends.append(number - (1 << bits) if signed and number >> (bits - 1) else number)
    return min(ends), max(ends)


def _size(data: Any) -> tuple[int, int]:
    rows, columns = _integer(data, "Rows", 0), _integer(data, "Columns", 0)
    if rows < 1 or columns < 1:
        raise Unusable("it does not say how large the picture is; it may be cut off, or hold no picture")
    return rows, columns


def _slice(header: Header, frame: int, groups: Sequence[Any], size: tuple[int, int]) -> Slice:
    """A slice from the data sets that may speak of it, the most particular first."""
    spacing = _numbers(groups, "PixelSpacing", 2)
    thickness = _numbers(groups, "SpacingBetweenSlices", 1) or _numbers(groups, "SliceThickness", 1)
    plane = Plane(
        position=_numbers(groups, "ImagePositionPatient", 3),  # type: ignore[arg-type]
        orientation=_numbers(groups, "ImageOrientationPatient", 6),  # type: ignore[arg-type]
        spacing=spacing,  # type: ignore[arg-type]
        rows=size[0],
        columns=size[1],
        thickness=abs(thickness[0]) if thickness else None,
    )
    slope, inter = _numbers(groups, "RescaleSlope", 1), _numbers(groups, "RescaleIntercept", 1)
    if slope == (0.0,):
        raise Unusable(
            "the rescale slope is 0, so that every pixel would have one value",
            fix="Export the original series from the archive.",
            code="SCALING",
        )
    tells = {name: str(value) for name in SPLITTING if (value := _find(groups, name)) not in (None, "")}
    kinds = [str(part).strip().upper() for part in _as_list(_find(groups, "ImageType") or _find(groups, "FrameType"))]
    return Slice(
        header=header,
        frame=frame,
        plane=plane,
        slope=slope[0] if slope else 1.0,
        inter=inter[0] if inter else 0.0,
        localizer="LOCALIZER" in kinds,
        tells=tells,
    )


def _frames(data: Any, header: Header, frames: int) -> list[Slice]:
    """The slices of an enhanced multi-frame object (PS3.3, C.7.6.16)."""
    own = data.PerFrameFunctionalGroupsSequence
    if len(own) != frames or frames < 1:
        raise Unusable(f"it has {frames} frames, but places for {len(own)}")
    shared = _macros(data.SharedFunctionalGroupsSequence[0]) if "SharedFunctionalGroupsSequence" in data else []
    size = _size(data)
    return [_slice(header, frame, [*_macros(group), *shared, data], size) for frame, group in enumerate(own)]


def _macros(group: Any) -> list[Any]:
    """The first item of every functional group."""
    return [element.value[0] for element in group if element.VR == "SQ" and len(element.value)]


def _find(groups: Sequence[Any], name: str) -> Any:
    return next((value for group in groups if (value := group.get(name)) not in (None, "")), None)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if not isinstance(value, str) and hasattr(value, "__iter__") else [value]


def _numbers(groups: Sequence[Any], name: str, count: int) -> tuple[float, ...] | None:
    value = _find(groups, name)
    if value is None:
        return None
    numbers = tuple(float(number) for number in _as_list(value))
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise Unusable(f"{count} finite numbers are wanted for {name}")
    return numbers


def _integer(data: Any, name: str, default: int) -> int:
    value = data.get(name)
    return default if value in (None, "") else int(value)
