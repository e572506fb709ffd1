"""Exported models against their checkpoints, end to end; the gate that refuses; options that do not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import retinanet
from retinanet.cli import main
from retinanet.errors import ConfigError
from retinanet.export import base_target as exporting_network
from retinanet.export.exporter import ExportMismatchError, export
from retinanet.images import decode_for
from retinanet.runtime.description import ExportError

ort = pytest.importorskip("onnxruntime")


def test_what_every_level_says(exports: Path) -> None:
    """Against the network's own outputs; and the best detection's box is among what its place proposes."""
    from retinanet import boxes

    original, exported = retinanet.load(exports / "model.ckpt", "cpu"), retinanet.load(exports / "m.onnx")
    image = exports / "images" / "1.png"
    dense = exported.dense(image)
    pixels, (frame,) = original._prepare([decode_for(image, image_size=128, max_size=192)], original.image_config)
    with torch.inference_mode():
        outputs = original.model(torch.from_numpy(pixels))
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
    proposed = [level.boxes_HWC4[i, j] for level, i, j in dense.at(float(x), float(y))]
    assert min(np.abs(found - best.xyxy[0]).max(axis=1).min() for found in proposed) < 0.01


def test_an_export_that_disagrees_is_refused(exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One filter of the box head a hundredth off: nothing is written, what was there stays."""

    def tampered(_: Any) -> onnx.ModelProto:
        found = onnx.load(exports / "dense.onnx")
        weight = next(i for i in found.graph.initializer if list(i.dims) == [4 * 9, 16, 3, 3])  # the box head's last
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0] += 0.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return found

    monkeypatch.setattr(exporting_network, "dense_onnx", tampered)
    target = tmp_path / "m.onnx"
    target.write_text("earlier")
    message = "disagrees with the checkpoint, nothing is written: boxes differ by up to"
    with pytest.raises(ExportMismatchError, match=message) as refused:
        export(exports / "model.ckpt", output=target, compare_images=(str(exports / "images"),), overwrite=True)
    assert not all(d.agrees for d in refused.value.comparison.differences)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert target.read_text() == "earlier"


def test_raw_gives_the_dense_outputs_alone(exports: Path, tmp_path: Path, quick: None) -> None:
    image = str(exports / "images" / "0.png")
    summary = export(exports / "model.ckpt", triton=tmp_path, raw=True, compare_images=(image,))
    session = ort.InferenceSession(str(summary.path))
    assert [o.name for o in session.get_outputs()] == [f"p{i}_{n}" for i in range(3, 8) for n in ("logits", "deltas")]
    with pytest.raises(ExportError, match="--raw"):
        retinanet.load(summary.path).predict(exports / "images" / "0.png")
    config = (tmp_path / "retinanet" / "config.pbtxt").read_text()
    assert summary.path == tmp_path / "retinanet" / "1" / "model.onnx"
    assert 'output [ { name: "p3_logits" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]' in config


def test_options_that_do_not_fit(exports: Path, tmp_path: Path) -> None:
    model, shown = exports / "model.ckpt", (str(exports / "images"),)
    for options, message in (
        ({}, "give a file to write"),
        ({"output": tmp_path / "m.bin"}, "expected a name that ends in .onnx, .xml, .pt2"),
        ({"output": tmp_path / "m.onnx", "format": "openvino"}, ".xml for --format openvino"),
        ({"output": tmp_path / "m.onnx", "int8": True}, "--calibrate"),
        ({"output": tmp_path / "m.onnx", "bf16": True}, "--format openvino"),
        ({"output": exports / "m.onnx"}, "there already"),
        ({"output": tmp_path / "m.pt2", "raw": True}, "pt2"),
        ({"output": tmp_path / "m.onnx", "format": "onxn"}, "Did you mean 'onnx'"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(model, compare_images=shown, **options)
    with pytest.raises(ExportError, match=r"gone\.json is not there\): give --compare-images FILES or --data DATA"):
        export(model, output=tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command_line_takes_an_export_as_it_takes_a_checkpoint(exports: Path, tmp_path: Path) -> None:
    for model in ("model.ckpt", "m.onnx"):
        words = ["predict", str(exports / model), str(exports / "images"), "-o", str(tmp_path / model), "--no-draw"]
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    first, second = (json.loads((tmp_path / name / "detections.json").read_text()) for name in ("model.ckpt", "m.onnx"))
    assert len(first) == len(second) > 50


def test_nothing_of_torch_is_imported(exports: Path) -> None:
    code = (
        "import sys, retinanet, retinanet.cli, retinanet.evaluate\n"
        f"model, image = {str(exports / 'm.onnx')!r}, {str(exports / 'images' / '0.png')!r}\n"
        "found = retinanet.load(model).predict(image, tile=96)\n"
        "assert len(found) > 3\n"
        "heavy = {'torch', 'torchvision', 'timm', 'lightning', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_in_an_environment_without_torch(exports: Path, tmp_path: Path) -> None:
    """`pip install .[onnx]` into a fresh environment: no torch, and the detections that were recorded here."""
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
        "found = retinanet.load(sys.argv[1]).predict(sys.argv[2])\n"
        "print(json.dumps([found.xyxy.tolist(), found.confidence.tolist()]))\n"
    )

    def inside(*words: object) -> subprocess.CompletedProcess[str]:
        command = [str(python), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    done = inside("-c", code, exports / "u.onnx", file)
    assert done.returncode == 0, done.stderr
    boxes, scores = json.loads(done.stdout)
    np.testing.assert_allclose(boxes, expected.xyxy, atol=1e-3)
    np.testing.assert_allclose(scores, expected.confidence, atol=1e-5)
    retinanet_words = ("-m", "retinanet")
    assert inside(*retinanet_words, "--help").returncode == 0
    predicted = inside(*retinanet_words, "predict", exports / "u.onnx", file, "-o", "found")
    assert predicted.returncode == 0, predicted.stderr
    assert Image.open(tmp_path / "found" / "drawn" / "0.jpg").size == (200, 140)
    for words in (
        ("evaluate", exports / "model.ckpt", "--data", "x.json"),
        ("train", "--train", "x", "--val", "y", "-o", "z"),
    ):
        refused = inside(*retinanet_words, *words)
        assert refused.returncode == 1
        assert "pip install 'retinanet[train]'" in refused.stderr
