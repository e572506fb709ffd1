"""Expensive fixtures that tests only read. Each is created once per test session, with any number of xdist workers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

CreateOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def create_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CreateOnce:
    """Return a function that creates a folder once per session: create_once("name", make), where make(folder) fills it.

    The first process that requests the folder fills it, while other processes wait for its lock. If `make` fails, the
    next test that requests the folder creates it again. Tests must not change the content of the folder.
    """
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        base = base.parent  # the common parent of the folders of all xdist workers

    def create_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, marker = base / "shared" / name, base / "shared" / f"{name}.done"
        folder.parent.mkdir(exist_ok=True)
        with FileLock(base / "shared" / f"{name}.lock"):
            if not marker.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                marker.touch()
        return folder

    return create_once


@pytest.fixture(scope="session")
def trained_run(squares: tuple[Path, Path], create_once: CreateOnce) -> Path:
    """Return the run folder of 2 epochs on `squares`. Tests must not change it; `run_folder` provides a copy."""

    def make(folder: Path) -> None:
        from retinanet.train import fit
        from tests.squares import tiny_options  # tests.squares imports this module

        fit(**tiny_options(squares, folder / "run"), **TRAINED)

    return create_once("trained", make) / "run"


TRAINED: dict[str, Any] = {"epochs": 2, "score_threshold": 0.001}
"""Options of `trained_run` in addition to the options of `tiny`."""


@pytest.fixture
def run_folder(trained_run: Path, tiny: dict[str, Any]) -> Path:
    """Return a copy of `trained_run` that the test may change. The copy is the output folder of `tiny`."""
    return Path(shutil.copytree(trained_run, tiny["output"]))


def num_examples(count: int) -> int:
    """Return the number of examples that Hypothesis tries: `count`, or a fifth of `count` in the fast test run."""
    return max(5, count // 5) if os.environ.get("HYPOTHESIS_PROFILE") == "fast" else count
