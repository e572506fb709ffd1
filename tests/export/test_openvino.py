"""Exports to OpenVINO."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import retinanet
from retinanet.export.exporter import export
from retinanet.predict.runtime_detector import RuntimeDetector
from retinanet.runtime.description import ExportError
from tests.export.made_exports import equal_detections


@pytest.mark.slow
def test_openvino_returns_the_detections_of_the_checkpoint(exports: Path, tmp_path: Path, reuse_network: None) -> None:
    pytest.importorskip("openvino")
    images = (str(exports / "images"),)
    summary = export(exports / "model.ckpt", output=tmp_path / "m.xml", compare_images=images, bf16=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    assert summary.about.precision == "bf16"
    original = retinanet.load(exports / "model.ckpt", "cpu")
    exact = RuntimeDetector.from_file(tmp_path / "m.xml", precision="float32")
    hinted = retinanet.load(tmp_path / "m.xml")
    for file in sorted((exports / "images").iterdir()):
        assert equal_detections(original.predict(file), exact.predict(file))
        assert len(hinted.predict(file)) > 3
    dense = exact.dense(exports / "images" / "0.png")
    assert dense.levels[0].scores_HWCK.shape == (16, 24, 9, 3)
    (tmp_path / "text.xml").write_text("<no/>")
    with pytest.raises(ExportError, match="cannot be read as an OpenVINO model"):
        retinanet.load(tmp_path / "text.xml")
    (tmp_path / "m.bin").rename(tmp_path / "other.bin")
    with pytest.raises(ExportError, match=r"expected its weights in .*m\.bin, found no such file: keep both files in"):
        retinanet.load(tmp_path / "m.xml")


@pytest.mark.slow
def test_a_signal_after_freeing_openvino_detectors_does_not_crash(
    exports: Path, tmp_path: Path, reuse_network: None
) -> None:
    """The first of two detectors is freed first. Then a signal with a Python handler arrives, as from a data loader."""
    pytest.importorskip("openvino")
    export(exports / "model.ckpt", output=tmp_path / "m.xml", compare_images=(str(exports / "images"),))
    code = (
        "import faulthandler, gc, signal, subprocess, sys, retinanet\n"
        "faulthandler.enable()  # installs Python's signal stack, on which signal handlers run\n"
        "signal.signal(signal.SIGCHLD, lambda *_: print('a child ended'))\n"
        "first = retinanet.load(sys.argv[1])\n"
        "first.predict(sys.argv[2])\n"
        "second = retinanet.load(sys.argv[1])\n"
        "second.predict(sys.argv[2])\n"
        "del first; gc.collect()\n"
        "del second; gc.collect()\n"
        "subprocess.run(['true'], check=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.xml"), str(exports / "images" / "0.png")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, (process.returncode, process.stderr)
    assert process.stdout.endswith("a child ended\n")
