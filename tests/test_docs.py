"""Every code block of README.md and docs/ runs, in order, in a user's folder; every link between pages resolves."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinanet.cli import main
from tests.squares import make_squares

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TOP = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()(?!\w+:)[^)\s]+")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
ANCHOR = re.compile(r'<a (?:id|name)="([^"]+)"')
SHOWN = {"text", "yaml", "toml", "csv", "json", "mermaid"}
"""Languages of blocks that do not run. A block that installs, or needs data that no user has, is marked as text."""
LONG = {  # pages whose blocks train, export, compare models or run a study
    "README.md",
    "docs/how-to/choose-a-loss.md",
    "docs/how-to/choose-thresholds.md",
    "docs/how-to/compare-models.md",
    "docs/how-to/cross-validate.md",
    "docs/how-to/evaluate.md",
    "docs/how-to/explain-a-miss.md",
    "docs/how-to/export.md",
    "docs/how-to/find-weak-slices.md",
    "docs/how-to/extend/callback-and-logger.md",
    "docs/how-to/extend/loss-and-assigner.md",
    "docs/how-to/extend/transform.md",
    "docs/how-to/large-images.md",
    "docs/how-to/measure-a-learning-curve.md",
    "docs/how-to/prescribe.md",
    "docs/how-to/rare-classes.md",
    "docs/how-to/speed-or-accuracy.md",
    "docs/how-to/run-a-loss-study.md",
    "docs/how-to/train.md",
    "docs/how-to/train-on-little-data.md",
    "docs/reference/exported-model.md",
    "docs/tutorial.md",
}
FILE = re.compile(r"# (\w+\.py)\n")  # a Python block that begins so is a module of the user's own
QUICK = (
    "--epochs 1 --max-steps 2 --image-size 64 --max-size 96 --fpn-width 16 --head-width 16 --head-depth 1 --workers 0 "
    "--no-pretrained --overwrite --device cpu"
)


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def workplace(tmp_path: Path, trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data/train.json, data/val.json, images/, image.jpg and the run of the tutorial, runs/first."""
    for name, seed in (("train", 1), ("val", 2)):
        path = make_squares(tmp_path / "made" / name, count=6, seed=seed)
        shutil.copytree(path.parent / "images", tmp_path / "data" / "images", dirs_exist_ok=True)
        shutil.copy(path, tmp_path / "data" / f"{name}.json")
    shutil.copytree(tmp_path / "data" / "images", tmp_path / "images")
    shutil.copy(tmp_path / "images" / "0.png", tmp_path / "image.jpg")  # PNG inside: suffixes are not trusted
    shutil.copytree(trained_run, tmp_path / "runs" / "first")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    return tmp_path


def run_shell(line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words:
        return
    assert words[0] == "retinanet", f"only retinanet's own commands are run here, found {line!r}"
    if words[1] in {"train", "study", "prescribe"} and "--resume" not in words:
        for option in {"--epochs", "--close-augment"}.intersection(words):
            del words[words.index(option) : words.index(option) + 2]
        words += shlex.split(QUICK)
    with pytest.raises(SystemExit) as stop:
        main(words[1:])
    assert stop.value.code in {0, None}, line


RUNNING = [page for page in PAGES if {"bash", "python"} & {language for language, _ in BLOCK.findall(page.read_text())}]


@pytest.mark.parametrize(
    "page", [pytest.param(p, id=page_id(p), marks=pytest.mark.slow if page_id(p) in LONG else ()) for p in RUNNING]
)
def test_code_blocks_run(
    page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    names: dict[str, object] = {}
    for limit in ("MIN_STEPS", "ENOUGH_STEPS", "MANY_STEPS", "MAX_STEPS"):
        monkeypatch.setattr(f"retinanet.study.probe_plan.{limit}", 2)  # `prescribe` trains for 2 steps
    for language, code in BLOCK.findall(page.read_text()):
        if language == "python" and (file := FILE.match(code)):
            Path(file[1]).write_text(code)
        elif language == "python":
            exec(compile(code, str(page), "exec"), names)  # noqa: S102
        elif language == "bash":
            for line in code.replace("\\\n", " ").splitlines():
                run_shell(line)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_languages_of_blocks_are_known(page: Path):
    unknown = {language for language, _ in BLOCK.findall(page.read_text())} - {"bash", "python", *SHOWN}
    assert not unknown
    assert page in RUNNING or page_id(page) not in LONG


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading: lower case, hyphens for spaces, no punctuation."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: of its headings, numbered where a heading occurs again, and written ones."""
    text = page.read_text()
    found: set[str] = set(ANCHOR.findall(text))
    for heading in HEADING.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        name, number = slug(heading), 0
        while (f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(f"{name}-{number}" if number else name)
    return found


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield each relative link of a page, the file that the link leads to, and its anchor."""
    for link in LINK.findall(CODE.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        yield link, (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", [*TOP, *PAGES[1:]], ids=page_id)
def test_links_resolve(page: Path):
    for link, target, anchor in links(page):
        assert target.exists(), f"{page_id(page)}: no such file: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page_id(page)}: no such anchor: {link}"


def test_the_index_links_every_page():
    index = DOCS / "index.md"
    linked = {target for _, target, _ in links(index)}
    missing = [page_id(page) for page in PAGES[1:] if page not in {index, *linked}]
    assert not missing


def test_the_reliability_page_names_tests_that_exist():
    text = (DOCS / "benchmarks" / "reliability.md").read_text()
    files = dict(re.findall(r"\b([A-Z]) = (tests/[\w/]+\.py)", text))
    assert files
    for cell in re.findall(r"\| ([A-Z] [\w, ]+) \|$", text, re.MULTILINE):
        for word in re.findall(r"\w+", cell):
            if word in files:  # a letter stands for a file; the names after it are of this file
                tests = " ".join(re.findall(r"def (test_\w+)", (ROOT / files[word]).read_text())).lower()
            else:
                assert word.lower() in tests, f"{cell}: no test has {word} in its name"


FOREIGN = {
    *(
        "--backend-store-uri",
        "--data-binary",
        "--master-addr",
        "--master-port",
        "--nnodes",
        "--no-deps",
    ),
    *("--max-restarts", "--node-rank", "--nproc-per-node", "--ntasks-per-node", "--read-only", "--rm"),
    *("--shm-size", "--tmpfs"),
}
"""Flags of other programs: curl, docker, mlflow, pip, sbatch, torchrun."""


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_flags_exist(page: Path):
    flag = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
    options = set(flag.findall((DOCS / "reference" / "options.md").read_text()))
    known = {*FOREIGN, *options, *(f"--no-{name[2:]}" for name in options), "--config", "--help"}
    assert not set(flag.findall(page.read_text())) - known
