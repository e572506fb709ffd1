"""Run the Python client and the curl lines of docs/how-to/serve.md against a real server."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.fakes import ROOT, Server, png

PAGE = ROOT / "docs" / "how-to" / "serve.md"
BLOCKS = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_documented_clients_work(tmp_path: Path):
    for name in ("image.jpg", "a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(png(80))
    (client,) = [block for block in BLOCKS if "import urllib.request" in block]
    (curls,) = [block for block in BLOCKS if block.startswith("curl")]
    with Server() as server:
        code = client.replace("http://127.0.0.1:8000", server.url)
        result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert result.stdout.splitlines() == ["cell 0.9 [0.0, 0.0, 10.0, 10.0]", "platelet 0.6 [1.0, 1.0, 64.0, 48.0]"]
        if not shutil.which("curl"):
            pytest.skip("the curl lines need curl, which is not installed")
        for line in curls.replace("http://127.0.0.1:8000", server.url).replace("RBC", "cell").splitlines():
            words = [*shlex.split(line), "-sS", "--fail-with-body"]
            answer = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
            assert answer.returncode == 0, (line, answer)
            if "-o" in words:
                assert (tmp_path / "drawn.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
            else:
                assert json.loads(answer.stdout).keys() & {"images", "levels", "objects"}
