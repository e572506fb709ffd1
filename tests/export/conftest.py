"""Exports of a small model, made once in a session, and the network as torch exported it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.shared import MadeOnce

if TYPE_CHECKING:
    import onnx


@pytest.fixture(scope="session")
def exports(made_once: MadeOnce) -> Path:
    """model.ckpt, its exports m.onnx (float) and u.onnx (uint8), and images/.

    dense.onnx is the network as torch exports it, which takes a while: `quick` takes it from there.
    """

    def make(root: Path) -> None:
        import onnx  # here: tests/predict and tests/runtime import this file, also where onnx is not installed

        from retinanet.export import base_target as exporting_network
        from retinanet.export.exporter import export
        from retinanet.export.torch_network import dense_onnx
        from tests.export.made import model_and_images

        model_and_images(root)

        def kept(model: Any) -> onnx.ModelProto:
            if not (root / "dense.onnx").exists():
                onnx.save(dense_onnx(model), root / "dense.onnx")
            return onnx.load(root / "dense.onnx")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporting_network, "dense_onnx", kept)
            for name, uint8 in (("m.onnx", False), ("u.onnx", True)):
                shown = (str(root / "images"),)
                summary = export(root / "model.ckpt", output=root / name, compare_images=shown, uint8=uint8)
                assert all(d.compared > 50 for d in summary.differences), "many boxes are compared"
                sizes = {(d.image_size, d.batch_size) for d in summary.differences}
                assert sizes == {(128, 1), (128, 3), (96, 1), (96, 3)}

    return made_once("export", make)


@pytest.fixture
def quick(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `export` take the network as torch exported it once."""
    import onnx

    from retinanet.export import base_target as exporting_network

    monkeypatch.setattr(exporting_network, "dense_onnx", lambda _: onnx.load(exports / "dense.onnx"))
