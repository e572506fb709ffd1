"""`retinanet export`."""

from __future__ import annotations

from pathlib import Path

from retinanet.commands.options import Flags
from retinanet.config import ExportConfig


def export(model: Path, *, options: Flags[ExportConfig] | None = None) -> None:
    """Write a checkpoint as ONNX, OpenVINO or torch.export, checked against it on real pictures.

    `retinanet export runs/first/best.ckpt -o m.onnx`
    `retinanet export runs/first/best.ckpt -o m.xml --int8 --calibrate data/train.json --data data/val.json`
    """
    from retinanet.export.exporter import export as export_model

    export_model(model, options or ExportConfig())
