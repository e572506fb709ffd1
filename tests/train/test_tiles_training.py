"""Training on tiles: the evaluation during training equals `evaluate` with the saved model."""

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
    """Return the data of `squares` with pairs of images joined side by side."""
    paths = {}
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
        paths[name] = folder / "annotations.json"
        paths[name].write_text(json.dumps(content))
    return paths


@pytest.mark.slow
def test_training_on_tiles_evaluates_as_the_saved_model(
    tiny: dict[str, object], wide: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**tiny, **wide, "image_size": 64, "max_size": 64, "batch_size": 1}
    result = fit(**options, epochs=1, score_threshold=0.005, tile=64, overlap=0.4)
    assert "36 tiles and whole images" in capsys.readouterr().out, "6 images of 192 x 64 with 5 tiles each"
    saved = json.loads((result.best.parent / "detections.json").read_text())
    # `evaluate` uses the tile options stored in the model.
    evaluated = evaluate(result.best, data=wide["val"], batch_size=1).results
    assert len(saved) > 20
    assert sorted(row["image_id"] for row in saved) == sorted(row["image_id"] for row in evaluated)
    by_score = [sorted(rows, key=lambda row: (row["image_id"], -row["score"])) for rows in (saved, evaluated)]
    for row, other in zip(*by_score, strict=True):
        assert row["score"] == pytest.approx(other["score"], abs=1e-4)
    image = wide["val"].parent / "0.png"
    detector = retinanet.load(result.best)
    assert detector.tiling.tile == 64
    by_default, with_options = detector.predict(image), detector.predict(image, tile=64, overlap=0.4)
    assert np.array_equal(by_default.xyxy, with_options.xyxy)
    assert not np.array_equal(by_default.xyxy, detector.predict(image, tile=0).xyxy)
    with pytest.raises(UserError, match="trained on tiles of 64 pixels"):
        load_for_analysis(result.best)
