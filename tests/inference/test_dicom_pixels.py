"""Stored bits to values: signs, unused bits, scaling, padding, inversion, compression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from test_dicom_geometry import read_with_gdcm

from semi_med.errors import SemiMedError
from semi_med.inference import dicom_pixels
from semi_med.inference.dicom_objects import Unusable
from semi_med.inference.io import read_image
from tests.corpus.dicom_corpus import (
    ENHANCED_MR,
    JPEG_2000,
    JPEG_LOSSLESS,
    JPEG_LS,
    MR,
    RLE,
    SeriesPlan,
    compress,
    plan_multiframe,
    plan_series,
    save,
    set_syntax,
)

IMPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
HTJ2K = "1.2.840.10008.1.2.4.201"
SMALL = (3, 8, 6)


def rewrite(plan: SeriesPlan, values: np.ndarray) -> None:
    for one, stored in zip(plan.slices, values, strict=True):
        one.PixelData = stored.tobytes()


def test_signed_values_keep_their_sign(tmp_path):
    plan = plan_series(shape=SMALL, signed=True)
    assert plan.values.min() < 0
    scan = read_image(plan.write(tmp_path))
    np.testing.assert_array_equal(scan.array, plan.real)
    np.testing.assert_array_equal(scan.array, read_with_gdcm(tmp_path)[0])


@pytest.mark.parametrize("signed", [False, True])
def test_what_lies_above_the_high_bit_is_no_value(tmp_path, signed):
    low = np.arange(np.prod(SMALL)).reshape(SMALL) - (60 if signed else 0)
    plan = plan_series(shape=SMALL, signed=signed, values=low, BitsStored=12, HighBit=11)
    rewrite(plan, ((low & 0x0FFF) | 0xA000).astype(np.uint16))  # an old overlay in the upper bits
    np.testing.assert_array_equal(read_image(plan.write(tmp_path)).array, plan.real)


def test_values_may_be_stored_in_the_upper_bits(tmp_path):
    plan = plan_series(shape=SMALL, BitsStored=12, HighBit=15)
    rewrite(plan, (plan.values << 4).astype(np.uint16))
    np.testing.assert_array_equal(read_image(plan.write(tmp_path)).array, plan.real)


def test_eight_bits_are_read(tmp_path):
    plan = plan_series(shape=SMALL, values=np.arange(144).reshape(SMALL), BitsAllocated=8, BitsStored=8, HighBit=7)
    rewrite(plan, plan.values.astype(np.uint8))
    np.testing.assert_array_equal(read_image(plan.write(tmp_path)).array, plan.real)


def test_every_slice_has_its_own_scaling(tmp_path):
    plan = plan_series(shape=SMALL, sop_class=MR)
    for k, one in enumerate(plan.slices):
        one.RescaleSlope, one.RescaleIntercept = str(1.5 + k), str(-10 * k)
    np.testing.assert_allclose(read_image(plan.write(tmp_path)).array, plan.real, rtol=1e-6)


def test_every_frame_of_an_enhanced_object_has_its_own_scaling(tmp_path):
    plan = plan_series(shape=SMALL, sop_class=MR)
    for k, one in enumerate(plan.slices):
        one.RescaleSlope = str(1.5 + k)
    plan_multiframe(plan, sop_class=ENHANCED_MR).write(tmp_path)
    np.testing.assert_allclose(read_image(tmp_path).array, plan.real, rtol=1e-6)


def test_frames_without_a_place_are_no_volume(tmp_path, code_of):
    plan = plan_series(shape=(1, 8, 6))
    plan.slices[0].NumberOfFrames = 2
    plan.slices[0].PixelData *= 2
    plan.write(tmp_path)
    assert code_of(lambda: read_image(tmp_path)) == "CORRUPT"


def test_inverted_mr_gets_bright_where_the_signal_is(tmp_path):
    plan = plan_series(shape=SMALL, sop_class=MR, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    scan = read_image(plan.write(tmp_path))
    np.testing.assert_array_equal(scan.array, 4095 - plan.real)
    np.testing.assert_array_equal(scan.array, read_with_gdcm(tmp_path)[0])
    assert scan.warnings[0].startswith("MONOCHROME1: ")


def test_inverted_ct_stays_in_hounsfield_units(tmp_path):
    plan = plan_series(shape=SMALL, PhotometricInterpretation="MONOCHROME1")
    scan = read_image(plan.write(tmp_path))
    np.testing.assert_array_equal(scan.array, plan.real)
    assert "kept, since they are physical" in scan.warnings[0]


def test_padding_becomes_background(tmp_path):
    plan = plan_series(shape=SMALL, signed=True, PixelPaddingValue=-2000, values=np.full(SMALL, 100))
    plan.values[1, 2:4] = 24
    plan.values[:, 0] = -2000
    rewrite(plan, plan.values)
    scan = read_image(plan.write(tmp_path))
    expected = plan.real
    expected[:, 0] = 24 - 1024  # the smallest value of the picture
    np.testing.assert_array_equal(scan.array, expected)
    assert scan.warnings == ("PADDING: 18 voxels outside of the picture were set to -1000",)


def test_a_range_of_padding_becomes_background(tmp_path):
    values = np.full(SMALL, 100)
    values[0, 0], values[0, 1] = 60000, 61000
    plan = plan_series(shape=SMALL, values=values, PixelPaddingValue=60000, PixelPaddingRangeLimit=65535)
    assert set(np.unique(read_image(plan.write(tmp_path)).array)) == {100 - 1024}


@pytest.mark.parametrize("sop_class, padding", [(MR, 0), ("1.2.840.10008.5.1.4.1.1.2", 24)])
def test_padding_that_looks_like_background_stays(tmp_path, sop_class, padding):
    values = np.full(SMALL, 100)
    values[0, 0] = padding
    plan = plan_series(shape=SMALL, values=values, sop_class=sop_class, PixelPaddingValue=padding)
    scan = read_image(plan.write(tmp_path))
    np.testing.assert_array_equal(scan.array, plan.real)
    assert scan.warnings == ()


def test_bytes_that_follow_the_pixels_are_counted_or_refused(tmp_path, code_of):
    plan = plan_series(shape=SMALL)
    plan.slices[0].PixelData += bytes(6)
    assert read_image(plan.write(tmp_path)).warnings == ("TRAILING: 6 bytes follow the announced pixels",)
    plan.slices[0].PixelData += bytes(12)
    assert code_of(lambda: read_image(plan.write(tmp_path))) == "CORRUPT"


@pytest.mark.parametrize("syntax", [IMPLICIT, DEFLATED, BIG_ENDIAN])
def test_uncompressed_syntaxes_have_equal_values(tmp_path, syntax):
    plan = plan_series(shape=SMALL)
    if syntax == BIG_ENDIAN:
        rewrite(plan, plan.values.astype(">u2"))
    for number, one in enumerate(plan.slices):
        set_syntax(one, syntax)
        if syntax == BIG_ENDIAN:
            one["PixelData"].VR = "OW"
            pydicom.dcmwrite(tmp_path / f"{number}.dcm", one, **_big_endian())
        else:
            save(one, tmp_path / f"{number}.dcm")
    np.testing.assert_array_equal(read_image(tmp_path).array, plan.real)


def _big_endian() -> dict[str, bool]:
    if hasattr(pydicom.Dataset, "pixel_array_options"):
        return {"enforce_file_format": True, "implicit_vr": False, "little_endian": False}
    return {"write_like_original": False}


def test_a_file_without_preamble_is_read(tmp_path):
    plan = plan_series(shape=SMALL)
    plan.write(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_array_equal(read_image(tmp_path).array, plan.real)


def compressed(plan: SeriesPlan, syntax: str, folder: Path) -> None:
    """Writes the series, compressed; pydicom 2 has an encoder for run lengths only."""
    if not hasattr(pydicom.Dataset, "pixel_array_options") and syntax == JPEG_2000:
        pytest.skip("pydicom 2 has no encoder for this")
    for path in sorted(plan.write(folder).iterdir()):
        compress(path, syntax)


@pytest.mark.parametrize(
    "syntax, signed",
    [
        pytest.param(RLE, False, id="rle"),
        pytest.param(RLE, True, id="rle-signed"),
        pytest.param(JPEG_2000, False, id="j2k"),
        pytest.param(JPEG_2000, True, id="j2k-signed"),
        pytest.param(JPEG_LS, False, id="jpeg-ls"),
        pytest.param(JPEG_LS, True, id="jpeg-ls-signed"),
        pytest.param(JPEG_LOSSLESS, False, id="lossless"),
        pytest.param(JPEG_LOSSLESS, True, id="lossless-signed"),
    ],
)
def test_compressed_series_equal_their_uncompressed_twin(tmp_path, syntax, signed):
    plan = plan_series(shape=(3, 64, 64), signed=signed, BitsStored=12, HighBit=11)
    compressed(plan, syntax, tmp_path)
    assert str(pydicom.dcmread(tmp_path / "IM0000.dcm").file_meta.TransferSyntaxUID) == syntax
    np.testing.assert_array_equal(read_image(tmp_path).array, plan.real)


@pytest.mark.parametrize("syntax", [RLE, JPEG_2000], ids=["rle", "j2k"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_compressed_slice_cut_off_anywhere_is_an_error(tmp_path, syntax, share):
    compressed(plan_series(shape=(3, 64, 64)), syntax, tmp_path)
    path = tmp_path / "IM0002.dcm"
    data = path.read_bytes()
    pixels = data.rindex(b"\xe0\x7f\x10\x00")
    path.write_bytes(data[: pixels + int((len(data) - pixels) * share)])
    with pytest.raises(SemiMedError, match="file 3 of 3"):
        read_image(tmp_path)


def test_a_missing_decoder_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(dicom_pixels, "find_spec", lambda name: None)
    with pytest.raises(Unusable) as caught:
        dicom_pixels._decode(pydicom.Dataset(), HTJ2K)
    assert caught.value.code == "NO_DECODER"
    assert "HTJ2K" in caught.value.problem
    assert "semi-med[dicom]" in caught.value.fix


def test_run_lengths_are_decoded_without_any_extra(tmp_path, monkeypatch):
    plan = plan_series(shape=SMALL)
    compressed(plan, RLE, tmp_path)
    monkeypatch.setattr(dicom_pixels, "find_spec", lambda name: None)
    array = dicom_pixels._decode(pydicom.dcmread(tmp_path / "IM0001.dcm"), RLE)
    np.testing.assert_array_equal(array, plan.values[1])


def test_the_unknown_is_no_pixels(tmp_path, code_of):
    plan = plan_series(shape=SMALL)
    plan.write(tmp_path)
    path = tmp_path / "IM0001.dcm"
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0"))
    assert code_of(lambda: read_image(tmp_path)) == "NO_DECODER"


def test_lossy_pixels_are_named(tmp_path):
    scan = read_image(plan_series(shape=SMALL, LossyImageCompression="01").write(tmp_path))
    assert scan.warnings == ("LOSSY: the pixels were compressed with loss",)


@pytest.mark.parametrize("kind", [b"ZZ", b"OX", b"\x00\x00"])
def test_pixels_of_a_kind_that_does_not_exist_are_an_error_of_ours(tmp_path, kind):
    plan = plan_series(shape=SMALL)
    plan.write(tmp_path)
    one = sorted(path for path in tmp_path.rglob("*") if path.is_file())[0]
    data = one.read_bytes()
    place = data.rindex(b"\xe0\x7f\x10\x00") + 4
    one.write_bytes(data[:place] + kind + data[place + 2 :])
    with pytest.raises(SemiMedError):
        read_image(tmp_path)
