"""Exports of a small model, which are written once per session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.shared import CreateOnce

if TYPE_CHECKING:
    import onnx


@pytest.fixture(scope="session")
def exports(create_once: CreateOnce) -> Path:
    """Folder with model.ckpt, its exports m.onnx (float) and u.onnx (uint8), and images/.

    dense.onnx is the network as torch exports it. The export is slow, so the fixture `reuse_network` reads this file.
    """

    def make(root: Path) -> None:
        import onnx  # inside: tests/predict and tests/runtime import this file without onnx

        from retinanet.export import base_target
        from retinanet.export.exporter import export
        from retinanet.export.torch_network import dense_onnx
        from tests.export.made import model_and_images

        model_and_images(root)

        def export_once(model: Any) -> onnx.ModelProto:
            if not (root / "dense.onnx").exists():
                onnx.save(dense_onnx(model), root / "dense.onnx")
            return onnx.load(root / "dense.onnx")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(base_target, "dense_onnx", export_once)
            for name, uint8 in (("m.onnx", False), ("u.onnx", True)):
                images = (str(root / "images"),)
                summary = export(root / "model.ckpt", output=root / name, compare_images=images, uint8=uint8)
                assert all(d.compared > 50 for d in summary.differences), "many boxes are compared"
                sizes = {(d.image_size, d.batch_size) for d in summary.differences}
                assert sizes == {(128, 1), (128, 3), (96, 1), (96, 3)}

    return create_once("export", make)


@pytest.fixture
def reuse_network(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `export` read the network from dense.onnx instead of exporting it with torch again."""
    import onnx

    from retinanet.export import base_target

    monkeypatch.setattr(base_target, "dense_onnx", lambda _: onnx.load(exports / "dense.onnx"))
