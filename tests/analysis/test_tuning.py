"""`retinanet tune`: calibrated scores and tuned thresholds in a checkpoint, and their use by a detector."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from retinanet.analysis import tuning
from retinanet.analysis.calibration import ClassCalibration, calibrated, score_logits
from retinanet.analysis.score_thresholds import UnsupportedAimError
from retinanet.analysis.tuning import tune
from retinanet.checkpoint.loaded_model import KEY, CheckpointError
from retinanet.checkpoint.loading import load_checkpoint
from retinanet.checkpoint.saving import save_model
from retinanet.checkpoint.tuned_thresholds import TunedThresholds
from retinanet.errors import ConfigError, UserError
from retinanet.predict.loading import load

TUNED = TunedThresholds(
    thresholds=(0.02, 0.05), aim="f1", per_class=False, confidence=0.95, images=6, sentence="A promise."
)


def fixed_calibration(*_: Any) -> ClassCalibration:
    return ClassCalibration(factor=1.5, shift=0.5, log_loss={"none": 0.5, "platt": 0.4, "isotonic": 0.41})


def test_calibrated_scores_lie_in_the_checkpoint(
    trained_run: Path, squares: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logit of every detection becomes 1.5 z + 0.5, the boxes stay, and the score threshold follows."""
    monkeypatch.setattr(tuning, "calibrate_class", fixed_calibration)
    found = tune(trained_run / "best.ckpt", squares[1], output=tmp_path / "t.ckpt", batch_size=2, workers=0)
    before, after = load(trained_run / "best.ckpt", "cpu"), load(tmp_path / "t.ckpt", "cpu")
    assert after.postprocess_config.score_threshold == pytest.approx(calibrated(0.001, fixed_calibration()))
    image = sorted((squares[1].parent / "images").glob("*.png"))[0]
    first, second = before.predict(image), after.predict(image)
    assert len(first) == len(second) > 10
    z = 1.5 * score_logits(first.confidence) + 0.5
    order = np.lexsort((first.xyxy[:, 0], first.class_id, -expit(z).round(4)))
    other = np.lexsort((second.xyxy[:, 0], second.class_id, -second.confidence.astype(float).round(4)))
    np.testing.assert_allclose(second.confidence[other], expit(z)[order], atol=2e-4)
    np.testing.assert_allclose(second.xyxy[other], first.xyxy[order], atol=1e-2)
    assert pytest.approx(found.metrics[1].AP, abs=0.01) == found.metrics[0].AP
    assert found.to_json()["per_class"]["square"]["factor"] == 1.5
    assert "Calibration changes the scores of 2 of 2 classes" in " ".join(found.sentences())


def test_tuned_thresholds_select_detections(trained_run: Path, squares: tuple[Path, Path], tmp_path: Path) -> None:
    save_model(dataclasses.replace(load_checkpoint(trained_run / "best.ckpt"), tuned=TUNED), tmp_path / "t.ckpt")
    detector = load(tmp_path / "t.ckpt", "cpu")
    assert detector.info.tuned == TUNED
    images = sorted((squares[1].parent / "images").glob("*.png"))
    for image, chosen in zip(images, detector.predict(images, threshold="tuned"), strict=True):
        every = detector.predict(image, threshold=0.001)
        kept = every[every.confidence > np.array(TUNED.thresholds, np.float32)[every.class_id]]
        np.testing.assert_array_equal(chosen.xyxy, kept.xyxy)
        np.testing.assert_array_equal(chosen.confidence, kept.confidence)


def test_the_chosen_thresholds_give_the_reported_numbers(
    trained_run: Path, squares: tuple[Path, Path], tmp_path: Path
) -> None:
    found = tune(str(trained_run / "best.ckpt"), str(squares[0]), output=tmp_path / "t.ckpt", aim="cost=5:1", workers=0)
    assert load_checkpoint(tmp_path / "t.ckpt").tuned == found.tuned
    assert found.tuned.aim == "cost=5:1"
    assert len(set(found.tuned.thresholds)) == 1
    assert 0 <= found.overall.recall <= 1
    assert found.tuned.sentence.startswith("The thresholds give the lowest cost")
    assert "the model was trained on these images" in found.sentences()[-1]


def test_a_model_without_tuned_thresholds_refuses_the_word(trained_run: Path, squares: tuple[Path, Path]) -> None:
    detector = load(trained_run / "best.ckpt", "cpu")
    image = next((squares[1].parent / "images").glob("*.png"))
    with pytest.raises(ConfigError, match="expected a model with tuned thresholds, found none"):
        detector.predict(image, threshold="tuned")


@pytest.mark.parametrize("per_class", [False, True])
def test_an_aim_that_the_data_cannot_support_writes_nothing(
    trained_run: Path, squares: tuple[Path, Path], tmp_path: Path, per_class: bool
) -> None:
    options: dict[str, Any] = {"output": tmp_path / "t.ckpt", "aim": "recall=0.99", "workers": 0}
    with pytest.raises(UnsupportedAimError, match="for 2 of 2 classes\n  square: " if per_class else "recall 0.99"):
        tune(trained_run / "best.ckpt", squares[1], per_class=per_class, **options)
    assert not list(tmp_path.iterdir())


def test_an_existing_output_is_kept(trained_run: Path, squares: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "t.ckpt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        tune(trained_run / "best.ckpt", squares[1], output=tmp_path / "t.ckpt")
    assert (tmp_path / "t.ckpt").read_text() == "mine"


def test_damaged_tuned_thresholds_are_refused(trained_run: Path, tmp_path: Path) -> None:
    save_model(dataclasses.replace(load_checkpoint(trained_run / "best.ckpt"), tuned=TUNED), tmp_path / "t.ckpt")
    content = torch.load(tmp_path / "t.ckpt", weights_only=True)
    for wrong in (
        {"thresholds": [0.5]},
        {**TUNED.to_dict(), "thresholds": [0.5]},
        "text",
        {**TUNED.to_dict(), "thresholds": [0.5, 2]},
    ):
        content[KEY]["tuned"] = wrong
        torch.save(content, tmp_path / "t.ckpt")
        with pytest.raises(CheckpointError, match="tuned thresholds are not valid"):
            load_checkpoint(tmp_path / "t.ckpt")
