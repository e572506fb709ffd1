"""`demo`: what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet.commands.demo import DemoConfig, run_demo
from retinanet.data.demo_scenes import DemoError
from retinanet.errors import ConfigError


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_demo_refuses_bad_options_and_a_folder_with_another_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="epochs must be above 0, found 0"):
        DemoConfig(epochs=0)
    (tmp_path / "config.yaml").write_text("train: mine\n")
    with pytest.raises(DemoError, match="holds a training run of another command"):
        run_demo(output=tmp_path)
    assert contents(tmp_path) == {"config.yaml": b"train: mine\n"}
