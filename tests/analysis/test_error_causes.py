"""Every error has one cause: planted causes are found, the causes add up, and AP regained is that of the real mend."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retinanet.analysis.causes import CAUSES
from retinanet.analysis.error_causes import ErrorCauses, error_causes
from retinanet.analysis.model_outputs import load_for_analysis
from retinanet.data import load
from retinanet.evaluate import evaluate_model, evaluate_results
from retinanet.evaluate.coco import coco_eval
from retinanet.evaluate.per_image import items_from_results, match_detections
from retinanet.predict.torch_detector import Detector
from tests.analysis.planted_errors import K, Planted, dataset, plant

MISSES = CAUSES[:10]


def found_in(planted: list[Planted]) -> ErrorCauses:
    images = [p.errors(number) for number, p in enumerate(planted)]
    return ErrorCauses(
        data=dataset(planted),
        threshold=planted[0].threshold,
        detections=tuple(image.shown for image in images),
        missed=tuple(miss for image in images for miss in image.missed()),
        false=tuple(false for image in images for false in image.false()),
    )


def results_of(planted: list[Planted]) -> list[dict[str, object]]:
    """Return what post-processing really detects, as COCO results."""
    data, rows = dataset(planted), []
    for p, record in zip(planted, data.records, strict=True):
        shown = p.errors().shown
        for box, label, score in zip(shown.boxes_D4, shown.labels_D, shown.scores_D, strict=True):
            x1, y1, x2, y2 = box.tolist()
            rows.append(
                {
                    "image_id": record.image_id,
                    "category_id": data.category_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(score),
                }
            )
    return rows


def ap_of(planted: list[Planted]) -> float:
    return float(evaluate_results(dataset(planted).to_coco(), results_of(planted)).AP)


@pytest.mark.parametrize("cause", CAUSES)
def test_planted_causes_are_found(cause: str) -> None:
    """60 images each. Every planted miss and every planted false detection has its cause."""
    for seed in range(60):
        planted, _ = plant(cause, np.random.default_rng(seed))
        errors = planted.errors()
        if cause in MISSES:
            assert [m.cause for m in errors.missed()] == [cause], seed
            assert next(errors.missed()).object == 0
        else:
            assert list(errors.missed()) == []
            assert [f.cause for f in errors.false()] == [cause], seed


@pytest.mark.parametrize("cause", CAUSES)
def test_ap_regained_is_that_of_the_real_mend(cause: str) -> None:
    """Twelve images: half of them with the cause, the others with errors of other causes that have the same options."""
    rng = np.random.default_rng(7)
    pairs = [plant(cause, rng) for _ in range(6)]
    same = {"config": pairs[0][0].config, "threshold": pairs[0][0].threshold}
    others = [plant("low scores", rng)[0].changed(**same), plant("wrong class and place", rng)[0].changed(**same)]
    planted = [p for p, _ in pairs] + others
    if cause in {"low scores", "wrong class and place"}:
        planted = planted[:6]
    found = found_in(planted)
    assert found.ap == pytest.approx(ap_of(planted), abs=1e-12)
    mended = [mend(p) for p, mend in pairs]
    rest = [p.changed(config=mended[0].config, threshold=mended[0].threshold) for p in planted[6:]]
    expected = ap_of(mended + rest) - ap_of(planted)
    assert found.regained[cause] == pytest.approx(expected, abs=1e-9)


def random_image(rng: np.random.Generator) -> Planted:
    """Return an image with objects and predictions in random places, many of which overlap."""

    def boxes(count: int) -> np.ndarray:
        corner, sides = rng.uniform(0, 250, (count, 2)), rng.uniform(20, 150, (count, 2))
        return np.concatenate([corner, corner + sides], axis=1)

    objects = boxes(int(rng.integers(1, 6)))
    near = objects[rng.integers(len(objects), size=12)] + rng.normal(0, 8, (12, 4))
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 5)
    rows = [(box, int(rng.integers(K)), float(rng.uniform(0, 1))) for box in [*near, *boxes(6)]]
    return Planted(boxes_G4=objects, labels_G=rng.integers(K, size=len(objects)), rows=rows)


def test_the_causes_add_up_on_random_images() -> None:
    """Each object without a detection has one cause, and each detection without an object."""
    for seed in range(300):
        errors = random_image(np.random.default_rng(seed)).errors()
        assert len(list(errors.missed())) == errors.match.missed
        assert len(list(errors.false())) == errors.match.false + errors.match.unlabelled
        unlabelled = [f.detection for f in errors.false() if f.cause == "unlabelled?"]
        assert unlabelled == np.flatnonzero(errors.match.unlabelled_D).tolist()
        for miss in errors.missed():
            if miss.detection is not None and miss.cause != "suppressed":
                assert errors.false_causes[miss.detection] == (miss.cause, miss.object)


def test_the_details_of_a_miss() -> None:
    """The neighbour's detection, IoU 0.6, suppresses the box; the score of the object's anchor is not shown."""
    planted, _ = plant("suppressed", np.random.default_rng(0))
    errors = planted.errors()
    (miss,) = errors.missed()
    assert miss.best is not None
    assert miss.best.score == pytest.approx(planted.rows[2][2])
    assert errors.shown.boxes_D4[miss.detection] == pytest.approx(planted.boxes_G4[2], abs=1e-4)
    assert miss.iou == pytest.approx(0.6, abs=1e-6)
    assert (miss.level, miss.preferred_score) == (4, pytest.approx(0.01))


def test_tide_agrees_on_the_categories_that_both_have() -> None:
    """hotcoco's counts, from all detections of a dataset: duplicates, wrong classes, bad places, background.

    TIDE's "Both" is our "wrong class and place"; its background is ours together with "unlabelled?". A detection that
    fits an object of another class and touches one of its own class is a wrong class here, and a bad place in TIDE.
    """
    planted = [random_image(np.random.default_rng(seed)).changed(threshold=0.05) for seed in range(40)]
    found = found_in(planted)
    ours = {cause: false for cause, (_, false) in found.counts().items()}
    data = dataset(planted)
    run = coco_eval(data.to_coco(), results_of(planted), max_detections=100)
    theirs = run.tide_errors(pos_thr=0.5, bg_thr=0.1)["counts"]
    assert ours["duplicate"] == theirs["Dupe"]
    assert ours["wrong class"] >= theirs["Cls"]
    assert ours["wrong class"] + ours["badly localised"] == theirs["Cls"] + theirs["Loc"]
    assert ours["wrong class and place"] == theirs["Both"]
    assert ours.get("background", 0) + ours.get("unlabelled?", 0) == theirs["Bkg"]


def test_a_trained_network(trained_run, squares) -> None:
    """Misses and false detections are those of the detector. No cause regains more than the AP that is missing."""
    trained = load_for_analysis(trained_run / "best.ckpt", device="cpu")
    data = load(squares[1], classes=trained.classes)
    found = error_causes(trained, data, threshold=0.3)
    detector = Detector(model=trained.model, info=trained, device=trained.device)
    _, results = evaluate_model(detector, data)
    matches = [match_detections(item, 0.3) for item in items_from_results(data, results)]
    assert len(found.missed) == sum(match.missed for match in matches)
    assert len(found.false) == sum(match.false + match.unlabelled for match in matches)
    assert found.unlabelled == sum(match.unlabelled for match in matches)
    assert [len(shown) for shown in found.detections] == [int(match.shown_D.sum()) for match in matches]
    counts = found.counts()
    assert sum(missed for missed, _ in counts.values()) == len(found.missed)
    assert sum(false for _, false in counts.values()) == len(found.false)
    assert found.regained.keys() == counts.keys()
    assert all(0 <= found.ap + gain <= 1 + 1e-9 for gain in found.regained.values())
    document = json.loads(json.dumps(found.to_json()))
    assert document["causes"].keys() == counts.keys()
