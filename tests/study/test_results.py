"""Sentences of a study: differences, diverged runs, the suggested alpha and gamma."""

from dataclasses import replace

import pytest

from tests.study.studies import outcome, study_of


def test_differences_are_paired_by_seed():
    """The intervals of focal and ce overlap, but the seeds gain 2, 3 and 4 points: mean 3, standard deviation s 1, half
    width 4.303 s / sqrt(3) = 2.5. ohem differs by 1, -1 and 3 points: mean 1, s 2, half width 5.0, detectable
    (4.303 + 1.061) s / sqrt(3) = 6.2. The quantile 1.061 of t(2) belongs to a power of 80 %."""
    focal = outcome("focal", [0.50, 0.52, 0.54])
    study = study_of(focal, outcome("ce", [0.52, 0.55, 0.58]), outcome("ohem", [0.51, 0.51, 0.57]))
    text = " ".join(study.sentences())
    assert "ce is better than focal by 3.0 AP points (95 % interval 0.5 to 5.5, paired over 3 seeds)." in text
    assert (
        "No difference between ohem and focal was found: +1.0 AP points (95 % interval -4.0 to 6.0, paired over 3 "
        "seeds). These runs could have shown a difference of 6.2 AP points or more."
    ) in text
    assert "Highest AP: ce" in text
    rows = [row[5:10] for row in study.rows()]
    assert rows == [
        ["–"] * 5,
        ["+3.0", "0.5 to 5.5", "–", "better", "3.1"],
        ["+1.0", "-4.0 to 6.0", "–", "not supported", "6.2"],
    ]
    assert study.to_json()["set_ups"][0]["difference"] is None
    assert study.to_json()["set_ups"][1]["difference"]["supported"] is True


def test_validation_images_that_could_reverse_a_difference_are_reported():
    study = study_of(outcome("focal", [0.50, 0.52, 0.54]), outcome("ce", [0.40, 0.43, 0.44]))
    assert "resampled images" not in " ".join(study.sentences())
    study = replace(study, image_intervals={"ce": (-0.2, 0.01)})
    text = " ".join(study.sentences())
    assert "ce is worse than focal by 9.7 AP points" in text
    assert "Other validation images could reverse this difference: resampled images give -20.0 to 1.0." in text
    assert study.rows()[1][7] == "-20.0 to 1.0"


def test_a_difference_of_the_rare_classes():
    """Classes a to f by number of training objects: a and b are the rare third, e and f the common third. The rare
    classes gain 9, 10 and 11 points: mean 10, half width 4.303 / sqrt(3) = 2.5. The common classes gain nothing."""
    classes = {"f": 600, "e": 500, "d": 400, "c": 300, "b": 20, "a": 10}
    focal = outcome("focal", [0.5] * 3, classes=dict.fromkeys(classes, [0.5] * 3) | {"none": [-1] * 3})
    gains = {"a": [0.69, 0.70, 0.71], "b": [0.49, 0.50, 0.51]}
    balanced = outcome("balanced", [0.5] * 3, classes=dict.fromkeys(classes, [0.5] * 3) | gains | {"none": [-1] * 3})
    study = replace(study_of(focal, balanced), train_objects={**classes, "none": 0})
    assert study.class_groups() == {"rare": ["a", "b"], "common": ["e", "f"]}
    text = " ".join(study.sentences())
    assert "No difference between balanced and focal was found" in text
    assert "On the rare classes (a, b), balanced is better than focal by 10.0 AP points (95 % interval 7.5 to" in text
    assert "common classes" not in text
    titles, rows = study.class_table()
    assert titles == ["Class", "Training objects", "AP of the first set-up", "balanced"]
    assert rows[0] == ["a", "10", "0.500", "+20.0 (17.5 to 22.5)"]
    assert [row[0] for row in rows] == [
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
        "mean of the rare third",
        "mean of the common third",
    ]
    numbers = study.to_json()["set_ups"][1]["difference"]
    assert numbers["per_class"]["a"]["interval"] == pytest.approx([0.1752, 0.2248], abs=1e-4)
    assert numbers["groups"]["rare"]["mean"] == pytest.approx(0.1)
    assert "| a | 10 | 0.500 | +20.0 (17.5 to 22.5) |" in study.markdown()


def test_a_single_seed_supports_no_difference():
    text = " ".join(study_of(outcome("focal", [0.5]), outcome("ce", [0.1])).sentences())
    assert "single seed" in text
    assert study_of(outcome("focal", [0.5]), outcome("ce", [0.1])).rows()[1][8] == "one seed"


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
            [0.505, 0.505, 0.535],
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


def test_a_class_that_only_some_losses_learn_is_reported():
    def with_classes(name, aps):
        return outcome(name, [0.5, 0.5], classes={"cat": [0.6, 0.6], "rare": aps, "none": [-1, -1]})

    result = study_of(with_classes("focal", [0.3, 0.4]), with_classes("ce", [0.0, 0.2]))
    assert result.class_aps() == {"cat": [[0.6, 0.6], [0.6, 0.6]], "rare": [[0.3, 0.4], [0.0, 0.2]]}
    text = " ".join(result.sentences())
    assert "rare was not learnt (AP below 0.01) with ce (1 of 2 runs): with focal its AP is 0.350." in text
    assert "cat was not learnt" not in text


def test_a_study_of_other_options_suggests_no_alpha():
    """A sampler has the loss, alpha and gamma of the first set-up, and is no focal setting of its own."""
    focal = {"loss": "focal", "alpha": 0.75, "gamma": 2.0}
    first = outcome("focal", [0.50, 0.51, 0.52], options=focal)
    sampler = outcome("sampler balanced", [0.60, 0.61, 0.62], options={**focal, "sampler": "balanced"})
    text = " ".join(study_of(first, sampler).sentences())
    assert "sampler balanced is better than focal by 10.0 AP points" in text
    assert "alpha" not in text
    quarter = outcome("quarter", [0.55, 0.56, 0.57], options={**focal, "alpha": 0.25})
    assert "Use --alpha 0.25 --gamma 2" in " ".join(study_of(first, sampler, quarter).sentences())
