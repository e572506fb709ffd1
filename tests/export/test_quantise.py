"""Exports to int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import retinanet
from retinanet.export import exporter
from retinanet.export.exporter import export
from retinanet.runtime.description import ExportError
from tests.shared import CreateOnce
from tests.squares import tiny_options


@pytest.fixture
def few_epochs(squares: tuple[Path, Path], create_once: CreateOnce) -> Path:
    """best.ckpt of a network that was trained for a few seconds."""
    options = {"epochs": 4, "backbone": "resnet18", "fpn_width": 32, "head_width": 32, "lr": 2e-3}
    return (
        create_once("few_epochs", lambda root: retinanet.fit(**{**tiny_options(squares, root / "run"), **options}))
        / "run"
        / "best.ckpt"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["i.onnx", "i.xml"])
def test_int8_is_smaller_and_refused_if_ap_drops(
    few_epochs: Path, tmp_path: Path, tiny: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
):
    """The network is trained for a few seconds, so that AP is meaningful."""
    pytest.importorskip("nncf" if name.endswith("xml") else "onnxruntime.quantization")
    model, data = few_epochs, {"calibrate": tiny["train"], "data": tiny["val"]}
    summary = export(model, output=tmp_path / name, int8=True, max_ap_drop=0.1, **data)
    assert set(summary.ap) == {"checkpoint", "export"}
    assert summary.about.precision == "int8"
    weights = summary.path.with_suffix(".bin") if name.endswith("xml") else summary.path
    assert weights.stat().st_size < 0.4 * sum(4 * p.numel() for p in retinanet.load(model).model.parameters())
    image = next(iter(sorted((tiny["val"].parent / "images").iterdir())))
    assert len(retinanet.load(summary.path).predict(image, threshold=0.0)) > 0
    ap_values = iter([0.5, 0.3])
    fake_metrics = type("FakeMetrics", (), {"AP": property(lambda _: next(ap_values))})
    monkeypatch.setattr(exporter, "evaluate_model", lambda *_, **__: (fake_metrics(), []))
    with pytest.raises(ExportError, match=r"0\.2000 below the checkpoint's"):
        export(model, output=tmp_path / f"other-{name}", int8=True, **data)
    assert not (tmp_path / f"other-{name}").exists()
