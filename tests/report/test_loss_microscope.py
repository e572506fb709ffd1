"""The loss microscope of the report: its script computes Python's numbers; the part is complete without the script."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retinanet.analysis.loss_microscope import LossMicroscope
from retinanet.analysis.loss_settings import ALPHAS, GAMMAS, Setting, setting_text, train_options
from retinanet.config import LossConfig
from retinanet.report.html import json_text
from retinanet.report.loss_microscope import _command, microscope_data, notes, percent, step_path
from tests.analysis.microscope_inputs import measured, random_batch
from tests.javascript import Scripts

SETTINGS = [Setting(alpha, gamma) for alpha in (None, *ALPHAS) for gamma in GAMMAS]


@pytest.fixture(scope="module")
def microscope() -> LossMicroscope:
    return measured([random_batch(seed, indices=(2 * seed, 2 * seed + 1)) for seed in range(3)])


@pytest.fixture(scope="module")
def positions(microscope: LossMicroscope) -> list[dict]:
    """Return the numbers of the script at every position of the sliders."""
    data = json.loads(json_text(microscope_data(microscope)))
    per_setting = """((data, settings) => settings.map(([a, g]) => ({
        losses: lossTerms.comparedLosses(data, a, g), places: lossTerms.rankedPlaces(data, a, g),
        drawn: lossTerms.drawnGradients(data, a, g), text: lossTerms.settingText(a, g),
        options: lossTerms.trainOptions(a, g)})))"""
    return Scripts(["loss_terms"]).call(per_setting, data, [list(setting) for setting in SETTINGS])


def test_every_position_of_the_sliders_has_the_shares_of_python(
    microscope: LossMicroscope, positions: list[dict]
) -> None:
    assert len(positions) == 20 * 21
    for setting, found in zip(SETTINGS, positions, strict=True):
        rows = microscope.losses(setting)
        assert [row["name"] for row in found["losses"]] == [row.name for row in rows]
        for row, expected in zip(found["losses"], rows, strict=True):
            loss, gradient, _ = expected.sums
            np.testing.assert_allclose(row["loss"], loss / loss.sum(), rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(row["gradient"], gradient / gradient.sum(), rtol=1e-9, atol=1e-12)
            assert row["gradientSum"] == pytest.approx(gradient.sum(), rel=1e-9)
            assert row["examples"] == expected.examples
            assert row["effective"] == pytest.approx(expected.effective, rel=1e-9)


def test_every_position_of_the_sliders_has_the_places_of_python(
    microscope: LossMicroscope, positions: list[dict]
) -> None:
    orders = set()
    for setting, found in zip(SETTINGS, positions, strict=True):
        expected = microscope.ranked(setting)
        assert [index for index, _ in found["places"]] == [index for index, _ in expected]
        np.testing.assert_allclose([v for _, v in found["places"]], [v for _, v in expected], rtol=1e-9)
        orders.add(tuple(index for index, _ in expected))
    assert len(orders) > 50, "the places depend on alpha and gamma"


def test_every_position_of_the_sliders_has_the_drawing_and_the_command_of_python(
    microscope: LossMicroscope, positions: list[dict]
) -> None:
    for setting, found in zip(SETTINGS, positions, strict=True):
        drawn = microscope.densities(setting)
        assert found["drawn"].keys() == drawn.keys()
        for kind, (_, gradient_D) in drawn.items():
            np.testing.assert_allclose(found["drawn"][kind], gradient_D, rtol=1e-9, atol=1e-12)
        assert found["text"] == setting_text(setting)
        assert found["options"] == train_options(setting)


def test_large_logits_are_finite_in_the_script() -> None:
    script = Scripts(["loss_terms"])
    for gamma in (0.0, 0.25, 5.0):
        assert script.call("lossTerms.exampleTerms", 1e4, gamma) == [1e4, 1]
        assert script.call("lossTerms.exampleTerms", -1e4, gamma) == [0, 0]


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0%"), (1.0, "100%"), (0.1234, "12%"), (0.0994, "9.9%"), (0.00123, "0.1%")]
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text
    assert Scripts(["loss_terms"]).call("lossTerms.percentText", share) == text


def test_the_path_of_a_histogram() -> None:
    assert step_path(np.array([0.0, 1.0, 0.255])) == "M0 100V100.0h1 V0.0h1 V74.5h1V100"


def test_the_command_trains_with_the_configuration_of_the_run() -> None:
    command = _command(Path("runs/my run"), Setting(0.6, 1.5))
    assert command == (
        "retinanet train --config 'runs/my run/config.yaml' -o 'runs/my run-focal-0.60-1.5' "
        "--loss focal --alpha 0.60 --gamma 1.5"
    )
    assert _command(None, Setting(None, 0.0)) == "retinanet train --train TRAIN --val VAL -o runs/ce --loss ce"


def test_notes_name_what_the_microscope_cannot_show() -> None:
    assert "IoU" in notes(measured([], LossConfig(loss="quality_focal")))[0]
    assert "class_alpha" in notes(measured([], LossConfig(class_alpha=(0.5, 0.6, 0.7))))[0]
    assert notes(measured([], LossConfig())) == []
