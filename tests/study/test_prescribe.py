"""A probe as a whole: with a stand-in for training and a clock that only training advances, and once for real."""

import csv
import dataclasses
import json

import pytest

import retinanet.study.prescribe as module
from retinanet.cli import main
from retinanet.config import PrescribeConfig, resolve
from retinanet.config.option_file import read_yaml
from retinanet.errors import ConfigError
from retinanet.report.prescription import prescription_report
from retinanet.study.prescribe import prescribe
from retinanet.study.probe_options import probe_options
from retinanet.train.imbalance_file import COLUMNS
from tests.report.test_html import assert_self_contained
from tests.study.probes import runs, seen_by

NOISE = (0.000, 0.004, -0.003, 0.002, -0.004, 0.001, 0.003)
"""Deviation of AP by seed, which all set-ups of a seed share; set-ups deviate by a quarter of it besides."""


class Training:
    """Stand-in for `train_set_up`: AP follows from the options; each step takes 0.4 s, each run 5 s besides."""

    def __init__(self, monkeypatch, effect, *, easy=0.3, gap=0.0, later=1.0):
        self.effect, self.easy, self.gap, self.later, self.now, self.trained = effect, easy, gap, later, 0.0, []
        monkeypatch.setattr(module, "train_set_up", self.train)
        monkeypatch.setattr(module, "monotonic", lambda: self.now)

    def train(self, base, set_up, *, seed, folder, keep_best, train_sample):
        if not (folder / "done").exists():
            self.now += (5 + 0.4 * set_up.options["max_steps"]) * (self.later if len(self.trained) > 1 else 1)
            self.trained.append(folder.name)
            folder.mkdir(parents=True)
            with (folder / "metrics.csv").open("w", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["step", "loss", "seconds"])
                rows.writerows([step, 1.0, 0.4 * step] for step in range(1, 13))
            with (folder / "imbalance.csv").open("w", newline="") as file:
                rows = csv.DictWriter(file, COLUMNS)
                rows.writeheader()
                rows.writerow(
                    {"easy_negative_loss": self.easy, "hard_negative_loss": 0.1, "effective_negatives": 500.0}
                )
            (folder / "done").touch()
        ap, rare = self.effect(set_up.options)
        shift = NOISE[seed % 7] + (NOISE[(3 * seed + len(set_up.name)) % 7]) / 4
        trained = runs([ap + shift], first=seed, rare=[rare + shift], other=[ap + shift])
        (run,) = seen_by(trained, [ap + shift + self.gap]) if train_sample else trained
        return dataclasses.replace(run, folder=folder)


@pytest.fixture
def options(squares, tmp_path):
    return {"val": squares[1], "output": tmp_path / "probe", "preset": "small", "image_size": 64, "max_size": 96}


FITTING = {"anchor_sizes": (16.0, 32.0, 64.0, 128.0, 256.0)}
UNREACHABLE = {"anchor_sizes": (128.0, 160.0, 192.0, 256.0, 512.0)}


def test_unreachable_objects_lead_to_fitted_anchors(squares, options, monkeypatch):
    training = Training(monkeypatch, lambda o: (0.35 if o.get("anchors") == "auto" else 0.2, 0.0))
    found = prescribe(squares[0], **options, **UNREACHABLE)
    assert found.measured.unreached == 1.0
    assert found.decision.answer == "change"
    assert found.changes == {"anchors": "auto"}
    assert found.seconds <= 600
    names = [name for name in training.trained if name.startswith("default-")]
    assert len(names) >= 3
    numbers = json.loads((options["output"] / "prescribe.json").read_text())
    assert numbers["answer"] == "change"
    assert numbers["changes"] == {"anchors": "auto"}
    assert numbers["comparisons"][0]["supported"] is True
    written = read_yaml(found.config_file)
    assert written["anchors"] == "auto"
    assert written["anchor_sizes"] == list(UNREACHABLE["anchor_sizes"])
    assert written["train"] == str(squares[0].absolute())
    assert not {"output", "minutes", "max_steps"} & written.keys()


def test_a_change_without_effect_keeps_the_default(squares, options, monkeypatch):
    Training(monkeypatch, lambda o: (0.2, 0.0))
    found = prescribe(squares[0], **options, **UNREACHABLE)
    assert found.comparisons
    assert found.decision.answer == "keep the default"
    assert found.changes == {}
    assert read_yaml(found.config_file)["anchors"] == "given", "training must not fit them without support"


def test_time_that_is_left_brings_more_seeds(squares, options, monkeypatch):
    """Runs after the first take half of the planned time."""
    Training(monkeypatch, lambda o: (0.35 if o.get("anchors") == "auto" else 0.2, 0.0), later=0.5)
    found = prescribe(squares[0], **options, **UNREACHABLE, minutes=5.0)
    assert len(found.comparisons[0].values) > found.plan.seeds
    assert found.seconds <= 300


def test_nothing_wrong_keeps_the_default(squares, options, monkeypatch):
    training = Training(monkeypatch, lambda o: (0.3, 0.3), gap=0.02)
    found = prescribe(squares[0], **options, **FITTING)
    assert found.plan.candidates == ()
    assert found.decision.answer == "keep the default"
    assert found.seen.change.mean == pytest.approx(-0.0625, abs=0.002)
    assert {name.split("-")[0] for name in training.trained} == {"timing", "default"}
    assert found.rows()[-1][-1] == "enough images for this probe"


def test_too_few_images(squares, options, monkeypatch):
    Training(monkeypatch, lambda o: (0.3, 0.3), gap=0.4)
    found = prescribe(squares[0], **options, **FITTING)
    assert found.decision.answer == "collect images"
    assert found.decision.sentence.startswith("Collect more images: AP is 0.")
    assert found.rows()[-1][-1] == "more images help"
    numbers = json.loads((options["output"] / "prescribe.json").read_text())
    assert numbers["seen"]["change"]["mean"] == pytest.approx(-0.57, abs=0.01)
    chosen = json.loads((options["output"] / "data" / "train-sample.json").read_text())
    whole = json.loads((options["output"] / "data" / "train.json").read_text())
    val = json.loads((options["output"] / "data" / "val.json").read_text())
    assert len(chosen["images"]) == min(len(val["images"]), len(whole["images"]))
    assert chosen["categories"] == whole["categories"]


def test_a_screening_selects_and_is_no_evidence(squares, options, monkeypatch):
    Training(monkeypatch, lambda o: (0.35 if o.get("low_quality_matches") else 0.2, 0.0))
    found = prescribe(squares[0], **options, **UNREACHABLE, minutes=60.0)
    assert found.screening[-1].candidate.name == "low-quality-matches"
    assert found.changes == {"low_quality_matches": True}
    assert read_yaml(found.config_file)["anchors"] == "given"
    assert [run.seed for run in found.runs["fitted-anchors"]] == [0], "dropped after the first seed"
    seeds = [run.seed for run in found.runs["low-quality-matches"]]
    assert len(found.comparisons[0].values) == len(seeds) - 1, "the first seed does not count"


def test_the_loss_of_the_first_run_suggests_gamma(squares, options, monkeypatch):
    """The plan is made anew for the additional candidate; its runs have fewer steps."""
    training = Training(monkeypatch, lambda o: (0.35 if o.get("gamma") == 3.0 else 0.2, 0.0), easy=0.8)
    found = prescribe(squares[0], **options, **FITTING)
    assert found.changes == {"gamma": 3.0}
    first = next(name for name in training.trained if name.startswith("default"))
    assert f"-{found.plan.steps}-steps" not in first
    assert found.seconds <= 600


@pytest.mark.slow
def test_an_interrupted_probe_is_continued(squares, options, monkeypatch):
    training = Training(monkeypatch, lambda o: (0.3, 0.0))
    real = training.train

    def interrupted(*args, **kwargs):
        if len(training.trained) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "train_set_up", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prescribe(squares[0], **options, **FITTING)
    before = list(training.trained)
    monkeypatch.setattr(module, "train_set_up", real)
    found = prescribe(squares[0], **options, **FITTING)
    assert training.trained[: len(before)] == before
    assert len(set(training.trained)) == len(training.trained), "no run is repeated"
    assert found.seconds == pytest.approx(training.now), "the time of both calls counts"
    with pytest.raises(ConfigError, match=r"minutes was 10\.0, is 5\.0"):
        prescribe(squares[0], **options, **FITTING, minutes=5.0)
    again = prescribe(squares[0], **options, **FITTING, overwrite=True)
    assert again.seconds == pytest.approx(found.seconds)


def test_too_little_time_is_refused(squares, options, monkeypatch):
    Training(monkeypatch, lambda o: (0.3, 0.0))
    with pytest.raises(ConfigError, match=r"at least 1\.1 minutes for 3 training runs of 40 steps"):
        prescribe(squares[0], **options, **FITTING, minutes=0.5)


def test_the_network_of_a_probe_is_small_unless_the_user_chose_one(squares, options):
    def made(**given):
        config = resolve(PrescribeConfig, {**options, "preset": "default", **given})
        return probe_options(config, squares[0], squares[1])

    small = made()
    assert (small.model.backbone, small.optimiser.optimizer, small.batch.batch_size) == (
        *("tf_efficientnet_lite0", "adamw"),
        4,
    )
    assert small.image.image_size == 64
    assert small.fitted.anchors == "given", "fitted anchors are a candidate"
    assert made(anchors="auto").fitted.anchors == "auto"
    chosen = made(backbone="resnet18", lr=0.02, epochs=3)
    assert (chosen.model.backbone, chosen.model.fpn_width) == ("resnet18", 256)
    assert (chosen.optimiser.optimizer, chosen.optimiser.lr) == ("sgd", 0.02)
    assert chosen.schedule.epochs > 3


def test_the_report_gives_the_evidence(squares, options, monkeypatch, tmp_path):
    Training(monkeypatch, lambda o: (0.35 if o.get("anchors") == "auto" else 0.2, 0.0))
    found = prescribe(squares[0], **options, **UNREACHABLE)
    page = assert_self_contained(prescription_report(found, tmp_path / "report.html").read_text())
    for text in (
        "Prescription: change",
        found.decision.sentence,
        "100.0% of the objects have no positive anchor",
        "fitted anchors",
        found.rows()[0][4],
        "supported",
        "did not fall",
        "anchors: auto",
    ):
        assert text in page.text, text
    assert len(page.all("svg")) == 1
    target, guard, seen = found.rows(guards=True)
    assert [target[i] for i in (0, 1, 6)] == ["fitted anchors", "AP", "supported"]
    assert [guard[i] for i in (0, 1, 6)] == ["", "AP50", "did not fall"]
    assert seen[:2] == ["validation images, against trained ones", "AP"]
    assert float(target[3]) - float(target[2]) == pytest.approx(float(target[4]), abs=0.0011)


@pytest.mark.slow
def test_a_real_probe_and_the_training_that_it_prescribes(tiny, monkeypatch, tmp_path, capsys):
    """The smallest probe that trains: the files exist, agree with each other, and the config trains."""
    import yaml

    import retinanet.study.probe_plan as planning

    for name in ("MIN_STEPS", "ENOUGH_STEPS", "MANY_STEPS", "MAX_STEPS"):
        monkeypatch.setattr(planning, name, 2)
    data, output = tiny.pop("train"), tmp_path / "probe"
    given = {name: list(v) if isinstance(v, tuple) else v for name, v in tiny.items() if name != "output"}
    given["val"] = str(given["val"])
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(given))
    with pytest.raises(SystemExit) as ended:
        main(["prescribe", str(data), "--config", str(tmp_path / "given.yaml"), "-o", str(output)])
    assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    numbers = json.loads((output / "prescribe.json").read_text())
    assert numbers["sentences"][0] in printed
    assert numbers["plan"]["steps"] == 2
    assert len(numbers["runs"]["default"]) >= 3
    assert_self_contained((output / "report.html").read_text())
    with pytest.raises(SystemExit) as ended:
        main(["train", "--config", str(output / "config.yaml"), "-o", str(tmp_path / "run"), "--max-steps", "1"])
    assert ended.value.code == 0
    stored = read_yaml(tmp_path / "run" / "config.yaml")
    assert stored["fpn_width"] == 16
    assert all(stored[name] == value for name, value in numbers["changes"].items() if name != "anchors")
