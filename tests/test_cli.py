"""The command line as a whole: help, imports, and train, evaluate, predict in a row."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from retinanet.cli import main
from retinanet.errors import ConfigError
from tests.commands.made import run


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "demo"])
def test_every_command_explains_itself(command, capsys):
    assert run(command, "--help") == 0
    assert "Usage: retinanet" in capsys.readouterr().out


def test_help_imports_neither_a_command_nor_anything_heavy():
    code = (
        "import sys\nfrom retinanet.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('numpy', 'PIL', 'cv2', 'torch', 'yaml', 'retinanet.config', 'retinanet.commands.train')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "convert-weights" in found.stdout
    assert found.stderr.strip() == "[]"


def test_the_drawing_backend_of_a_notebook_has_no_effect(monkeypatch):
    """matplotlib refuses to be imported with a backend that is not installed."""
    monkeypatch.setenv("MPLBACKEND", "module://no_such_module.backend_inline")
    assert run("--version") == 0
    code = "import matplotlib; print(matplotlib.get_backend())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "agg\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no broken pipes")
def test_a_reader_that_has_ended_gives_no_traceback():
    """As in `retinanet check DATA | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "retinanet", "--help"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_train_evaluate_predict(tiny, squares, tmp_path: Path, capsys):
    """The real path through the command line: the model's own evaluation and that of its results file agree."""
    run_folder = tiny["output"]
    plain = {k: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v for k, v in tiny.items()}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(plain))
    assert run("train", "--config", tmp_path / "c.yaml", "--epochs", 1) == 0
    best = run_folder / "best.ckpt"
    results = tmp_path / "r.json"
    assert run("evaluate", best, "--data", squares[1], "--json", tmp_path / "a.json", "--results", results) == 0
    assert run("evaluate", results, "--data", squares[1], "--json", tmp_path / "b.json") == 0
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert first == second
    keys = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl", "per_class"}
    assert set(first) == keys
    assert json.loads((run_folder / "evaluation.json").read_text())["AP"] == pytest.approx(first["AP"])
    images = squares[1].parent / "images"
    for kind, name in (("coco", "detections.json"), ("csv", "detections.csv")):
        assert run("predict", best, images, "-o", tmp_path / kind, "--format", kind, "--threshold", 0.01) == 0
        assert (tmp_path / kind / name).stat().st_size > 0
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    capsys.readouterr()
    assert run("predict", best, tmp_path / "broken.jpg", images / "0.png", "-o", tmp_path / "third") == 1
    captured = capsys.readouterr()
    assert "broken.jpg" in captured.out + captured.err


def test_an_error_is_printed_with_its_notes(monkeypatch, capsys):
    def fail(*_, **__):
        error = ConfigError("too many")
        error.add_note("raised by callback my:Callback")
        raise error

    monkeypatch.setattr("retinanet.cli.app", SimpleNamespace(meta=fail))
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: too many\nraised by callback my:Callback\n"


def convert_to(stdout: Any, squares: tuple[Path, Path], output: Path, **environment: str) -> tuple[int, str]:
    """Return the exit status and stderr of `retinanet convert`, which prints the written files, with a given stdout."""
    arguments = [sys.executable, "-m", "retinanet", "convert", str(squares[1]), str(output), "--format", "coco"]
    ended = subprocess.run(
        arguments, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env={**os.environ, **environment}
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_of_stdout_that_stops_early_ends_a_command_quietly(squares, tmp_path, unbuffered):
    """`retinanet ... | head -0`: no traceback, neither of the command nor of the interpreter at its exit."""
    read, write = os.pipe()
    os.close(read)
    assert convert_to(write, squares, tmp_path / "out", PYTHONUNBUFFERED=unbuffered) == (1, "")
    os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device of a full disk")
def test_a_full_disk_at_stdout_ends_a_command_with_one_line(squares, tmp_path):
    with Path("/dev/full").open("w") as full:
        assert convert_to(full, squares, tmp_path / "out") == (1, "error: No space left on device\n")


def test_a_folder_that_cannot_be_written_ends_a_command_with_one_line(squares, tmp_path, capsys):
    """The operating system's errors name their file; a traceback would not help."""
    (tmp_path / "file").touch()
    assert run("convert", squares[1], tmp_path / "file" / "out", "--format", "coco") == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'file' / 'out'}: Not a directory\n"
