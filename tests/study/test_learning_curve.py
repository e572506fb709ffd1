"""The learning curve: nested subsets, equal budgets, sentences, and a page."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import retinanet.study.runs as module
from retinanet.data import load
from retinanet.errors import ConfigError
from retinanet.report.study import study_report
from retinanet.study.learning_curve import LearningCurve, nested_order
from retinanet.study.runner import study
from tests.analysis.datasets import dataset_from_boxes
from tests.report.test_html import assert_self_contained
from tests.study.studies import config, outcome

IMAGES = (40, 100, 200, 400)


def curve(aps, classes=None, objects=None):
    outcomes = tuple(
        outcome("focal", values, classes={name: of_class[place] for name, of_class in (classes or {}).items()})
        for place, values in enumerate(aps)
    )
    return LearningCurve(
        config=config(),
        set_up=outcomes[0].variant,
        images=IMAGES,
        outcomes=outcomes,
        train_objects=objects or {},
        val="20 images",
    )


RISING = [[0.168, 0.168], [0.4, 0.4], [0.517, 0.517], [0.6, 0.6]]
"""AP = 0.8 - 0.2 x^-0.5 with x = 0.1, 0.25, 0.5, 1; twice as many images: 0.659."""
LEVEL = [[0.5, 0.5]] * 4


def test_the_sentences_by_hand(tmp_path):
    found = curve(
        RISING, {"cat": LEVEL, "dog": RISING, "cow": RISING, "none": [[-1, -1]] * 4}, {"dog": 90, "cat": 900, "cow": 5}
    )
    sentences = found.sentences()
    assert sentences[0].startswith("Twice as many images (400 more) would raise AP by about 5.9 points (95 % interv")
    assert sentences[1].startswith("dog: twice as many images would raise its AP by about 5.9 points")
    assert sentences[2:] == ["Too few objects for an extrapolation (below 20): cow."]
    titles, rows = found.class_table()
    assert titles[2] == "AP, 40 images"
    assert [row[0] for row in rows] == ["cow", "dog", "cat"]
    assert rows[0][-1] == "too few objects"
    assert rows[1][2:6] == ["0.168", "0.400", "0.517", "0.600"]
    assert found.to_json()["per_class"]["cat"]["verdict"] == "flat"
    assert_self_contained(study_report(found, tmp_path / "report.html").read_text())


def test_a_flat_curve_and_an_undetermined_curve(tmp_path):
    assert curve(LEVEL).sentences()[0].startswith("The curve is flat: more images of this kind will hardly help.")
    noise = curve([[0.2, 0.5], [0.5, 0.2], [0.3, 0.6], [0.65, 0.3]]).sentences()[0]
    assert noise.startswith("The runs do not determine the curve: twice as many images (400 more) would raise AP by")
    single = curve([[0.1], [0.2], [0.3], [0.4]])
    assert single.sentences()[0].startswith("The runs do not determine the curve. An extrapolation needs 3 fractions")
    assert_self_contained(study_report(single, tmp_path / "report.html").read_text())


def test_the_first_images_have_every_class():
    """20 images with class 0, of which 2 also have class 1, and 1 image with class 2."""
    box = (10, 10, 50, 50)
    images = [[(0, *box)] + ([(1, *box)] if number in {7, 12} else []) for number in range(20)] + [[(2, *box)]]
    data = dataset_from_boxes(images, classes=("a", "b", "c"))
    for seed in range(5):
        order = nested_order(data, seed)
        assert sorted(order) == list(range(21))
        assert order[0] == 20, "the rarest class comes first"
        assert order[1] in {7, 12}, "the second image has the classes a and b"
    assert nested_order(data, 0) != nested_order(data, 1)


@pytest.mark.slow
def test_subsets_are_nested_and_budgets_are_equal(squares, tmp_path, monkeypatch, tiny):
    """10 training images: half of the images are trained for twice as many epochs."""
    trained = []

    def write_run(config):
        names = {record.path.name for record in load(config.train).records}
        trained.append((len(names), config.random.seed, config.schedule.epochs, names))
        folder = config.folder.output
        (folder / "evaluation.json").write_text(json.dumps({"AP": 0.5, "AP50": 0.6, "per_class": {}}))
        (folder / "metrics.csv").write_text("step,loss\n1,2.0\n")
        return SimpleNamespace(seconds=1.0)

    monkeypatch.setattr(module, "fit", write_run)
    options = {key: value for key, value in tiny.items() if key not in {"train", "val", "output", "epochs"}}
    options |= {"output": tmp_path / "curve", "epochs": 3, "seeds": 2, "fractions": (1, 0.5)}
    found = study(squares[0], val=squares[1], **options)
    total = len(load(squares[0]).records)
    assert found.images == (total // 2, total)
    assert [(size, seed, epochs) for size, seed, epochs, _ in trained] == [
        (total // 2, seed, 6) if half else (total, seed, 3) for seed in (0, 1) for half in (True, False)
    ]
    assert all(trained[i][3] < trained[i + 1][3] for i in (0, 2))
    assert trained[0][3] != trained[2][3], "each seed has its own subset"
    numbers = json.loads((tmp_path / "curve" / "study.json").read_text())
    assert [point["images"] for point in numbers["points"]] == list(found.images)
    assert np.mean([run["seconds"] for point in numbers["points"] for run in point["runs"]]) == 1
    study(squares[0], val=squares[1], **options)
    assert len(trained) == 4, "finished runs are not repeated"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0.5, 1), "losses": ("focal", "ce")}, "expected one set-up with cross_validate or fractions"),
        ({"fractions": (0.5, 1), "samplers": ("balanced",)}, "found 2: focal, gamma 2, alpha 0.75, sampler balanced"),
        ({"fractions": (0, 1)}, "fractions"),
        ({"fractions": (0.5,), "cross_validate": 3}, "cross_validate and fractions exclude each other"),
        ({"val": "v.json", "cross_validate": 3}, "cross_validate and val exclude each other"),
        ({"cross_validate": 1}, "cross_validate must be 2 or more"),
    ],
)
def test_options_that_contradict_each_other(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        study(tmp_path / "no data", output=tmp_path / "out", **options)
    assert not (tmp_path / "out" / "options.json").exists()
