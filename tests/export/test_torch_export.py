"""Exports to torch.export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from retinanet.export.exporter import export
from retinanet.runtime.description import KEY
from tests.export.made import CLASSES


@pytest.mark.slow
def test_a_torch_export_program_contains_its_description_and_runs(exports: Path, tmp_path: Path) -> None:
    images = (str(exports / "images"),)
    summary = export(exports / "model.ckpt", output=tmp_path / "m.pt2", compare_images=images, uint8=True)
    extra_files = {f"{KEY}.json": ""}
    program = torch.export.load(summary.path, extra_files=extra_files).module()
    assert json.loads(extra_files[f"{KEY}.json"])["classes"] == list(CLASSES)
    scores, boxes = program(torch.zeros(3, 3, 160, 224, dtype=torch.uint8), torch.tensor([[96, 64]] * 3))
    assert scores.shape[:2] == boxes.shape[:2]
    assert boxes.shape[2] == 4
