"""The miss map: funnels add up and equal the causes of the errors, and every derived value holds in a new run."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from retinanet.analysis.causes import CAUSES, NO_DETECTION
from retinanet.analysis.error_causes import ErrorCauses, needed_limit
from retinanet.analysis.miss_map import STAGES, MissMap, miss_map
from retinanet.analysis.miss_remedies import ModelFiles, model_files, regaining_threshold
from retinanet.analysis.model_outputs import input_objects
from retinanet.analysis.nms_trials import NMS_THRESHOLDS, NmsTrials
from retinanet.analysis.result_errors import errors_from_results
from retinanet.config import DataConfig, PostprocessConfig
from retinanet.evaluate.per_image import ImageResults, match_detections
from retinanet.images import Frame
from tests.analysis.planted_errors import K, Planted, dataset, plant
from tests.analysis.test_error_causes import found_in, random_image
from tests.analysis.test_next_steps import commands

MISSES = CAUSES[:10]
FILES = ModelFiles(model=Path("runs/a b/best.ckpt"), data=Path("val.json"))


def items_of(planted: Sequence[Planted]) -> list[ImageResults]:
    """Return each image with all detections that post-processing keeps."""
    items = []
    for number, one in enumerate(planted):
        record, found = one.record(number), one.errors(number).trace.detections()
        items.append(
            ImageResults(
                name=record.path.name,
                image=record.path,
                boxes_G4=record.boxes_G4,
                labels_G=record.labels_G,
                detected_D4=found.boxes_D4,
                detected_labels_D=found.labels_D,
                scores_D=found.scores_D,
            )
        )
    return items


def with_trials(planted: Sequence[Planted], found: ErrorCauses) -> ErrorCauses:
    trials, limits = NmsTrials(K, found.threshold), {}
    for number, one in enumerate(planted):
        image = one.errors(number)
        trials.add(image.record, image.trace)
        for miss in image.missed():
            if (limit := needed_limit(image, miss)) is not None:
                limits[number, miss.object] = limit
    return dataclasses.replace(found, nms_trials=trials.results(), limits=limits)


def map_of(planted: list[Planted], files: ModelFiles = FILES) -> MissMap:
    return miss_map(with_trials(planted, found_in(planted)), items_of(planted), files)


def matches(items: Sequence[ImageResults], threshold: float) -> tuple[int, int]:
    """Return the numbers of found objects and of unmatched detections."""
    found = [match_detections(item, threshold) for item in items]
    return sum(m.found for m in found), sum(m.false + m.unlabelled for m in found)


def test_every_cause_of_a_miss_has_one_stage() -> None:
    staged = [cause for causes in STAGES.values() for cause in causes]
    assert sorted(staged) == sorted((*MISSES, NO_DETECTION))


def test_funnels_add_up_and_equal_the_causes() -> None:
    """One planted miss of each cause, and 40 random images: nothing is lost twice, and nothing is left out."""
    planted = [plant(cause, np.random.default_rng(seed))[0] for seed in range(3) for cause in MISSES]
    planted += [random_image(np.random.default_rng(seed)).changed(threshold=0.5) for seed in range(40)]
    found = with_trials(planted, found_in(planted))
    made = miss_map(found, items_of(planted), FILES)
    labels = Counter(label for one in planted for label in one.labels_G.tolist())
    assert {one.name: one.objects for one in made.classes} == {"abc"[k]: n for k, n in labels.items()}
    hits = Counter[int]()
    for number, one in enumerate(planted):
        image = one.errors(number)
        hits.update(image.record.labels_G[image.match.matched_G].tolist())
    assert {one.name: one.found for one in made.classes} == {"abc"[k]: n for k, n in hits.items()}
    by_cause = Counter[str]()
    for one in made.classes:
        assert one.objects == one.found + sum(len(loss.missed) for loss in one.losses)
        by_cause.update({loss.cause: len(loss.missed) for loss in one.losses})
        assert [loss.stage for loss in one.losses] == sorted((loss.stage for loss in one.losses), key=[*STAGES].index)
        left = [one.objects, *(number for _, number, _ in one.stages())]
        assert left == sorted(left, reverse=True)
        assert left[-1] == one.found
    assert by_cause == {cause: missed for cause, (missed, _) in found.counts().items() if missed}
    shares = [one.found / one.objects for one in made.classes]
    assert shares == sorted(shares), "the class with the smallest share of found objects comes first"
    assert sum(one.unlabelled for one in made.classes) == found.unlabelled


def test_a_funnel_by_hand() -> None:
    """Four objects of class a: found; score 0.4 below the threshold; detected as b; without a detection."""
    boxes = [(100.0 * n, 0, 100 * n + 60, 60) for n in range(4)]
    planted = Planted(boxes_G4=np.array(boxes), labels_G=np.zeros(4, int), rows=[])
    rows = [(*boxes[0], 0, 0.9), (*boxes[1], 0, 0.4), (*boxes[2], 1, 0.8), (0, 300, 50, 350, 0, 0.45)]
    values = np.array(rows)
    record = planted.record(1)
    item = ImageResults(
        name="1.png",
        image=record.path,
        boxes_G4=record.boxes_G4,
        labels_G=record.labels_G,
        detected_D4=values[:, :4],
        detected_labels_D=values[:, 4].astype(int),
        scores_D=values[:, 5],
    )
    made = miss_map(errors_from_results(dataset([planted]), [item], threshold=0.5), [item], FILES)
    (funnel,) = made.classes
    assert funnel.text() == "a, 4 objects: 1 found, 1 no detection, 1 below the threshold, 1 taken by b."
    assert [(stage, left) for stage, left, _ in funnel.stages()] == [
        ("detected at any score", 3),
        ("above the threshold", 2),
        ("of the right class", 1),
    ]
    assert [loss.taken_by for loss in funnel.losses] == [{}, {}, {"b": 1}]
    assert funnel.losses[1].remedy.outlook == (
        "With a threshold of 0.4 instead of 0.5, 1 more object is found, 1 of them a, and 1 more detection is false or "
        "unlabelled."
    )
    assert not made.with_network
    document = json.loads(json.dumps(made.to_json()))
    assert document["classes"][0]["losses"][2]["taken_by"] == {"b": 1}


@pytest.mark.parametrize(
    ("scores", "threshold"), [([0.4], 0.4), ([0.1, 0.2, 0.3], 0.2), ([0.1, 0.2, 0.3, 0.4], 0.3), ([0.12349], 0.123)]
)
def test_the_threshold_that_regains_half(scores: list[float], threshold: float) -> None:
    assert regaining_threshold(scores) == threshold


def test_what_a_lower_threshold_brings_equals_a_new_matching() -> None:
    planted = [random_image(np.random.default_rng(seed)).changed(threshold=0.5) for seed in range(60)]
    items, made = items_of(planted), map_of(planted)
    (before, false_before), checked = matches(items, 0.5), 0
    for funnel in made.classes:
        for loss in funnel.losses:
            if loss.cause != "below the threshold":
                continue
            scores = [miss.best.score for miss in loss.missed if miss.best is not None]
            threshold = regaining_threshold(scores)
            assert sum(score >= threshold for score in scores) >= len(scores) / 2
            after, false_after = matches(items, threshold)
            assert loss.remedy.outlook.startswith(
                f"With a threshold of {threshold:g} instead of 0.5, {after - before:,} more objects are found"
            )
            assert f"and {false_after - false_before:,} more detections are false" in loss.remedy.outlook
            checked += 1
    assert checked == K


def test_nms_trials_equal_post_processing_with_this_option() -> None:
    planted = [random_image(np.random.default_rng(seed)).changed(threshold=0.3) for seed in range(30)]
    trials = NmsTrials(K, 0.3)
    for one in planted:
        image = one.errors()
        trials.add(image.record, image.trace)
    results = trials.results()
    assert [trial.nms_threshold for trial in results] == list(NMS_THRESHOLDS)
    for trial in results:
        config = PostprocessConfig(nms_threshold=trial.nms_threshold)
        matched = [one.changed(config=config).errors().match for one in planted]
        assert trial.found_K.sum() == sum(m.found for m in matched)
        assert trial.false_K.sum() == sum(m.false + m.unlabelled for m in matched)


def test_a_suppressed_object_names_its_rival_and_the_option_that_keeps_it() -> None:
    planted = [plant("suppressed", np.random.default_rng(seed))[0] for seed in range(4)]
    made = map_of(planted)
    losses = [(funnel, loss) for funnel in made.classes for loss in funnel.losses]
    assert {loss.cause for _, loss in losses} == {"suppressed"}
    for funnel, loss in losses:
        assert loss.taken_by == {funnel.name: len(loss.missed)}, "a neighbour of the same class, IoU 0.6"
        assert loss.remedy.outlook.startswith(
            f"With nms_threshold 0.65 instead of 0.5, 4 more objects are found, {len(loss.missed)} of them "
            f"{funnel.name}, and 0 more detections are false"
        )


@pytest.mark.parametrize("cause", ["not a candidate", "beyond max_detections"])
def test_the_lowest_limit_that_keeps_a_box(cause: str) -> None:
    option = "candidates_per_level" if cause == "not a candidate" else "max_detections"
    planted, _ = plant(cause, np.random.default_rng(1))
    made = map_of([planted])
    (loss,) = (loss for funnel in made.classes for loss in funnel.losses)
    (limit,) = (int(word.strip(",")) for word in loss.remedy.outlook.split() if word.strip(",").isdigit())
    kept, dropped = (
        planted.changed(config=PostprocessConfig(**{option: value})).errors() for value in (limit, limit - 1)
    )
    assert kept.detection_of(0) is not None
    assert dropped.detection_of(0) is None


def test_results_give_the_causes_that_detections_show() -> None:
    for seed in range(20):
        planted = random_image(np.random.default_rng(seed)).changed(threshold=0.4)
        network = planted.errors()
        results = errors_from_results(dataset([planted]), items_of([planted]), threshold=0.4)
        assert [(f.detection, f.cause) for f in results.false] == [(f.detection, f.cause) for f in network.false()]
        assert [m.object for m in results.missed] == [m.object for m in network.missed()]
    shown = {"below the threshold", "wrong class", "badly localised"}
    for cause in MISSES:
        planted, _ = plant(cause, np.random.default_rng(3))
        (miss,) = errors_from_results(dataset([planted]), items_of([planted]), threshold=planted.threshold).missed
        assert miss.cause == (cause if cause in shown else NO_DETECTION)


def test_commands_have_the_real_paths_and_are_valid(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "config.yaml").write_text("train: t.json\nval: v.json\noutput: elsewhere\nanchors: given\n")
    files = model_files(folder / "best.ckpt", Path("my data.json"), DataConfig())
    words: dict[str, list[list[str]]] = {}
    for cause in MISSES:
        planted, _ = plant(cause, np.random.default_rng(2))
        made = map_of([planted], files)
        (loss,) = (loss for funnel in made.classes for loss in funnel.losses)
        words[cause] = commands(list(loss.remedy.steps))
        assert words[cause], cause
    model = str(folder / "best.ckpt")
    assert words["below the threshold"][0][:3] == ["predict", model, "."]
    assert words["below the threshold"][1][:3] == ["tune", model, "my data.json"]
    assert words["wrong class"][0][:4] == ["check", model, "my data.json", "--hard"]
    config = str(folder / "config.yaml")
    assert words["suppressed"][0][:5] == ["predict", model, ".", "--nms-threshold", "0.65"]
    assert words["no anchor"][0][:5] == ["train", "--config", config, "--anchors", "auto"]
    assert words["anchors taken"][0][3:6] == ["--assigner", "atss", "--low-quality-matches"]
    assert words["low scores"][0][:2] == ["prescribe", "t.json"]
    assert commands(list(made.label_remedy.steps))[0][:4] == ["check", model, "my data.json", "--hard"]


@pytest.mark.parametrize("model", ["results.json", "model.onnx"])
def test_without_a_checkpoint_no_command_needs_one(model: str) -> None:
    planted = [plant(cause, np.random.default_rng(2))[0] for cause in ("below the threshold", "low scores")]
    items = items_of(planted)
    errors = errors_from_results(dataset(planted), items, threshold=0.5)
    made = miss_map(errors, items, ModelFiles(model=Path(model), data=Path("v.json")))
    names = [words[0] for one in made.classes for loss in one.losses for words in commands(list(loss.remedy.steps))]
    assert names == (["predict"] if model == "model.onnx" else [])


def test_objects_thinner_than_a_pixel_do_not_shift_the_others() -> None:
    """Halved, the second object is 0.75 pixels wide and no target; the third one is the second target."""
    boxes = np.array([[0, 0, 40, 40], [50, 50, 51.5, 90], [100, 100, 140, 140]])
    planted = Planted(boxes_G4=boxes, labels_G=np.zeros(3, int), rows=[])
    boxes_G4, index_T = input_objects(planted.record(), Frame(600, 600, 300, 300))
    assert boxes_G4.tolist() == (boxes / 2).tolist()
    assert index_T.tolist() == [0, 2]
