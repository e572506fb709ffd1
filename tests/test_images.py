"""Tests of image decoding (upright 8-bit RGB) and of the input of the network."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet import images
from retinanet.config import ImageConfig
from tests.shared import num_examples


def corners(width: int = 6, height: int = 4) -> np.ndarray:
    """Return a black image with corners red, green (top), blue, white (bottom): every rotation and flip changes it."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3
    return pixels


def saved(image: Image.Image, format: str = "PNG", **save: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **save)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int) -> None:
    # Turn the upright image into the pixels that a camera with this orientation stores.
    upright = corners()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    decoded = images.decode(data)
    np.testing.assert_array_equal(np.asarray(decoded), upright)
    np.testing.assert_array_equal(np.asarray(images.decode(decoded)), upright)  # not applied twice
    np.testing.assert_array_equal(np.asarray(images.decode(Image.open(io.BytesIO(data)))), upright)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_the_header_gives_the_size_after_exif_rotation(tmp_path: Path, suffix: str) -> None:
    """Pillow turns a TIFF itself, the other formats not."""
    for orientation in range(1, 9):
        path, exif = tmp_path / f"{orientation}.{suffix}", Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (20, 10)).save(path, exif=exif)
        expected = (20, 10) if orientation < 5 else (10, 20)
        assert images.read_size(path) == images.decode(path).size == expected


def test_the_size_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(images.ImageError, match="no such file"):
        images.read_size(tmp_path / "missing.jpg")


def test_a_broken_exif_block_is_ignored() -> None:
    data = saved(Image.fromarray(corners()), exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(np.asarray(images.decode(data)), corners())


GREY = np.arange(0, 256, 16, dtype=np.uint8).reshape(4, 4)
GREY_RGB = np.repeat(GREY[:, :, None], 3, axis=2)


@pytest.mark.parametrize(
    ("image", "format"),
    [
        pytest.param(Image.fromarray(GREY), "PNG", id="grey"),
        pytest.param(Image.fromarray(GREY_RGB).quantize(16), "PNG", id="palette"),
        pytest.param(Image.fromarray(GREY).convert("LA"), "PNG", id="grey and alpha"),
        pytest.param(Image.fromarray(GREY_RGB).convert("RGBA"), "PNG", id="rgba"),
        pytest.param(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG", id="16-bit grey png"),
        pytest.param(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF", id="16-bit grey tiff"),
        pytest.param(Image.fromarray(GREY.astype(np.int32) * 257), "TIFF", id="32-bit file of 16-bit grey"),
        pytest.param(Image.fromarray(GREY_RGB).convert("CMYK"), "TIFF", id="cmyk"),
        pytest.param(Image.fromarray(GREY_RGB), "BMP", id="bmp"),
        pytest.param(Image.fromarray(GREY_RGB), "TIFF", id="tiff"),
        pytest.param(Image.fromarray(GREY), "GIF", id="gif"),
    ],
)
def test_all_modes_decode_to_the_same_rgb(image: Image.Image, format: str, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"  # the suffix is ignored
    path.write_bytes(saved(image, format))
    decoded = images.decode(path)
    assert decoded.mode == "RGB"
    np.testing.assert_allclose(np.asarray(decoded).astype(int), GREY_RGB.astype(int), atol=1)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats(format: str) -> None:
    smooth = np.repeat(np.linspace(40, 200, 32).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    decoded = np.asarray(images.decode(saved(Image.fromarray(smooth), format, quality=95)))
    np.testing.assert_allclose(decoded.astype(int), smooth.astype(int), atol=6)


def test_one_bit_images() -> None:
    stripes = np.tile(np.array([[0, 255]], np.uint8), (4, 8))
    decoded = images.decode(saved(Image.fromarray(stripes).convert("1")))
    np.testing.assert_array_equal(np.asarray(decoded)[:, :, 1], stripes)


def test_cmyk_jpeg_is_not_inverted() -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    assert np.asarray(images.decode(saved(red, "JPEG"))).mean(axis=(0, 1)) == pytest.approx([255, 0, 0], abs=8)


def test_transparent_pixels_are_blended_with_white() -> None:
    ink = Image.new("RGBA", (4, 4), (0, 0, 0, 0))  # transparent black, as around black line art
    ink.putpixel((1, 1), (0, 0, 0, 255))
    ink.putpixel((2, 2), (200, 0, 0, 128))
    pixels = np.asarray(images.decode(saved(ink)))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [0, 0, 0]
    assert pixels[2, 2] == pytest.approx([227, 127, 127], abs=1)  # 200 * 128/255 + 255 * 127/255
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert np.asarray(images.decode(saved(palette, transparency=1))).min() == 255


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (5, 5), color) for color in ("red", "blue", "lime")]
    assert images.decode(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((2, 2)) == (
        255,
        0,
        0,
    )


def test_sixteen_bits_are_reduced_to_the_high_byte() -> None:
    dark = np.full((4, 4), 1000, np.uint16)  # 1000 >> 8 = 3
    dark[0, 0] = 1300  # 5
    for source in (saved(Image.fromarray(dark)), dark, np.repeat(dark[:, :, None], 3, axis=2)):
        pixels = np.asarray(images.decode(source))
        assert (pixels[0, 0, 0], pixels[1, 1, 0]) == (5, 3)


@pytest.mark.parametrize("values", [np.float32([[0.5]]), np.array([[70000]], np.int32), np.array([[-1]], np.int32)])
def test_values_without_a_defined_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(images.ImageError, match="8 or 16 bits"):
        images.decode(saved(Image.fromarray(values), "TIFF"))


def test_arrays_and_open_files() -> None:
    rgb = corners()
    file = io.BytesIO(saved(Image.fromarray(rgb)))
    for source in (rgb, np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]), rgb.astype(np.uint16) << 8, file):
        np.testing.assert_array_equal(np.asarray(images.decode(source)), rgb)
    np.testing.assert_array_equal(np.asarray(images.decode(rgb[:, ::-1])), rgb[:, ::-1])  # not contiguous
    np.testing.assert_array_equal(np.asarray(images.decode(GREY)), GREY_RGB)
    np.testing.assert_array_equal(np.asarray(images.decode(GREY[:, :, None])), GREY_RGB)
    assert not file.closed


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((3, 4, 4), np.uint8).reshape(3, 4, 4)[None], r"\(1, 3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros((4, 4), np.int64), "int64"),
    ],
)
def test_invalid_arrays_are_refused(array: np.ndarray, found: str) -> None:
    with pytest.raises(images.ImageError, match=f"expected an array .*{found}"):
        images.decode(array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image"),
        (
            saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG")[:2000],
            "trunc",
        ),
        (saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)))[:2000], "decoded"),
        (saved(Image.new("RGB", (64, 64)))[:20], "image|decoded"),
    ],
)
def test_errors_name_the_broken_file(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(images.ImageError, match=rf"broken\.jpg: .*({message})"):
        images.decode(path)
    with pytest.raises(images.ImageError):
        images.decode(content)


def test_missing_files_folders_and_huge_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(images.ImageError, match=r"gone\.png: no such file"):
        images.decode(str(tmp_path / "gone.png"))
    with pytest.raises(images.ImageError, match="found a folder"):
        images.decode(tmp_path)
    Image.new("RGB", (50, 50)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(images.ImageError, match=r"bomb\.png: too many pixels"):
        images.decode(tmp_path / "bomb.png")


@given(st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=num_examples(150), deadline=None)
def test_random_bytes_decode_or_raise_image_error(noise: bytes, where: int) -> None:
    for data in (_SMALL_PNG, _SMALL_JPEG, _SMALL_GIF):
        try:
            images.decode(data[:where] + noise + data[where + len(noise) :])
        except images.ImageError:
            continue


_SMALL_PNG, _SMALL_JPEG, _SMALL_GIF = (saved(Image.fromarray(GREY_RGB), f) for f in ("PNG", "JPEG", "GIF"))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (1067, 800)),  # 640 * 800/480 = 1066.7
        ((480, 640), (800, 1067)),
        ((1000, 400), (1333, 533)),  # limited by the longer side: 400 * 1.333 = 533.2
        ((800, 800), (800, 800)),
        ((1, 1), (800, 800)),
        ((5000, 1), (1333, 1)),  # at least 1 pixel
    ],
)
def test_resized_size_by_hand(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert images.resized_size(*size, image_size=800, max_size=1333) == expected


@given(st.integers(1, 10000), st.integers(1, 10000), st.integers(1, 1000), st.integers(0, 1000))
def test_resized_size_respects_its_limits(width: int, height: int, image_size: int, more: int) -> None:
    w, h = images.resized_size(width, height, image_size=image_size, max_size=image_size + more)
    assert min(w, h) >= 1
    assert max(w, h) <= image_size + more
    assert min(w, h) == image_size or max(w, h) == image_size + more
    if min(w, h) > 1:  # the aspect ratio is kept to the rounding of each side
        assert abs(w * height - h * width) <= (width + height) / 2 + 1e-6


def test_resize_antialiases_and_returns_a_fitting_image_unchanged() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8)[None, :, None], (64, 32, 3))
    image = images.decode(stripes)
    assert images.resize(image, image.size) is image
    small = np.asarray(images.resize(image, (8, 8))).astype(int)
    assert np.abs(small[:, 1:-1] - 127).max() < 12  # without antialiasing, pixels would be black or white


def test_normalise_agrees_with_the_formula() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = ((pixels / 255 - np.array(mean)) / np.array(std)).transpose(2, 0, 1)
    for source in (pixels, Image.fromarray(pixels)):
        found = images.normalise(source, mean=mean, std=std)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"HW3 uint8, found \(3, 9, 7\)"):
        images.normalise(pixels.transpose(2, 0, 1), mean=mean, std=std)


def test_pad_adds_zeros_at_the_right_and_bottom() -> None:
    out = images.pad([np.ones((3, 5, 40), np.float32), np.full((3, 33, 8), 2, np.float32)], divisor=32)
    assert out.shape == (2, 3, 64, 64)
    assert out.dtype == np.float32
    assert (out[0, :, :5, :40] == 1).all()
    assert (out[1, :, :33, :8] == 2).all()
    assert out.sum() == 3 * (5 * 40 + 2 * 33 * 8)
    assert images.pad([np.ones((3, 32, 64), np.float32)], divisor=32).shape == (1, 3, 32, 64)
    with pytest.raises(ValueError, match="at least one"):
        images.pad([], divisor=32)


def test_prepare_resizes_normalises_and_pads() -> None:
    config = ImageConfig(image_size=32, max_size=64, size_divisor=32)
    a, b = images.decode(corners(60, 40)), images.decode(corners(10, 80))
    batch, frames = images.prepare([a, b], config)
    assert frames == [(60, 40, 48, 32), (10, 80, 8, 64)]
    assert batch.shape == (2, 3, 64, 64)
    expected = images.normalise(images.resize(b, (8, 64)), mean=config.image_mean, std=config.image_std)
    np.testing.assert_array_equal(batch[1, :, :, :8], expected)
    assert not batch[1, :, :, 8:].any()


def test_torch_is_not_imported() -> None:
    code = "import sys, retinanet.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("suffix", sorted(images.IMAGE_SUFFIXES - {".heic", ".heif", ".hif"}))
def test_pillow_decodes_every_image_suffix(suffix: str) -> None:
    Image.init()
    assert Image.registered_extensions()[suffix] in {*Image.OPEN, "MPO"}  # JPEG's plugin opens MPO
    assert suffix not in images.VIDEO_SUFFIXES


def test_heif_is_decoded_with_the_extra_and_named_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)
    (tmp_path / "a.HEIC").write_bytes(head)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        for source in (tmp_path / "a.HEIC", head, io.BytesIO(head)):
            with pytest.raises(images.ImageError, match=r"need pillow-heif: pip install 'retinanet\[heic\]'"):
                images.decode(source)
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 30))).save(tmp_path / "b.heic")
    assert images.decode(tmp_path / "b.heic").size == images.read_size(tmp_path / "b.heic") == (64, 48)
    with pytest.raises(images.ImageError, match="a HEIF image that is damaged"):
        images.decode(head)


def test_the_preview_in_a_raw_file_is_refused(tmp_path: Path) -> None:
    """The first page of a camera's .dng is a small copy (NewSubfileType 1), which has other pixels than the photo."""
    Image.new("RGB", (10, 8)).save(tmp_path / "a.dng", "TIFF", tiffinfo={254: 1})
    for decode in (images.decode, images.read_size, images.verify):
        with pytest.raises(images.ImageError, match=r"a\.dng: expected an image, found a camera's raw file.* 10x8 pix"):
            decode(tmp_path / "a.dng")


def png_of_16_bits(color_type: int, pixels: np.ndarray, transparent: tuple[int, ...]) -> bytes:
    """Return a PNG with 16 bits per channel and one transparent colour, which Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = chunk(b"IHDR", header) + chunk(b"tRNS", np.array(transparent, ">u2").tobytes())
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bit_depth", [16, 12])
def test_the_transparent_colour_of_16_bit_images_is_white(bit_depth: int) -> None:
    """supervision#2588: a PNG may declare one colour as transparent. 1000 and 1001 have the same high byte."""
    shift = bit_depth - 8
    colours = np.array([[[1000, 0, 0], [1001, 0, 0]]])
    decoded = np.asarray(images.decode(png_of_16_bits(2, colours, (1000, 0, 0)), bit_depth=bit_depth))
    np.testing.assert_array_equal(decoded, [[[255, 255, 255], [1001 >> shift, 0, 0]]])
    decoded = np.asarray(images.decode(png_of_16_bits(0, np.array([[1000, 1001]]), (1000,)), bit_depth=bit_depth))
    np.testing.assert_array_equal(decoded, [[[255] * 3, [1001 >> shift] * 3]])


@pytest.mark.parametrize("format", ["TIFF", "GIF", "WEBP", "PNG", "MPO"])
def test_a_file_with_several_images_is_told_from_one_with_a_single_image(format: str) -> None:
    """The further images of an .mpo photo are views for glasses and displays of the same photo."""
    first, second = Image.new("RGB", (12, 8), "red"), Image.new("RGB", (12, 8), "blue")
    several = saved(first, format, save_all=True, append_images=[second])
    assert images.verify(several).is_first_of_several == (format != "MPO")
    scaled = images.decode_for(several, image_size=8, max_size=12)
    assert scaled.is_first_of_several == (format != "MPO")
    assert np.asarray(scaled.image)[0, 0].tolist() == pytest.approx([255, 0, 0], abs=2)
    assert not images.verify(saved(first, "JPEG" if format == "MPO" else format)).is_first_of_several


def test_the_overviews_of_a_tiff_are_no_further_images(tmp_path: Path) -> None:
    """Maps and slides hold reduced copies of the image (NewSubfileType 1)."""
    rasterio = pytest.importorskip("rasterio")
    options = {"width": 64, "height": 64, "count": 3, "dtype": "uint8", "transform": rasterio.Affine.scale(2.0)}
    with rasterio.open(tmp_path / "map.tif", "w", driver="GTiff", **options) as file:
        file.write(np.full((3, 64, 64), 9, np.uint8))
    with rasterio.open(tmp_path / "map.tif", "r+") as file:
        file.build_overviews([2, 4])
    with Image.open(tmp_path / "map.tif") as image:
        assert image.n_frames == 3
    assert not images.verify(tmp_path / "map.tif").is_first_of_several


def test_an_error_says_what_a_file_contains_instead_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n")
    with pytest.raises(images.ImageError, match=r"a\.jpg: not an image .*, found a pointer of Git LFS: run `git"):
        images.decode(tmp_path / "a.jpg")
    with pytest.raises(images.ImageError, match=r"not an image in a format that can be read, found an HTML page"):
        images.decode(b"<!doctype html><title>404</title>")
