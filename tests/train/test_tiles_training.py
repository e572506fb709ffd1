"""A run on tiles: what it measures while training is what `evaluate` measures with the model that it saved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import retinanet
from retinanet.analysis.model_outputs import load_for_analysis
from retinanet.errors import UserError
from retinanet.evaluate import evaluate
from retinanet.train import fit


@pytest.fixture
def wide(squares: tuple[Path, Path], tmp_path: Path) -> dict[str, Path]:
    """The images of `squares`, two by two beside each other."""
    made = {}
    for name, source in zip(("train", "val"), squares, strict=True):
        content = json.loads(source.read_text())
        folder = tmp_path / name
        folder.mkdir()
        place = {}
        images = content["images"]
        for first, second in zip(images[::2], images[1::2], strict=True):
            both = [np.asarray(Image.open(source.parent / "images" / p["file_name"])) for p in (first, second)]
            Image.fromarray(np.concatenate(both, axis=1)).save(folder / first["file_name"])
            place.update({first["id"]: (first["id"], 0), second["id"]: (first["id"], 96)})
            first["width"] = 192
        for annotation in content["annotations"]:
            annotation["image_id"], shift = place[annotation["image_id"]]
            annotation["bbox"][0] += shift
        content["images"] = images[::2]
        made[name] = folder / "annotations.json"
        made[name].write_text(json.dumps(content))
    return made


@pytest.mark.slow
def test_training_on_tiles(tiny: dict[str, object], wide: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    options = {**tiny, **wide, "image_size": 64, "max_size": 64, "batch_size": 1}
    result = fit(**options, epochs=1, score_threshold=0.005, tile=64, overlap=0.4)
    assert "36 tiles and whole images" in capsys.readouterr().out, "6 images of 192 x 64: 5 tiles and the whole"
    saved = json.loads((result.best.parent / "detections.json").read_text())
    again = evaluate(result.best, data=wide["val"], batch_size=1).results  # takes the model's tiles by itself
    assert len(saved) > 20
    assert sorted(row["image_id"] for row in saved) == sorted(row["image_id"] for row in again)
    by_score = [sorted(rows, key=lambda row: (row["image_id"], -row["score"])) for rows in (saved, again)]
    for row, other in zip(*by_score, strict=True):
        assert row["score"] == pytest.approx(other["score"], abs=1e-4)
    image = wide["val"].parent / "0.png"
    detector = retinanet.load(result.best)
    assert detector.tiling.tile == 64
    plain, given = detector.predict(image), detector.predict(image, tile=64, overlap=0.4)
    assert np.array_equal(plain.xyxy, given.xyxy)
    assert not np.array_equal(plain.xyxy, detector.predict(image, tile=0).xyxy)
    with pytest.raises(UserError, match="trained on tiles of 64 pixels"):
        load_for_analysis(result.best)
