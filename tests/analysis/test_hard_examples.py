"""Hard examples: background that looks like an object, objects that do not; by hand, and of a real small model."""

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
from tests.analysis.made import made_data

ANCHORS = torch.tensor([[0.0, 0, 40, 40], [100, 0, 140, 40], [200, 0, 240, 40], [203, 0, 243, 40], [300, 0, 340, 40]])


def made_image(logits, boxes, labels, crowd=None):
    """One image of 800 x 200 that the network sees at half its size; boxes in pixels of its input."""
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
    """Anchors 2 and 3 are one place (IoU 0.86): the harder is listed, at twice the size; the others are quiet."""
    quiet = [-9.0, -9.0]
    found = list(made_image([quiet, quiet, [-9, 3], [-9, 4], quiet], [], []).background())
    top = found[0]
    assert top.kind == "unlabelled?"
    assert (top.label, top.annotation_id) == (1, None)
    assert top.box == pytest.approx((406, 0, 486, 80))
    assert top.score == pytest.approx(1 / (1 + 2.718281828**-4), rel=1e-5)
    assert sum(example.score > 0.5 for example in found) == 1


def test_an_object_found_from_afar_is_no_background():
    """A crowd, and an object whose own detection comes from a negative anchor, are left out; another class is not."""
    logits = [[-9.0, -9], [-9, -9], [4, -9], [-9, -9], [-9, -9]]
    wide = [[200.0, 0, 280, 40]]  # IoU 0.5 with the anchor at 200: its box overlaps the object
    one = made_image(logits, wide, [0])
    negative = ~one.targets.positive_NA[0] & ~one.targets.ignored_NA[0]
    assert not negative[2], "IoU 0.5 makes it positive, so it is no background"
    crowd = list(made_image(logits, [[190.0, 0, 250, 50]], [1], [True]).background())
    assert all(example.score < 0.5 for example in crowd)


def test_objects_by_hand():
    """Object 11 is seen, 12 is seen as the other class, 13 (a 6 pixel speck) has no anchor."""
    logits = [[4.0, -9], [-9, 4], [-9, -9], [-9, -9], [-9, -9]]
    boxes = [[0, 0, 40, 40], [100, 0, 140, 40], [350, 80, 356, 86]]
    seen, wrong, lost = made_image(logits, boxes, [0, 0, 1]).objects()
    assert (seen.kind, wrong.kind, lost.kind) == ("hard object", "hard object", "no anchor")
    assert [e.annotation_id for e in (seen, wrong, lost)] == [11, 12, 13]
    assert wrong.loss > 5
    assert seen.loss < 0.1
    assert (wrong.says, wrong.label) == (1, 0)
    assert lost.box == pytest.approx((700, 160, 712, 172))


def example(loss, **changes):
    values = {"kind": "unlabelled?", "image": 0, "box": (1, 2, 3, 4), "label": 0, "annotation_id": None}
    values |= {"score": 0.9, "says": 0, "says_score": 0.9, "loss": loss}
    return HardExample(**{**values, **changes})


def test_only_the_hardest_are_kept():
    hardest = _Hardest(3)
    hardest.add(example(loss) for loss in (5, 1, 4, 2, 3, 5))
    assert [e.loss for e in hardest.sorted()] == [5, 5, 4]


def test_suggestions_and_csv(tmp_path):
    data = made_data([[(0, 10, 10, 50, 50)]])
    found = HardExamples(
        data=data,
        background=(example(3.0), example(2.0, kind="wrong class?")),
        objects=(example(4.0, kind="hard object", annotation_id=1, says=1, says_score=0.8, score=0.1),),
        unreached=(example(float("nan"), kind="no anchor", annotation_id=1),),
    )
    found.write_csv(tmp_path / "hard.csv")
    with (tmp_path / "hard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["kind"] for row in rows] == ["unlabelled?", "wrong class?", "hard object", "no anchor"]
    assert "nobody labelled" in rows[0]["suggestion"]
    assert "wrong label?" in rows[2]["suggestion"]
    assert rows[2]["annotation_id"] == "1"
    said = " ".join(found.sentences())
    assert "1 background boxes in 1 images" in said
    assert "1 object has no positive anchor" in said


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["focal", "hard_negative_mining", "quality_focal"])
def test_a_label_that_was_removed_is_found_again(tiny, squares, tmp_path, loss):
    """A model trained on sound labels; then one object's label is taken away, and another's class is changed."""
    options = {**tiny, "loss": loss, "epochs": 25, "lr": 3e-3, "measure_imbalance": 0, "evaluate_every": 25}
    result = fit(**options)
    trained = load_for_analysis(result.best, device="cpu")
    content = json.loads(squares[0].read_text())
    gone, changed = content["annotations"][0], content["annotations"][3]
    changed["category_id"] = 20 - changed["category_id"]  # the other one of 3 and 17
    content["annotations"] = content["annotations"][1:]
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(content))
    data = load(broken, images=squares[0].parent / "images", classes=trained.classes)
    found = hard_examples(trained, data, count=10, batch_size=5)
    x, y, w, h = gone["bbox"]
    unlabelled = [e for e in found.background if e.kind == "unlabelled?"][:3]
    near = [abs(e.box[0] - x) + abs(e.box[1] - y) + abs(e.box[2] - x - w) + abs(e.box[3] - y - h) for e in unlabelled]
    assert min(near) < 40, "among the three hardest: the box that lost its label"
    assert found.objects[0].annotation_id == changed["id"]
    assert found.objects[0].says != found.objects[0].label
