"""Tests that reading by windows or at a reduced scale agrees with a full decode."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet import images
from retinanet.config import ImageConfig, TileConfig
from retinanet.data import DetectionDataset, cut_into_tiles
from retinanet.images import ImageError, decode, decode_for, open_windows, read_size, resize, resized_size, verify
from retinanet.predict.files import predict_files
from tests.conftest import made_image
from tests.data.test_tiling import data_of
from tests.evaluate.block_detector_fake import block_detector

SAVED = {
    "rgb.png": ("RGB", {}),
    "grey.png": ("L", {}),
    "palette.png": ("P", {}),
    "alpha.png": ("RGBA", {}),
    "grey_alpha.png": ("LA", {}),
    "sixteen.png": ("I;16", {}),
    "lzw.tif": ("RGB", {"compression": "tiff_lzw"}),
    "raw.tif": ("RGB", {}),
    "best.jpg": ("RGB", {"quality": 100, "subsampling": 0}),
    "rgb.webp": ("RGB", {"lossless": True}),
    "rgb.bmp": ("RGB", {}),
}


def save(path: Path, mode: str, options: dict[str, object]) -> Path:
    image = made_image(301, 203, seed=4)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode in {"RGBA", "LA"}:
        image = image.convert(mode)
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    else:
        image = image.convert(mode)
    image.save(path, **options)
    return path


@pytest.fixture
def large_limit_of_10000_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read images of more than 10,000 pixels by windows, in strips of 5,000 pixels."""
    pytest.importorskip("rasterio")
    monkeypatch.setattr(images.windows, "MAX_PIXELS_AT_ONCE", 10_000)
    monkeypatch.setattr(images.windows, "_STRIP_PIXELS", 5_000)


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.usefixtures("large_limit_of_10000_pixels")
def test_windows_agree_with_a_full_decode(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, *SAVED[name])
    full = np.asarray(decode(path)).astype(int)
    with open_windows(path) as windows:
        assert type(windows) is not images.Windows, "read by windows"
        assert windows.size == (301, 203)
        for x1, y1, x2, y2 in ((0, 0, 301, 203), (10, 20, 110, 90), (250, 150, 301, 203)):
            part = np.asarray(windows.crop((x1, y1, x2, y2))).astype(int)
            assert part.shape == (y2 - y1, x2 - x1, 3)
            assert np.abs(part - full[y1:y2, x1:x2]).max() <= (2 if name.endswith("jpg") else 1)
    assert read_size(path) == (301, 203)
    assert verify(path).size == (301, 203)


@pytest.mark.usefixtures("large_limit_of_10000_pixels")
def test_a_reduced_image_agrees_with_a_full_decode(tmp_path: Path) -> None:
    path = save(tmp_path / "rgb.png", "RGB", {})
    scaled = decode_for(path, image_size=40, max_size=400)
    assert (scaled.width, scaled.height) == (301, 203)
    size = resized_size(301, 203, image_size=40, max_size=400)
    ours, full = np.asarray(scaled.image).astype(int), np.asarray(resize(decode(path), size)).astype(int)
    assert np.abs(ours - full).mean() < 1


@pytest.mark.parametrize("target", [30, 60, 90, 110, 200, 250, 480])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_at_a_reduced_scale(tmp_path: Path, target: int, orientation: int) -> None:
    """A JPEG that is decoded at a reduced scale differs by less than one level on average from a full decode."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    made_image(640, 427).save(path, quality=95, exif=exif)
    full = decode(path)
    scaled = decode_for(path, image_size=target, max_size=10_000)
    assert (scaled.width, scaled.height) == full.size
    size = resized_size(*full.size, image_size=target, max_size=10_000)
    difference = np.asarray(scaled.image).astype(int) - np.asarray(resize(full, size)).astype(int)
    assert np.abs(difference).mean() < (1 if target <= 427 / 2 else 1e-9)


def test_without_rasterio_a_huge_image_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "rgb.png", "RGB", {})
    monkeypatch.setattr(images.windows, "MAX_PIXELS_AT_ONCE", 10_000)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert decode_for(path, image_size=50, max_size=100).width == 301, "decoded whole, within Pillow's limit"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    with pytest.raises(ImageError, match=r"rgb\.png: too many pixels .*retinanet\[large\]"):
        decode_for(path, image_size=50, max_size=100)


@pytest.mark.usefixtures("large_limit_of_10000_pixels")
def test_a_truncated_file_is_refused_by_windows(tmp_path: Path) -> None:
    path = save(tmp_path / "rgb.png", "RGB", {})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"rgb\.png"):
        verify(path)


def test_training_samples_by_windows_agree_with_a_full_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rasterio")
    path = save(tmp_path / "rgb.png", "RGB", {})
    data = cut_into_tiles(data_of(path, 301, 203, [[10, 20, 60, 70], [150, 90, 280, 200]]), TileConfig(tile=128)).data
    dataset = DetectionDataset(data=data, image_config=ImageConfig(image_size=96, max_size=200))
    full = [dataset[i] for i in range(len(dataset))]
    monkeypatch.setattr(images.windows, "MAX_PIXELS_AT_ONCE", 10_000)
    assert len(full) == 7, "3 x 2 tiles and the whole image"
    for i, sample in enumerate(full):
        other = dataset[i]
        assert (other.frame, other.target.boxes_G4.tolist()) == (sample.frame, sample.target.boxes_G4.tolist())
        difference = (other.pixels_3HW.int() - sample.pixels_3HW.int()).abs().float()
        assert difference.max() <= (0 if data.records[i].window else 8)
        assert difference.mean() < 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_an_image_above_pillows_limit_is_predicted_and_drawn(tmp_path: Path) -> None:
    """Pillow refuses 14,000 x 14,000 pixels. The block is detected at its position; the drawing is reduced."""
    rasterio = pytest.importorskip("rasterio")
    side, path = 14_000, tmp_path / "big.tif"
    block = np.zeros((3, 700, 600), np.uint8)
    block[1] = 255
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", compress="deflate", tiled=True
    ) as out:
        out.write(block, window=((9_000, 9_700), (4_000, 4_600)))
    with pytest.raises(ImageError, match="too many pixels"):
        decode(path)
    assert read_size(path) == (side, side)
    tracemalloc.start()
    done = predict_files(
        block_detector(image_size=128), [path], output=tmp_path / "out", tile=2000, format="csv", workers=0
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (done.images, done.failed) == (1, ())
    _, row, *others = (tmp_path / "out" / "detections.csv").read_text().splitlines()
    assert others == [], row
    assert [float(v) for v in row.split(",")[1:5]] == pytest.approx([4000, 9000, 4600, 9700], abs=20)
    assert peak < 250e6, "the pixels alone are 588 MB"
    assert Image.open(tmp_path / "out" / "drawn" / "big.jpg").size == (4096, 4096)


@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint16"), (5, "uint8"), (10, "uint16"), (3, "float32")])
def test_a_tiff_that_pillow_cannot_read(
    bands: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ultralytics#20262: GDAL reads more kinds of TIFF. Other channels than grey and RGB are named."""
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    pixels = np.arange(bands * 8 * 10).reshape(bands, 8, 10).astype(dtype) * (100 if dtype == "uint16" else 1)
    with rasterio.open(path, "w", driver="GTiff", width=10, height=8, count=bands, dtype=dtype) as file:
        file.write(pixels)
    if (bands, dtype) == (3, "uint16"):
        expected = (pixels >> 8).astype(np.uint8).transpose(1, 2, 0)
        np.testing.assert_array_equal(np.asarray(decode(path)), expected)
        assert (read_size(path), verify(path).largest) == ((10, 8), int(pixels.max()))
    else:
        found = "found float32" if dtype == "float32" else f"found {bands} channels: gray, undefined"
        for function in (decode, verify):
            with pytest.raises(ImageError, match=rf"a\.tif: expected .*{found}.*Convert it first"):
                function(path)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(
        ImageError, match=r"a\.tif: a TIFF with channels or values that cannot be read.*retinanet\[large"
    ):
        decode(path)
