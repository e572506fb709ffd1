"""Overfitting: preset `small` memorises a few COCO images, whose 80 category ids have gaps."""

import json

import pytest

from retinanet.train import fit


@pytest.mark.slow
def test_training_overfits_twelve_coco_images(shared_data, tmp_path):
    source = shared_data / "coco128" / "annotations" / "instances_train2017.json"
    content = json.loads(source.read_text())
    large = [a for a in content["annotations"] if not a["iscrowd"] and a["area"] > 96**2]
    chosen = sorted({a["image_id"] for a in large})[:12]
    content["images"] = [image for image in content["images"] if image["id"] in chosen]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in chosen]
    data = tmp_path / "few.json"
    data.write_text(json.dumps(content))
    options = {"train": data, "val": data, "images": source.parents[1] / "images", "output": tmp_path / "run"}
    result = fit(
        **options,
        preset="small",
        image_size=256,
        max_size=256,
        anchor_sizes=(16, 32, 64, 128, 256),
        augment=False,
        epochs=60,
        evaluate_every=60,
        lr=1e-3,
        weight_decay=0.0,
        ema=0.9,
        workers=0,
        measure_imbalance=0,
        backbone_weights=shared_data / "weights" / "tf_efficientnet_lite0-imagenet-timm.safetensors",
    )
    print(result)
    assert result.ap >= 0.5
    detections = json.loads((tmp_path / "run" / "detections.json").read_text())
    labelled = {a["category_id"] for a in content["annotations"]}
    detected = {row["category_id"] for row in detections if row["score"] > 0.5}
    assert detected <= labelled
    assert max(detected) > 80 or len(detected) >= 5, "category ids of COCO, with gaps, not 0 to 79"
