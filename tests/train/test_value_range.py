"""12 bits in 16-bit images: training measures, announces and stores the number of bits, and prediction uses it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import retinanet
from retinanet.analysis.data_findings import value_findings
from retinanet.config import to_dict
from retinanet.data import load
from retinanet.train import fit
from tests.shared import TRAINED
from tests.train.runs import Options


def as_12_bits(source: Path, folder: Path) -> Path:
    """Write a COCO dataset with its images as 12 bits in 16-bit grey PNG files."""
    folder.mkdir()
    content = json.loads(source.read_text())
    for number, (image, record) in enumerate(zip(content["images"], load(source).records, strict=True)):
        image["file_name"] = f"{number}.png"
        grey = np.asarray(Image.open(record.path).convert("L")).astype(np.uint16)
        Image.fromarray(grey << 4).save(folder / image["file_name"])
    (folder / "data.json").write_text(json.dumps(content))
    return folder / "data.json"


@pytest.mark.slow
def test_training_stores_the_number_of_bits_and_prediction_uses_it(
    tiny: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="retinanet.progress")
    train, val = as_12_bits(tiny["train"], tmp_path / "t"), as_12_bits(tiny["val"], tmp_path / "v")
    result = fit(**{**tiny, **TRAINED, "train": train, "val": val, "epochs": 1})
    assert "the values use 12 of 16 bits. Value 4,095 is read as white" in caplog.text
    assert yaml.safe_load((tiny["output"] / "config.yaml").read_text())["bit_depth"] == 12
    detector = retinanet.load(result.last)
    assert to_dict(detector.image_config)["bit_depth"] == 12
    values = np.asarray(Image.open(tmp_path / "v" / "0.png"))
    equal = detector.predict(values), detector.predict((values >> 4).astype(np.uint8))
    assert equal[0] == equal[1]
    detector.predict(np.full((40, 40), 60000, np.uint16))
    assert "found values up to 60,000 (16 bits). Larger values become white" in caplog.text
    assert retinanet.load(result.last, bit_depth=16).image_config.bit_depth == 16
    (finding,) = value_findings([load(train), load(val)], 0)
    assert "use 12 of 16 bits" in finding.what
    assert value_findings([load(train)], 12) == value_findings([load(tiny["train"])], 0) == []
    assert "values above 1,023 become white" in value_findings([load(train)], 10)[0].cause
