"""Exported models against their checkpoints, end to end; the gate that refuses; files that are none of ours."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import retinanet
from retinanet.cli import main
from retinanet.config import PostprocessConfig
from retinanet.errors import ConfigError
from retinanet.export import exporter as exporting
from retinanet.export.exporter import export
from retinanet.export.parity import differ
from retinanet.export.torch_network import dense_onnx, fixed_padding
from retinanet.images import ImageError, decode_for
from retinanet.predict.runtime_detector import RuntimeDetector
from retinanet.runtime.description import KEY, ExportError
from retinanet.types import ArrayDetections
from tests.export.made import CATEGORY_IDS, CLASSES, model_and_pictures, network, train_config
from tests.shared import MadeOnce
from tests.squares import tiny_options

ort = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def folder(made_once: MadeOnce) -> Path:
    """model.ckpt, its exports m.onnx (float) and u.onnx (uint8), and pictures/.

    dense.onnx is the network as torch exports it, which takes a while: `quick` takes it from there.
    """

    def make(root: Path) -> None:
        model_and_pictures(root)

        def kept(model: Any) -> onnx.ModelProto:
            if not (root / "dense.onnx").exists():
                onnx.save(dense_onnx(model), root / "dense.onnx")
            return onnx.load(root / "dense.onnx")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporting, "dense_onnx", kept)
            for name, uint8 in (("m.onnx", False), ("u.onnx", True)):
                shown = (str(root / "pictures"),)
                summary = export(root / "model.ckpt", output=root / name, pictures=shown, uint8=uint8)
                assert all(d.compared > 50 for d in summary.differences), "many boxes are compared"
                sizes = {(d.image_size, d.batch_size) for d in summary.differences}
                assert sizes == {(128, 1), (128, 3), (96, 1), (96, 3)}

    return made_once("export", make)


@pytest.fixture
def quick(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `export` take the network as torch exported it once."""
    monkeypatch.setattr(exporting, "dense_onnx", lambda _: onnx.load(folder / "dense.onnx"))


def same(first: Any, second: Any) -> bool:
    a, b = (
        ArrayDetections(boxes_D4=d.xyxy, scores_D=d.confidence, labels_D=np.asarray(d.class_id, np.int64))
        for d in (first, second)
    )
    return differ(a, b, PostprocessConfig()).agrees


@pytest.mark.parametrize("name", ["m.onnx", "u.onnx"])
def test_the_runtime_finds_what_the_checkpoint_finds(folder: Path, name: str) -> None:
    original, exported = retinanet.load(folder / "model.ckpt", "cpu"), retinanet.load(folder / name)
    assert isinstance(exported, RuntimeDetector)
    assert exported.classes == original.classes == CLASSES
    assert exported.category_ids == CATEGORY_IDS
    assert exported.image_config == original.image_config
    files = sorted((folder / "pictures").iterdir())
    for options in ({}, {"threshold": 0.4}, {"tile": 96}, {"tta": True}):
        for a, b in zip(original.predict(files, **options), exported.predict(files, **options), strict=True):
            assert len(a) > 3
            assert same(a, b), options
            assert (a.data["class_name"][:1] == b.data["class_name"][:1]).all()
    with pytest.raises(ImageError):
        exported.predict(b"no picture")


def test_decoded_pictures_go_through_from_many_threads(folder: Path) -> None:
    exported = RuntimeDetector.from_file(folder / "u.onnx", threads=1)
    config = exported.image_config
    files = sorted((folder / "pictures").iterdir())
    images = [decode_for(f, image_size=config.image_size, max_size=config.max_size) for f in files]
    expected = [exported.detect([image])[0] for image in images]
    assert exported.detect([]) == []
    wrong: list[int] = []

    def work() -> None:
        for i, image in enumerate(images):
            (alone,) = exported.detect([image])
            if not differ(expected[i], alone, exported.postprocess_config).agrees:
                wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    two = exported.detect(images, config=PostprocessConfig(max_detections=2))
    assert [len(d) for d in two] == [2] * len(files)


def test_what_every_level_says(folder: Path) -> None:
    """Against the network's own outputs; and the best detection's box is among what its place proposes."""
    from retinanet import boxes

    original, exported = retinanet.load(folder / "model.ckpt", "cpu"), retinanet.load(folder / "m.onnx")
    picture = folder / "pictures" / "1.png"
    dense = exported.dense(picture)
    pixels, (frame,) = original._prepare([decode_for(picture, image_size=128, max_size=192)], original.image_config)
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
    best = exported.predict(picture)[0]
    row = int(np.abs(boxes_A4 - best.xyxy[0]).max(axis=1).argmin())
    x, y = (anchors_A4[row, :2] + anchors_A4[row, 2:]) / 2
    proposed = [level.boxes_HWC4[i, j] for level, i, j in dense.at(float(x), float(y))]
    assert min(np.abs(found - best.xyxy[0]).max(axis=1).min() for found in proposed) < 0.01


def test_a_plain_session_needs_nothing_but_pictures(folder: Path) -> None:
    """Thresholds and frames have defaults; the four outputs are padded to max_detections."""
    session = ort.InferenceSession(str(folder / "m.onnx"))
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
    model = onnx.load(folder / "m.onnx")
    assert {i.domain for i in model.opset_import} == {""}
    assert [i.version for i in model.opset_import] == [18]
    about = json.loads({p.key: p.value for p in model.metadata_props}[KEY])
    assert about["classes"] == list(CLASSES)
    assert about["train_config"]["backbone"] == "resnet18"


def test_an_export_that_disagrees_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One filter of the box head a hundredth off: nothing is written, what was there stays."""

    def tampered(_: Any) -> onnx.ModelProto:
        found = onnx.load(folder / "dense.onnx")
        weight = next(i for i in found.graph.initializer if list(i.dims) == [4 * 9, 16, 3, 3])  # the box head's last
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0] += 0.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return found

    monkeypatch.setattr(exporting, "dense_onnx", tampered)
    target = tmp_path / "m.onnx"
    target.write_text("earlier")
    with pytest.raises(ExportError, match="disagrees with the checkpoint, nothing is written: boxes differ by up to"):
        export(folder / "model.ckpt", output=target, pictures=(str(folder / "pictures"),), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert target.read_text() == "earlier"


def test_raw_gives_the_dense_outputs_alone(folder: Path, tmp_path: Path, quick: None) -> None:
    summary = export(folder / "model.ckpt", triton=tmp_path, raw=True, pictures=(str(folder / "pictures" / "0.png"),))
    session = ort.InferenceSession(str(summary.path))
    assert [o.name for o in session.get_outputs()] == [f"p{i}_{n}" for i in range(3, 8) for n in ("logits", "deltas")]
    with pytest.raises(ExportError, match="--raw"):
        retinanet.load(summary.path).predict(folder / "pictures" / "0.png")
    config = (tmp_path / "retinanet" / "config.pbtxt").read_text()
    assert summary.path == tmp_path / "retinanet" / "1" / "model.onnx"
    assert 'output [ { name: "p3_logits" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]' in config


def test_a_place_in_a_model_repository(folder: Path, tmp_path: Path) -> None:
    from retinanet.export import triton_repository as triton

    detector = retinanet.load(folder / "u.onnx")
    assert isinstance(detector, RuntimeDetector)
    config = triton.write(tmp_path, folder / "u.onnx", detector.description)
    assert config == tmp_path / "u" / "config.pbtxt"
    assert (tmp_path / "u" / "1" / "model.onnx").read_bytes() == (folder / "u.onnx").read_bytes()
    assert (tmp_path / "u" / "labels.txt").read_text() == "square\nbar\ndot\n"
    lines = config.read_text().splitlines()
    assert lines[:3] == ['name: "u"', 'backend: "onnxruntime"', "max_batch_size: 8"]
    assert 'input [ { name: "images" data_type: TYPE_UINT8 dims: [ 3, -1, -1 ] } ]' in lines
    known = {i.name for i in ort.InferenceSession(str(folder / "u.onnx")).get_overridable_initializers()} | {"images"}
    assert all(line.split('"')[1] in known for line in lines if line.startswith("input"))


def test_options_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    model, shown = folder / "model.ckpt", (str(folder / "pictures"),)
    for options, message in (
        ({}, "give a file to write"),
        ({"output": tmp_path / "m.bin"}, "expected a name that ends in .onnx, .xml, .pt2"),
        ({"output": tmp_path / "m.onnx", "format": "openvino"}, ".xml for --format openvino"),
        ({"output": tmp_path / "m.onnx", "int8": True}, "--calibrate"),
        ({"output": tmp_path / "m.onnx", "bf16": True}, "--format openvino"),
        ({"output": folder / "m.onnx"}, "there already"),
        ({"output": tmp_path / "m.pt2", "raw": True}, "pt2"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(model, pictures=shown, **options)
    with pytest.raises(ExportError, match=r"gone\.json is not there\): give --pictures FILES or --data DATA"):
        export(model, output=tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_exports(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    model = onnx.load(folder / "m.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    for name, message in (
        ("text.onnx", "cannot be read as an ONNX model"),
        ("foreign.onnx", "no export of retinanet's"),
    ):
        with pytest.raises(ExportError, match=message):
            retinanet.load(tmp_path / name)
    with pytest.raises(ConfigError, match="device"):
        retinanet.load(folder / "m.onnx", device="mps")


def test_the_command_line_takes_an_export_as_it_takes_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    for model in ("model.ckpt", "m.onnx"):
        words = ["predict", str(folder / model), str(folder / "pictures"), "-o", str(tmp_path / model), "--no-draw"]
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    first, second = (json.loads((tmp_path / name / "detections.json").read_text()) for name in ("model.ckpt", "m.onnx"))
    assert len(first) == len(second) > 50


def test_nothing_of_torch_is_imported(folder: Path) -> None:
    code = (
        "import sys, retinanet, retinanet.cli, retinanet.evaluate\n"
        f"found = retinanet.load({str(folder / 'm.onnx')!r}).predict({str(folder / 'pictures' / '0.png')!r}, tile=96)\n"
        "assert len(found) > 3\n"
        "heavy = {'torch', 'torchvision', 'timm', 'lightning', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_openvino_finds_what_the_checkpoint_finds(folder: Path, tmp_path: Path, quick: None) -> None:
    pytest.importorskip("openvino")
    summary = export(folder / "model.ckpt", output=tmp_path / "m.xml", pictures=(str(folder / "pictures"),), bf16=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    assert summary.about.precision == "bf16"
    original = retinanet.load(folder / "model.ckpt", "cpu")
    exact = RuntimeDetector.from_file(tmp_path / "m.xml", precision="float32")
    hinted = retinanet.load(tmp_path / "m.xml")
    for file in sorted((folder / "pictures").iterdir()):
        assert same(original.predict(file), exact.predict(file))
        assert len(hinted.predict(file)) > 3
    dense = exact.dense(folder / "pictures" / "0.png")
    assert dense.levels[0].scores_HWCK.shape == (16, 24, 9, 3)
    (tmp_path / "text.xml").write_text("<no/>")
    with pytest.raises(ExportError, match="cannot be read as an OpenVINO model"):
        retinanet.load(tmp_path / "text.xml")


@pytest.mark.slow
def test_openvino_leaves_the_stack_for_signals_alone(folder: Path, tmp_path: Path, quick: None) -> None:
    """Two detectors, the first freed first; then a signal with a Python handler, as a data loader sets."""
    pytest.importorskip("openvino")
    export(folder / "model.ckpt", output=tmp_path / "m.xml", pictures=(str(folder / "pictures"),))
    code = (
        "import faulthandler, gc, signal, subprocess, sys, retinanet\n"
        "faulthandler.enable()  # Python's own stack for signals, on which its handlers run\n"
        "signal.signal(signal.SIGCHLD, lambda *_: print('a child ended'))\n"
        "first = retinanet.load(sys.argv[1])\n"
        "first.predict(sys.argv[2])\n"
        "second = retinanet.load(sys.argv[1])\n"
        "second.predict(sys.argv[2])\n"
        "del first; gc.collect()\n"
        "del second; gc.collect()\n"
        "subprocess.run(['true'], check=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.xml"), str(folder / "pictures" / "0.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout.endswith("a child ended\n")


@pytest.mark.slow
def test_a_torch_export_program(folder: Path, tmp_path: Path) -> None:
    summary = export(folder / "model.ckpt", output=tmp_path / "m.pt2", pictures=(str(folder / "pictures"),), uint8=True)
    extra = {f"{KEY}.json": ""}
    program = torch.export.load(summary.path, extra_files=extra).module()
    assert json.loads(extra[f"{KEY}.json"])["classes"] == list(CLASSES)
    scores, boxes = program(torch.zeros(3, 3, 160, 224, dtype=torch.uint8), torch.tensor([[96, 64]] * 3))
    assert scores.shape[:2] == boxes.shape[:2]
    assert boxes.shape[2] == 4


def test_same_padding_is_fixed_without_a_change(folder: Path) -> None:
    """The padding that TensorFlow's convolutions compute is, on multiples of 32, what the export has."""
    config = train_config(folder, backbone="tf_efficientnet_lite0")
    model = network(config)
    fixed = fixed_padding(copy.deepcopy(model))
    assert not any(type(module).__name__ == "Conv2dSame" for module in fixed.modules())
    assert any(type(module).__name__ == "Conv2dSame" for module in model.modules()), "the original stays"
    images = torch.randn(2, 3, 96, 160)
    with torch.inference_mode():
        torch.testing.assert_close(fixed(images).logits_NAK, model(images).logits_NAK)


@pytest.fixture
def few_epochs(squares: tuple[Path, Path], made_once: MadeOnce) -> Path:
    """best.ckpt of a network that was trained for seconds."""
    options = {"epochs": 4, "backbone": "resnet18", "fpn_width": 32, "head_width": 32, "lr": 2e-3}
    return (
        made_once("few_epochs", lambda root: retinanet.fit(**{**tiny_options(squares, root / "run"), **options}))
        / "run"
        / "best.ckpt"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["i.onnx", "i.xml"])
def test_int8(few_epochs: Path, tmp_path: Path, tiny: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch):
    """A network that was trained for seconds: int8 finds about the same, is smaller, and is refused where AP falls."""
    pytest.importorskip("nncf" if name.endswith("xml") else "onnxruntime.quantization")
    model, data = few_epochs, {"calibrate": tiny["train"], "data": tiny["val"]}
    summary = export(model, output=tmp_path / name, int8=True, max_ap_drop=0.1, **data)
    assert set(summary.ap) == {"checkpoint", "export"}
    assert summary.about.precision == "int8"
    weights = summary.path.with_suffix(".bin") if name.endswith("xml") else summary.path
    assert weights.stat().st_size < 0.4 * sum(4 * p.numel() for p in retinanet.load(model).model.parameters())
    picture = next(iter(sorted((tiny["val"].parent / "images").iterdir())))
    assert len(retinanet.load(summary.path).predict(picture, threshold=0.0)) > 0
    drop = iter([0.5, 0.3])
    fake = type("Numbers", (), {"AP": property(lambda _: next(drop))})
    monkeypatch.setattr(exporting, "evaluate_model", lambda *_, **__: (fake(), []))
    with pytest.raises(ExportError, match=r"0\.2000 below the checkpoint's"):
        export(model, output=tmp_path / f"other-{name}", int8=True, **data)
    assert not (tmp_path / f"other-{name}").exists()


@pytest.mark.slow
def test_in_an_environment_without_torch(folder: Path, tmp_path: Path) -> None:
    """`pip install .[onnx]` into a fresh environment: no torch, and the detections that were recorded here."""
    root = Path(__file__).parents[2]
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "-q", "-c", root / "constraints.txt", f"{root}[onnx]"]
    subprocess.run(install, check=True, timeout=600)
    file = folder / "pictures" / "0.png"
    expected = retinanet.load(folder / "u.onnx").predict(file)
    code = (
        "import importlib.util, json, sys, retinanet\n"
        "assert importlib.util.find_spec('torch') is None\n"
        "found = retinanet.load(sys.argv[1]).predict(sys.argv[2])\n"
        "print(json.dumps([found.xyxy.tolist(), found.confidence.tolist()]))\n"
    )

    def inside(*words: object) -> subprocess.CompletedProcess[str]:
        command = [str(python), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    done = inside("-c", code, folder / "u.onnx", file)
    assert done.returncode == 0, done.stderr
    boxes, scores = json.loads(done.stdout)
    np.testing.assert_allclose(boxes, expected.xyxy, atol=1e-3)
    np.testing.assert_allclose(scores, expected.confidence, atol=1e-5)
    retinanet_words = ("-m", "retinanet")
    assert inside(*retinanet_words, "--help").returncode == 0
    predicted = inside(*retinanet_words, "predict", folder / "u.onnx", file, "-o", "found")
    assert predicted.returncode == 0, predicted.stderr
    assert Image.open(tmp_path / "found" / "drawn" / "0.jpg").size == (200, 140)
    for words in (
        ("evaluate", folder / "model.ckpt", "--data", "x.json"),
        ("train", "--train", "x", "--val", "y", "-o", "z"),
    ):
        refused = inside(*retinanet_words, *words)
        assert refused.returncode == 1
        assert "pip install 'retinanet[train]'" in refused.stderr
