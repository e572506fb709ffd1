"""Attributes of images: the columns of a CSV file, measured attributes, and the errors of both."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.config import EvaluateConfig, resolve
from retinanet.data import DetectionData, read
from retinanet.evaluate import EvaluationError
from retinanet.evaluate.attributes import brightness_and_sharpness, cut, image_attributes
from tests.evaluate.block_scenes import write_scenes

IDS = {"a": 40, "b": 41, "c": 42, "d": 43}


@pytest.fixture
def data(tmp_path: Path) -> DetectionData:
    return read(write_scenes(tmp_path))


def attributes(data: DetectionData, **options: Any) -> dict[str, dict[str, list[int]]]:
    found, _ = image_attributes(data, resolve(EvaluateConfig, {"data": data.source, **options}))
    return {attribute.name: {value: list(ids) for value, ids in attribute.images.items()} for attribute in found}


def table(data: DetectionData, text: str, encoding: str = "utf-8") -> Path:
    path = data.source.with_name("attributes.csv")
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "image,weather\na.png,sun\nb.png,rain\nc.png,\nd.png,sun\n",
        "weather;file_name\nsun;a.png\nrain;b.png\n;c.png\nsun;d.png\n",  # the name of the column decides
        "Datei\tweather\nsome/where/a.png\tsun\nb\train\n42\t\n43\tsun\n\n",  # otherwise the first column
        'path,weather\n"C:\\images\\a.png","sun"\nb.png, rain \nc.png,\nd.png,sun\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_columns_of_a_file(data: DetectionData, text: str, encoding: str) -> None:
    """Commas, semicolons and tabs; names as paths, file names with and without suffix, and image ids."""
    assert attributes(data, slices=table(data, text, encoding)) == {"weather": {"sun": [40, 43], "rain": [41]}}


def test_many_numbers_are_cut_into_quarters_and_few_numbers_are_categories(data: DetectionData) -> None:
    """With a semicolon, numbers may have a decimal comma."""
    records = tuple(dataclasses.replace(data.records[0], path=Path(f"{i}.png"), image_id=i) for i in range(12))
    many = dataclasses.replace(data, records=records)
    rows = "".join(f"{i}.png;{i},5;{i % 2};t{i}\n" for i in range(12))
    found = attributes(many, slices=table(data, f"image;temperature;lane;text\n{rows}"))
    quarters = {"below 3.25": [0, 1, 2], "3.25 to 6": [3, 4, 5], "6 to 8.75": [6, 7, 8], "8.75 or more": [9, 10, 11]}
    assert found["temperature"] == quarters
    assert found["lane"] == {"0": [0, 2, 4, 6, 8, 10], "1": [1, 3, 5, 7, 9, 11]}
    assert len(found["text"]) == 12


def test_a_column_with_too_many_texts_is_left_out(data: DetectionData) -> None:
    records = tuple(dataclasses.replace(data.records[0], path=Path(f"{i}.png"), image_id=i) for i in range(51))
    many = dataclasses.replace(data, records=records)
    file = table(data, "image,text\n" + "".join(f"{i}.png,t{i}\n" for i in range(51)))
    found, notes = image_attributes(many, resolve(EvaluateConfig, {"data": data.source, "slices": file}))
    assert found == []
    assert [note.partition(": ")[2] for note in notes] == [
        "the column text has more than 50 different texts and was left out of the slices"
    ]


def test_equal_numbers_are_in_one_range() -> None:
    assert cut({}) == {}
    assert cut({1: 5.0, 2: 5.0}) == {"all equal": [1, 2]}
    assert cut({1: 0.0, 2: 0.0, 3: 0.0, 4: 7.0}) == {"below 1.75": [1, 2, 3], "1.75 or more": [4]}
    close = cut({i: 1_700_000_000.0 + i for i in range(12)})
    assert len(close) == 4  # edges that differ in the tenth digit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,x\na,1\nb,1\nc,1\nd,1\na,2\n",
            r"attributes.csv: 1 of 5 lines are invalid\n  line 6: expected each image once, found 'a' in line 2, too",
        ),
        (
            "image,x\na,1\na.png,1\nb,1\nc,1\nd,1\n",
            "line 3: 'a.png' is the image of line 2: remove one of the two",
        ),
        (
            "image,x\na.png,1\nb,1\nc,1\n",
            r"expected a line for each of 4 images of truth.json, found none for 1 images \(d.png\)",
        ),
        (
            "image,x\na,1\nb,1\nc,1\ne.png,1\n",
            r"\(d.png\), and 1 lines with images that the data lacks \(line 5: 'e.png'\). Correct",
        ),
        (
            "image,x\nx/a.png,1\ny/a.png,1\n",
            r"expected one image .*x/a.png, y/a.png \(lines 2, 3\). Write more of the path",
        ),
        ("image,x\na,1\nb,1,2\nc,1\nd,1\n", "line 3: expected 2 cells as in the header, found 3"),
        ("image,x\na,1\n,1\nc,1\nd,1\n", "line 3: expected the name of an image in column 1, found none"),
        (
            "image\na\nb\nc\nd\n",
            "line 1: expected a header with a column for the image and .* attributes, found one column, 'image'",
        ),
        ("", "attributes.csv: expected a header .* found an empty file"),
        ("image,x,x\na,1,2\n", "line 1: .* found the column x twice: rename"),
    ],
)
def test_invalid_files(data: DetectionData, text: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        attributes(data, slices=table(data, text))


def test_unreadable_files(data: DetectionData) -> None:
    with pytest.raises(EvaluationError, match=r"the attributes of the images cannot be read \(No such file.*none.csv"):
        attributes(data, slices=Path("none.csv"))
    with pytest.raises(EvaluationError, match="expected UTF-8 text"):
        attributes(data, slices=table(data, "image,x\nä,1\n", "latin-1"))


def test_lines_of_other_images_are_left_out_with_a_note(data: DetectionData) -> None:
    file = table(data, "image,x\na,1\nb,1\nc,1\nd,2\nother.png,1\n")
    found, notes = image_attributes(data, resolve(EvaluateConfig, {"data": data.source, "slices": file}))
    assert found[0].images == {"1": [40, 41, 42], "2": [43]}
    assert notes == [f"{file}: lines of images that the data lacks were left out: 1 (line 6: 'other.png')"]


def test_image_size_needs_no_files(data: DetectionData) -> None:
    for record in data.records:
        record.path.unlink()
    sizes = attributes(data, slice_by=("image_size",))["image_size"]
    assert [IDS["c"]] in sizes.values()  # 100 x 100, the smallest
    with pytest.raises(EvaluationError, match=r"found no file for 4 of 4 images, the first of them .*a.png. Give"):
        attributes(data, slice_by=("brightness",))


def test_measured_attributes_are_in_the_given_order(data: DetectionData) -> None:
    assert list(attributes(data, slice_by=("sharpness", "image_size", "brightness"))) == [
        *("sharpness", "image_size", "brightness"),
    ]


def record_of(tmp_path: Path, data: DetectionData, grey_HW: np.ndarray) -> Any:
    path = tmp_path / "grey.png"
    Image.fromarray(grey_HW.astype(np.uint8)).save(path)
    return dataclasses.replace(data.records[0], path=path, width=grey_HW.shape[1], height=grey_HW.shape[0])


def test_hand_worked_brightness_and_sharpness(tmp_path: Path, data: DetectionData) -> None:
    """A dot of value 10 in 0: the Laplacian is -40 at the dot, 10 at its 4 neighbours, 0 at 4 corners: mean 0."""
    dot = np.zeros((5, 5))
    dot[2, 2] = 10
    brightness, sharpness = brightness_and_sharpness(record_of(tmp_path, data, dot))
    assert brightness == pytest.approx(10 / 25)
    assert sharpness == pytest.approx((40**2 + 4 * 10**2) / 9)
    assert brightness_and_sharpness(record_of(tmp_path, data, np.full((3, 7), 200))) == (200, 0)
    assert brightness_and_sharpness(record_of(tmp_path, data, np.full((1, 1), 9))) == (9, 0)


def test_blur_lowers_sharpness_also_of_a_large_image(tmp_path: Path, data: DetectionData) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 800))
    blurred = noise.reshape(300, 4, 200, 4).mean((1, 3)).repeat(4, 0).repeat(4, 1)
    sharp, soft = (brightness_and_sharpness(record_of(tmp_path, data, image))[1] for image in (noise, blurred))
    assert sharp > 2 * soft > 0
