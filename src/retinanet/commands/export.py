"""`retinanet export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flat
from retinanet.config import ExportConfig

_OUTPUT = Parameter(alias="-o", help="File to write: .onnx, .xml (OpenVINO) or .pt2.")


@dataclass(frozen=True, kw_only=True)
class ExportFlags(ExportConfig):
    """The flags of `retinanet export`."""

    output: Annotated[Path | None, _OUTPUT] = None


def export(model: Path, *, options: Annotated[ExportFlags | None, Flat] = None) -> None:
    """Write a checkpoint as ONNX, OpenVINO or torch.export, checked against it on real pictures.

    `retinanet export runs/first/best.ckpt -o m.onnx`
    `retinanet export runs/first/best.ckpt -o m.xml --int8 --calibrate data/train.json --data data/val.json`
    """
    from retinanet.export.exporter import export as export_model

    export_model(model, options or ExportFlags())
