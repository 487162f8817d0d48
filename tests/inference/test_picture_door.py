"""Pictures as volumes of one slice, read by the same door as scans."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from semi_med.errors import InputError
from semi_med.inference.io import read_image, read_label

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6)  # 4 rows of 6 columns
NOTE = "PICTURE: no place in space; a pixel counts as 1 mm"


def save(path: Path, pixels: np.ndarray, **settings) -> Path:
    Image.fromarray(pixels).save(path, **settings)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff", "a.bmp", "a.gif"])
def test_a_grey_picture_is_one_slice_of_columns_and_rows(tmp_path, name):
    scan = read_image(save(tmp_path / name, GREY))
    assert scan.array.shape == (6, 4, 1)
    assert scan.array.dtype == np.float32
    np.testing.assert_array_equal(scan.array[:, :, 0].T, GREY)
    assert NOTE in scan.warnings


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_pixel_lies_where_an_independent_reader_places_it(tmp_path, name):
    path = save(tmp_path / name, GREY)
    theirs = sitk.ReadImage(str(path))
    scan = read_image(path)
    (i, j, k), expected = (5, 2, 0), theirs.TransformIndexToPhysicalPoint((5, 2))
    assert theirs[5, 2] == scan.array[i, j, k]
    np.testing.assert_allclose((scan.affine @ [i, j, k, 1])[:2], [-expected[0], -expected[1]])  # LPS to RAS


def test_colours_are_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3)).astype(np.uint8)
    scan = read_image(save(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(scan.array[:, :, 0].swapaxes(0, 1), pixels)


def test_the_reader_of_transforms_puts_colours_first(tmp_path):
    from semi_med.inference.reader import ScanReader

    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3)).astype(np.uint8)
    reader = ScanReader()
    array, meta = reader.get_data(reader.read(save(tmp_path / "a.png", pixels)))
    assert array.shape == (3, 6, 4, 1)
    assert (meta["original_channel_dim"], list(meta["spatial_shape"])) == (0, [6, 4, 1])
    np.testing.assert_array_equal(array[1, :, :, 0].T, pixels[..., 1])


def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path):
    path = save(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8))
    np.testing.assert_array_equal(read_image(path).array[:, :, 0].swapaxes(0, 1), np.asarray(Image.open(path)))


def test_equal_colours_are_one_grey_unless_three_channels_are_wanted(tmp_path):
    path = save(tmp_path / "a.png", np.stack([GREY] * 3, -1))
    assert read_image(path).array.shape == (6, 4, 1)
    assert read_image(path, channels=3).array.shape == (6, 4, 1, 3)


def test_sixteen_bits_are_kept(tmp_path):
    pixels = (GREY.astype(np.uint16) * 2000).astype(np.uint16)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", pixels)).array[:, :, 0].T, pixels)


def test_one_bit_is_a_label_of_0_and_1(tmp_path):
    label = read_label(save(tmp_path / "a.png", GREY > 11))
    assert (label.array.dtype, np.unique(label.array).tolist()) == (np.uint8, [0, 1])
    assert label.array.sum() == 12


def test_of_a_palette_a_label_takes_the_numbers_and_an_image_the_colours(tmp_path):
    picture = Image.fromarray((GREY % 3).astype(np.uint8))
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png").array[:, :, 0].T, GREY % 3)
    assert read_image(tmp_path / "a.png").array[:3, 0, 0].tolist() == [[0, 0, 0], [255, 0, 0], [0, 0, 255]]


def test_a_label_in_colour_is_refused(tmp_path, code_of):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0, 0] = 255
    path = save(tmp_path / "a.png", pixels)
    assert code_of(lambda: read_label(path)) == "DTYPE"


def test_a_label_in_jpeg_is_told(tmp_path):
    assert any(text.startswith("LOSSY") for text in read_label(save(tmp_path / "a.jpg", GREY)).warnings)


def test_transparency_is_dropped_and_told_if_there_is_any(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 4)).astype(np.uint8)
    assert "ALPHA: the transparency was dropped" in read_image(save(tmp_path / "a.png", pixels)).warnings
    pixels[..., 3] = 255
    assert read_image(save(tmp_path / "a.png", pixels)).warnings == (NOTE,)


def test_a_picture_that_asks_to_be_turned_is_told(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", GREY, exif=exif)
    assert read_image(path).warnings[1].startswith("EXIF")


def test_several_pictures_in_a_file_are_refused_unless_one_is_named(tmp_path):
    frames = [Image.fromarray(GREY + n) for n in range(3)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="the file holds 3") as caught:
        read_image(tmp_path / "a.tif")
    assert caught.value.code == "NDIM"
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", volume=2).array[:, :, 0].T, GREY + 2)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.gif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_picture_cut_anywhere_is_refused(tmp_path, name, share):
    path = save(tmp_path / name, np.random.default_rng(0).integers(0, 255, (60, 50)).astype(np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert caught.value.code in ("TRUNCATED", "CORRUPT")


def test_a_flipped_bit_in_the_pixels_of_a_png_is_corrupt(tmp_path, code_of):
    path = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (60, 50)).astype(np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert code_of(lambda: read_image(path)) == "CORRUPT"


def test_a_name_that_lies_is_refused(tmp_path, code_of):
    path = save(tmp_path / "a.png", GREY).rename(tmp_path / "a.jpg")
    assert code_of(lambda: read_image(path)) == "FORMAT"


def png_of(width: int, height: int) -> bytes:
    """A PNG that announces so many pixels and holds a few."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("size", [(60_000, 60_000), (10_000, 10_000)])
def test_a_picture_that_announces_more_than_it_can_hold_is_refused(tmp_path, code_of, size):
    (tmp_path / "a.png").write_bytes(png_of(*size))
    assert code_of(lambda: read_image(tmp_path / "a.png")) == "TOO_LARGE"


def test_mutated_pictures_raise_nothing_but_typed_errors(tmp_path):
    random = np.random.default_rng(3)
    pixels = random.integers(0, 255, (20, 16, 3)).astype(np.uint8)
    sources = [save(tmp_path / f"s{suffix}", pixels) for suffix in (".png", ".jpg", ".tif", ".bmp", ".gif")]
    refused = 0
    for turn in range(300):
        source = sources[turn % len(sources)]
        data = bytearray(source.read_bytes())
        for _ in range(random.integers(1, 5)):
            data[random.integers(min(len(data), 300))] = random.integers(256)
        path = tmp_path / f"x{source.suffix}"
        path.write_bytes(data)
        try:
            assert np.isfinite(read_image(path, nonfinite="replace").array).all()
        except InputError:
            refused += 1
    assert 80 < refused < 300
