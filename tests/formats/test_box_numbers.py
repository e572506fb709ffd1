"""Tests of the meaning of box numbers: unit and order, by the boxes of a whole dataset, in every format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from retinanet import data
from retinanet.data import DataError
from tests.formats.samples import Write

W, H = 200, 160
# Corners x1, y1, x2, y2 of twelve boxes in four images.
CORNERS = [
    *((28, 105, 65, 142), (94, 105, 136, 147), (88, 32, 142, 86), (119, 24, 170, 75), (23, 102, 61, 140)),
    *((63, 59, 110, 106), (38, 75, 86, 123), (106, 116, 142, 152), (36, 34, 71, 69), (36, 30, 78, 72)),
    *((122, 53, 166, 97), (10, 75, 63, 128)),
]
LEFT = [*CORNERS[:8], *((4, y, 84, y + 60) for y in (5, 20, 40, 90))]
Numbers = Sequence[Sequence[float]]
WriteNumbers = Callable[[Path, Numbers], Path]


def sizes(corners: Numbers) -> list[tuple[float, ...]]:
    return [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in corners]


def centres(corners: Numbers) -> list[tuple[float, ...]]:
    return [((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1) for x1, y1, x2, y2 in corners]


def relative(numbers: Numbers, whole: float = 1) -> list[tuple[float, ...]]:
    return [(a / W * whole, b / H * whole, c / W * whole, d / H * whole) for a, b, c, d in numbers]


def by_image(numbers: Numbers) -> list[tuple[str, Numbers]]:
    return [(f"p{i}", numbers[3 * i : 3 * i + 3]) for i in range((len(numbers) + 2) // 3)]


# One function per format writes four numbers per box without any change.


def coco(root: Path, numbers: Numbers, areas: Sequence[float] | None = None) -> Path:
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "disc"}]}
    for index, (name, boxes) in enumerate(by_image(numbers)):
        content["images"].append({"id": index, "file_name": f"{name}.png", "width": W, "height": H})
        for box in boxes:
            number = len(content["annotations"])
            area = {} if areas is None else {"area": areas[number]}
            content["annotations"].append(
                {"id": number + 1, "image_id": index, "category_id": 1, "bbox": list(box), **area}
            )
    (root / "a.json").write_text(json.dumps(content))
    return root / "a.json"


def csv(root: Path, numbers: Numbers) -> Path:
    rows = [f"{name}.png,{','.join(map(str, box))},disc\n" for name, boxes in by_image(numbers) for box in boxes]
    (root / "a.csv").write_text("".join(rows))
    return root / "a.csv"


def voc(root: Path, numbers: Numbers) -> Path:
    for name, boxes in by_image(numbers):
        objects = "".join(
            f"<object><name>disc</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
            "</bndbox></object>"
            for a, b, c, d in boxes
        )
        size = f"<size><width>{W}</width><height>{H}</height></size>"
        (root / f"{name}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return root


def yolo(root: Path, numbers: Numbers) -> Path:
    (root / "labels").mkdir(exist_ok=True)
    for name, boxes in by_image(numbers):
        text = "".join(f"0 {' '.join(map(str, box))}\n" for box in boxes)
        (root / "labels" / f"{name}.txt").write_text(text)
    (root / "data.yaml").write_text("train: images\nnames: [disc]\n")
    return root / "data.yaml"


def cvat(root: Path, numbers: Numbers) -> Path:
    images = "".join(
        f'<image id="{index}" name="{name}.png" width="{W}" height="{H}">'
        + "".join(f'<box label="disc" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}"/>' for a, b, c, d in boxes)
        + "</image>"
        for index, (name, boxes) in enumerate(by_image(numbers))
    )
    (root / "annotations.xml").write_text(f"<annotations>{images}</annotations>")
    return root / "annotations.xml"


def labelme(root: Path, numbers: Numbers) -> Path:
    for name, boxes in by_image(numbers):
        shapes = [{"label": "disc", "points": [[a, b], [c, d]], "shape_type": "rectangle"} for a, b, c, d in boxes]
        content = {"shapes": shapes, "imagePath": f"{name}.png", "imageWidth": W, "imageHeight": H}
        (root / "images" / f"{name}.json").write_text(json.dumps(content))
    return root / "images"


def label_studio(root: Path, numbers: Numbers) -> Path:
    tasks = []
    for name, boxes in by_image(numbers):
        result = [
            {
                "type": "rectanglelabels",
                "original_width": W,
                "original_height": H,
                "value": {"x": x, "y": y, "width": w, "height": h, "rectanglelabels": ["disc"]},
            }
            for x, y, w, h in boxes
        ]
        tasks.append({"data": {"image": f"/data/upload/{name}.png"}, "annotations": [{"result": result}]})
    (root / "a.json").write_text(json.dumps(tasks))
    return root / "a.json"


@pytest.fixture
def root(tmp_path: Path, write_image: Write) -> Path:
    for index in range(5):
        write_image(tmp_path / "images" / f"p{index}.png", W, H, seed=index)
    return tmp_path


RIGHT = {
    coco: sizes(CORNERS),
    csv: CORNERS,
    voc: CORNERS,
    yolo: relative(centres(CORNERS)),
    cvat: CORNERS,
    labelme: CORNERS,
    label_studio: relative(sizes(CORNERS), 100),
}


@pytest.mark.parametrize("write", RIGHT, ids=lambda write: write.__name__)
def test_right_numbers_have_neither_faults_nor_notes(write: WriteNumbers, root: Path) -> None:
    place = write(root, RIGHT[write])
    found = data.load(place, images=root / "images") if write is voc else data.load(place)
    assert [tuple(round(v, 6) for v in box) for r in found.records for box in r.boxes_G4.tolist()] == CORNERS
    assert not any("edge" in note or "upper left" in note for note in found.notes)


@pytest.mark.parametrize("write", [coco, csv, voc, cvat, labelme], ids=lambda write: write.__name__)
def test_fractions_in_a_format_of_pixels_are_one_kind_of_fault(write: WriteNumbers, root: Path) -> None:
    numbers = relative(sizes(CORNERS) if write is coco else CORNERS)
    with pytest.raises(DataError, match="maybe fractions of the image size, found 0.14, 0.65625") as caught:
        data.load(write(root, numbers), images=root / "images")
    assert len(caught.value.faults) == 12
    assert len(str(caught.value).splitlines()) == 6  # the head, the kind, three examples and the count of the others


def test_a_few_fractions_among_pixels_are_found(root: Path) -> None:
    found = data.read(csv(root, [*relative(CORNERS[:3]), *CORNERS[3:]]))
    assert [fault.where for fault in found.faults] == ["line 1", "line 2", "line 3"]
    assert found.num_objects == 9


def test_boxes_of_one_pixel_in_the_corner_are_kept(root: Path) -> None:
    found = data.load(csv(root, [(0, 0, 1, 1)] * 12))
    assert (found.num_objects, found.faults) == (12, ())


@pytest.mark.parametrize(
    ("write", "numbers"), [(yolo, centres(CORNERS)), (label_studio, [(a * 9, b * 9, c * 9, d * 9) for a, b, c, d in
    sizes(CORNERS)])], ids=["yolo", "label_studio"]
)  # fmt: skip
def test_pixels_in_a_relative_format_are_faults(write: WriteNumbers, numbers: Numbers, root: Path) -> None:
    with pytest.raises(DataError, match="relative to the image size, 0 to 1.*maybe pixels"):
        data.load(write(root, numbers))


def test_fractions_as_percent_are_a_fault(root: Path) -> None:
    with pytest.raises(DataError, match="expected percent of the image size, 0 to 100, found only numbers up to"):
        data.load(label_studio(root, relative(sizes(CORNERS))))


@pytest.mark.parametrize(
    ("write", "numbers", "message"),
    [
        (coco, CORNERS, "expected boxes as x1, y1, width, height, found maybe corners instead of sizes"),
        (yolo, relative(CORNERS), "expected boxes as centre x, .*, found maybe corners instead of sizes"),
        (yolo, relative(sizes(LEFT)), r"Read as x1, y1, width, height, 12 of 12 lie inside"),
        (csv, sizes(CORNERS), "expected boxes as x1, y1, x2, y2, found maybe another order.* 12 of 12 lie inside"),
        (voc, sizes(CORNERS), "expected boxes as x1, y1, x2, y2, found maybe another order"),
        (cvat, sizes(CORNERS), "expected boxes as x1, y1, x2, y2, found maybe another order"),
        (label_studio, relative(CORNERS, 100), "found maybe corners instead of sizes"),
    ],
    ids=["coco", "yolo corners", "yolo corner and sides", "csv", "voc", "cvat", "label_studio"],
)
def test_another_order_is_one_fault_of_the_dataset(
    write: WriteNumbers, numbers: Numbers, message: str, root: Path
) -> None:
    """armory#1491: corners were read as sizes, and the boxes clipped to the image."""
    place = write(root, numbers)
    with pytest.raises(DataError, match=message) as caught:
        data.load(place, images=root / "images")
    assert sum("Read as" in fault.what for fault in caught.value.faults) == 1
    assert "Examples: p" in caught.value.faults[0].what


def test_declared_areas_decide_the_order(root: Path) -> None:
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in CORNERS]
    inside = [(x1 / 3, y1 / 3, x2 / 3, y2 / 3) for x1, y1, x2, y2 in CORNERS]  # no box reaches over an edge
    message = "12 of 12 areas differ from width x height.* 12 of 12 areas are equal"
    with pytest.raises(DataError, match=message):
        data.load(coco(root, inside, [area / 9 for area in areas]))
    # Boxes that really reach over the edge have the area that the numbers give.
    assert data.load(coco(root, CORNERS, [c * d for _, _, c, d in CORNERS])).faults == ()


def test_boxes_over_the_edge_are_counted_in_a_note(root: Path) -> None:
    found = data.load(csv(root, [*CORNERS, (150, 100, 230, 150), (-4, 10, 50, 60)]))
    (note,) = (note for note in found.notes if "edge" in note)
    assert note == (
        "2 of 14 boxes reach over the edge of their image by more than 1 pixel, up to 30 pixels, and are clipped or "
        "left out. Examples: p4.png: 150, 100, 230, 150; p4.png: -4, 10, 50, 60"
    )


def test_images_that_were_made_larger_are_noted(root: Path, write_image: Write) -> None:
    numbers = [(x1 / 4, y1 / 4, x2 / 4, y2 / 4) for x1, y1, x2, y2 in CORNERS + CORNERS]
    for index in range(4, 8):
        write_image(root / "images" / f"p{index}.png", W, H, seed=index)
    notes = " ".join(data.load(csv(root, numbers)).notes)
    assert "all 24 boxes lie in the upper left 21% x 24% of their images; maybe the images were made larger" in notes
