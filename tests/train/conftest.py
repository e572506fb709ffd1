"""Options of a short run, and runs that nothing disturbs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shared import MadeOnce
from tests.train.runs import Options, run


@pytest.fixture
def options(tiny: Options) -> Options:
    return {**tiny, "epochs": 3, "color_jitter": 0.3, "scale_jitter": (0.8, 1.2), "score_threshold": 0.001}


@pytest.fixture
def undisturbed(squares: tuple[Path, Path], options: Options, made_once: MadeOnce) -> Callable[..., Path]:
    """Train with `options`, changed as given, and return the run's folder; runs with the same changes are one."""

    def undisturbed(**changes: object) -> Path:
        def make(folder: Path) -> None:
            whole = {**options, **changes, "train": squares[0], "val": squares[1], "output": folder / "run"}
            assert run(whole, folder / "log") == 0, (folder / "log").read_text()

        name = "-".join(["undisturbed", *(f"{name}={value}" for name, value in sorted(changes.items()))])
        return made_once(name, make) / "run"

    return undisturbed
