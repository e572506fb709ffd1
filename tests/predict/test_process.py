"""A detector works in a pickled copy, a deep copy, a spawned and a forked child, before and after it predicts.

Its results do not depend on torch's default dtype and device.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import supervision as sv

import retinanet
from retinanet.errors import ConfigError
from retinanet.predict.detector import BaseDetector
from retinanet.predict.runtime_detector import RuntimeDetector
from retinanet.runtime.description import ExportError
from retinanet.runtime.engines import OpenVinoEngine

NAMES = ["model.ckpt", *(pytest.param(name, marks=pytest.mark.slow) for name in ("m.onnx", "m.xml"))]
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="forked children with threads are supported on Linux")


@pytest.fixture(scope="module", params=NAMES)
def path(request: pytest.FixtureRequest, exports: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint or an exported model."""
    if request.param != "m.xml":
        return exports / str(request.param)
    pytest.importorskip("openvino")
    from retinanet.export.quantise import read_onnx, save_openvino
    from retinanet.runtime.description import Description
    from retinanet.runtime.engines import OnnxEngine

    folder = tmp_path_factory.mktemp("openvino")
    description = OnnxEngine(exports / "m.onnx", device="cpu", threads=1).description
    network = onnx.load(exports / "m.onnx")
    inputs = {value.name for value in network.graph.input}
    kept = [tensor for tensor in network.graph.initializer if tensor.name not in inputs]  # without default values
    del network.graph.initializer[:]
    network.graph.initializer.extend(kept)
    save_openvino(read_onnx(network), Description.from_json(description, "m.onnx"), folder / "m.xml")
    return folder / "m.xml"


@pytest.fixture(scope="module")
def image(exports: Path) -> Path:
    """Return an image with several objects."""
    return sorted((exports / "images").iterdir())[0]


@pytest.fixture(params=["unused", "used"])
def detector(request: pytest.FixtureRequest, path: Path, image: Path) -> BaseDetector:
    """Return a detector that has not predicted yet, or that has predicted."""
    loaded = retinanet.load(path, device="cpu")
    if request.param == "used":
        loaded.predict(image)
    return loaded


def equal(a: sv.Detections, b: sv.Detections) -> bool:
    assert a.confidence is not None and b.confidence is not None  # noqa: PT018
    return (
        len(a) == len(b) > 3
        and np.abs(a.xyxy - b.xyxy).max() < 1e-5
        and np.abs(a.confidence - b.confidence).max() < 1e-6
    )


def predict(detector: BaseDetector, image: Path) -> sv.Detections:
    return detector.predict(image, threshold=0.1)


def _child(detector: BaseDetector, image: Path, queue: Any) -> None:
    try:
        queue.put(predict(detector, image))
    except ConfigError as error:
        queue.put(error)


def in_child(method: str, detector: BaseDetector, image: Path) -> sv.Detections:
    """Predict in a child process, and require that it ends within 60 s."""
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_child, args=(detector, image, queue), daemon=True)
    child.start()
    found: sv.Detections | ConfigError = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    if isinstance(found, ConfigError):
        raise found
    return found


@pytest.mark.parametrize(
    "copied",
    [lambda d: pickle.loads(pickle.dumps(d)), copy.deepcopy, copy.copy],  # noqa: S301
    ids=["pickle", "deepcopy", "copy"],
)
def test_a_copy_returns_equal_detections(
    detector: BaseDetector, image: Path, copied: Callable[[BaseDetector], BaseDetector]
) -> None:
    other = copied(detector)
    assert equal(predict(other, image), predict(detector, image))
    again = copied(other)  # a copy of a copy, after the copy predicted
    assert equal(predict(again, image), predict(detector, image))


@pytest.mark.slow
def test_a_spawned_child_returns_equal_detections(detector: BaseDetector, image: Path) -> None:
    assert equal(in_child("spawn", detector, image), predict(detector, image))


@ON_LINUX
def test_a_forked_child_returns_equal_detections(detector: BaseDetector, image: Path, several_threads: None) -> None:
    """Or raises at once: OpenVINO cannot run in a child if the parent ran it."""
    expected = predict(detector, image)
    if isinstance(detector, RuntimeDetector) and isinstance(detector.engine, OpenVinoEngine):
        with pytest.raises(ConfigError, match="Start the child with spawn or forkserver"):
            in_child("fork", detector, image)
    else:
        assert equal(in_child("fork", detector, image), expected)
    assert equal(predict(detector, image), expected)  # the parent is unchanged


@pytest.mark.slow
@ON_LINUX
def test_a_forked_child_that_exits_by_itself_ends(path: Path, image: Path) -> None:
    """A worker of gunicorn ends by `sys.exit`, which runs exit handlers; a child of multiprocessing skips them."""
    code = f"""
import os, sys, time, retinanet
detector = retinanet.load({str(path)!r}, device="cpu")
if not {str(path)!r}.endswith(".xml"):
    detector.predict({str(image)!r})
if not (child := os.fork()):
    sys.exit(7 if len(detector.predict({str(image)!r}, threshold=0.1)) > 3 else 1)
for _ in range(300):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        os._exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.1)
os.kill(child, 9)
os._exit(99)
"""
    env = {**os.environ, "OMP_NUM_THREADS": "3"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False, timeout=90).returncode == 7


@pytest.fixture
def several_threads() -> Any:
    """Let torch compute with several threads, which a forked child does not have."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    torch.randn(1_000_000).exp_()
    yield
    torch.set_num_threads(before)


def test_a_copy_of_a_file_that_changed_is_refused(exports: Path, image: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(exports / "m.onnx", tmp_path))
    detector = retinanet.load(path)
    other = pickle.loads(pickle.dumps(detector))  # noqa: S301
    path.unlink()
    assert equal(predict(other, image), predict(detector, image))
    assert equal(predict(copy.deepcopy(other), image), predict(detector, image))  # the copy holds the content
    with pytest.raises(ExportError, match="expected the file that was loaded, found that it was changed or removed"):
        pickle.dumps(detector)


@pytest.mark.parametrize(
    "default", ["bfloat16", "meta", *(pytest.param(name, marks=pytest.mark.slow) for name in ("float16", "float64"))]
)
@pytest.mark.parametrize("when", ["load", "predict"])
def test_defaults_of_torch_do_not_change_detections(path: Path, image: Path, default: str, when: str) -> None:
    """Another library may have changed the defaults before the detector is loaded, or after."""
    import torch

    expected = predict(retinanet.load(path, device="cpu"), image)
    detector = retinanet.load(path, device="cpu") if when == "predict" else None
    try:
        if default == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(getattr(torch, default))
        found = predict(detector or retinanet.load(path, device="cpu"), image)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert equal(found, expected)
