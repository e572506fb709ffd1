"""Loading models for prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet.errors import UserError
from retinanet.predict.loading import load


def test_the_error_for_a_missing_model_suggests_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").touch()
    with pytest.raises(UserError, match=r"no such file or folder: .*best\.ckp\. Did you mean 'best\.ckpt'"):
        load(tmp_path / "best.ckp")


@pytest.mark.parametrize("name", ["model.ckpt", "m.onnx"])
def test_the_threshold_of_nms_replaces_that_of_the_model(exports: Path, name: str) -> None:
    """A higher threshold keeps more overlapping boxes, in a checkpoint and in an exported graph alike."""
    image = min((exports / "images").iterdir())
    counts = [len(load(exports / name, "cpu", nms_threshold=value).predict(image)) for value in (0.0, None, 0.95)]
    assert counts[0] <= counts[1] <= counts[2], counts
    assert counts[0] < counts[2], counts
