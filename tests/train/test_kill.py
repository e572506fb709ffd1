"""`kill -9` at 20 random moments, ten of them within the writing of checkpoints or within evaluations: `--resume` ends
with what an undisturbed run ends with. Run with RETINANET_KILL_SEED=n for other moments."""

import json
import os
import random
import time
from pathlib import Path

import pytest

from retinanet.errors import ConfigError
from retinanet.train import fit
from tests.shared import MadeOnce
from tests.train.runs import Killer, Options, assert_same_run, run, start, warm_up

SEED = int(os.environ.get("RETINANET_KILL_SEED", "0"))


@pytest.fixture
def options(tiny: Options) -> Options:
    """Everything that has a state: momentum, schedule, average, augmentation, several sizes, early stopping."""
    changes = {"color_jitter": 0.3, "crop": 0.5, "scale_jitter": (0.8, 1.2), "multi_scale": (64, 80)}
    return {**tiny, **changes, "epochs": 3, "patience": 3, "score_threshold": 0.001}


@pytest.fixture
def undisturbed(options: Options, made_once: MadeOnce) -> Path:
    """Return a folder with an undisturbed run in run/, and what is known of it in about.json.

    That is: its seconds, and the number of calls within the writing of its checkpoints and within its evaluations.
    """

    def make(folder: Path) -> None:
        whole = {**options, "output": folder / "run"}
        warm_up()
        began = time.monotonic()
        assert run(whole, folder / "log") == 0, (folder / "log").read_text()
        about = {"seconds": time.monotonic() - began}
        for part in ("checkpoint", "evaluation"):
            counting = Killer(part, counts=folder / "counts.json")
            assert run({**whole, "output": folder / part}, folder / "log", counting) == 0
            assert_same_run(folder / "run", folder / part)
            about[part] = json.loads((folder / "counts.json").read_text())
            assert about[part] > 1000
        (folder / "about.json").write_text(json.dumps(about))

    return made_once("killed", make)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(20))
def test_killed_at_20_random_moments(options: Options, undisturbed: Path, tmp_path: Path, number: int):
    generator = random.Random(20 * SEED + number)
    about = json.loads((undisturbed / "about.json").read_text())
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
    print(f"{number}: killed at {moment}; there: {sorted(p.name for p in output.glob('*'))}")
    there = output.exists() and any(output.iterdir())
    assert run({**killed, "resume": there}, log) == 0, f"{moment}\n{log.read_text()}"
    assert_same_run(undisturbed / "run", output)


@pytest.mark.slow
def test_a_run_that_died_before_its_first_checkpoint_begins_anew(
    tiny: Options, run_folder: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("last.ckpt", "best.ckpt"):
        (tiny["output"] / name).unlink()
    with pytest.raises(ConfigError, match="already holds a run"):
        fit(**tiny, max_steps=1)
    fit(**tiny, max_steps=1, resume=True)
    assert "it begins anew" in capsys.readouterr().out
    assert (tiny["output"] / "best.ckpt").exists()
