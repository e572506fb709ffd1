"""`check DATA`: the faults that it lists, and its exit status."""

import json
import shutil

from retinanet.commands.check import check
from tests.analysis.findings import settings


def test_the_command_lists_every_fault_and_goes_on(squares, tmp_path, capsys):
    content = json.loads(squares[0].read_text())
    content["annotations"][0]["bbox"] = [1, 1, 0, 5]
    bad = shutil.copytree(squares[0].parent, tmp_path / "bad") / "annotations.json"
    bad.write_text(json.dumps(content))
    assert check(bad, options=settings(squares)) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "annotation 1" in said
    assert "1 fault" in said
    assert "12 images" in said
    assert "square" in said
    assert check(bad, options=settings(squares, skip_invalid=True)) == 0
    assert check(squares[0], options=settings(squares)) == 0
