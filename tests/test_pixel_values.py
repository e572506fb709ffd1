"""16-bit images whose values use fewer bits: recognised by the largest value, and scaled by the number of bits."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from retinanet import images
from retinanet.pixel_values import ValueRange, recognise_depth, to_8_bits

GREY = (np.arange(12 * 20).reshape(12, 20) * 5 % 256).astype(np.uint8)
COLOUR = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])


def png_of_16_bits(values: npt.NDArray[np.uint16]) -> bytes:
    """Return a PNG. Pillow cannot write 16-bit colour."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2] if values.ndim == 3 else 1]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff_of(values: npt.NDArray[np.uint16]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    return file.getvalue()


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 8), (255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (16383, 14), (16384, 16)]
)
def test_the_number_of_bits_by_the_largest_value(largest: int, bits: int) -> None:
    assert recognise_depth(largest) == bits
    assert ValueRange.of([None, largest, 0]) == (2, largest)
    assert ValueRange.of([None]) is None


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
def test_images_of_fewer_bits_equal_the_8_bit_image(bits: int) -> None:
    """Grey TIFF and PNG, 16-bit colour with and without transparency, and arrays."""
    grey, colour = GREY.astype(np.uint16) << (bits - 8), COLOUR.astype(np.uint16) << (bits - 8)
    opaque = np.dstack([colour, np.full(GREY.shape, 0xFFFF, np.uint16)])
    for source in (tiff_of(grey), png_of_16_bits(grey), grey):
        assert (np.asarray(images.decode(source, bit_depth=bits)) == GREY[..., None]).all()
    for source in (png_of_16_bits(colour), png_of_16_bits(opaque), colour):
        assert (np.asarray(images.decode(source, bit_depth=bits)) == COLOUR).all()
    scaled = images.decode_for(png_of_16_bits(colour), image_size=12, max_size=20, bit_depth=bits)
    assert (np.asarray(scaled.image) == COLOUR).all()
    if bits < 16:
        assert scaled.largest == colour.max()
    with images.open_windows(grey, bit_depth=bits) as windows:
        assert (np.asarray(windows.crop((2, 3, 9, 8))) == GREY[3:8, 2:9, None]).all()


def test_values_above_the_number_of_bits_are_white() -> None:
    assert to_8_bits(np.array([0, 4095, 4096, 65535], np.uint16), 12).tolist() == [0, 255, 255, 255]
    assert to_8_bits(np.array([0, 4095, 65535], np.uint16), 0).tolist() == [0, 15, 255]


def test_images_of_8_bits_do_not_change(tmp_path: Path) -> None:
    for name in ("grey.png", "colour.png", "colour.jpg"):
        Image.fromarray(COLOUR if "colour" in name else GREY).save(tmp_path / name)
        whole, scaled = images.decode(tmp_path / name), images.decode(tmp_path / name, bit_depth=12)
        assert np.array_equal(np.asarray(whole), np.asarray(scaled))
        assert images.verify(tmp_path / name).largest is None


def test_the_largest_value_of_a_file(tmp_path: Path) -> None:
    grey, colour = GREY.astype(np.uint16) * 3, COLOUR.astype(np.uint16) * 3
    assert images.verify(png_of_16_bits(grey)).largest == images.verify(tiff_of(grey)).largest == grey.max()
    # Pillow keeps the high byte of 16-bit colour: the result may exceed the value, and needs the same number of bits.
    assert recognise_depth(images.verify(png_of_16_bits(colour)).largest or 0) == recognise_depth(int(colour.max()))


def test_an_image_is_shown_in_its_own_range() -> None:
    assert np.asarray(images.decode_for_display(tiff_of(GREY.astype(np.uint16) << 4))).max() > 240


@pytest.mark.parametrize("compression", ["deflate", "none"])
def test_16_bit_colour_in_tiff(tmp_path: Path, compression: str) -> None:
    rasterio = pytest.importorskip("rasterio")
    values = COLOUR.astype(np.uint16) << 4
    shape = {"width": 20, "height": 12, "count": 3, "dtype": "uint16"}
    with rasterio.open(
        tmp_path / "c.tif", "w", driver="GTiff", photometric="RGB", compress=compression, **shape
    ) as file:
        file.write(values.transpose(2, 0, 1))
    assert (np.asarray(images.decode(tmp_path / "c.tif", bit_depth=12)) == COLOUR).all()
