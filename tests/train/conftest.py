"""Options of a short training run, and uninterrupted training runs for comparison."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet.commands.terminal import show_progress
from tests.shared import CreateOnce
from tests.train.runs import Options, run


@pytest.fixture
def options(tiny: Options) -> Options:
    return {**tiny, "epochs": 3, "color_jitter": 0.3, "scale_jitter": (0.8, 1.2), "score_threshold": 0.001}


@pytest.fixture
def uninterrupted(squares: tuple[Path, Path], options: Options, create_once: CreateOnce) -> Callable[..., Path]:
    """Return a function that trains with changed `options`, once per set of changes, and returns the run folder."""

    def uninterrupted(**changes: object) -> Path:
        def make(folder: Path) -> None:
            all_options = {**options, **changes, "train": squares[0], "val": squares[1], "output": folder / "run"}
            assert run(all_options, folder / "log") == 0, (folder / "log").read_text()

        name = "-".join(["uninterrupted", *(f"{name}={value}" for name, value in sorted(changes.items()))])
        return create_once(name, make) / "run"

    return uninterrupted


@pytest.fixture(autouse=True)
def _progress_lines() -> None:
    """Print progress lines, as the command line does: several tests read them, whichever test runs first."""
    show_progress()
