"""What every detector does: sources, thresholds, images that do not decode, the order of results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from PIL import Image

from retinanet.images import ImageError
from tests.evaluate.fakes import CLASSES, block_detector, made_image

WIDE = ((400, 100), {2: (200, 20, 360, 80)})


TALL = ((100, 300), {1: (20, 200, 80, 260)})


def xyxy(found: sv.Detections) -> list[list[float]]:
    return [list(map(float, box)) for box in found.xyxy]


def test_boxes_are_in_original_pixels() -> None:
    """A quarter of the size on the network's side, neither square nor a multiple of 32."""
    detector = block_detector(image_size=25)
    found = detector.predict(made_image(*WIDE))
    assert xyxy(found)[0] == pytest.approx([200, 20, 360, 80], abs=1e-3)
    assert found.class_id is not None
    assert found.class_id.tolist() == [2]  # the last class: nothing is shifted
    assert found.data["class_name"].tolist() == ["blue"]
    wide, tall = detector.predict([made_image(*WIDE), made_image(*TALL)])
    assert xyxy(wide) == [pytest.approx([200, 20, 360, 80], abs=1e-3)]
    assert xyxy(tall) == [pytest.approx([20, 200, 80, 260], abs=1e-3)]


def test_any_source(tmp_path: Path) -> None:
    detector, image = block_detector(), made_image(*TALL)
    path = tmp_path / "tall.png"
    image.save(path)
    rotated = tmp_path / "rotated.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: a viewer turns it a quarter clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(rotated, exif=exif)
    for source in (image, path, str(path), path.read_bytes(), np.asarray(image), rotated):
        assert xyxy(detector.predict(source)) == [pytest.approx([20, 200, 80, 260], abs=1e-3)]


def test_nothing_found() -> None:
    found = block_detector().predict(made_image((80, 60), {}))
    assert (len(found), found.xyxy.shape) == (0, (0, 4))
    assert found.data["class_name"].tolist() == []
    assert block_detector().predict([]) == []


def test_best_first_and_threshold() -> None:
    """The network's score is sigmoid(6 x brightness): 0.997 for the green block, 0.95 for the red one."""
    pixels = np.asarray(made_image((100, 100), {1: (20, 20, 60, 60)})).copy()
    pixels[60:90, 60:90, 0] = 128
    detector = block_detector()
    found = detector.predict(pixels)
    assert found.data["class_name"].tolist() == ["green", "red"]
    assert found.confidence is not None
    assert found.confidence.tolist() == pytest.approx(
        [1 / (1 + np.exp(-6)), 1 / (1 + np.exp(-6 * 128 / 255))], abs=1e-4
    )
    assert len(detector.predict(pixels, threshold=0.96)) == 1
    assert len(detector.predict(pixels, threshold=0.999)) == 0
    assert len(detector.predict(pixels)) == 2


def test_a_image_that_does_not_decode(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no more")
    good = made_image(*TALL)
    detector = block_detector()
    with pytest.raises(ImageError, match=r"broken\.png"):
        detector.predict([good, broken])
    for workers in (0, 2):
        for batch_size in (1, 2, 10):
            sources = [good, broken, tmp_path / "missing.png", good, good]
            outcome = list(detector.predict_batches(sources, batch_size=batch_size, workers=workers))
            assert [source for source, _ in outcome] == sources
            assert [isinstance(found, ImageError) for _, found in outcome] == [False, True, True, False, False]
            assert all(len(found) == 1 for _, found in outcome if isinstance(found, sv.Detections))


def test_images_are_taken_as_they_are_needed() -> None:
    """A million images must not be read before the first result comes out."""
    taken = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal taken
        while True:
            taken += 1
            yield made_image(*TALL)

    results = block_detector().predict_batches(endless(), batch_size=2, workers=2)
    for _ in range(5):
        next(results)
    assert taken <= 5 + 2 * (2 + 1)
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("retinanet-load")]


def test_classes_and_ids_are_kept() -> None:
    assert block_detector().classes == CLASSES
    assert block_detector().category_ids == (3, 7, 90)
