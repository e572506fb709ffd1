"""ONNX files run by ONNX Runtime without retinanet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from retinanet.errors import ConfigError
from retinanet.export.exporter import export
from retinanet.runtime.description import KEY
from tests.export.made import CLASSES, checkpoint, network, train_config, write_images

ort = pytest.importorskip("onnxruntime")


def test_images_are_the_only_required_input(exports: Path) -> None:
    """Thresholds and frames have defaults. The four outputs are padded to max_detections."""
    session = ort.InferenceSession(str(exports / "m.onnx"))
    assert [i.name for i in session.get_inputs()] == ["images"]
    images = np.random.default_rng(0).random((2, 3, 96, 160), np.float32)
    names = ["boxes", "scores", "labels", "counts"]
    boxes, scores, labels, counts = session.run(names, {"images": images})
    assert boxes.shape == (2, 100, 4)
    assert scores.shape == labels.shape == (2, 100)
    assert (counts > 0).all()
    frames = np.array([[160, 96, 160, 96]] * 2, np.float32)
    explicit = {"frames": frames, "score_threshold": np.array([0.05], np.float32), "max_detections": np.array([7])}
    fewer = session.run(names, {"images": images, **explicit})
    np.testing.assert_allclose(fewer[0], boxes[:, :7])
    model = onnx.load(exports / "m.onnx")
    assert {i.domain for i in model.opset_import} == {""}
    assert [i.version for i in model.opset_import] == [18]
    description = json.loads({p.key: p.value for p in model.metadata_props}[KEY])
    assert description["classes"] == list(CLASSES)
    assert description["train_config"]["backbone"] == "resnet18"


@pytest.mark.slow
@pytest.mark.usefixtures("reuse_network")
def test_an_export_without_input_defaults_requires_every_input(exports: Path, tmp_path: Path) -> None:
    images = (str(exports / "images"),)
    summary = export(exports / "model.ckpt", output=tmp_path / "r.onnx", compare_images=images, input_defaults=False)
    names = [value.name for value in ort.InferenceSession(str(summary.path)).get_inputs()]
    assert names == ["images", "frames", "score_threshold", "nms_threshold", "max_detections"]
    with pytest.raises(ConfigError, match="triton requires input defaults"):
        export(exports / "model.ckpt", triton=tmp_path, input_defaults=False)


@pytest.mark.slow
def test_export_of_heads_with_group_normalisation(tmp_path: Path) -> None:
    """torch exports group normalisation as many small operators. `export` compares the file with the checkpoint."""
    config = train_config(tmp_path / "gone.json", head_norm="group")
    checkpoint(tmp_path / "model.ckpt", network(config), config)
    write_images(tmp_path / "images")
    summary = export(tmp_path / "model.ckpt", output=tmp_path / "g.onnx", compare_images=(str(tmp_path / "images"),))
    assert all(d.agrees and d.compared > 50 for d in summary.differences)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [(3, 4), (4, 5, 6)])
def test_export_of_a_network_with_few_levels(tmp_path: Path, levels: tuple[int, ...]) -> None:
    sizes = [4.0 * 2**level for level in levels]
    config = train_config(tmp_path / "gone.json", levels=levels, anchor_sizes=sizes)
    checkpoint(tmp_path / "model.ckpt", network(config), config)
    write_images(tmp_path / "images")
    for name in ("few.onnx", "few.pt2"):
        summary = export(tmp_path / "model.ckpt", output=tmp_path / name, compare_images=(str(tmp_path / "images"),))
        assert all(d.agrees and d.compared > 50 for d in summary.differences)
