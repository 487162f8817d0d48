"""The child's side of `dicom_seg`: a volume of labels and the headers of its slices become a DICOM segmentation."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semi_med.errors import InputError, SemiMedError
from semi_med.files import write_atomically
from semi_med.inference.dicom_files import FileSet
from semi_med.inference.dicom_geometry import Layout, arrange
from semi_med.inference.dicom_objects import uid
from semi_med.inference.dicom_series import Volume

_SERIES_NUMBER = 300  # of results, behind those of a scanner
_EMPTY = {  # attributes that an object of the same patient and study must have, if only with nothing in them
    "PatientName": "",
    "PatientID": "",
    "PatientBirthDate": "",
    "PatientSex": "",
    "StudyDate": "",
    "StudyTime": "",
    "StudyID": "",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
}
_TAKEN = [
    *_EMPTY,
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "Modality", "ImageType", "InstanceNumber"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("Rows", "Columns", "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


def write_segmentation(
    volume: Volume, files: FileSet, request: Mapping[str, Any], *, fill_gaps: bool, allow_tilt: bool
) -> None:
    """Writes the file that a request of `dicom_seg.write_seg` names.

    Args:
        volume: the series.
        files: where its slices lie.
        request: as it came.
        fill_gaps: as the series was read.
        allow_tilt: as the series was read.

    Raises:
        InputError: code NO_SEG.
    """
    layout = arrange(volume.planes, fill_gaps=fill_gaps, allow_tilt=allow_tilt)
    label = np.load(request["label"], mmap_mode="r")
    spacing = volume.planes[layout.order[0]].spacing or (1.0, 1.0)
    slices = on_slices(label, layout, spacing, shape=(volume.planes[0].rows, volume.planes[0].columns))
    sources, frames = _sources(volume, layout, files)
    pixels = np.zeros((max(frames) + 1 if len(sources) == 1 else len(frames), *slices.shape[1:]), slices.dtype)
    if len(sources) == 1 and "NumberOfFrames" in sources[0]:
        pixels = np.zeros((int(sources[0].NumberOfFrames), *slices.shape[1:]), slices.dtype)
    pixels[frames] = slices
    try:
        made = _segmentation(sources, pixels, request)
        stream = io.BytesIO()
        made.save_as(stream)
    except (SemiMedError, MemoryError):
        raise
    except Exception as error:  # its text may quote the header
        raise InputError(
            f"no DICOM segmentation can be made of this series ({type(error).__name__})",
            fix="Use the NIfTI label; its grid is that of the series.",
            code="NO_SEG",
        ) from None
    write_atomically(Path(request["target"]), stream.getvalue())


def on_slices(label: np.ndarray, layout: Layout, spacing: tuple[float, float], *, shape: tuple[int, int]) -> np.ndarray:
    """The label at the slices that were scanned.

    Args:
        label: (slices, rows, columns) on the grid that the series was read on.
        layout: of the series.
        spacing: mm between rows, mm between columns.
        shape: rows, columns of the series.

    Returns:
        (slices, rows, columns), upwards; the very label where the series needed no resampling.
    """
    found = label
    if not layout.regular:
        nearest = np.rint(layout.heights / layout.step).astype(int)
        found = found[np.clip(nearest, 0, len(label) - 1)]
    if not layout.tilted:
        return np.asarray(found)
    made = np.zeros((len(found), *shape), label.dtype)
    starts = []
    for size, shift in ((spacing[0], layout.shift[1]), (spacing[1], layout.shift[0])):
        pixels = layout.heights * shift / size
        moved = np.abs(pixels).max() >= 1e-3
        starts.append(np.rint(pixels - np.floor(pixels.min())).astype(int) if moved else np.zeros(len(pixels), int))
    for k, (row, column) in enumerate(zip(*starts, strict=True)):
        made[k] = found[k, row : row + shape[0], column : column + shape[1]]
    return made


def _sources(volume: Volume, layout: Layout, files: FileSet) -> tuple[list[Any], list[int]]:
    """Data sets that the segmentation refers to, and for every slice, upwards, its place among their frames."""
    import pydicom

    ordered = [volume.slices[index] for index in layout.order]
    numbers = list(dict.fromkeys(one.header.file for one in ordered))
    several = any(one.header.frames > 1 for one in ordered)
    if several and len(numbers) > 1:
        raise InputError(
            "the series is spread over several multi-frame objects",
            fix="Use the NIfTI label; its grid is that of the series.",
            code="NO_SEG",
        )
    sources = []
    for number in numbers:
        with files.open(number) as stream:
            data = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=_TAKEN)
        for name, value in _EMPTY.items():
            if name not in data:
                setattr(data, name, value)
        for name in ("SOPClassUID", "SOPInstanceUID"):  # anonymised files may have them in the meta information only
            setattr(data, name, uid(data, name) or uid(data.file_meta, f"MediaStorage{name}"))
        sources.append(data)
    if several or "NumberOfFrames" in sources[0]:
        return sources, [one.frame for one in ordered]
    return sources, list(range(len(ordered)))


def _segmentation(sources: Sequence[Any], pixels: np.ndarray, request: Mapping[str, Any]) -> Any:
    import highdicom
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
    from highdicom.sr.coding import CodedConcept
    from pydicom.sr.codedict import codes

    from semi_med.runtime import versions

    version = versions()["semi-med"]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=request["bundle"][:64],
        version=version,
        family=codes.DCM.ArtificialIntelligence,
        source="semi-med",
        parameters={"weights SHA-256": request["weights_sha256"]},
    )
    described, numbered = [], np.zeros(pixels.shape, np.uint8 if len(request["segments"]) < 256 else np.uint16)
    for place, one in enumerate(request["segments"], start=1):
        numbered[pixels == one["number"]] = place  # segments are numbered from 1 without gaps
        described.append(
            SegmentDescription(
                segment_number=place,
                segment_label=one["name"][:64],
                segmented_property_category=CodedConcept(*one["category"]),
                segmented_property_type=CodedConcept(*one["type"]),
                algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                tracking_uid=highdicom.UID(),
                tracking_id=f"{one['name'][:48]} {place}",
                display_color=CIELabColor.from_rgb(*one["colour"]),
            )
        )
    return Segmentation(
        source_images=sources,
        pixel_array=numbered,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=highdicom.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="semi-med",
        manufacturer_model_name=request["bundle"][:64],
        software_versions=version,
        device_serial_number=request["weights_sha256"][:16],
        content_label="SEGMENTATION",
        content_description="Automatic segmentation, research only",
        omit_empty_frames=bool(numbered.any()),
    )
