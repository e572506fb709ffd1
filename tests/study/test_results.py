"""Sentences of a study: differences, diverged runs, the suggested alpha and gamma."""

import pytest

from retinanet.study.results import differs
from tests.study.studies import outcome, study_of


def test_overlapping_intervals_are_no_difference():
    focal, similar = outcome("focal", [0.50, 0.51, 0.52]), outcome("ce", [0.51, 0.52, 0.53])
    worse = outcome("ohem", [0.10, 0.11, 0.12])
    assert not differs(focal, similar)
    assert differs(focal, worse)
    text = " ".join(study_of(focal, similar, worse).sentences())
    assert "No measurable difference, because the intervals overlap, between focal (0.510) and: ce (0.520)" in text
    assert "ohem is worse than focal by 0.400 AP" in text
    assert "Highest AP: ce" in text


def test_a_single_seed_supports_no_difference():
    text = " ".join(study_of(outcome("focal", [0.5]), outcome("ce", [0.1])).sentences())
    assert "single seed" in text
    assert "No measurable difference" in text


def test_diverged_runs_and_runs_that_learn_nothing_are_reported():
    text = " ".join(study_of(outcome("focal", [0.5, 0.5]), outcome("ce", [0, 0], diverged=2)).sentences())
    assert "ce: 2 of 2 runs diverged" in text
    text = " ".join(study_of(outcome("focal", [0.5, 0.5]), outcome("ce", [0.001, 0.002])).sentences())
    assert "ce learnt nothing" in text


@pytest.mark.parametrize(
    ("aps", "sentence"),
    [
        ([0.60, 0.61, 0.62], "Use --alpha 0.25 --gamma 2: measurably better"),
        (
            [0.505, 0.515, 0.525],
            "--alpha 0.25 --gamma 2 has the highest mean AP of the focal settings, but is not measurably better",
        ),
        ([0.30, 0.31, 0.32], "are the best of those tried: --alpha 0.75 --gamma 2"),
    ],
)
def test_the_suggested_alpha_and_gamma(aps, sentence):
    first = outcome("focal", [0.50, 0.51, 0.52], options={"loss": "focal", "alpha": 0.75, "gamma": 2.0})
    other = outcome("quarter", aps, options={"loss": "focal", "alpha": 0.25, "gamma": 2.0})
    assert sentence in study_of(first, other).suggestion()


def test_json_has_the_former_option_names():
    options = study_of(outcome("focal", [0.5])).to_json()["options"]
    assert options["skip_invalid"] == options["skip_bad"] is False
    assert options["max_skipped_steps"] == options["max_skipped_in_a_row"] == 3
    assert "pictures" not in options, "no study option had this name"
