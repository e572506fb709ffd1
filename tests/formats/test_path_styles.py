"""Metamorphic matrix: one dataset in every format and every style of paths gives the same boxes on the same images."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from retinanet import data

W, H = 64, 48
BOXES = (("cat", (1.0, 2.0, 30.0, 40.0)), ("dog", (10.0, 4.0, 20.0, 40.0)), ("cat", (5.0, 6.0, 50.0, 20.0)))
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "formats.md"


@dataclass(frozen=True)
class Item:
    """An image below the image folder, its path in the annotations, and its object."""

    place: str
    written: str
    label: str
    box: tuple[float, ...]


@dataclass(frozen=True)
class Style:
    """A style of paths.

    Args:
        written: function that returns the written path of an image, from its place below the image folder.
        places: places of the images.
        elsewhere: whether the images lie elsewhere and `--images` names their folder.
        stored: function that returns the name on the disk.
        linked: whether the folder cam2 is a link.
        bom: whether text files have a byte order mark and the line ends of Windows.
    """

    written: Callable[[str], str]
    places: tuple[str, ...] = ("cam1/a.jpg", "cam1/b.jpg", "cam2/c.jpg")
    elsewhere: bool = False
    stored: Callable[[str], str] = str
    linked: bool = False
    bom: bool = False


EQUAL = ("cam1/a.jpg", "cam1/b.jpg", "cam2/a.jpg")
ACCENTS = ("cam1/r\u00e9sum\u00e9 1.jpg", "cam1/\u00fc.jpg", "cam2/\u00e0.jpg")


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


STYLES = {
    "relative": Style(lambda place: f"images/{place}"),
    "below `--images`": Style(str, elsewhere=True),
    "another machine's absolute path": Style(lambda place: f"/home/ann/set/images/{place}"),
    "another machine's path and `--images`": Style(lambda place: f"/home/ann/set/{place}", elsewhere=True),
    "Windows": Style(lambda place: "C:\\Users\\ann\\images\\" + place.replace("/", "\\")),
    "Windows, relative": Style(lambda place: "images\\" + place.replace("/", "\\")),
    "percent-encoded": Style(lambda place: quote(f"images/{place}"), ACCENTS),
    "`file://`": Style(lambda place: "file:///home/ann/images/" + quote(place), ACCENTS),
    "accents stored decomposed (NFD), written composed": Style(lambda p: f"images/{p}", ACCENTS, stored=decomposed),
    "accents written decomposed (NFD), stored composed": Style(lambda p: decomposed(f"images/{p}"), ACCENTS),
    "equal names in subfolders": Style(lambda place: f"images/{place}", EQUAL),
    "equal names, another machine's path": Style(lambda place: f"/home/ann/set/images/{place}", EQUAL),
    "equal names, written without folders": Style(lambda place: PurePosixPath(place).name, EQUAL),
    "linked folder": Style(lambda place: f"images/{place}", linked=True),
    "byte order mark and CRLF": Style(lambda place: f"images/{place}", bom=True),
}


def items(style: Style) -> list[Item]:
    return [Item(place, style.written(place), *box) for place, box in zip(style.places, BOXES, strict=True)]


def write_coco(root: Path, found: list[Item], _: Path) -> dict[str, str]:
    images = [{"id": i, "file_name": item.written, "width": W, "height": H} for i, item in enumerate(found, 1)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    annotations = [
        {
            "id": i,
            "image_id": i,
            "category_id": 1 + (item.label == "dog"),
            "bbox": [*item.box[:2], item.box[2] - item.box[0], item.box[3] - item.box[1]],
            "iscrowd": 0,
        }
        for i, item in enumerate(found, 1)
    ]
    return {"a.json": json.dumps({"images": images, "categories": categories, "annotations": annotations})}


def write_csv(root: Path, found: list[Item], _: Path) -> dict[str, str]:
    return {"a.csv": "".join(f"{i.written},{','.join(map(str, i.box))},{i.label}\n" for i in found)}


def write_cvat(root: Path, found: list[Item], _: Path) -> dict[str, str]:
    images = "".join(
        f'<image id="{n}" name="{i.written}" width="{W}" height="{H}">\n<box label="{i.label}" xtl="{i.box[0]}" '
        f'ytl="{i.box[1]}" xbr="{i.box[2]}" ybr="{i.box[3]}"/></image>\n'
        for n, i in enumerate(found)
    )
    return {"annotations.xml": f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{images}</annotations>'}


def write_label_studio(root: Path, found: list[Item], _: Path) -> dict[str, str]:
    def value(item: Item) -> dict[str, object]:
        x1, y1, x2, y2 = item.box
        size = {"x": x1 / W * 100, "y": y1 / H * 100, "width": (x2 - x1) / W * 100, "height": (y2 - y1) / H * 100}
        return {**size, "rotation": 0, "rectanglelabels": [item.label]}

    tasks = [
        {
            "id": n,
            "data": {"image": i.written},
            "annotations": [{"result": [{"original_width": W, "original_height": H, "value": value(i)}]}],
        }
        for n, i in enumerate(found)
    ]
    return {"a.json": json.dumps(tasks)}


def write_labelme(root: Path, found: list[Item], images: Path) -> dict[str, str]:
    files = {}
    for item in found:
        x1, y1, x2, y2 = item.box
        shape = {"label": item.label, "points": [[x1, y1], [x2, y2]], "shape_type": "rectangle"}
        content = {"shapes": [shape], "imagePath": item.written, "imageWidth": W, "imageHeight": H}
        beside = images if images.is_relative_to(root) else root
        files[str(beside / PurePosixPath(item.place).with_suffix(".json"))] = json.dumps(content)
    return files


def write_voc(root: Path, found: list[Item], _: Path) -> dict[str, str]:
    return {
        f"Annotations/{PurePosixPath(i.place).with_suffix('.xml')}": (
            f"<annotation>\n<filename>{i.written.replace(chr(92), '/').rpartition('/')[2]}</filename>"
            f"<path>{i.written}</path><size><width>{W}</width><height>{H}</height></size>\n<object><name>{i.label}"
            f"</name><bndbox><xmin>{i.box[0]}</xmin><ymin>{i.box[1]}</ymin><xmax>{i.box[2]}</xmax><ymax>{i.box[3]}"
            "</ymax></bndbox></object></annotation>"
        )
        for i in found
    }


def yolo_labels(found: list[Item]) -> dict[str, str]:
    return {
        f"labels/{PurePosixPath(i.place).with_suffix('.txt')}": (
            f"{int(i.label == 'dog')} {(i.box[0] + i.box[2]) / 2 / W} {(i.box[1] + i.box[3]) / 2 / H} "
            f"{(i.box[2] - i.box[0]) / W} {(i.box[3] - i.box[1]) / H}\n"
        )
        for i in found
    }


def write_yolo_list(root: Path, found: list[Item], _: Path) -> dict[str, str]:
    lines = "".join(f"{i.written}\n" for i in found)
    return {"data.yaml": "train: train.txt\nnames: [cat, dog]\n", "train.txt": lines, **yolo_labels(found)}


def write_yolo_folder(root: Path, found: list[Item], _: Path) -> dict[str, str]:
    first = found[0]
    name = PurePosixPath(first.place).name
    folder = first.written.replace("\\", "/")
    folder = folder.rpartition("/")[0].rpartition("/")[0] if "/" in folder and folder != name else "images"
    text = folder.replace("/", "\\") if "\\" in first.written else folder
    return {"data.yaml": f"train: {text or 'images'}\nnames: [cat, dog]\n", **yolo_labels(found)}


def write_lvis(root: Path, found: list[Item], images: Path) -> dict[str, str]:
    content = json.loads(write_coco(root, found, images)["a.json"])
    for image in content["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": [], "coco_url": image.pop("file_name")}
    return {"a.json": json.dumps(content)}


def write_open_images(root: Path, found: list[Item], _: Path) -> dict[str, str]:
    rows = [
        f"{i.written.removesuffix('.jpg')},{i.label},{i.box[0] / W},{i.box[2] / W},{i.box[1] / H},{i.box[3] / H}\n"
        for i in found
    ]
    return {"a.csv": "".join(["ImageID,LabelName,XMin,XMax,YMin,YMax\n", *rows])}


def text_files(folder: str, line: Callable[[Item], str], found: list[Item]) -> dict[str, str]:
    return {f"{folder}/{PurePosixPath(i.place).with_suffix('.txt')}": f"{line(i)}\n" for i in found}


def write_kitti(root: Path, found: list[Item], _: Path) -> dict[str, str]:
    return text_files("labels", lambda i: f"{i.label} 0 0 0 {' '.join(map(str, i.box))} 1 1 1 1 1 1 1", found)


def write_visdrone(root: Path, found: list[Item], _: Path) -> dict[str, str]:
    def line(i: Item) -> str:
        x1, y1, x2, y2 = i.box
        return f"{x1},{y1},{x2 - x1},{y2 - y1},1,{4 if i.label == 'cat' else 9},0,0"

    return text_files("annotations", line, found)


def write_dota(root: Path, found: list[Item], _: Path) -> dict[str, str]:
    def line(i: Item) -> str:
        x1, y1, x2, y2 = i.box
        return f"{x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2} {i.label} 0"

    return text_files("labelTxt", line, found)


FORMATS: dict[str, tuple[Any, ...]] = {
    "COCO": (write_coco, "a.json"),
    "VOC": (write_voc, "."),
    "YOLO, folder": (write_yolo_folder, "data.yaml"),
    "YOLO, list": (write_yolo_list, "data.yaml"),
    "CSV": (write_csv, "a.csv"),
    "labelme": (write_labelme, "."),
    "Label Studio": (write_label_studio, "a.json"),
    "CVAT": (write_cvat, "annotations.xml"),
    "LVIS": (write_lvis, "a.json"),
    "Open Images": (write_open_images, "a.csv"),
    "KITTI": (write_kitti, "."),
    "VisDrone": (write_visdrone, ".", {"rename": {"car": "cat", "bus": "dog"}}),
    "DOTA": (write_dota, "."),
}


def read_cell(
    folder: Path, style: Style, write: Callable[..., dict[str, str]], source: str, options: dict[str, Any] | None = None
) -> str:
    """Write the dataset, read it, and return `same boxes` or `fault`. Any other result is an assertion error."""
    root = folder / "set"
    images = folder / "elsewhere" / "pics" if style.elsewhere else root / "images"
    found = items(style)
    for number, item in enumerate(found):
        path = images / style.stored(item.place)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (W, H), (50 * number, 100, 0)).save(path)
    for name, text in write(root, found, images).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        content = ("\ufeff" + text.replace("\n", "\r\n")) if style.bom else text
        file.write_bytes(content.encode())
    if style.linked:
        (images / "cam2").rename(folder / "store")
        (images / "cam2").symlink_to(folder / "store")
    read = data.read(root / source, images=images if style.elsewhere else None, **(options or {}))
    by_path = {
        record.path.resolve(): [
            (read.classes[k], tuple(round(v, 6) for v in box))
            for k, box in zip(record.labels_G, record.boxes_G4.tolist(), strict=True)
        ]
        for record in read.records
    }
    expected = {(images / style.stored(item.place)).resolve(): [(item.label, item.box)] for item in found}
    for path, objects in by_path.items():  # never the boxes of another image, and never an image without its boxes
        assert objects == expected[path], (path, objects)
    if by_path == expected and not read.faults:
        return "same boxes"
    missing = {item.written for item in found if (images / style.stored(item.place)).resolve() not in by_path}
    assert len(read.faults) >= len(missing) > 0, read.faults
    assert all("that match equally" in fault.what for fault in read.faults), read.faults
    return "fault"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("style", STYLES)
def test_the_same_boxes_on_the_same_images(tmp_path: Path, style: str, format: str) -> None:
    result = read_cell(tmp_path, STYLES[style], *FORMATS[format])
    assert f"| {style} |" in DOCS.read_text()
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith(f"| {style} |"))
    assert row.split("|")[2 + list(FORMATS).index(format)].strip() == result
