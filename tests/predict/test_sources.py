"""Everything that a caller may pass as an image gives the detections of the image, or one clear error."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.images import ImageError
from retinanet.predict.detector import BaseDetector
from retinanet.predict.sources import to_source
from tests.evaluate.block_detector_fake import block_detector, made_image

IMAGE = made_image((200, 150), {1: (20, 40, 60, 80), 2: (100, 30, 140, 90)})
PIXELS = np.asarray(IMAGE)


@pytest.fixture(scope="module")
def detector() -> BaseDetector:
    """Return a detector that finds the blocks of an image."""
    return block_detector()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the image."""
    IMAGE.save(tmp_path / "a b.png")
    return tmp_path / "a b.png"


class Stream(io.RawIOBase):
    """A stream that can be read once, such as the body of an HTTP response."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int = -1) -> bytes:
        content, self._content = self._content, b""
        return content


class PathLike:
    """A path that is no pathlib.Path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def boxes(detections: Any) -> list[list[float]]:
    return sorted(detections.xyxy.round(1).tolist())


def forms_of_one_image(path: Path) -> dict[str, Any]:
    import torch

    content = path.read_bytes()
    tensor = torch.from_numpy(PIXELS.copy())
    return {
        "path": path,
        "string": str(path),
        "numpy string": np.array([str(path)])[0],
        "address": path.as_uri(),
        "path-like": PathLike(path),
        "bytes": content,
        "bytearray": bytearray(content),
        "memoryview": memoryview(content),
        "open file": io.BytesIO(content),
        "stream": Stream(content),
        "image": IMAGE,
        "array": PIXELS,
        "array CHW": PIXELS.transpose(2, 0, 1),
        "array of 16 bits": PIXELS.astype(np.uint16) << 8,
        "float array": PIXELS / np.float32(255),
        "float64 array": PIXELS / 255,
        "tensor": tensor,
        "tensor CHW": tensor.permute(2, 0, 1),
        "float tensor CHW": (tensor.permute(2, 0, 1) / 255).requires_grad_(),
    }


@pytest.mark.parametrize("tile", [0, 96])
@pytest.mark.parametrize("tta", [False, True])
def test_every_form_of_an_image_gives_its_detections(detector: BaseDetector, path: Path, tile: int, tta: bool) -> None:
    """Tiles and test-time augmentation decode an image several times, also one that can be read once."""
    expected = boxes(detector.predict(path, tile=tile, tta=tta))
    assert len(expected) >= 2
    for name, source in forms_of_one_image(path).items():
        assert boxes(detector.predict(source, tile=tile, tta=tta)) == expected, name


def test_lists_iterators_and_arrays_of_images_give_a_list(detector: BaseDetector, path: Path) -> None:
    import torch

    expected = boxes(detector.predict(path))
    forms: dict[str, Any] = {
        "list": [path, PIXELS],
        "tuple": (path, PIXELS),
        "generator": (source for source in (path, PIXELS)),
        "glob": itertools.chain(path.parent.glob("*.png"), path.parent.glob("*.png")),
        "map": map(str, [path, path]),
        "dictionary view": {0: path, 1: PIXELS}.values(),
        "array NHWC": np.stack([PIXELS, PIXELS]),
        "array of paths": np.array([str(path)] * 2),
        "tensor NCHW": torch.from_numpy(np.stack([PIXELS.transpose(2, 0, 1)] * 2)),
    }
    for name, sources in forms.items():
        found = detector.predict(sources)
        assert isinstance(found, list), name
        assert [boxes(detections) for detections in found] == [expected] * 2, name
    assert detector.predict([]) == []
    assert detector.predict(iter(())) == []


def wrong_sources() -> Iterator[tuple[Any, str]]:
    import torch

    yield None, "the image is None, which cv2.imread returns"
    yield 0, "the number 0 is no image. A camera is not opened"
    yield {"image": PIXELS}, "a dict is no image"
    yield {"a.png"}, "found a set. Pass a list"
    yield object(), "a object is no image"
    yield io.StringIO("text"), r"opened in binary mode \('rb'\), found text"
    yield torch.zeros(3, 8, 8, device="meta"), "NumPy cannot read this Tensor"
    yield torch.zeros(8, 8, 3, dtype=torch.bfloat16), "NumPy cannot read this Tensor"
    yield PIXELS.astype(np.float32), r"expected float pixels in \[0, 1\], found .* to 2\d\d"
    yield (PIXELS / 255 - 0.5) / 0.25, r"expected float pixels in \[0, 1\]"
    yield np.full((8, 8, 3), np.nan), r"expected float pixels in \[0, 1\], found nan"
    yield PIXELS.astype(np.int64), "expected an array of uint8 or uint16, found int64"
    yield np.zeros((5, 8, 8), np.uint8), r"found shape \(5, 8, 8\)"
    yield "http://127.0.0.1:9/a.jpg", "is no file on this machine"
    yield os.fspath(Path.cwd()), "expected an image, found a folder"


@pytest.mark.parametrize("number", range(len(list(wrong_sources()))))
def test_anything_else_is_one_error_in_words_and_other_images_go_on(detector: BaseDetector, number: int) -> None:
    source, message = list(wrong_sources())[number]
    with pytest.raises(ImageError, match=message):
        detector.predict(source)
    with pytest.raises(ImageError, match=message):
        detector.predict([PIXELS, source])
    results = list(detector.predict_batches([PIXELS, source, PIXELS], batch_size=2))
    assert results[1][0] is source
    assert isinstance(results[1][1], ImageError)
    assert boxes(results[0][1]) == boxes(results[2][1]) == boxes(detector.predict(PIXELS))


def test_a_single_image_is_no_list_of_images(detector: BaseDetector, path: Path) -> None:
    """The letters of a path, or the rows of an image, would each be an image."""
    for source in (str(path), path, PIXELS, IMAGE, path.read_bytes(), None):
        with pytest.raises(ImageError, match="expected a list or an iterator of images, found a"):
            next(detector.predict_batches(source))  # type: ignore[arg-type]


def test_a_file_is_read_from_its_start(path: Path) -> None:
    with path.open("rb") as file:
        file.read(10)
        assert to_source(file) == path.read_bytes()
    with pytest.raises(ImageError, match="expected an open file with an image, found one that cannot be read"):
        to_source(file)
    assert isinstance(to_source(Image.open(path)), Image.Image)
