"""`convert-weights`: its file is used as one of ours."""

import json

import numpy as np
import pytest

import retinanet
from retinanet.checkpoint.import_weights import convert_weights
from retinanet.cli import main
from retinanet.config import ConvertWeightsConfig
from retinanet.errors import UserError
from retinanet.train import load_checkpoint
from tests.checkpoint.helpers import small_file


@pytest.mark.slow
def test_a_file_is_used_as_one_of_ours(tmp_path, write_coco, capsys):
    """load, evaluate, predict and train --from with torchvision's file; convert-weights keeps the detections."""
    _, path = small_file(tmp_path)
    data = write_coco(
        [{"image_id": i, "category_id": k, "bbox": [4, 4, 30, 30]} for i in (1, 2) for k in (1, 2)],
        images=2,
        categories={1: "class 1", 2: "class 2"},
    )
    image = data.parent.parent / "images" / "1.jpg"
    found = retinanet.load(path, "cpu").predict(image)
    assert len(found) > 20
    converted = tmp_path / "made" / "ours.ckpt"
    with pytest.raises(SystemExit) as stop:
        main(["convert-weights", str(path), "-o", str(converted), "--classes", "class 1,class 2"])
    assert stop.value.code == 0
    assert "resnet18, 3 classes, 4 hidden layers" in capsys.readouterr().out
    again = retinanet.load(converted, "cpu")
    assert again.classes == ("__background__", "class 1", "class 2")
    np.testing.assert_array_equal(again.predict(image).xyxy, found.xyxy)
    with pytest.raises(UserError, match="exists already"):
        convert_weights(path, ConvertWeightsConfig(output=converted))
    numbers = tmp_path / "numbers.json"
    for arguments in (
        ["evaluate", str(path), "--data", str(data), "--json", str(numbers), "--device", "cpu"],
        ["predict", str(path), str(image), "-o", str(tmp_path / "found"), "--device", "cpu"],
        ["train", "--from", str(path), "--train", str(data), "--val", str(data), "-o", str(tmp_path / "run"),
         "--image-size", "64", "--max-size", "96", "--epochs", "1", "--batch-size", "2", "--workers", "0",
         "--device", "cpu"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0, arguments
    assert set(json.loads(numbers.read_text())["per_class"]) == {"class 1", "class 2"}
    rows = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert {row["category_id"] for row in rows} <= {0, 1, 2}
    trained = load_checkpoint(tmp_path / "run" / "last.ckpt")
    assert trained.classes == ("class 1", "class 2")
    assert trained.model.config.anchor_style == "torchvision"
    options = trained.train_config
    assert (options["low_quality_matches"], options["alpha"], options["box_loss"], options["normaliser"]) == (
        True, 0.25, "l1", "image",
    )  # fmt: skip
