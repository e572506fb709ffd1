"""Hard examples of background and objects: hand-worked numbers, and a small trained model."""

import csv
import json

import pytest
import torch

from retinanet.analysis.hard_examples import COLUMNS, HardExample, HardExamples, _Hardest, _Image, hard_examples
from retinanet.analysis.model_outputs import load_for_analysis
from retinanet.config import LossConfig, MatchConfig
from retinanet.data import load
from retinanet.images import Frame
from retinanet.losses import DetectionLoss
from retinanet.matching import match
from retinanet.train import fit
from retinanet.types import HeadOutputs, Target
from tests.analysis.datasets import dataset_from_boxes

ANCHORS = torch.tensor([[0.0, 0, 40, 40], [100, 0, 140, 40], [200, 0, 240, 40], [203, 0, 243, 40], [300, 0, 340, 40]])


def image_with(logits, boxes, labels, crowd=None):
    """Return an image of 800 x 200 pixels, reduced to half its size for the network; `boxes` are in input pixels."""
    outputs = HeadOutputs(
        logits_NAK=torch.tensor(logits, dtype=torch.float32)[None],
        deltas_NA4=torch.zeros(1, 5, 4),
        anchors_A4=ANCHORS,
        anchors_per_level=(5,),
    )
    target = Target(
        boxes_G4=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels_G=torch.tensor(labels, dtype=torch.int64),
        crowd_G=torch.tensor(crowd or [False] * len(labels), dtype=torch.bool),
    )
    targets = match(ANCHORS, [target], MatchConfig())
    loss = DetectionLoss(config=LossConfig()).classification_NAK(outputs, targets)
    return _Image(
        number=0,
        annotation_ids=tuple(range(11, 11 + len(labels))),
        loss_AK=loss[0],
        scores_AK=outputs.logits_NAK[0].sigmoid(),
        outputs=outputs,
        targets=targets,
        n=0,
        target=target,
        frame=Frame(800, 200, 400, 100),
    )


def test_background_by_hand():
    """Anchors 2 and 3 overlap (IoU 0.86): only the one with the higher loss is an example, in original pixels."""
    low = [-9.0, -9.0]
    examples = list(image_with([low, low, [-9, 3], [-9, 4], low], [], []).background())
    top = examples[0]
    assert top.kind == "unlabelled?"
    assert (top.label, top.annotation_id) == (1, None)
    assert top.box == pytest.approx((406, 0, 486, 80))
    assert top.score == pytest.approx(1 / (1 + 2.718281828**-4), rel=1e-5)
    assert sum(example.score > 0.5 for example in examples) == 1


def test_a_part_of_an_object_of_the_class_is_no_unlabelled_object():
    """Anchor 2 of 40 x 40 pixels lies inside an object of 200 x 100 pixels: IoU 0.08."""
    logits = [[-9.0, -9], [-9, -9], [4, -9], [-9, -9], [-9, -9]]
    for label, kind in ((0, "part of an object"), (1, "unlabelled?")):
        first, *_ = image_with(logits, [[150.0, 0, 350, 100]], [label]).background()
        assert (first.kind, first.label) == (kind, 0)


def test_an_object_detected_at_a_distant_anchor_is_no_background():
    """A detection over a crowd region is no background example."""
    logits = [[-9.0, -9], [-9, -9], [4, -9], [-9, -9], [-9, -9]]
    wide = [[200.0, 0, 280, 40]]  # IoU 0.5 with the anchor at 200: its box overlaps the object
    image = image_with(logits, wide, [0])
    negative = ~image.targets.positive_NA[0] & ~image.targets.ignored_NA[0]
    assert not negative[2], "an anchor with IoU 0.5 is positive"
    crowd = list(image_with(logits, [[190.0, 0, 250, 50]], [1], [True]).background())
    assert all(example.score < 0.5 for example in crowd)


def test_objects_by_hand():
    """Object 11 is detected, 12 is detected as the other class, 13 (6 pixels wide) has no positive anchor."""
    logits = [[4.0, -9], [-9, 4], [-9, -9], [-9, -9], [-9, -9]]
    boxes = [[0, 0, 40, 40], [100, 0, 140, 40], [350, 80, 356, 86]]
    detected, wrong, unreached = image_with(logits, boxes, [0, 0, 1]).objects()
    assert (detected.kind, wrong.kind, unreached.kind) == ("hard object", "hard object", "no anchor")
    assert [e.annotation_id for e in (detected, wrong, unreached)] == [11, 12, 13]
    assert wrong.loss > 5
    assert detected.loss < 0.1
    assert (wrong.predicted_label, wrong.label) == (1, 0)
    assert unreached.box == pytest.approx((700, 160, 712, 172))


def example(loss, **changes):
    values = {"kind": "unlabelled?", "image": 0, "box": (1, 2, 3, 4), "label": 0, "annotation_id": None}
    values |= {"score": 0.9, "predicted_label": 0, "predicted_score": 0.9, "loss": loss}
    return HardExample(**{**values, **changes})


def test_only_the_examples_with_the_highest_loss_are_kept():
    hardest = _Hardest(3)
    hardest.add(example(loss) for loss in (5, 1, 4, 2, 3, 5))
    assert [e.loss for e in hardest.sorted()] == [5, 5, 4]


def test_suggestions_and_csv(tmp_path):
    data = dataset_from_boxes([[(0, 10, 10, 50, 50)]])
    examples = HardExamples(
        data=data,
        background=(example(3.0), example(2.0, kind="wrong class?")),
        objects=(example(4.0, kind="hard object", annotation_id=1, predicted_label=1, predicted_score=0.8, score=0.1),),
        unreached=(example(float("nan"), kind="no anchor", annotation_id=1),),
    )
    examples.write_csv(tmp_path / "hard.csv")
    with (tmp_path / "hard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["kind"] for row in rows] == ["unlabelled?", "wrong class?", "hard object", "no anchor"]
    assert "nothing is labelled" in rows[0]["suggestion"]
    assert rows[2]["says"] == "b"
    assert "wrong label?" in rows[2]["suggestion"]
    assert rows[2]["annotation_id"] == "1"
    text = " ".join(examples.sentences())
    assert "1 background boxes in 1 images" in text
    assert "1 object has no positive anchor" in text


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["focal", "hard_negative_mining", "quality_focal"])
def test_a_removed_label_and_a_wrong_label_are_hard_examples(tiny, squares, tmp_path, loss):
    """After training on correct labels, one annotation is removed and the class of another is changed."""
    options = {**tiny, "loss": loss, "epochs": 25, "lr": 3e-3, "measure_imbalance": 0, "evaluate_every": 25}
    result = fit(**options)
    trained = load_for_analysis(result.best, device="cpu")
    content = json.loads(squares[0].read_text())
    removed, changed = content["annotations"][0], content["annotations"][3]
    changed["category_id"] = 20 - changed["category_id"]  # the category ids are 3 and 17
    content["annotations"] = content["annotations"][1:]
    faulty = tmp_path / "faulty.json"
    faulty.write_text(json.dumps(content))
    data = load(faulty, images=squares[0].parent / "images", classes=trained.classes)
    examples = hard_examples(trained, data, count=10, batch_size=5)
    x, y, w, h = removed["bbox"]
    unlabelled = [e for e in examples.background if e.kind == "unlabelled?"][:3]
    near = [abs(e.box[0] - x) + abs(e.box[1] - y) + abs(e.box[2] - x - w) + abs(e.box[3] - y - h) for e in unlabelled]
    assert min(near) < 40, "the removed object is among the three unlabelled boxes with the highest loss"
    assert examples.objects[0].annotation_id == changed["id"]
    assert examples.objects[0].predicted_label != examples.objects[0].label
