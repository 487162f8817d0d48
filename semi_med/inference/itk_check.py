"""NRRD and MetaImage files (.nrrd, .mha, .mhd), verified whole before SimpleITK reads them.

SimpleITK fills a truncated payload with zeros, so the header is read here first and its announcement compared with
the bytes that are there. SimpleITK speaks LPS; the affine is turned to RAS.
"""

from __future__ import annotations

import bz2
import gzip
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from semi_med.errors import InputError
from semi_med.inference.axes import Wanted, plan_axes
from semi_med.inference.byte_check import (
    COPY_AGAIN,
    MAX_TRAILING,
    RawVolume,
    check_declared_size,
    check_regular_file,
    count_to_end,
    decoding,
    trailing,
    truncated,
)

_MAX_HEADER = 2**20
_NRRD_SPACE = ("domain", "space", "time", "none", "???")  # kinds of axes that are not the numbers of one voxel
_NRRD_BYTES = {
    1: "signed char|int8|int8_t|uchar|unsigned char|uint8|uint8_t",
    2: "short|short int|signed short|signed short int|int16|int16_t|"
    "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    4: "int|signed int|int32|int32_t|uint|unsigned int|uint32|uint32_t|float",
    8: "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t|"
    "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t|double",
}
_NRRD_TYPES = {name: size for size, names in _NRRD_BYTES.items() for name in names.split("|")}
_META_TYPES = {"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4}
_META_TYPES |= {"MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8}
_META_TYPES |= {"MET_FLOAT": 4, "MET_DOUBLE": 8}


@dataclass(frozen=True)
class _Announced:
    """What a header says about its payload; `shape` has the axes in space first, then the numbers of each voxel."""

    shape: tuple[int, ...]
    itemsize: int
    encoding: str  # raw, gzip, bzip2 or zlib
    payload: Path
    offset: int
    warnings: list[str] = field(default_factory=list)
    packed: int | None = None  # bytes of the compressed payload


def itk_shape(path: Path) -> tuple[int, ...]:
    """Numbers of voxels along the axes as the header has them, channels last; no voxel is read.

    Raises:
        InputError: the header cannot be read.
    """
    check_regular_file(path)
    return _header(path).shape


def _header(path: Path) -> _Announced:
    return _nrrd_header(path) if path.name.lower().endswith(".nrrd") else _meta_header(path)


def read_itk(path: Path, wanted: Wanted) -> RawVolume:
    """Voxels and geometry of one NRRD or MetaImage file.

    Args:
        path: a file that ends in .nrrd, .mha or .mhd.
        wanted: channels or a volume, if the caller knows of them.

    Returns:
        The volume, (i, j, k) in the order of the file, with its affine in RAS millimetres.

    Raises:
        InputError: as `read_nifti`, and with code PATH_ESCAPE if an .mhd points outside its folder.
    """
    check_regular_file(path)
    announced = _header(path)
    if wanted.channels == 1 and wanted.volume is None:
        plan_axes(announced.shape, wanted, path=path)  # refused before it is read
    warnings = _check_payload(announced, path, image=wanted.image)
    array, affine = _read_with_sitk(
        path, image_io="NrrdImageIO" if path.name.lower().endswith(".nrrd") else "MetaImageIO"
    )
    plan = plan_axes(array.shape, wanted, path=path)
    found = (*announced.warnings, *plan.warnings, *warnings)
    return RawVolume(plan.apply(array), affine, warnings=found, axes=plan.axes)


def _header_lines(path: Path, *, last: str) -> tuple[list[str], int]:
    """Header lines up to and including the one that matches `last`, and the byte at which the payload begins."""
    lines: list[str] = []
    with decoding(path), path.open("rb") as stream:
        while stream.tell() < _MAX_HEADER:
            line = stream.readline(_MAX_HEADER)
            if not line:
                raise InputError("the file ends inside its header", where=path, fix=COPY_AGAIN, code="TRUNCATED")
            lines.append(line.decode("latin-1").rstrip("\r\n"))
            if re.match(last, lines[-1]):
                return lines, stream.tell()
            if len(lines) == 1 and "\0" in lines[0]:
                break
    raise _not_this_format(path)


def _not_this_format(path: Path) -> InputError:
    suffix = path.suffix.lower()
    return InputError(
        f"the name says {suffix}, the content has no such header",
        where=path,
        fix="Give the file its true name, or export it again.",
        code="FORMAT",
    )


def _unsupported(path: Path, what: str) -> InputError:
    return InputError(
        f"{what} is not read", where=path, fix="Save the scan again as one .nrrd, .mha or .nii.gz file.", code="FORMAT"
    )


def _integers(text: str, path: Path) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split())
    except ValueError:
        raise InputError(
            f"the header gives an impossible shape ({text[:60]!r})", where=path, fix=COPY_AGAIN, code="HEADER"
        ) from None


def _nrrd_header(path: Path) -> _Announced:
    lines, offset = _header_lines(path, last=r"$")
    if not re.match(r"NRRD000\d$", lines[0]):
        raise _not_this_format(path)
    pairs = (line.split(":", 1) for line in lines[1:] if ":" in line and ":=" not in line and line[:1] != "#")
    fields = {key.strip().lower(): value.strip() for key, value in pairs}
    if "data file" in fields or "datafile" in fields:
        raise _unsupported(path, "a header with its voxels in another file")
    if any(fields.get(name, "0") != "0" for name in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise _unsupported(path, "a payload with skipped lines or bytes")
    units = fields.get("space units", "mm").replace('"', " ").split()
    if any(unit not in ("mm", "millimeter", "millimeters", "none", "???") for unit in units):
        raise InputError(
            f"millimetres are wanted, the header says {units}", where=path, fix="Rewrite it in mm.", code="SPACING"
        )
    encoding = {"gz": "gzip", "bz2": "bzip2"}.get(fields.get("encoding", ""), fields.get("encoding", ""))
    if encoding not in ("raw", "gzip", "bzip2"):
        raise _unsupported(path, f"the encoding {encoding!r}")
    warnings = [] if "space" in fields or "space dimension" in fields else [_NO_ORIENTATION]
    itemsize = _itemsize(_NRRD_TYPES, fields.get("type", ""), path)
    shape = _channels_last(_integers(fields.get("sizes", ""), path), fields.get("kinds", ""), path)
    return _Announced(shape, itemsize, encoding, path, offset, warnings)


def _channels_last(sizes: tuple[int, ...], kinds: str, path: Path) -> tuple[int, ...]:
    """The axes in space, then the one axis that is none, as SimpleITK gives it wherever a file has it.

    Raises:
        InputError: code NDIM, several axes are none, or a flat picture has several numbers for each pixel.
    """
    named = kinds.split() if len(kinds.split()) == len(sizes) else []
    other = [axis for axis, kind in enumerate(named) if kind.lower() not in _NRRD_SPACE]
    if not other:
        return sizes
    if len(other) > 1 or len(sizes) < 4:
        raise InputError(
            f"three axes in space and one of channels are wanted, this has {' x '.join(map(str, sizes))} ({kinds})",
            where=path,
            fix="Save a flat picture as PNG or TIFF, and of several volumes each as a file of its own.",
            code="NDIM",
        )
    return (*(size for axis, size in enumerate(sizes) if axis != other[0]), sizes[other[0]])


_NO_ORIENTATION = "NO_ORIENTATION: the header gives no directions; left and right cannot be known from this file"


def _itemsize(types: dict[str, int], name: str, path: Path) -> int:
    if name not in types:
        raise InputError(
            f"one number per voxel is wanted, the voxels are of the type {name[:40]!r}",
            where=path,
            fix="Convert the scan to integers or floats.",
            code="DTYPE",
        )
    return types[name]


def _meta_header(path: Path) -> _Announced:
    lines, offset = _header_lines(path, last=r"ElementDataFile\s*=")
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    fields = {key.strip(): value.strip() for key, value in pairs}
    if "DimSize" not in fields or "ElementType" not in fields:
        raise _not_this_format(path)
    if fields.get("BinaryData", "True").lower() not in ("true", "1") or fields.get("HeaderSize", "0") != "0":
        raise _unsupported(path, "a text payload or one behind a foreign header")
    shape = _integers(fields["DimSize"], path)
    if fields.get("ElementNumberOfChannels", "1") != "1":
        numbers = _integers(fields["ElementNumberOfChannels"], path)
        shape = _channels_last((*shape, *numbers), "domain " * len(shape) + "vector", path)
    payload, offset = _meta_payload(fields["ElementDataFile"], path, offset)
    encoding = "zlib" if fields.get("CompressedData", "False").lower() in ("true", "1") else "raw"
    directed = any(name in fields for name in ("TransformMatrix", "Orientation", "Rotation"))
    warnings = [] if directed else [_NO_ORIENTATION]
    itemsize = _itemsize(_META_TYPES, fields["ElementType"], path)
    packed = next(iter(_integers(fields.get("CompressedDataSize", ""), path)), None)
    if encoding == "zlib" and packed is None:  # SimpleITK then returns arbitrary memory as voxels
        raise InputError("the header lacks CompressedDataSize", where=path, fix=COPY_AGAIN, code="HEADER")
    return _Announced(shape, itemsize, encoding, payload, offset, warnings, packed)


def _meta_payload(name: str, path: Path, offset: int) -> tuple[Path, int]:
    """Where the voxels of a MetaImage lie: behind the header, or in one file of the same folder."""
    if name.upper() == "LOCAL":
        return path, offset
    if name.upper().startswith("LIST") or "%" in name:
        raise _unsupported(path, "a scan in one file per slice")
    if Path(name).name != name or "\\" in name:
        raise InputError(
            "the voxels are announced in another folder, only the folder of the header is read",
            where=path,
            fix="Put both files into one folder and name the file without a folder in ElementDataFile.",
            code="PATH_ESCAPE",
        )
    payload = path.with_name(name)
    check_regular_file(payload)
    return payload, 0


def _check_payload(announced: _Announced, path: Path, *, image: bool) -> list[str]:
    """Counts the voxel bytes; compressed ones are decompressed to their end, without keeping them."""
    size = check_regular_file(announced.payload) - announced.offset
    available = None if announced.encoding == "raw" else size
    if announced.encoding == "bzip2":
        available = None  # packs constant data far tighter than deflate; the count below bounds it
    needed = check_declared_size(announced.shape, announced.itemsize, available=available, path=path, image=image)
    with decoding(path), announced.payload.open("rb") as stream:
        stream.seek(announced.offset)
        if announced.encoding == "raw":
            found = size
        elif announced.encoding == "zlib":
            found = _count_zlib(stream, packed=announced.packed, limit=needed + MAX_TRAILING, path=path)
        else:
            opener = gzip.open if announced.encoding == "gzip" else bz2.open
            with cast(BinaryIO, opener(stream, "rb")) as unpacked:
                found = count_to_end(unpacked, limit=needed + MAX_TRAILING, path=path)
    if found < needed:
        raise truncated(path, needed=needed, found=found)
    if found > needed and announced.encoding != "raw":  # SimpleITK fails on this without telling
        raise InputError(
            f"{found} bytes of voxels are there, the header announces {needed}",
            where=path,
            fix=COPY_AGAIN,
            code="CORRUPT",
        )
    return trailing(found - needed)


def _count_zlib(stream: BinaryIO, *, packed: int | None, limit: int, path: Path) -> int:
    """Bytes in a zlib or gzip stream (MetaImage uses the former), verified to its checksum.

    SimpleITK unpacks only the announced number of packed bytes and returns what it got, so that number must be right.
    """
    unpacker, found, begin = zlib.decompressobj(wbits=47), 0, stream.tell()
    while not unpacker.eof:
        chunk = unpacker.unconsumed_tail or stream.read(2**16)
        if not chunk:
            raise EOFError
        found += len(unpacker.decompress(chunk, 2**22))
        if found > limit:
            raise InputError(
                f"more than {limit} bytes are there where the header announces fewer",
                where=path,
                fix=COPY_AGAIN,
                code="CORRUPT",
            )
    consumed = stream.tell() - begin - len(unpacker.unused_data)
    if packed not in (None, consumed):
        raise InputError(
            f"the header announces {packed} compressed bytes, {consumed} are there",
            where=path,
            fix=COPY_AGAIN,
            code="CORRUPT",
        )
    return found


def _read_with_sitk(path: Path, *, image_io: str) -> tuple[np.ndarray, np.ndarray]:
    """Array (i, j, k, ...), components last, and RAS affine."""
    import SimpleITK

    try:
        # naming the format keeps SimpleITK from guessing another one from the content
        image = SimpleITK.ReadImage(str(path), imageIO=image_io)
    except RuntimeError as error:
        raise InputError("SimpleITK cannot read this file", where=path, fix=COPY_AGAIN, code="FORMAT") from error
    array = SimpleITK.GetArrayFromImage(image)  # the slowest axis first, components last
    components = array.ndim - image.GetDimension()
    spatial = range(image.GetDimension())
    array = array.transpose(*reversed(spatial), *(image.GetDimension() + n for n in range(components)))
    if array.ndim < 3:
        plan_axes(array.shape, Wanted(), path=path)
    size = image.GetDimension()
    direction = np.asarray(image.GetDirection(), dtype=np.float64).reshape(size, size)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(image.GetSpacing(), dtype=np.float64)[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    return array, lps_to_ras @ affine
