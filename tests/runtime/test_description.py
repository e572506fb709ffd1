"""The description in an exported file is read back unchanged, and its JSON keeps its keys."""

from __future__ import annotations

import dataclasses
import json

import pytest

from retinanet.runtime.description import Description, ExportError
from tests.export.made import described


def test_a_description_is_read_back_and_invalid_ones_are_refused() -> None:
    description = described(3)
    text = description.to_json()
    assert dataclasses.asdict(Description.from_json(text, "m")) == dataclasses.asdict(description)
    later = text.replace('"format": 1', '"format": 2')
    invalid = ("", "[]", "{}", later, text.replace('"levels"', '"nothing"'), text.replace('"c0", ', ""))
    for invalid_text in (*invalid, text.replace('"image_size": 64', '"image_size": "x"')):
        with pytest.raises(ExportError, match=r"^m"):
            Description.from_json(invalid_text, "m")


def test_the_keys_of_the_json_keep_their_order() -> None:
    """Files of earlier versions have exactly these keys, in this order."""
    keys = "format opset classes category_ids image_config postprocess_config tiling levels cells anchor_style"
    assert list(json.loads(described(2).to_json())) == [
        *keys.split(),
        "uint8",
        "raw",
        "precision",
        "version",
        "train_config",
    ]


def test_files_of_earlier_versions_have_nms_per_class() -> None:
    values = json.loads(described(2).to_json())
    assert values["postprocess_config"].pop("agnostic_nms") is False
    assert not Description.from_json(json.dumps(values), "m").postprocess_config.agnostic_nms
