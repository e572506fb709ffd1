"""Exports of a model with tuned thresholds: the graph applies them, and returns the detections of the checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retinanet
from retinanet.checkpoint.loading import load_checkpoint
from retinanet.checkpoint.saving import save_model
from retinanet.checkpoint.tuned_thresholds import TunedThresholds
from retinanet.export import parity
from retinanet.export.exporter import ExportMismatchError, export
from retinanet.images import decode_for
from retinanet.predict.detector import above
from retinanet.predict.runtime_detector import RuntimeDetector
from retinanet.runtime.description import CLASS_THRESHOLDS, DETECTIONS, SCORE_THRESHOLD
from tests.export.made_exports import equal_detections

TUNED = TunedThresholds(
    thresholds=(0.3, 0.1, 0.5), aim="recall=0.9", per_class=True, confidence=0.95, images=50, sentence="A promise."
)


def tuned_checkpoint(exports: Path, path: Path) -> Path:
    save_model(dataclasses.replace(load_checkpoint(exports / "model.ckpt"), tuned=TUNED), path)
    return path


def check(path: Path, original: Any, images: list[Path]) -> None:
    """The file gives the detections of the checkpoint: through our detector, and from the graph itself."""
    exported = RuntimeDetector.from_file(path, device="cpu")
    assert exported.info.tuned == TUNED
    counts = []
    for image in images:
        expected = original.predict(image, threshold="tuned")
        counts.append((len(expected), len(original.predict(image))))
        assert equal_detections(expected, exported.predict(image, threshold="tuned"))
        assert equal_detections(original.predict(image), exported.predict(image)), "the graph must not filter here"
        exported.uses_tuned_thresholds = True
        config = dataclasses.replace(exported.postprocess_config, score_threshold=min(TUNED.thresholds))
        scaled = decode_for(image, image_size=128, max_size=192)
        (found,) = exported.detect([scaled], config=config)
        exported.uses_tuned_thresholds = False
        assert equal_detections(expected, exported.named(found))
    few, many = np.sum(counts, axis=0)
    assert 0 < few < many


@pytest.mark.slow
def test_onnx_applies_tuned_thresholds(exports: Path, tmp_path: Path, reuse_network: None) -> None:
    model = tuned_checkpoint(exports, tmp_path / "t.ckpt")
    summary = export(model, output=tmp_path / "t.onnx", compare_images=(str(exports / "images"),))
    assert len(summary.differences) == 8, "four sizes and batches, without and with the tuned thresholds"
    assert all(difference.agrees and difference.compared for difference in summary.differences)
    images = sorted((exports / "images").iterdir())
    check(tmp_path / "t.onnx", original := retinanet.load(model, "cpu"), images)

    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "t.onnx"), providers=["CPUExecutionProvider"])
    exported = RuntimeDetector.from_file(tmp_path / "t.onnx", device="cpu")
    scaled = decode_for(images[0], image_size=128, max_size=192)
    pixels_N3HW, frames = exported._pixels([scaled], exported.image_config)
    boxes, scores, labels, counts = session.run(
        list(DETECTIONS), {"images": pixels_N3HW, "frames": np.array(frames, np.float32)}
    )
    expected = original.predict(images[0], threshold="tuned")
    assert counts[0] == len(expected), "another caller, who gives no thresholds, gets the tuned ones"
    np.testing.assert_allclose(scores[0, : counts[0]], expected.confidence, atol=1e-4)
    assert (labels[0, counts[0] :] == -1).all()
    assert (boxes[0, counts[0] :] == 0).all()


@pytest.mark.slow
def test_openvino_applies_tuned_thresholds(exports: Path, tmp_path: Path, reuse_network: None) -> None:
    pytest.importorskip("openvino")
    model = tuned_checkpoint(exports, tmp_path / "t.ckpt")
    summary = export(model, output=tmp_path / "t.xml", compare_images=(str(exports / "images"),))
    assert len(summary.differences) == 8
    check(tmp_path / "t.xml", retinanet.load(model, "cpu"), sorted((exports / "images").iterdir()))


@pytest.mark.slow
def test_the_gate_refuses_a_graph_with_other_thresholds(
    exports: Path, tmp_path: Path, reuse_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exported graph filters by 0.9: the detections between the tuned thresholds and 0.9 are missing."""
    from retinanet.export import onnx_graph
    from retinanet.runtime.description import Description

    model = tuned_checkpoint(exports, tmp_path / "t.ckpt")
    inputs = Description.threshold_inputs

    def wrong(self: Description) -> dict[str, Any]:
        found = inputs(self)
        if CLASS_THRESHOLDS in found:
            found[CLASS_THRESHOLDS] = np.array([0.9, 0.9, 0.9], np.float32)
        return found

    monkeypatch.setattr(Description, "threshold_inputs", wrong)
    assert onnx_graph.CLASS_THRESHOLDS == CLASS_THRESHOLDS
    with pytest.raises(ExportMismatchError, match="exist in only one of the two models"):
        export(model, output=tmp_path / "t.onnx", compare_images=(str(exports / "images"),))
    assert not (tmp_path / "t.onnx").exists()


def test_an_untuned_graph_has_no_class_thresholds(exports: Path) -> None:
    engine = RuntimeDetector.from_file(exports / "m.onnx", device="cpu").engine
    assert CLASS_THRESHOLDS not in engine.inputs
    assert SCORE_THRESHOLD in engine.inputs


def test_detections_at_a_class_threshold_count_as_doubtful(exports: Path) -> None:
    """A detection of class 1 with score 0.10005 lies at its threshold of 0.1, and one of class 0 does not."""
    detector = retinanet.load(exports / "m.onnx", "cpu")
    image = decode_for(sorted((exports / "images").iterdir())[0], image_size=128, max_size=192)
    (found,) = detector.detect([image])
    empty = found[:0]
    at = dataclasses.replace(found[:1], scores_D=np.array([0.10005], np.float32), labels_D=np.array([1]))
    other = dataclasses.replace(at, labels_D=np.array([2]))
    config = dataclasses.replace(detector.postprocess_config, score_threshold=0.001)
    assert parity.compare_detections(at, empty, config, (0.0, 0.1, 0.05)).at_threshold == 1
    assert parity.compare_detections(other, empty, config, (0.0, 0.1, 0.05)).missing == 1
    assert len(above(at, (0.0, 0.1, 0.0))) == 1
    assert len(above(at, (0.0, 0.2, 0.0))) == 0
