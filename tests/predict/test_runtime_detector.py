"""Detectors of exported models return the detections of their checkpoints."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import retinanet
from retinanet.config import PostprocessConfig
from retinanet.export.parity import compare_detections
from retinanet.images import ImageError, decode_for
from retinanet.predict.runtime_detector import RuntimeDetector
from tests.export.made import CATEGORY_IDS, CLASSES
from tests.export.made_exports import equal_detections


@pytest.mark.parametrize("name", ["m.onnx", pytest.param("u.onnx", marks=pytest.mark.slow)])
def test_the_runtime_returns_the_detections_of_the_checkpoint(exports: Path, name: str) -> None:
    original, exported = retinanet.load(exports / "model.ckpt", "cpu"), retinanet.load(exports / name)
    assert isinstance(exported, RuntimeDetector)
    assert exported.classes == original.classes == CLASSES
    assert exported.category_ids == CATEGORY_IDS
    assert exported.image_config == original.image_config
    files = sorted((exports / "images").iterdir())
    for sources, options in (
        (files, {}),
        (files, {"threshold": 0.4}),
        (files[:1], {"tile": 96}),
        (files[1:2], {"tta": True}),
    ):
        for a, b in zip(original.predict(sources, **options), exported.predict(sources, **options), strict=True):
            assert len(a) > 3
            assert equal_detections(a, b), options
            assert (a.data["class_name"][:1] == b.data["class_name"][:1]).all()
    with pytest.raises(ImageError):
        exported.predict(b"not an image")


def test_several_threads_may_use_a_detector(exports: Path) -> None:
    exported = RuntimeDetector.from_file(exports / "u.onnx", threads=1)
    config = exported.image_config
    files = sorted((exports / "images").iterdir())
    images = [decode_for(f, image_size=config.image_size, max_size=config.max_size) for f in files]
    expected = [exported.detect([image])[0] for image in images]
    assert exported.detect([]) == []
    mismatches: list[int] = []

    def detect_all() -> None:
        for i, image in enumerate(images):
            (detections,) = exported.detect([image])
            if not compare_detections(expected[i], detections, exported.postprocess_config).agrees:
                mismatches.append(i)

    threads = [threading.Thread(target=detect_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not mismatches
    best_two = exported.detect(images, config=PostprocessConfig(max_detections=2))
    assert [len(d) for d in best_two] == [2] * len(files)
