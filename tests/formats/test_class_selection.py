"""Tests of classes that are kept, left out or renamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retinanet import data
from retinanet.cli import main
from retinanet.config import ConvertWeightsConfig, DataConfig, TrainConfig, resolve
from retinanet.data import DataError
from retinanet.errors import ConfigError
from tests.formats.samples import Write, labelme, roboflow_coco


@pytest.fixture
def source(tmp_path: Path, write_image: Write) -> Path:
    return labelme(tmp_path / "set", write_image)


def test_keep(source: Path) -> None:
    found = data.load(source, keep=["dog"])
    assert (found.classes, found.num_objects, len(found.records)) == (("dog",), 1, 2)
    assert any("1 objects of class cat were left out" in note for note in found.notes)


def test_ignore(source: Path) -> None:
    assert data.load(source, ignore=["dog"]).classes == ("cat",)


def test_rename_and_merge(source: Path) -> None:
    assert data.load(source, rename={"cat": "lion"}).classes == ("dog", "lion")
    assert data.load(source, rename={"cat": "dog"}).classes == ("dog",)
    assert data.load(source, rename={"cat": "dog"}).num_objects == 2


def test_an_unknown_class_is_refused_with_the_nearest_name(source: Path) -> None:
    with pytest.raises(
        DataError, match="ignore_classes names 'dgo', but the classes of .*set are cat, dog. Did you mean 'dog'"
    ):
        data.load(source, ignore=["dgo"])


def test_validation_data_may_lack_a_class(source: Path) -> None:
    found = data.load(source, classes=("dog", "emu"), keep=["dog", "emu"])
    assert (found.classes, found.num_objects) == (("dog", "emu"), 1)


def test_coco_category_ids_are_kept(tmp_path: Path, write_image: Write) -> None:
    root = roboflow_coco(tmp_path / "coco", write_image)
    found = data.load(root, rename={"dog": "wolf"}, ignore=["cat"])
    assert (found.classes, found.category_ids) == (("wolf",), (2,))


@pytest.fixture
def comma_source(tmp_path: Path, write_image: Write) -> Path:
    """Write a labelme folder with one object of each of the classes `cat`, `cat, black` and `dog`."""
    root = tmp_path / "commas"
    write_image(root / "a.jpg")
    shapes = [
        {"label": label, "shape_type": "rectangle", "points": [[1, 2], [30, 40]]}
        for label in ("cat", "cat, black", "dog")
    ]
    (root / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.jpg"}))
    return root


def read_with(source: Path, **options: Any) -> data.DetectionData:
    return data.load(source, **resolve(DataConfig, options).reading)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["cat, black"], {"cat, black"}),
        (["cat, black", "dog"], {"cat, black", "dog"}),
        (['"cat, black",dog'], {"cat, black", "dog"}),
        (['dog, "cat, black"'], {"cat, black", "dog"}),
        (["cat,dog"], {"cat", "dog"}),
        (["cat", "dog"], {"cat", "dog"}),
    ],
)
def test_a_class_name_may_contain_a_comma(comma_source: Path, values: list[str], names: set[str]) -> None:
    kept = read_with(comma_source, classes=values)
    assert set(kept.classes) == names
    assert kept.num_objects == len(names)
    left = read_with(comma_source, ignore_classes=values)
    assert set(left.classes) == {"cat", "cat, black", "dog"} - names
    assert left.num_objects == 3 - len(names)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["cat, black=cat"], ("cat", "dog")),
        (['"cat, black"=cat'], ("cat", "dog")),
        (['"cat, black"=cat,dog=wolf'], ("cat", "wolf")),
        (["cat, black=cat", "dog=wolf"], ("cat", "wolf")),
        (['"dog=dog, big"'], ("cat", "cat, black", "dog, big")),
        (["cat=lion,dog=wolf"], ("cat, black", "lion", "wolf")),
    ],
)
def test_a_renamed_class_may_contain_a_comma(comma_source: Path, values: list[str], classes: tuple[str, ...]) -> None:
    found = read_with(comma_source, rename=values)
    assert found.classes == classes
    assert found.num_objects == 3


def test_a_new_name_with_a_comma_can_be_kept(comma_source: Path) -> None:
    assert read_with(comma_source, rename=['"dog=dog, big"'], classes=["dog, big"]).classes == ("dog, big",)


@pytest.mark.parametrize("value", ["cat,dog", 'dog="dog, big"', "dog=wolf,cat", "cat, black=cat,dog=wolf"])
def test_a_rename_without_an_old_or_a_new_name_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="rename must be old=new, found .*in double quotes"):
        resolve(DataConfig, {"rename": [value]})


def test_an_unknown_class_with_a_comma_is_refused(comma_source: Path) -> None:
    with pytest.raises(DataError, match="classes names 'white', but the classes of .* are cat, \"cat, black\", dog"):
        read_with(comma_source, classes=["cat, white"])
    with pytest.raises(DataError, match="rename names 'cat, white'"):
        read_with(comma_source, rename=["cat, white=cat"])


def test_training_and_validation_read_the_same_class_with_a_comma(comma_source: Path, source: Path) -> None:
    """The validation data has no object of the class `cat, black`."""
    config = resolve(TrainConfig, {"train": "a", "val": "b", "output": "c", "classes": ["cat, black", "dog"]})
    train = data.load(comma_source, **config.dataset.reading)
    val = data.load(source, classes=train.classes, **config.dataset.reading)
    assert train.classes == val.classes == ("cat, black", "dog")
    assert val.num_objects == 1


def test_coco_and_yolo_list_classes_with_commas(comma_source: Path, tmp_path: Path) -> None:
    for format in ("coco", "yolo"):
        with pytest.raises(SystemExit) as end:
            main(["convert", str(comma_source), str(tmp_path / format), "--format", format])
        assert not end.value.code
    for path in (tmp_path / "coco" / "annotations.json", tmp_path / "yolo" / "data.yaml"):
        assert read_with(path, classes=["cat, black"]).classes == ("cat, black",)
        assert read_with(path, rename=["cat, black=cat"]).category_ids == (1, 3)


def test_the_command_line_and_yaml_take_names_with_commas(comma_source: Path, tmp_path: Path) -> None:
    options = tmp_path / "options.yaml"
    options.write_text('classes: ["cat, black", dog]\nrename: ["cat=lion"]\n')
    for name, words in (
        ("flags", ["convert", "--classes", "cat, black", "dog"]),
        ("quotes", ["convert", "--classes", '"cat, black",dog']),
        ("ignored", ["convert", "--ignore-classes", "cat"]),
        ("yaml", ["--config", str(options), "convert"]),
    ):
        with pytest.raises(SystemExit) as end:
            main([*words, "--format", "coco", str(comma_source), str(tmp_path / name)])
        assert not end.value.code
        classes = data.read(tmp_path / name / "annotations.json").classes
        assert classes == ("cat, black", "dog")


def test_class_names_in_yaml_are_words(tmp_path: Path, write_voc: Any) -> None:
    """YAML 1.1 reads yes as a truth value and 010 as 8."""
    box = (1, 2, 30, 40)
    source = write_voc({"a": [("yes", box), ("010", box), ("on", box), ("cat", box)]})
    options = tmp_path / "options.yaml"
    options.write_text("classes: [yes, 010, off]\nrename: [on=off]\n")
    with pytest.raises(SystemExit) as end:
        main(["--config", str(options), "convert", "--format", "coco", str(source), str(tmp_path / "out")])
    assert not end.value.code
    assert sorted(data.read(tmp_path / "out" / "annotations.json").classes) == ["010", "off", "yes"]


def test_class_names_of_converted_weights_may_contain_commas() -> None:
    config = ConvertWeightsConfig(output=Path("a.ckpt"), classes=('"cat, black",dog', "emu"))
    assert config.names == ("cat, black", "dog", "emu")
