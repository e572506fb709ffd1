"""Every code block of README.md and docs/ runs, in order, in a folder that holds what a user would have."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from retinanet.cli import main
from tests.squares import make_squares

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "extending").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LONG = {  # they train, export or study
    "README.md",
    "callback-and-logger.md",
    "export.md",
    "imbalance.md",
    "loss-and-assigner.md",
    "training.md",
    "transform.md",
}
FILE = re.compile(r"# (\w+\.py)\n")  # a Python block that begins so is a module of the user's own
# A block that cannot run here (it installs, or needs data that is not on a user's machine) is marked as plain text.
QUICK = (
    "--epochs 1 --max-steps 2 --image-size 64 --max-size 96 --fpn-width 16 --head-width 16 --head-depth 1 --workers 0 "
    "--no-pretrained --overwrite --device cpu"
)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, seed in (("train", 1), ("val", 2)):
        path = make_squares(tmp_path / "made" / name, count=6, seed=seed)
        shutil.copytree(path.parent / "images", tmp_path / "data" / "images", dirs_exist_ok=True)
        shutil.copy(path, tmp_path / "data" / f"{name}.json")
    shutil.copytree(tmp_path / "data" / "images", tmp_path / "images")
    shutil.copy(tmp_path / "images" / "0.png", tmp_path / "image.jpg")  # PNG inside: suffixes are not trusted
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    return tmp_path


def run_shell(line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words:
        return
    assert words[0] == "retinanet", f"only retinanet's own commands are run here, found {line!r}"
    if words[1] in {"train", "study"}:
        if "--epochs" in words:
            del words[words.index("--epochs") : words.index("--epochs") + 2]
        words += shlex.split(QUICK)
    with pytest.raises(SystemExit) as stop:
        main(words[1:])
    assert stop.value.code in {0, None}, line


@pytest.mark.parametrize(
    "page", [pytest.param(p, id=p.name, marks=pytest.mark.slow if p.name in LONG else ()) for p in PAGES]
)
def test_code_blocks_run(page: Path, workplace: Path, capsys: pytest.CaptureFixture[str]):
    names: dict[str, object] = {}
    for language, code in BLOCK.findall(page.read_text()):
        if language == "python" and (file := FILE.match(code)):
            Path(file[1]).write_text(code)
        elif language == "python":
            exec(compile(code, str(page), "exec"), names)  # noqa: S102
        elif language == "bash":
            for line in code.replace("\\\n", " ").splitlines():
                run_shell(line)
        else:
            known = {"text", "yaml", "toml", "csv", "json"}
            assert language in known, f"{page.name}: a block of unknown kind {language!r}"
