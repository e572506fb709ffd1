"""`train`: its messages and its exit status."""

import json
import shutil
from pathlib import Path

from tests.commands.made import run


def test_faults_in_the_data_stop_the_run_with_a_list(tiny, squares, tmp_path: Path, capsys):
    content = json.loads(squares[0].read_text())
    content["annotations"][0]["bbox"] = [1, 1, 0, 5]
    content["annotations"][2]["category_id"] = 99
    bad = Path(shutil.copytree(squares[0].parent, tmp_path / "bad")) / "annotations.json"
    bad.write_text(json.dumps(content))
    words = ("--train", bad, "--val", squares[1], "-o", tmp_path / "run", "--no-pretrained", "--preset", "small")
    assert run("train", *words) == 1
    said = capsys.readouterr().err
    assert "annotation 1" in said
    assert "annotation 3" in said
    assert "99" in said
    assert "--skip-invalid" in said
    assert not (tmp_path / "run" / "last.ckpt").exists()
