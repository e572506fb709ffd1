"""Behaviour of all detectors: image sources, thresholds, invalid images and the order of results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from PIL import Image

from retinanet.errors import ConfigError
from retinanet.images import ImageError
from tests.evaluate.block_detector_fake import CLASSES, block_detector, made_image

WIDE = ((400, 100), {2: (200, 20, 360, 80)})


TALL = ((100, 300), {1: (20, 200, 80, 260)})


def xyxy(detections: sv.Detections) -> list[list[float]]:
    return [list(map(float, box)) for box in detections.xyxy]


def test_boxes_are_in_original_pixels() -> None:
    """The network input is a quarter of the image, not square, and its sides are not multiples of 32."""
    detector = block_detector(image_size=25)
    detections = detector.predict(made_image(*WIDE))
    assert xyxy(detections)[0] == pytest.approx([200, 20, 360, 80], abs=1e-3)
    assert detections.class_id is not None
    assert detections.class_id.tolist() == [2]  # the last class: class ids are not shifted by a background class
    assert detections.data["class_name"].tolist() == ["blue"]
    wide, tall = detector.predict([made_image(*WIDE), made_image(*TALL)])
    assert xyxy(wide) == [pytest.approx([200, 20, 360, 80], abs=1e-3)]
    assert xyxy(tall) == [pytest.approx([20, 200, 80, 260], abs=1e-3)]


def test_paths_bytes_pillow_images_and_arrays_give_equal_detections(tmp_path: Path) -> None:
    detector, image = block_detector(), made_image(*TALL)
    path = tmp_path / "tall.png"
    image.save(path)
    rotated = tmp_path / "rotated.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated: viewers turn it clockwise by 90 degrees
    image.transpose(Image.Transpose.ROTATE_90).save(rotated, exif=exif)
    for source in (image, path, str(path), path.read_bytes(), np.asarray(image), rotated):
        assert xyxy(detector.predict(source)) == [pytest.approx([20, 200, 80, 260], abs=1e-3)]


def test_an_image_without_objects_has_no_detections() -> None:
    detections = block_detector().predict(made_image((80, 60), {}))
    assert (len(detections), detections.xyxy.shape) == (0, (0, 4))
    assert detections.data["class_name"].tolist() == []
    assert block_detector().predict([]) == []


def test_detections_are_sorted_by_score_and_limited_by_the_threshold() -> None:
    """The score is sigmoid(6 x brightness): 0.997 for the green block and 0.95 for the red block."""
    pixels = np.asarray(made_image((100, 100), {1: (20, 20, 60, 60)})).copy()
    pixels[60:90, 60:90, 0] = 128
    detector = block_detector()
    detections = detector.predict(pixels)
    assert detections.data["class_name"].tolist() == ["green", "red"]
    assert detections.confidence is not None
    assert detections.confidence.tolist() == pytest.approx(
        [1 / (1 + np.exp(-6)), 1 / (1 + np.exp(-6 * 128 / 255))], abs=1e-4
    )
    assert len(detector.predict(pixels, threshold=0.96)) == 1
    assert len(detector.predict(pixels, threshold=0.999)) == 0
    assert len(detector.predict(pixels)) == 2


def test_only_the_classes_that_are_named_are_kept() -> None:
    image = made_image((100, 100), {0: (0, 0, 20, 20), 1: (20, 20, 60, 60), 2: (60, 60, 90, 90)})
    detector = block_detector()

    def names(*classes: str) -> list[str]:
        return sorted(detector.predict(image, classes=classes).data["class_name"].tolist())

    assert names() == ["blue", "green", "red"]
    assert names("green") == ["green"]
    assert names("red,blue") == names("blue", "red") == ["blue", "red"]
    ((_, found),) = detector.predict_batches([image], classes=["blue"])
    assert isinstance(found, sv.Detections)
    assert found.data["class_name"].tolist() == ["blue"]
    with pytest.raises(
        ConfigError, match=r"classes names 'gren', .* classes are red, green, blue. Did you mean 'green'"
    ):
        detector.predict(image, classes=["gren"])
    with_comma = block_detector(classes=("red", "a, b", "blue"))
    assert with_comma.predict(image, classes=["a, b"]).data["class_name"].tolist() == ["a, b"]


def test_an_invalid_image_raises_or_yields_its_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no more")
    good = made_image(*TALL)
    detector = block_detector()
    with pytest.raises(ImageError, match=r"broken\.png"):
        detector.predict([good, broken])
    for workers in (0, 2):
        for batch_size in (1, 2, 10):
            sources = [good, broken, tmp_path / "missing.png", good, good]
            outcomes = list(detector.predict_batches(sources, batch_size=batch_size, workers=workers))
            assert [source for source, _ in outcomes] == sources
            assert [isinstance(result, ImageError) for _, result in outcomes] == [False, True, True, False, False]
            assert all(len(result) == 1 for _, result in outcomes if isinstance(result, sv.Detections))


def test_only_a_few_images_are_read_ahead() -> None:
    """The first result is available before further images are read."""
    num_read = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal num_read
        while True:
            num_read += 1
            yield made_image(*TALL)

    results = block_detector().predict_batches(endless(), batch_size=2, workers=2)
    for _ in range(5):
        next(results)
    assert num_read <= 5 + 2 * (2 + 1)
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("retinanet-load")]


def test_a_detector_has_its_classes_and_category_ids() -> None:
    assert block_detector().classes == CLASSES
    assert block_detector().category_ids == (3, 7, 90)


def test_a_file_with_several_images_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a stack or an animation, only the first image is used."""
    image = made_image((100, 80), {1: (20, 20, 60, 60)})
    for name in ("a.tif", "b.gif"):
        image.save(tmp_path / name, save_all=True, append_images=[made_image((100, 80), {2: (5, 5, 50, 50)})])
    block_detector().predict([tmp_path / "a.tif", tmp_path / "b.gif"])
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{tmp_path / 'a.tif'}: expected one image, found several")
