"""Costly things that many tests only read. Each is made once in a session, whatever the number of xdist workers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Return a function that makes a folder once in a session: made_once("name", make), where make(folder) fills it.

    The first process that needs the folder fills it; the others wait at its lock. A folder that `make` could not
    finish is made again by the next test that needs it. Tests must not change what is in the folder.
    """
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        base = base.parent  # the folders of the xdist workers lie side by side in it

    def made_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = base / "shared" / name, base / "shared" / f"{name}.done"
        folder.parent.mkdir(exist_ok=True)
        with FileLock(base / "shared" / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made_once


@pytest.fixture(scope="session")
def trained_run(squares: tuple[Path, Path], made_once: MadeOnce) -> Path:
    """Return the folder of a run of two epochs on `squares`. Tests must not change it: `run_folder` gives a copy."""

    def make(folder: Path) -> None:
        from retinanet.train import fit
        from tests.squares import tiny_options  # which takes MadeOnce from here

        fit(**tiny_options(squares, folder / "run"), **TRAINED)

    return made_once("trained", make) / "run"


TRAINED: dict[str, Any] = {"epochs": 2, "score_threshold": 0.001}
"""What `trained_run` is trained with, beside the options of `tiny`."""


@pytest.fixture
def run_folder(trained_run: Path, tiny: dict[str, Any]) -> Path:
    """Return a copy of `trained_run` that the test may change, in the place that `tiny` trains into."""
    return Path(shutil.copytree(trained_run, tiny["output"]))


def examples(count: int) -> int:
    """Return how many examples Hypothesis tries: `count`, or a fifth of it in the fast run."""
    return max(5, count // 5) if os.environ.get("HYPOTHESIS_PROFILE") == "fast" else count
