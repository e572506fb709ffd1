"""Faults planted in a real dataset are reported with file and line; a valid dataset has no faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retinanet import data
from retinanet.analysis.data_check import check_data
from retinanet.commands.check import check
from retinanet.config import CheckConfig, resolve
from retinanet.formats import write

OPTIONS = {"preset": "small", "image_size": 128, "max_size": 128}


@pytest.fixture
def valid_set(shared_data: Path, tmp_path: Path) -> Path:
    """Twelve images of coco128 for training and six for validation, as YOLO."""
    source = data.load(shared_data / "coco128" / "annotations" / "instances_train2017.json")
    from dataclasses import replace

    sets = {
        "train": replace(source, records=source.records[:12]),
        "val": replace(source, records=source.records[12:18]),
    }
    write(sets, tmp_path / "set", "yolo")
    return tmp_path / "set"


def check_findings(root: Path, **options: Any) -> tuple[list[tuple[str, str, str]], dict[str, tuple[str, ...]]]:
    """Return the faults (file, line or annotation, text), and the places of each finding above a note by kind."""
    result = check_data(root, resolve(CheckConfig, {**OPTIONS, **options}))
    sets = [result.data, *result.other_splits.values()]
    faults = [(f.file.name, f.where, f.what) for split in sets for f in split.faults]
    return faults, {finding.kind: finding.where for finding in result.findings if finding.severity != "note"}


@pytest.mark.slow
def test_a_valid_dataset_has_no_faults(valid_set: Path) -> None:
    faults, kinds = check_findings(valid_set)
    assert faults == []
    assert not {"images in both sets", "near-duplicates in both sets", "duplicate boxes"} & set(kinds)


def test_every_planted_fault_is_reported(valid_set: Path) -> None:
    labels, images = valid_set / "labels" / "train", valid_set / "images" / "train"
    files = sorted(labels.glob("*.txt"))
    by_stem = {p.stem: p for p in images.iterdir()}

    def append(number: int, line: str) -> tuple[str, str]:
        lines = files[number].read_text().splitlines()
        files[number].write_text("\n".join([*lines, line]) + "\n")
        return files[number].name, f"line {len(lines) + 1}"

    outside = append(0, "0 1.5 0.5 0.1 0.1")
    flat = append(1, "0 0.5 0.5 0.0 0.1")
    inverted = append(2, "0 0.5 0.5 -0.2 0.1")
    unknown = append(3, "99 0.5 0.5 0.1 0.1")
    duplicate = files[4].read_text().splitlines()[0]
    append(4, duplicate)
    missing = by_stem[files[5].stem]
    missing.unlink()
    truncated = by_stem[files[6].stem]
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    val = sorted((valid_set / "images" / "val").iterdir())
    shutil.copy(val[0], images / "copied.jpg")
    shutil.copy(valid_set / "labels" / "val" / f"{val[0].stem}.txt", labels / "copied.txt")
    with Image.open(val[1]) as image:
        image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(images / "smaller.jpg", quality=70)
    shutil.copy(valid_set / "labels" / "val" / f"{val[1].stem}.txt", labels / "smaller.txt")

    faults, kinds = check_findings(valid_set)
    texts = {(file, where): what for file, where, what in faults}
    assert set(texts) == {outside, flat, inverted, unknown, (files[5].name, ""), (truncated.name, "")}
    assert "within the" in texts[outside]
    assert "area above 0" in texts[flat]
    assert "area above 0" in texts[inverted]
    assert "found '99'" in texts[unknown]
    assert "labels without an image" in texts[files[5].name, ""]
    assert "cannot be decoded" in texts[truncated.name, ""] or "truncated" in texts[truncated.name, ""]
    assert any(files[4].stem in where for where in kinds["duplicate boxes"])
    assert kinds["images in both sets"] == (f"train/copied.jpg = val/{val[0].name}",)
    assert kinds["near-duplicates in both sets"] == (f"train/smaller.jpg = val/{val[1].name}",)
    assert "unlabelled class" in kinds, "coco128 has 71 classes, these images fewer"


def test_wrong_image_sizes_and_repeated_annotation_ids(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "coco128" / "annotations" / "instances_train2017.json"
    content = json.loads(source.read_text())
    content["images"] = content["images"][:6]
    image_ids = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in image_ids]
    wrong, repeated = content["images"][1], content["annotations"][3]
    wrong["width"] += 10
    content["annotations"].append({**repeated, "bbox": [1, 1, 20, 20]})
    (tmp_path / "faulty.json").write_text(json.dumps(content))
    faults, _ = check_findings(tmp_path / "faulty.json", images=source.parents[1] / "images")
    assert {(file, where) for file, where, _ in faults} == {(wrong["file_name"], "")}
    assert any(f"expected {wrong['width']}x{wrong['height']} pixels as annotated" in what for _, _, what in faults)


@pytest.mark.slow
def test_bccd_has_two_boxes_without_area_and_a_near_duplicate_in_both_sets(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = shared_data / "bccd" / "ImageSets" / "Main"
    options = {**OPTIONS, "val": lists / "val.txt", "json": tmp_path / "out.json"}
    assert check(lists / "train.txt", options=resolve(CheckConfig, options)) == 1
    document = json.loads((tmp_path / "out.json").read_text())
    whole = data.read(shared_data / "bccd")
    assert len(whole.faults) == 2
    assert all("area above 0" in fault.what for fault in whole.faults)
    assert len(document["faults"]) <= 2
    finding = next(f for f in document["findings"] if f["kind"] == "near-duplicates in both sets")
    assert finding["where"] == ["train/BloodImage_00038.jpg = val/BloodImage_00037.jpg"]
    assert document["statistics"]["class_imbalance"] > 5
    assert document["sets"]["val"]["images"] == 87
    capsys.readouterr()
    options["json"] = Path("-")
    check(lists / "train.txt", options=resolve(CheckConfig, options))
    assert json.loads(capsys.readouterr().out) == document
