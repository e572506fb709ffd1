"""Each fault planted in a real dataset is found, with the right file and line; none is invented on a clean one."""

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
def clean(shared_data: Path, tmp_path: Path) -> Path:
    """Twelve images of coco128 for training and six for validation, as YOLO."""
    found = data.load(shared_data / "coco128" / "annotations" / "instances_train2017.json")
    from dataclasses import replace

    sets = {"train": replace(found, records=found.records[:12]), "val": replace(found, records=found.records[12:18])}
    write(sets, tmp_path / "set", "yolo")
    return tmp_path / "set"


def findings(root: Path, **options: Any) -> tuple[list[tuple[str, str, str]], dict[str, tuple[str, ...]]]:
    found = check_data(root, resolve(CheckConfig, {**OPTIONS, **options}))
    sets = [found.data, *found.others.values()]
    faults = [(f.file.name, f.where, f.what) for one in sets for f in one.faults]
    return faults, {finding.kind: finding.where for finding in found.findings if finding.severity != "note"}


def test_none_on_the_clean_set(clean: Path) -> None:
    faults, kinds = findings(clean)
    assert faults == []
    assert not {"images in both sets", "near-duplicates in both sets", "duplicate boxes"} & set(kinds)


def test_every_planted_fault_is_found(clean: Path) -> None:
    labels, images = clean / "labels" / "train", clean / "images" / "train"
    files = sorted(labels.glob("*.txt"))
    by_stem = {p.stem: p for p in images.iterdir()}

    def append(place: int, line: str) -> tuple[str, str]:
        lines = files[place].read_text().splitlines()
        files[place].write_text("\n".join([*lines, line]) + "\n")
        return files[place].name, f"line {len(lines) + 1}"

    outside = append(0, "0 1.5 0.5 0.1 0.1")
    flat = append(1, "0 0.5 0.5 0.0 0.1")
    inverted = append(2, "0 0.5 0.5 -0.2 0.1")
    unknown = append(3, "99 0.5 0.5 0.1 0.1")
    twice = files[4].read_text().splitlines()[0]
    append(4, twice)
    gone = by_stem[files[5].stem]
    gone.unlink()
    cut = by_stem[files[6].stem]
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    val = sorted((clean / "images" / "val").iterdir())
    shutil.copy(val[0], images / "copied.jpg")
    shutil.copy(clean / "labels" / "val" / f"{val[0].stem}.txt", labels / "copied.txt")
    with Image.open(val[1]) as image:
        image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(images / "smaller.jpg", quality=70)
    shutil.copy(clean / "labels" / "val" / f"{val[1].stem}.txt", labels / "smaller.txt")

    faults, kinds = findings(clean)
    said = {(file, where): what for file, where, what in faults}
    assert set(said) == {outside, flat, inverted, unknown, (files[5].name, ""), (cut.name, "")}
    assert "within the" in said[outside]
    assert "area above 0" in said[flat]
    assert "area above 0" in said[inverted]
    assert "found '99'" in said[unknown]
    assert "labels without an image" in said[files[5].name, ""]
    assert "cannot be decoded" in said[cut.name, ""] or "truncated" in said[cut.name, ""]
    assert any(files[4].stem in where for where in kinds["duplicate boxes"])
    assert kinds["images in both sets"] == (f"train/copied.jpg = val/{val[0].name}",)
    assert kinds["near-duplicates in both sets"] == (f"train/smaller.jpg = val/{val[1].name}",)
    assert "unlabelled class" in kinds, "coco128 has 71 classes, these images fewer"


def test_sizes_that_disagree_and_ids_that_collide(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "coco128" / "annotations" / "instances_train2017.json"
    content = json.loads(source.read_text())
    content["images"] = content["images"][:6]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    wrong, again = content["images"][1], content["annotations"][3]
    wrong["width"] += 10
    content["annotations"].append({**again, "bbox": [1, 1, 20, 20]})
    (tmp_path / "faulty.json").write_text(json.dumps(content))
    faults, _ = findings(tmp_path / "faulty.json", images=source.parents[1] / "images")
    assert {(file, where) for file, where, _ in faults} == {
        (wrong["file_name"], ""),
        ("faulty.json", f"annotation {again['id']}"),
    }
    assert any(f"expected {wrong['width']}x{wrong['height']} pixels as annotated" in what for _, _, what in faults)


@pytest.mark.slow
def test_bccd_has_its_two_zero_area_boxes_and_a_pair_on_both_sides(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = shared_data / "bccd" / "ImageSets" / "Main"
    options = {**OPTIONS, "val": lists / "val.txt", "json": tmp_path / "out.json"}
    assert check(lists / "train.txt", options=resolve(CheckConfig, options)) == 1
    found = json.loads((tmp_path / "out.json").read_text())
    whole = data.read(shared_data / "bccd")
    assert len(whole.faults) == 2
    assert all("area above 0" in fault.what for fault in whole.faults)
    assert len(found["faults"]) <= 2
    both = next(f for f in found["findings"] if f["kind"] == "near-duplicates in both sets")
    assert both["where"] == ["train/BloodImage_00038.jpg = val/BloodImage_00037.jpg"]
    assert found["statistics"]["class_imbalance"] > 5
    assert found["sets"]["val"]["images"] == 87
    capsys.readouterr()
    options["json"] = Path("-")
    check(lists / "train.txt", options=resolve(CheckConfig, options))
    assert json.loads(capsys.readouterr().out) == found
