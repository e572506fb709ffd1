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
from tests.train.runs import Killer, Options, assert_same_run, run, start, warm_up

SEED = int(os.environ.get("RETINANET_KILL_SEED", "0"))


@pytest.fixture
def options(tiny: Options) -> Options:
    """Everything that has a state: momentum, schedule, average, augmentation, several sizes, early stopping."""
    changes = {"color_jitter": 0.3, "crop": 0.5, "scale_jitter": (0.8, 1.2), "multi_scale": (64, 80)}
    return {**tiny, **changes, "epochs": 3, "patience": 3, "score_threshold": 0.001}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_20_random_moments(options: Options, tmp_path: Path):
    generator = random.Random(SEED)
    warm_up()
    began = time.monotonic()
    assert run(options, tmp_path / "log") == 0
    seconds = time.monotonic() - began
    undisturbed = options["output"]
    counts = {}
    for part in ("checkpoint", "evaluation"):
        counting = Killer(part, counts=tmp_path / "counts.json")
        assert run({**options, "output": tmp_path / part}, tmp_path / "log", counting) == 0
        assert_same_run(undisturbed, tmp_path / part)
        counts[part] = json.loads((tmp_path / "counts.json").read_text())
        assert counts[part] > 1000

    for number in range(20):
        output = tmp_path / f"killed-{number}"
        killed = {**options, "output": output, "workers": 2 if number % 5 == 4 else 0}
        log = tmp_path / f"log-{number}"
        if number < 10:
            part = ("checkpoint", "evaluation")[number % 2]
            at = generator.randint(1, int(0.98 * counts[part]))
            moment = f"call {at} of {counts[part]} within {part}"
            assert run(killed, log, Killer(part, at=at)) == -9, moment
        else:
            wait = generator.uniform(0, seconds)
            moment = f"after {wait:.2f} of {seconds:.2f} s"
            process = start(killed, log)
            time.sleep(wait)
            process.kill()
            process.join()
        print(f"{number}: killed at {moment}; there: {sorted(p.name for p in output.glob('*'))}")
        there = output.exists() and any(output.iterdir())
        assert run({**killed, "resume": there}, log) == 0, f"{moment}\n{log.read_text()}"
        assert_same_run(undisturbed, output)


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(tiny: Options, capsys: pytest.CaptureFixture[str]):
    fit(**tiny, max_steps=1)
    for name in ("last.ckpt", "best.ckpt"):
        (tiny["output"] / name).unlink()
    with pytest.raises(ConfigError, match="already holds a run"):
        fit(**tiny, max_steps=1)
    fit(**tiny, max_steps=1, resume=True)
    assert "it begins anew" in capsys.readouterr().out
    assert (tiny["output"] / "best.ckpt").exists()
