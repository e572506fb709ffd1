"""The loss study: a study that is interrupted and continued, runs that diverge, and invalid options."""

import json
import threading
from types import SimpleNamespace

import pytest

import retinanet.study.runs as module
from retinanet.errors import ConfigError
from retinanet.formats.records import DataError
from retinanet.report.study import study_report
from retinanet.study.runner import COMPARED, study
from retinanet.study.stored_options import store_options
from retinanet.train import NonFiniteError
from retinanet.train.run_lock import locked_run_folder
from tests.report.test_html import assert_self_contained
from tests.study.studies import config


@pytest.fixture
def options(tiny, tmp_path):
    return {
        **{key: value for key, value in tiny.items() if key not in {"train", "val", "output"}},
        "output": tmp_path / "study",
        "epochs": 1,
        "seeds": 2,
        "losses": ("focal", "ce"),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": ["focall"]}, "Did you mean 'focal'"),
        ({"losses": []}, "at least one loss"),
        ({"seeds": 0}, "seeds must be above 0"),
        ({"alphas": [2]}, "between 0 and 1"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        config(**options)


@pytest.mark.slow
def test_an_interrupted_study_is_continued(options, squares, monkeypatch):
    """Without --val a fifth of the images validates. The second call trains only the runs that are missing."""
    trained = []
    real = module.fit

    def interrupted_fit(config):
        if len(trained) == 3:
            trained.append("interrupt")
            raise KeyboardInterrupt
        trained.append(config.folder.output.name)
        return real(config)

    monkeypatch.setattr(module, "fit", interrupted_fit)
    with pytest.raises(KeyboardInterrupt):
        study(squares[0], **options)
    result = study(squares[0], **options)
    assert len(trained) == 5, "three runs, the interrupt, and the missing run"
    output = options["output"]
    assert [o.variant.name for o in result.outcomes] == ["focal-gamma2-alpha0.75", "ce"]
    assert all(len(o.runs) == 2 and o.early_loss > 0 for o in result.outcomes)
    numbers = json.loads((output / "study.json").read_text())
    assert len(numbers["set_ups"]) == 2
    assert "10 images" in numbers["train"]
    assert "2 images" in numbers["val"]
    assert "cross-entropy" in (output / "study.md").read_text()
    page = study_report(result, output / "report.html").read_text()
    assert_self_contained(page)
    assert "34.0" in page, "AP of the paper"
    assert (output / "runs" / "ce-seed0" / "best.ckpt").exists()
    assert not (output / "runs" / "ce-seed1" / "best.ckpt").exists(), "only the first seed keeps its weights"
    with pytest.raises(ConfigError, match="epochs was 1, is 2"):
        study(squares[0], **{**options, "epochs": 2})


def test_a_study_continues_with_options_stored_under_former_names(tmp_path):
    options = config(output=tmp_path)
    store_options(options, what="study", free=COMPARED)
    path = tmp_path / "options.json"
    stored = json.loads(path.read_text())
    stored["skip_bad"] = stored.pop("skip_invalid")
    stored["max_skipped_in_a_row"] = stored.pop("max_skipped_steps")
    path.write_text(json.dumps({**stored, "max_skipped": 20}))
    store_options(options, what="study", free=COMPARED)
    assert json.loads(path.read_text())["skip_invalid"] is False
    path.write_text(json.dumps({**stored, "skip_bad": True}))
    with pytest.raises(ConfigError, match="skip_invalid was True, is False"):
        store_options(options, what="study", free=COMPARED)


def test_a_study_of_a_version_without_an_option_continues_with_its_default(tmp_path):
    """`cache` does not change results, so a study may change it."""
    store_options(config(output=tmp_path), what="study", free=COMPARED)
    path = tmp_path / "options.json"
    stored = json.loads(path.read_text())
    del stored["agnostic_nms"]
    path.write_text(json.dumps(stored))
    store_options(config(output=tmp_path, cache="ram"), what="study", free=COMPARED)
    path.write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"\(agnostic_nms was False, is True\)"):
        store_options(config(output=tmp_path, agnostic_nms=True), what="study", free=COMPARED)


@pytest.mark.parametrize("place", [".", "runs/ce-seed0"])
def test_a_study_is_refused_while_another_process_writes_into_its_folder(tmp_path, place):
    (tmp_path / "runs/focal-seed0").mkdir(parents=True)
    options = config(output=tmp_path, overwrite=True)
    locked, done = threading.Event(), threading.Event()

    def hold():
        with locked_run_folder(tmp_path / place):
            locked.set()
            done.wait(20)

    thread = threading.Thread(target=hold)  # a thread, too, cannot enter a lock that another thread holds
    thread.start()
    assert locked.wait(20)
    with pytest.raises(ConfigError, match=f"{tmp_path / place} is in use: another process trains"):
        study(tmp_path / "no data", options)
    done.set()
    thread.join()
    assert (tmp_path / "runs/focal-seed0").exists()
    with pytest.raises(DataError):
        study(tmp_path / "no data", options)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("keep", "kept"), [(False, [True, False]), pytest.param(True, [True, True], marks=pytest.mark.slow)]
)
def test_keep_checkpoints_keeps_the_best_checkpoint_of_every_seed(options, squares, monkeypatch, keep, kept):
    """By default only the first seed keeps best.ckpt. No run keeps last.ckpt: a finished run is not continued."""

    def write_run(config):
        for name in ("best.ckpt", "last.ckpt"):
            (config.folder.output / name).write_bytes(b"weights")
        (config.folder.output / "evaluation.json").write_text('{"AP": 0.5, "per_class": {}}')
        (config.folder.output / "metrics.csv").write_text("step,loss\n1,2.0\n")
        return SimpleNamespace(seconds=1.0)

    monkeypatch.setattr(module, "fit", write_run)
    study(squares[0], val=squares[1], **{**options, "losses": ("focal",), "keep_checkpoints": keep})
    runs = sorted((options["output"] / "runs").iterdir())
    assert [(run / "best.ckpt").exists() for run in runs] == kept
    assert not any((run / "last.ckpt").exists() for run in runs)


@pytest.mark.slow
def test_a_diverged_run_is_a_result(options, squares, monkeypatch):
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


@pytest.mark.slow
def test_a_study_of_samplers_and_other_options(options, squares):
    """The differences of two real set-ups to the first have an interval over the images; the page shows these."""
    del options["losses"]
    options |= {"samplers": ("balanced",), "set_ups": ("positive_iou=0.45",)}
    result = study(squares[0], val=squares[1], **options)
    names = [o.variant.name for o in result.outcomes]
    first = "focal-gamma2-alpha0.75"
    assert names == [first, f"{first}+sampler-balanced", f"{first}+positive_iou-0.45"]
    assert set(result.image_intervals) == set(names[1:])
    numbers = json.loads((options["output"] / "study.json").read_text())
    assert len(numbers["set_ups"][1]["difference"]["image_interval"]) == 2
    config = (options["output"] / "runs" / f"{names[2]}-seed0" / "config.yaml").read_text()
    assert "positive_iou: 0.45" in config
    assert_self_contained(study_report(result, options["output"] / "report.html").read_text())
