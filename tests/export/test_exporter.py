"""End-to-end tests of the export: comparison with the checkpoint, refused exports and invalid options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import supervision as sv
import torch
from PIL import Image

import retinanet
from retinanet.cli import main
from retinanet.config import PostprocessConfig
from retinanet.errors import ConfigError
from retinanet.export import base_target
from retinanet.export.exporter import ExportMismatchError, export
from retinanet.images import decode_for
from retinanet.runtime.description import ExportError
from tests.export.made_exports import equal_detections

ort = pytest.importorskip("onnxruntime")


def test_dense_outputs_equal_those_of_the_network(exports: Path) -> None:
    """The best detection is also among the predicted boxes at its position."""
    from retinanet import boxes

    original, exported = retinanet.load(exports / "model.ckpt", "cpu"), retinanet.load(exports / "m.onnx")
    image = exports / "images" / "1.png"
    dense = exported.dense(image)
    pixels, frame = original._prepare(decode_for(image, image_size=128, max_size=192), original.image_config)
    with torch.inference_mode():
        outputs = original.model(torch.from_numpy(pixels[None]))
    assert dense.frame == frame
    assert [level.stride for level in dense.levels] == [8, 16, 32, 64, 128]
    scores_AK = np.concatenate([level.scores_HWCK.reshape(-1, 3) for level in dense.levels])
    np.testing.assert_allclose(scores_AK, outputs.logits_NAK[0].sigmoid().numpy(), atol=1e-5)
    factor = np.array([frame.width / frame.resized_width, frame.height / frame.resized_height] * 2, np.float32)
    anchors_A4 = np.concatenate([level.anchors_HWC4.reshape(-1, 4) for level in dense.levels])
    np.testing.assert_allclose(anchors_A4, outputs.anchors_A4.numpy() * factor, atol=1e-3)
    decoded = boxes.clip(
        boxes.decode(outputs.deltas_NA4[0], outputs.anchors_A4), width=frame.resized_width, height=frame.resized_height
    )
    boxes_A4 = np.concatenate([level.boxes_HWC4.reshape(-1, 4) for level in dense.levels])
    np.testing.assert_allclose(boxes_A4, decoded.numpy() * factor, atol=0.01)
    best = exported.predict(image)[0]
    row = int(np.abs(boxes_A4 - best.xyxy[0]).max(axis=1).argmin())
    x, y = (anchors_A4[row, :2] + anchors_A4[row, 2:]) / 2
    boxes_at_position = [level.boxes_HWC4[i, j] for level, i, j in dense.at(float(x), float(y))]
    assert min(np.abs(boxes_C4 - best.xyxy[0]).max(axis=1).min() for boxes_C4 in boxes_at_position) < 0.01


def test_an_export_that_disagrees_is_refused(exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One filter of the box head is changed by 0.01: nothing is written, and an earlier file is kept."""

    def changed_network(_: Any) -> onnx.ModelProto:
        network = onnx.load(exports / "dense.onnx")
        weight = next(i for i in network.graph.initializer if list(i.dims) == [4 * 9, 16, 3, 3])  # the last box layer
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0] += 0.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return network

    monkeypatch.setattr(base_target, "dense_onnx", changed_network)
    target = tmp_path / "m.onnx"
    target.write_text("earlier")
    message = "disagrees with the checkpoint, nothing is written: boxes differ by up to"
    with pytest.raises(ExportMismatchError, match=message) as refused:
        export(exports / "model.ckpt", output=target, compare_images=(str(exports / "images"),), overwrite=True)
    assert not all(d.agrees for d in refused.value.comparison.differences)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert target.read_text() == "earlier"


def test_a_raw_export_returns_only_dense_outputs(exports: Path, tmp_path: Path, reuse_network: None) -> None:
    image = str(exports / "images" / "0.png")
    summary = export(exports / "model.ckpt", triton=tmp_path, raw=True, compare_images=(image,))
    session = ort.InferenceSession(str(summary.path))
    assert [o.name for o in session.get_outputs()] == [f"p{i}_{n}" for i in range(3, 8) for n in ("logits", "deltas")]
    with pytest.raises(ExportError, match="--raw"):
        retinanet.load(summary.path).predict(exports / "images" / "0.png")
    config = (tmp_path / "retinanet" / "config.pbtxt").read_text()
    assert summary.path == tmp_path / "retinanet" / "1" / "model.onnx"
    assert 'output [ { name: "p3_logits" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]' in config


def test_invalid_options_are_refused(exports: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    model, images = exports / "model.ckpt", (str(exports / "images"),)
    folder = tmp_path_factory.mktemp("made") / "folder.onnx"
    folder.mkdir()
    for options, message in (
        ({}, "give a file to write"),
        ({"output": tmp_path / "m.bin"}, "expected a name that ends in .onnx, .xml, .pt2"),
        ({"output": tmp_path / "m.onnx", "format": "openvino"}, ".xml for --format openvino"),
        ({"output": tmp_path / "m.onnx", "int8": True}, "--calibrate"),
        ({"output": tmp_path / "m.onnx", "bf16": True}, "--format openvino"),
        ({"output": exports / "m.onnx"}, "exists already: give --overwrite"),
        ({"output": folder, "overwrite": True}, "the file to write is a folder"),
        ({"output": tmp_path / "m.pt2", "raw": True}, "pt2"),
        ({"output": tmp_path / "m.onnx", "format": "onxn"}, "Did you mean 'onnx'"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(model, compare_images=images, **options)
    with pytest.raises(
        ExportError, match=r"no such file or folder: .*gone\.json\)\. Give --compare-images FILES or --data DATA"
    ):
        export(model, output=tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_predict_accepts_checkpoints_and_exports(exports: Path, tmp_path: Path) -> None:
    for model in ("model.ckpt", "m.onnx"):
        arguments = ["predict", str(exports / model), str(exports / "images"), "-o", str(tmp_path / model), "--no-draw"]
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
    first, second = (json.loads((tmp_path / name / "detections.json").read_text()) for name in ("model.ckpt", "m.onnx"))
    assert len(first) == len(second) > 50


def test_running_an_export_never_imports_torch(exports: Path) -> None:
    code = (
        "import sys, retinanet, retinanet.cli, retinanet.evaluate\n"
        f"model, image = {str(exports / 'm.onnx')!r}, {str(exports / 'images' / '0.png')!r}\n"
        "detections = retinanet.load(model).predict(image, tile=96)\n"
        "assert len(detections) > 3\n"
        "heavy = {'torch', 'torchvision', 'timm', 'lightning', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_an_environment_without_torch_runs_an_export(exports: Path, tmp_path: Path) -> None:
    """`pip install .[onnx]` into a new environment installs no torch. The detections equal those in this process."""
    root = Path(__file__).parents[2]
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "-q", "-c", root / "constraints.txt", f"{root}[onnx]"]
    subprocess.run(install, check=True, timeout=600)
    file = exports / "images" / "0.png"
    expected = retinanet.load(exports / "u.onnx").predict(file)
    code = (
        "import importlib.util, json, sys, retinanet\n"
        "assert importlib.util.find_spec('torch') is None\n"
        "detections = retinanet.load(sys.argv[1]).predict(sys.argv[2])\n"
        "print(json.dumps([detections.xyxy.tolist(), detections.confidence.tolist()]))\n"
    )

    def run_python(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(python), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    process = run_python("-c", code, exports / "u.onnx", file)
    assert process.returncode == 0, process.stderr
    boxes, scores = json.loads(process.stdout)
    np.testing.assert_allclose(boxes, expected.xyxy, atol=1e-3)
    np.testing.assert_allclose(scores, expected.confidence, atol=1e-5)
    command_line = ("-m", "retinanet")
    assert run_python(*command_line, "--help").returncode == 0
    predicted = run_python(*command_line, "predict", exports / "u.onnx", file, "-o", "found")
    assert predicted.returncode == 0, predicted.stderr
    assert Image.open(tmp_path / "found" / "drawn" / "0.jpg").size == (200, 140)
    for arguments in (
        ("evaluate", exports / "model.ckpt", "--data", "x.json"),
        ("train", "--train", "x", "--val", "y", "-o", "z"),
    ):
        refused = run_python(*command_line, *arguments)
        assert refused.returncode == 1
        assert "pip install 'retinanet[train]'" in refused.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("reuse_network")
@pytest.mark.parametrize("name", ["a.onnx", "a.xml"])
def test_class_agnostic_nms_is_exported_and_compared(exports: Path, tmp_path: Path, name: str) -> None:
    """The checkpoint has NMS per class. The export has class-agnostic NMS and refuses the other kind."""
    if name.endswith(".xml"):
        pytest.importorskip("openvino")
    images = (str(exports / "images"),)
    summary = export(exports / "model.ckpt", output=tmp_path / name, compare_images=images, agnostic_nms=True)
    assert summary.about.postprocess_config.agnostic_nms
    assert all(d.agrees and d.compared > 20 for d in summary.differences)
    original = retinanet.load(exports / "model.ckpt", "cpu", agnostic_nms=True)
    exported = retinanet.load(tmp_path / name)
    per_class = retinanet.load(exports / "model.ckpt", "cpu")
    files = sorted((exports / "images").iterdir())
    for options in ({}, {"tile": 96}, {"tta": True}):
        for file in files[:2]:
            found = original.predict(file, **options)
            assert equal_detections(found, exported.predict(file, **options), agnostic_nms=True), options
            again = per_class.predict(file, agnostic_nms=True, **options)
            assert (again.xyxy == found.xyxy).all()
            if not options:
                other = per_class.predict(file)
                highest = [(sv.box_iou_batch(d.xyxy, d.xyxy) - np.eye(len(d))).max() for d in (found, other)]
                assert highest[0] < 0.5001 < highest[1]
    message = "contains class-agnostic NMS .*, found a request for NMS per class: .*--no-agnostic-nms"
    with pytest.raises(ConfigError, match=message):
        retinanet.load(tmp_path / name, agnostic_nms=False)
    with pytest.raises(ConfigError, match=message):
        exported.predict(files[0], agnostic_nms=False)
    with pytest.raises(ConfigError, match=message):
        exported.detect([Image.open(files[0])], config=PostprocessConfig())
