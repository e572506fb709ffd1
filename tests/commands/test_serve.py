"""`serve`: what it refuses before anything is served."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from retinanet.cli import main
from tests.serve.fakes import Server


@pytest.mark.slow
def test_what_is_wrong_is_said_before_anything_is_served(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    with pytest.raises(AssertionError, match="this model is broken"):
        Server(model="broken.onnx").__enter__()
    with pytest.raises(SystemExit) as stop:
        main(["serve", str(tmp_path / "absent.onnx")])
    assert stop.value.code == 1
    assert re.search(r"no such file or folder: .*absent\.onnx", capsys.readouterr().err)
    with Server() as server, pytest.raises(AssertionError, match=f"cannot listen on 127.0.0.1, port {server.port}"):
        Server(f"max_queue=1) if 0 else ServeConfig(port={server.port}").__enter__()
