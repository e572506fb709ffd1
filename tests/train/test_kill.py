"""Training that is killed at 20 random moments and resumed equals an uninterrupted training run.

Ten of the moments are within the writing of a checkpoint or within an evaluation. RETINANET_KILL_SEED=n chooses other
moments.
"""

import json
import os
import random
import time
from pathlib import Path

import pytest

from retinanet.errors import ConfigError
from retinanet.train import fit
from retinanet.train.run_folder import files_of_run
from tests.shared import CreateOnce
from tests.train.runs import Killer, Options, assert_same_run, run, start, warm_up

SEED = int(os.environ.get("RETINANET_KILL_SEED", "0"))


@pytest.fixture
def options(tiny: Options) -> Options:
    """Return options that use every part with a state: schedule, average, augmentation, sizes, early stopping."""
    changes = {"color_jitter": 0.3, "crop": 0.5, "scale_jitter": (0.8, 1.2), "multi_scale": (64, 80)}
    return {**tiny, **changes, "epochs": 3, "patience": 3, "score_threshold": 0.001}


@pytest.fixture
def uninterrupted(options: Options, create_once: CreateOnce) -> Path:
    """Return a folder with an uninterrupted run in run/, and its measurements in about.json.

    The measurements are the seconds of the run, and the number of function calls within the writing of its checkpoints
    and within its evaluations.
    """

    def make(folder: Path) -> None:
        all_options = {**options, "output": folder / "run"}
        warm_up()
        start_time = time.monotonic()
        assert run(all_options, folder / "log") == 0, (folder / "log").read_text()
        about = {"seconds": time.monotonic() - start_time}
        for part in ("checkpoint", "evaluation"):
            count_calls = Killer(part, counts=folder / "counts.json")
            assert run({**all_options, "output": folder / part}, folder / "log", count_calls) == 0
            assert_same_run(folder / "run", folder / part)
            about[part] = json.loads((folder / "counts.json").read_text())
            assert about[part] > 1000
        (folder / "about.json").write_text(json.dumps(about))

    return create_once("killed", make)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(20))
def test_a_run_killed_at_20_random_moments_can_be_resumed(
    options: Options, uninterrupted: Path, tmp_path: Path, number: int
):
    generator = random.Random(20 * SEED + number)
    about = json.loads((uninterrupted / "about.json").read_text())
    output, log = tmp_path / "killed", tmp_path / "log"
    killed = {**options, "output": output, "workers": 2 if number % 5 == 4 else 0}
    if number < 10:
        part = ("checkpoint", "evaluation")[number % 2]
        at = generator.randint(1, int(0.98 * about[part]))
        moment = f"call {at} of {about[part]} within {part}"
        assert run(killed, log, Killer(part, at=at)) == -9, moment
    else:
        warm_up()
        wait = generator.uniform(0, about["seconds"])
        moment = f"after {wait:.2f} of {about['seconds']:.2f} s"
        process = start(killed, log)
        time.sleep(wait)
        process.kill()
        process.join()
    print(f"{number}: killed at {moment}; files: {sorted(p.name for p in output.glob('*'))}")
    resume = bool(files_of_run(output))  # a run killed within its first moments leaves only a lock, and starts anew
    assert run({**killed, "resume": resume}, log) == 0, f"{moment}\n{log.read_text()}"
    assert_same_run(uninterrupted / "run", output)


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_again(
    tiny: Options, run_folder: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("last.ckpt", "best.ckpt"):
        (tiny["output"] / name).unlink()
    with pytest.raises(ConfigError, match="already holds a training run"):
        fit(**tiny, max_steps=1)
    fit(**tiny, max_steps=1, resume=True)
    assert "training starts from the beginning" in capsys.readouterr().out
    assert (tiny["output"] / "best.ckpt").exists()
