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
