"""Small DICOM series written with pydicom, good ones and faulty ones, each with the verdict that it must get.

Works with pydicom 2.4 and 3. Every file carries a canary in each tag that names a person or a place.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian

_PYDICOM_3 = int(pydicom.__version__.split(".")[0]) >= 3
CANARY = "CANARY"  # part of every value below
IDENTITY = {
    "PatientName": "CANARY^NAME",
    "PatientID": "CANARY-ID",
    "PatientBirthDate": "19010101",
    "OtherPatientIDs": "CANARY-OTHER",
    "PatientAddress": "CANARY STREET",
    "PatientTelephoneNumbers": "CANARY-PHONE",
    "PatientMotherBirthName": "CANARY^MOTHER",
    "PatientComments": "CANARY COMMENT",
    "InstitutionName": "CANARY HOSPITAL",
    "InstitutionAddress": "CANARY PLACE",
    "ReferringPhysicianName": "CANARY^REFERRING",
    "PerformingPhysicianName": "CANARY^PERFORMING",
    "OperatorsName": "CANARY^OPERATOR",
    "AccessionNumber": "CANARY-ACC",
    "StudyID": "CANARY-STUDY",
    "StudyDescription": "CANARY STUDY TEXT",
    "SeriesDescription": "CANARY SERIES TEXT",
    "ProtocolName": "CANARY PROTOCOL",
    "StationName": "CANARY STATION",
    "ImageComments": "CANARY IMAGE",
}
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
RLE, JPEG_2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"
JPEG_LS, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.70"
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SHAPE = (12, 9, 7)  # slices, rows, columns


_uids = itertools.count()


def new_uid() -> UID:
    """A UID that no other object of this process has; all are of one length."""
    return UID(f"1.2.826.0.1.3680043.8.498.{10**37 + next(_uids)}")


def restart_uids() -> None:
    """Lets the same series get the same bytes again."""
    global _uids
    _uids = itertools.count()


@dataclass
class SeriesPlan:
    """A series that can be written; change `slices` before `write` to make it faulty.

    Attributes:
        values: stored values (slices, rows, columns).
        affine: 4x4, (column, row, slice) to RAS mm.
        slices: one data set for each slice, upwards.
    """

    values: np.ndarray
    affine: np.ndarray
    slices: list[Dataset] = field(default_factory=list)

    @property
    def real(self) -> np.ndarray:
        """(i, j, k) after rescaling."""
        pairs = zip(self.values, self.slices, strict=True)
        return np.stack([v * float(s.RescaleSlope) + float(s.RescaleIntercept) for v, s in pairs]).T

    def write(self, folder: Path, *, names: Callable[[int], str] = "IM{:04d}.dcm".format) -> Path:
        """Writes the slices; the order of names is that of `slices`."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(self.slices):
            save(one, folder / names(number))
        return folder


def plan_series(
    *,
    shape: tuple[int, int, int] = SHAPE,
    step: float = 2.0,
    spacing: tuple[float, float] = (1.5, 0.75),
    axes: Sequence[Sequence[float]] = AXIAL,
    origin: Sequence[float] = (-10.0, 20.0, 30.0),
    sop_class: str = CT,
    signed: bool = False,
    values: np.ndarray | None = None,
    lean: Sequence[float] = (0.0, 0.0),
    **tags: Any,
) -> SeriesPlan:
    """A regular series.

    Args:
        shape: slices, rows, columns.
        step: mm between slices.
        spacing: mm between rows, mm between columns.
        axes: unit vectors along a row and down a column, LPS.
        origin: of the first slice, LPS mm.
        sop_class: of every file.
        signed: stored values have a sign.
        values: stored ones, by default all different.
        lean: mm that the slices move along rows and down columns for each mm of height.
        tags: set in every slice.
    """
    row, column = np.asarray(axes, dtype=float)
    normal = np.cross(row, column)
    if values is None:
        values = np.arange(np.prod(shape), dtype=np.int32).reshape(shape) % 3000 - (1000 if signed else 0)
    values = values.astype(np.int16 if signed else np.uint16)
    upwards = (normal + row * lean[0] + column * lean[1]) * step
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row * spacing[1], column * spacing[0], upwards], axis=1)
    affine[:3, 3] = origin
    plan = SeriesPlan(values, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    common = {name: new_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    for k, stored in enumerate(values):
        one = _picture(stored, sop_class, signed=signed)
        for name, value in {**IDENTITY, **common}.items():
            setattr(one, name, value)
        one.InstanceNumber = k + 1
        one.ImagePositionPatient = [float(f"{x:.8g}") for x in np.asarray(origin) + k * upwards]
        one.ImageOrientationPatient = [float(f"{x:.10g}") for x in (*row, *column)]
        one.PixelSpacing = list(spacing)
        one.SliceThickness = step
        one.RescaleSlope, one.RescaleIntercept = "1", "-1024" if sop_class == CT else "0"
        for name, value in tags.items():
            setattr(one, name, value)
        plan.slices.append(one)
    return plan


def plan_multiframe(plan: SeriesPlan, *, sop_class: str = ENHANCED_CT) -> SeriesPlan:
    """The same volume as one enhanced object; frames are stored downwards, so that they must be sorted."""
    whole = _picture(plan.values[0], sop_class, signed=plan.values.dtype.kind == "i")
    first = plan.slices[0]
    for name in (*IDENTITY, "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(whole, name, first[name].value)
    whole.NumberOfFrames = len(plan.slices)
    whole.PixelData = np.ascontiguousarray(plan.values[::-1]).tobytes()
    whole.SharedFunctionalGroupsSequence = Items(
        [
            _of(
                PixelMeasuresSequence=_of(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness),
                PlaneOrientationSequence=_of(ImageOrientationPatient=first.ImageOrientationPatient),
            )
        ]
    )
    whole.PerFrameFunctionalGroupsSequence = Items(
        [
            _of(
                PlanePositionSequence=_of(ImagePositionPatient=one.ImagePositionPatient),
                PixelValueTransformationSequence=_of(
                    RescaleSlope=one.RescaleSlope, RescaleIntercept=one.RescaleIntercept, RescaleType="HU"
                ),
            )
            for one in reversed(plan.slices)
        ]
    )
    return SeriesPlan(plan.values, plan.affine, [whole])


def save(data: Dataset, path: Path) -> Path:
    """Writes a data set as a file with preamble, with the syntax that its meta information names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if _PYDICOM_3:
            data.save_as(path, enforce_file_format=True)
        else:
            data.save_as(path, write_like_original=False)
    return path


def other_object(sop_class: str = REPORT) -> Dataset:
    """A DICOM object without a picture, in a series of its own."""
    data = _object(sop_class)
    data.StudyInstanceUID, data.SeriesInstanceUID = new_uid(), new_uid()
    return data


def set_syntax(data: Dataset, syntax: str) -> None:
    """Names the transfer syntax; uncompressed ones only."""
    data.file_meta.TransferSyntaxUID = UID(syntax)
    if not _PYDICOM_3:
        data.is_little_endian = UID(syntax).is_little_endian
        data.is_implicit_VR = UID(syntax).is_implicit_VR


def compress(path: Path, syntax: str) -> None:
    """Compresses a file without loss: JPEG and JPEG-LS with GDCM, the rest with what pydicom has."""
    if syntax not in (JPEG_LS, JPEG_LOSSLESS):
        one = pydicom.dcmread(path)
        one.compress(syntax)
        one.save_as(path)
        return
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    kinds = gdcm.TransferSyntax
    change.SetTransferSyntax(kinds(kinds.JPEGLSLossless if syntax == JPEG_LS else kinds.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()


def right_angles() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The 24 ways in which rows and columns can lie along the axes of the body."""
    unit = np.eye(3)
    for i, j in itertools.permutations(range(3), 2):
        for a, b in itertools.product((1.0, -1.0), repeat=2):
            yield a * unit[i], b * unit[j]


def oblique(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in a random direction."""
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return matrix[:, 0], matrix[:, 1]


def _picture(stored: np.ndarray, sop_class: str, *, signed: bool) -> Dataset:
    data = _object(sop_class)
    data.Modality = {MR: "MR", ENHANCED_MR: "MR"}.get(sop_class, "CT")
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SeriesNumber = 1
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, int(signed)
    data.PixelData = stored.tobytes()
    return data


def _object(sop_class: str) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.SOPClassUID, data.SOPInstanceUID = UID(sop_class), new_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    set_syntax(data, ExplicitVRLittleEndian)
    return data


def _of(**values: Any) -> Any:
    """A data set; a data set among the values becomes a sequence of one item."""
    data = Dataset()
    for name, value in values.items():
        setattr(data, name, Items([value]) if isinstance(value, Dataset) else value)
    return data


# ---- the corpus ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A folder that is written, and what reading it must lead to.

    Attributes:
        name: of the case.
        write: writes the folder.
        code: of the error; "" if it must be read whole.
        words: that the error or one of the warnings must contain.
    """

    name: str
    write: Callable[[Path], Any]
    code: str = ""
    words: str = ""


def _missing(folder: Path) -> None:
    plan = plan_series()
    del plan.slices[5:7]
    plan.write(folder)


def _variable(folder: Path) -> None:
    plan = plan_series()
    for k, one in enumerate(plan.slices[6:]):
        one.ImagePositionPatient[2] += k * 1.0
    plan.write(folder)


def _duplicate(folder: Path) -> None:
    plan = plan_series()
    plan.write(folder)
    plan.slices[5].SOPInstanceUID = new_uid()
    plan.slices[5].PixelData = bytes(len(plan.slices[5].PixelData))
    save(plan.slices[5], folder / "X.dcm")


def _two_series(folder: Path) -> None:
    plan_series().write(folder / "a")
    plan_series(shape=(5, 9, 7), SeriesNumber=2).write(folder / "b")


def _mixed_orientation(folder: Path) -> None:
    plan = plan_series()
    for one in plan.slices[-5:]:
        one.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    plan.write(folder)


def _truncated(folder: Path) -> None:
    plan_series().write(folder)
    data = (folder / "IM0011.dcm").read_bytes()  # the last one: without it the rest would pass for a whole volume
    (folder / "IM0011.dcm").write_bytes(data[:-60])


def _mixed_size(folder: Path) -> None:
    plan = plan_series()
    plan.slices[3].Rows, plan.slices[3].Columns = 7, 9
    plan.write(folder)


def _single(folder: Path) -> None:
    plan_series(shape=(1, 9, 7)).write(folder)


def _junk(folder: Path) -> None:
    plan_series().write(folder)
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1\0")
    (folder / "README.txt").write_text("exported by a viewer\n")
    (folder / "report.pdf").write_bytes(b"%PDF-1.4\n\xe2\xe3\xcf\xd3")
    (folder / "copy.zip").write_bytes(b"PK\3\4" + bytes(26))
    save(other_object(REPORT), folder / "SR0001.dcm")
    save(other_object("1.2.840.10008.5.1.4.1.1.66.4"), folder / "SEG.dcm")
    save(other_object("1.2.840.10008.5.1.4.1.1.481.3"), folder / "RS.dcm")
    save(other_object(SECONDARY_CAPTURE), folder / "SC.dcm")
    save(other_object("1.2.840.10008.1.3.10"), folder / "DICOMDIR")


CORPUS = (
    Case("missing_slices", _missing, "SLICE_GAP", "2 slices are missing (steps of 2 mm, but"),
    Case("variable_spacing", _variable, "SLICE_GAP", "not equally spaced"),
    Case("duplicate_position", _duplicate, "DUPLICATE_SLICE", "1 slices lie at the place of another one"),
    Case("gantry_tilt", lambda f: plan_series(lean=(0.0, np.tan(np.radians(20)))).write(f), "", "GANTRY_TILT: stacked"),
    Case("two_series", _two_series, "SERIES", "there are 2: 1: CT, 12 slices of 7 x 9"),
    Case("mixed_orientation", _mixed_orientation, "ORIENTATION", "5 of 12 are turned by up to 90.0 degrees"),
    Case("truncated_file", _truncated, "TRUNCATED", "file 12 of 12"),
    Case("mixed_size", _mixed_size, "MIXED_SIZE", "7 x 9, 9 x 7"),
    Case("slope_zero", lambda f: plan_series(RescaleSlope="0").write(f), "SCALING", "slope is 0"),
    Case("single_slice", _single, "", "SINGLE_SLICE: the volume has one slice"),
    Case("junk", _junk, "", "IGNORED: 1 DICOMDIR, 1 PDF, 1 radiotherapy object, 1 secondary capture, 1 segmentation"),
    Case("good", lambda f: plan_series().write(f)),
)
