"""The loss study: which set-ups, what the intervals support, and a real one that is stopped and goes on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import retinanet.study.runner as module
from retinanet.config import StudyConfig, resolve
from retinanet.data import DetectionData
from retinanet.errors import ConfigError
from retinanet.report.study import study_report
from retinanet.study.results import Outcome, Run, Study, Variant, differs
from retinanet.study.runner import study
from retinanet.study.variants import variants
from retinanet.train import NonFiniteError
from tests.report.test_html import assert_self_contained


def config(**options):
    return resolve(StudyConfig, {"output": "out", **options})


def outcome(name, aps, *, diverged=0, options=None):
    runs = tuple(
        Run(
            seed=seed,
            seconds=60.0,
            metrics={"AP": ap, "AP50": ap, "AP75": ap} if seed >= diverged else {},
            diverged="NaN" if seed < diverged else "",
            early_loss=1.0,
            folder=Path("nowhere"),
        )
        for seed, ap in enumerate(aps)
    )
    return Outcome(variant=Variant(name=name, label=name, options=options or {"loss": name}), runs=runs)


def found(*outcomes):
    nothing = DetectionData(records=(), classes=(), category_ids=(), source=Path("val.json"))
    return Study(config=config(), outcomes=outcomes, train="t", val="v", val_data=nothing)


def test_overlapping_intervals_are_no_difference():
    focal, same = outcome("focal", [0.50, 0.51, 0.52]), outcome("ce", [0.51, 0.52, 0.53])
    worse = outcome("ohem", [0.10, 0.11, 0.12])
    assert not differs(focal, same)
    assert differs(focal, worse)
    said = " ".join(found(focal, same, worse).sentences())
    assert "No measurable difference, as the intervals overlap, between focal (0.510) and: ce (0.520)" in said
    assert "ohem is worse than focal by 0.400 AP" in said
    assert "Highest AP: ce" in said


def test_one_seed_supports_nothing():
    said = " ".join(found(outcome("focal", [0.5]), outcome("ce", [0.1])).sentences())
    assert "single seed" in said
    assert "No measurable difference" in said


def test_diverged_and_idle_runs_are_named():
    said = " ".join(found(outcome("focal", [0.5, 0.5]), outcome("ce", [0, 0], diverged=2)).sentences())
    assert "ce: 2 of 2 runs diverged" in said
    said = " ".join(found(outcome("focal", [0.5, 0.5]), outcome("ce", [0.001, 0.002])).sentences())
    assert "ce learnt nothing" in said


@pytest.mark.parametrize(
    ("aps", "says"),
    [
        ([0.60, 0.61, 0.62], "Use --alpha 0.25 --gamma 2: measurably better"),
        (
            [0.505, 0.515, 0.525],
            "--alpha 0.25 --gamma 2 has the highest mean of the focal settings, but not measurably",
        ),
        ([0.30, 0.31, 0.32], "is the best here: --alpha 0.75 --gamma 2"),
    ],
)
def test_the_suggestion(aps, says):
    first = outcome("focal", [0.50, 0.51, 0.52], options={"loss": "focal", "alpha": 0.75, "gamma": 2.0})
    other = outcome("quarter", aps, options={"loss": "focal", "alpha": 0.25, "gamma": 2.0})
    assert says in found(first, other).suggestion()


def test_the_set_ups():
    """Focal as configured first; the grid without repeating it; the prior off on request."""
    chosen = variants(config(losses=["ce", "focal"], alphas=[0.25, 0.75], gammas=[2], without_prior=["ce"]))
    assert [v.name for v in chosen] == [
        "focal-gamma2-alpha0.75",
        "ce",
        "focal-gamma2-alpha0.25",
        "ce-prior0.5",
    ]
    assert chosen[-1].options == {"loss": "ce", "prior": 0.5}
    assert chosen[-1].label == "cross-entropy, no prior"
    assert len({v.label for v in chosen}) == len(chosen)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"losses": ["focall"]}, "Did you mean 'focal'"),
        ({"losses": []}, "one loss or more"),
        ({"seeds": 0}, "seeds must be above 0"),
        ({"alphas": [2]}, "between 0 and 1"),
    ],
)
def test_bad_options(options, says):
    with pytest.raises(ConfigError, match=says):
        config(**options)


@pytest.fixture
def options(tiny, tmp_path):
    return {
        **{key: value for key, value in tiny.items() if key not in {"train", "val", "output"}},
        "output": tmp_path / "study",
        "epochs": 1,
        "seeds": 2,
        "losses": ("focal", "ce"),
    }


@pytest.mark.slow
def test_a_real_study_stopped_and_resumed(options, squares, monkeypatch):
    """Without --val a fifth of the pictures is kept; the second call trains nothing that is done."""
    trained = []
    real = module.fit

    def counted(config):
        if len(trained) == 3:
            trained.append("stop")
            raise KeyboardInterrupt
        trained.append(config.folder.output.name)
        return real(config)

    monkeypatch.setattr(module, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        study(squares[0], **options)
    result = study(squares[0], **options)
    assert len(trained) == 5, "three, the stop, and the one that was left"
    output = options["output"]
    assert [o.variant.name for o in result.outcomes] == ["focal-gamma2-alpha0.75", "ce"]
    assert all(len(o.runs) == 2 and o.early_loss > 0 for o in result.outcomes)
    numbers = json.loads((output / "study.json").read_text())
    assert len(numbers["set_ups"]) == 2
    assert "10 pictures" in numbers["train"]
    assert "2 pictures" in numbers["val"]
    assert "cross-entropy" in (output / "study.md").read_text()
    page = study_report(result, output / "report.html").read_text()
    assert_self_contained(page)
    assert "34.0" in page, "the paper's number"
    assert (output / "runs" / "ce-seed0" / "best.ckpt").exists()
    assert not (output / "runs" / "ce-seed1" / "best.ckpt").exists(), "weights of the first seed only"
    with pytest.raises(ConfigError, match="epochs was 1, is 2"):
        study(squares[0], **{**options, "epochs": 2})


def test_a_run_that_diverges_is_a_result(options, squares, monkeypatch):
    real = module.fit

    def fails(config):
        if config.loss.loss == "ce":
            raise NonFiniteError("the loss is nan")
        return real(config)

    monkeypatch.setattr(module, "fit", fails)
    result = study(squares[0], val=squares[1], **{**options, "seeds": 1})
    assert [o.diverged for o in result.outcomes] == [0, 1]
    assert result.outcomes[1].mean() == 0
    assert_self_contained(study_report(result, options["output"] / "report.html").read_text())


def test_a_class_that_only_some_losses_learn_is_named(tmp_path):
    def with_classes(name, aps):
        made = outcome(name, [0.5] * len(aps))
        runs = []
        for run, ap in zip(made.runs, aps, strict=True):
            folder = tmp_path / f"{name}{run.seed}"
            folder.mkdir()
            per_class = {"cat": {"AP": 0.6}, "rare": {"AP": ap}, "none": {"AP": -1}}
            (folder / "evaluation.json").write_text(json.dumps({"per_class": per_class}))
            runs.append(replace(run, folder=folder))
        return replace(made, runs=tuple(runs))

    study_found = found(with_classes("focal", [0.3, 0.4]), with_classes("ce", [0.0, 0.2]))
    assert study_found.class_aps() == {"cat": [[0.6, 0.6], [0.6, 0.6]], "rare": [[0.3, 0.4], [0.0, 0.2]]}
    said = " ".join(study_found.sentences())
    assert "rare was not learnt (AP below 0.01) with ce (1 of 2 runs): with focal its AP is 0.350." in said
    assert "cat was not learnt" not in said
