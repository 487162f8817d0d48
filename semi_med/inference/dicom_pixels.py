"""Pixels of one DICOM file: decoded by maintained libraries, counted and given their true bits.

Uncompressed pixels are taken as they are. For compressed ones pydicom (2.4 or 3) hands each frame to a decoder that is
named here: OpenJPEG for JPEG 2000, GDCM for JPEG and JPEG-LS, pylibjpeg-rle for RLE.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np

from semi_med.inference.dicom_headers import Slice
from semi_med.inference.dicom_objects import Unusable

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99")  # little endian, also deflated
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_RLE = "1.2.840.10008.1.2.5"
# decoders: pydicom's name for it, and the packages it needs
_GDCM = ("gdcm", ("gdcm",))
_OPENJPEG = ("pylibjpeg", ("pylibjpeg", "openjpeg"))
_FAST_RLE = ("pylibjpeg", ("pylibjpeg", "rle"))
_OWN_RLE = ("pydicom", ())
# transfer syntax: its name, and its decoders in the order of preference
_COMPRESSED: dict[str, tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]] = {
    "1.2.840.10008.1.2.4.50": ("JPEG baseline", (_GDCM,)),
    "1.2.840.10008.1.2.4.51": ("JPEG extended", (_GDCM,)),
    "1.2.840.10008.1.2.4.57": ("JPEG lossless", (_GDCM,)),
    "1.2.840.10008.1.2.4.70": ("JPEG lossless", (_GDCM,)),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", (_GDCM,)),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS near-lossless", (_GDCM,)),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", (_OPENJPEG, _GDCM)),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", (_OPENJPEG, _GDCM)),
    "1.2.840.10008.1.2.4.201": ("HTJ2K", (_OPENJPEG,)),
    "1.2.840.10008.1.2.4.202": ("HTJ2K", (_OPENJPEG,)),
    "1.2.840.10008.1.2.4.203": ("HTJ2K", (_OPENJPEG,)),
    _RLE: ("RLE", (_FAST_RLE, _OWN_RLE)),
}
_TAGS = [
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation", "SamplesPerPixel"),
    *("PlanarConfiguration", "Rows", "Columns", "NumberOfFrames", "PixelData", "ExtendedOffsetTable"),
    *("ExtendedOffsetTableLengths",),
]
_END_OF_IMAGE = b"\xff\xd9"
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


def read_pixels(stream: BinaryIO, one: Slice, *, frames: int) -> tuple[np.ndarray, int]:
    """All frames of a file.

    Args:
        stream: at its beginning.
        one: any slice of this file.
        frames: how many the file has.

    Returns:
        Stored values (frames, rows, columns), in a type that is signed if the pixels are; and the number of bytes
        that follow them.

    Raises:
        Unusable: code TRUNCATED, CORRUPT or NO_DECODER.
    """
    header, plane = one.header, one.plane
    shape = (frames, plane.rows, plane.columns)
    data, syntax, value = _stored(stream)
    allocated, bits, high, signed, _, _ = header.stored
    rest = 0
    if syntax in _COMPRESSED:
        _check_encapsulation(value, syntax, frames=frames)
        array = _decode(data, syntax)
        high = bits - 1  # decoders give values that begin at bit 0
    else:
        if not (syntax in _NATIVE or syntax == _BIG_ENDIAN or not syntax):
            raise Unusable(
                "its transfer syntax is not read", fix="Convert it to explicit VR little endian.", code="NO_DECODER"
            )
        rest = _check_length(len(value), shape, allocated // 8)
        if syntax == _BIG_ENDIAN or (not syntax and _is_big_endian(data)):
            array = data.pixel_array  # knows when bytes are swapped in pairs
        else:
            array = np.frombuffer(value, dtype=f"<u{allocated // 8}", count=int(np.prod(shape)))
    if array.size != np.prod(shape) or array.dtype.kind not in "iu" or array.dtype.itemsize * 8 > allocated:
        raise Unusable(f"its pixels are {array.dtype} {array.shape}, the header announces {shape}")
    return _true_bits(array.reshape(shape), allocated=allocated, bits=bits, high=high, signed=signed), rest


def _stored(stream: BinaryIO) -> tuple[Any, str, bytes | bytearray]:
    """The data set, its transfer syntax and its pixels as they lie in the file."""
    import pydicom

    try:
        data = pydicom.dcmread(stream, force=True, specific_tags=_TAGS)
        there = "PixelData" in data
        syntax = str(data.file_meta.get("TransferSyntaxUID", ""))
        value = None
        if there:
            value = data.get_item("PixelData").value if syntax in _COMPRESSED else data.PixelData
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # pydicom has no error of its own for a value representation that does not exist
        raise Unusable(f"its pixels cannot be found ({type(error).__name__})") from None
    if not there:
        raise Unusable("it is cut off before its pixels", code="TRUNCATED")
    if not isinstance(value, bytes | bytearray):
        raise Unusable("it holds no pixels", code="TRUNCATED")
    return data, syntax, value


def _check_length(found: int, shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes beyond the announced pixels."""
    needed = int(np.prod(shape)) * itemsize
    if found < needed:
        raise Unusable(f"it is cut off: {needed} bytes of pixels are announced, {found} are there", code="TRUNCATED")
    rest = found - needed - needed % 2
    if rest >= shape[-1] * itemsize:
        raise Unusable(f"{needed} bytes of pixels are announced, {found} are there")
    return max(rest, 0)


def _is_big_endian(data: Any) -> bool:
    little = getattr(data, "original_encoding", (None, True))[1]
    return little is False


def _check_encapsulation(value: bytes | bytearray, syntax: str, *, frames: int) -> None:
    """Walks over the fragments (PS3.5, annex A.4): decoders may fill what is cut off."""
    cut_off = Unusable("its compressed pixels are cut off", code="TRUNCATED")
    place, fragments = 0, 0
    last = b""
    while place + 8 <= len(value):
        tag, (length,) = bytes(value[place : place + 4]), struct.unpack_from("<I", value, place + 4)
        if tag == _DELIMITER:
            break
        if tag != _ITEM:
            raise Unusable("its compressed pixels are damaged")
        if place + 8 + length > len(value):
            raise cut_off
        last = bytes(value[max(place + 8, place + 8 + length - 64) : place + 8 + length])
        place += 8 + length
        fragments += 1
    # pydicom may keep or drop the delimiter, but never returns a value that lacks it
    if fragments - 1 < frames:  # the first item is the offset table
        raise cut_off
    if syntax != _RLE and _END_OF_IMAGE not in last:
        raise cut_off


def _decode(data: Any, syntax: str) -> np.ndarray:
    """Hands the frames to the first decoder that is installed."""
    name, decoders = _COMPRESSED[syntax]
    there = [plugin for plugin, packages in decoders if all(find_spec(package) for package in packages)]
    if not there:
        raise Unusable(
            f"it is compressed with {name}, and no decoder for that is installed",
            fix="Install the decoders: pip install 'semi-med[dicom]'.",
            code="NO_DECODER",
        )
    try:
        if hasattr(data, "pixel_array_options"):  # pydicom 3
            data.pixel_array_options(decoding_plugin=there[0])
        else:
            data.convert_pixel_data("rle" if there[0] == "pydicom" else there[0])
        return np.asarray(data.pixel_array)
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a decoder raises whatever damaged data lead to; a panic of Rust is no Exception
        raise Unusable(f"its {name} pixels cannot be decoded ({type(error).__name__})") from None


def _true_bits(array: np.ndarray, *, allocated: int, bits: int, high: int, signed: bool) -> np.ndarray:
    """Stored values without what lies above the high bit (old files keep overlays there), and with their sign."""
    stored = array.astype(f"u{allocated // 8}")
    if bits < allocated:
        stored >>= stored.dtype.type(high + 1 - bits)
        stored &= stored.dtype.type((1 << bits) - 1)
        if signed:
            sign = stored.dtype.type(1 << (bits - 1))
            stored ^= sign
            stored -= sign  # wraps round, which is what two's complement wants
    return stored.view(f"i{allocated // 8}") if signed else stored
