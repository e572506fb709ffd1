"""Sample datasets in each format and export: two images, the first with a cat and a dog."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retinanet.data import DetectionData

Write = Callable[..., Path]
W, H = 64, 48
CAT, DOG = (1.0, 2.0, 30.0, 40.0), (10.5, 4.25, 20.25, 40.0)


def boxes(found: DetectionData) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """Return the class and the box of each object, by image name."""
    return {
        r.path.name: [
            (found.classes[k], tuple(round(v, 6) for v in box))
            for k, box in zip(r.labels_G, r.boxes_G4.tolist(), strict=True)
        ]
        for r in found.records
    }


EXPECTED = {"a.jpg": [("cat", CAT), ("dog", DOG)], "b.jpg": []}


def shares(box: tuple[float, ...]) -> str:
    x1, y1, x2, y2 = box
    return f"{(x1 + x2) / 2 / W} {(y1 + y2) / 2 / H} {(x2 - x1) / W} {(y2 - y1) / H}"


def write_yolo(root: Path, write_image: Write, *, split: str = "train", folder: str | None = None) -> Path:
    """Write images/train and labels/train, or FOLDER/images and FOLDER/labels as Roboflow does."""
    images, labels = (root / "images" / split, root / "labels" / split)
    if folder is not None:
        images, labels = root / folder / "images", root / folder / "labels"
    for name in ("a", "b"):
        write_image(images / f"{name}.jpg", W, H, seed=ord(name))
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text(f"0 {shares(CAT)}\n2 {shares(DOG)}\n")
    return root


# Exports of labelling tools: each function writes the files and names of one tool, with its peculiarities.


def coco(images: str = "") -> dict[str, Any]:
    def box(b: tuple[float, ...]) -> list[float]:
        return [b[0], b[1], b[2] - b[0], b[3] - b[1]]

    return {
        "images": [
            {"id": i, "file_name": f"{images}{n}.jpg", "width": W, "height": H} for i, n in enumerate(("a", "b"))
        ],
        "categories": [
            {"id": 0, "name": "animals", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "animals"},
            {"id": 2, "name": "dog", "supercategory": "animals"},
        ],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 1, "bbox": box(CAT), "area": 1, "iscrowd": 0, "segmentation": []},
            {"id": 1, "image_id": 0, "category_id": 2, "bbox": box(DOG), "area": 1, "iscrowd": 0, "segmentation": []},
        ],
    }


def voc_xml(name: str, objects: list[tuple[str, tuple[float, ...]]]) -> str:
    found = "".join(
        f"<object><name>{c}</name><bndbox><xmin>{b[0]}</xmin><xmax>{b[2]}</xmax><ymin>{b[1]}</ymin><ymax>{b[3]}</ymax>"
        "</bndbox></object>"
        for c, b in objects
    )
    return (
        f"<annotation><filename>{name}</filename><size><width>{W}</width><height>{H}</height><depth>3</depth></size>"
        f"{found}</annotation>"
    )


OBJECTS = [("cat", CAT), ("dog", DOG)]


def roboflow_coco(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "train" / f"{name}.jpg", W, H, seed=ord(name))
        write(root / "valid" / f"{name}.jpg", W, H, seed=ord(name) + 9)
    for split in ("train", "valid"):
        (root / split / "_annotations.coco.json").write_text(json.dumps(coco()))
    return root


def roboflow_voc(root: Path, write: Write) -> Path:
    for name, objects in (("a", OBJECTS), ("b", [])):
        write(root / "train" / f"{name}.jpg", W, H, seed=ord(name))
        (root / "train" / f"{name}.xml").write_text(voc_xml(f"{name}.jpg", objects))  # type: ignore[arg-type]
    return root


def roboflow_yolo(root: Path, write: Write) -> Path:
    write_yolo(root, write, folder="train")
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\n\nnc: 3\nnames: ['cat', 'x', 'dog']\n"
    )
    return root / "data.yaml"


def roboflow_csv(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "train" / f"{name}.jpg", W, H, seed=ord(name))
    rows = [["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]]
    rows += [["a.jpg", str(W), str(H), c, *map(str, b)] for c, b in OBJECTS]
    with (root / "train" / "_annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def label_studio(root: Path, write: Write, *, minimal: bool = False) -> Path:
    for name in ("a", "b"):
        write(root / "images" / f"0a1b2c3d-{name}.jpg", W, H, seed=ord(name))
    (root / "images" / "0a1b2c3d-a.jpg").rename(root / "images" / "a.jpg")  # the name before the upload

    def value(c: str, b: tuple[float, ...]) -> dict[str, Any]:
        x1, y1, x2, y2 = b
        inner = {"x": x1 / W * 100, "y": y1 / H * 100, "width": (x2 - x1) / W * 100, "height": (y2 - y1) / H * 100}
        return {**inner, "rotation": 0, "rectanglelabels": [c]}

    def size() -> dict[str, int]:
        return {"original_width": W, "original_height": H}

    tasks = []
    for i, (name, objects) in enumerate((("a", OBJECTS), ("b", []))):
        image = f"/data/upload/1/0a1b2c3d-{name}.jpg"
        if minimal:
            label = {"label": [{**value(c, b), **size()} for c, b in objects]} if objects else {}
            tasks.append({"image": image, "id": i + 1, **label, "annotator": 1, "annotation_id": i, "lead_time": 1.0})
            continue
        result = [
            {"id": f"r{n}", "type": "rectanglelabels", "value": value(c, b), "image_rotation": 0, **size()}
            for n, (c, b) in enumerate(objects)
        ]
        choices = {"id": "c", "type": "choices", "value": {"choices": ["sharp"]}}
        annotations = [
            {"id": i, "was_cancelled": False, "ground_truth": False, "result": [*result, choices]},
            {"id": i + 9, "was_cancelled": True, "result": result},
        ]
        tasks.append({"id": i + 1, "annotations": annotations, "data": {"image": image}, "predictions": []})
    (root / "project-1.json").write_text(json.dumps(tasks))
    return root / "project-1.json"


def label_studio_min(root: Path, write: Write) -> Path:
    return label_studio(root, write, minimal=True)


def label_studio_yolo(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "images" / f"{name}.jpg", W, H, seed=ord(name))
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text(f"0 {shares(CAT)}\n1 {shares(DOG)}\n")
    (root / "labels" / "b.txt").write_text("")
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "notes.json").write_text(json.dumps({"categories": [{"id": 0, "name": "cat"}], "info": {}}))
    return root


def label_studio_coco(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "images" / f"{name}.jpg", W, H, seed=ord(name))
    content = coco("images\\")  # written on Windows
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (root / "result.json").write_text(json.dumps(content))
    return root


def cvat_xml(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "images" / f"{name}.jpg", W, H, seed=ord(name))
    shapes = "".join(
        f'<box label="{c}" source="manual" occluded="0" xtl="{b[0]}" ytl="{b[1]}" xbr="{b[2]}" ybr="{b[3]}" '
        'z_order="0"></box>'
        for c, b in OBJECTS
    )
    labels = "".join(f"<label><name>{c}</name><color>#fff</color></label>" for c in ("cat", "dog"))
    (root / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task><labels>{labels}'
        f'</labels></task></meta><image id="0" name="a.jpg" width="{W}" height="{H}">{shapes}</image>'
        f'<image id="1" name="b.jpg" width="{W}" height="{H}"></image></annotations>'
    )
    return root


def cvat_yolo(root: Path, write: Write) -> Path:
    """Write CVAT's "YOLO 1.1": paths start with data/, which stands for the root folder of the archive."""
    for name in ("a", "b"):
        write(root / "obj_train_data" / f"{name}.jpg", W, H, seed=ord(name))
    (root / "obj_train_data" / "a.txt").write_text(f"0 {shares(CAT)}\n1 {shares(DOG)}\n")
    (root / "obj_train_data" / "b.txt").write_text("")
    (root / "obj.names").write_text("cat\ndog\n")
    (root / "train.txt").write_text("data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")
    (root / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    return root


def cvat_coco(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "images" / "default" / f"{name}.jpg", W, H, seed=ord(name))
    (root / "annotations").mkdir()
    content = coco()
    content["categories"] = [{"id": 1, "name": "cat", "supercategory": ""}, {"id": 2, "name": "dog"}]
    (root / "annotations" / "instances_default.json").write_text(json.dumps(content))
    return root


def cvat_voc(root: Path, write: Write) -> Path:
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, objects in (("a", OBJECTS), ("b", [])):
        write(root / "JPEGImages" / f"{name}.jpg", W, H, seed=ord(name))
        (root / "Annotations" / f"{name}.xml").write_text(voc_xml(f"{name}.jpg", objects))  # type: ignore[arg-type]
    (root / "ImageSets" / "Main" / "default.txt").write_text("a\nb\n")
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\ncat:1,2,3::\ndog:1,2,4::\n")
    return root


def labelme(root: Path, write: Write) -> Path:
    root.mkdir(exist_ok=True)
    for name, objects in (("a", OBJECTS), ("b", [])):
        write(root / f"{name}.jpg", W, H, seed=ord(name))
        shapes = [
            # Drawn from the lower right to the upper left: labelme keeps the order of the clicks.
            {
                "label": c,
                "points": [[b[2], b[3]], [b[0], b[1]]],
                "group_id": None,
                "shape_type": "rectangle",
                "flags": {},
            }
            for c, b in objects  # type: ignore[attr-defined]
        ]
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None}
        (root / f"{name}.json").write_text(json.dumps({**content, "imageHeight": H, "imageWidth": W}))
    return root


# Public datasets: each function writes the folders and names of the official download.


def kitti_line(name: str, box: tuple[float, ...], *, truncated: str = "0.00", occluded: str = "0") -> str:
    """Return a line as in label_2: box as left, top, right, bottom; then dimensions, location and rotation."""
    return f"{name} {truncated} {occluded} -1.58 {' '.join(map(str, box))} 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"


def kitti(root: Path, write: Write) -> Path:
    labels = root / "training" / "label_2"
    labels.mkdir(parents=True)
    for name, objects in (("a", OBJECTS), ("b", [])):
        write(root / "training" / "image_2" / f"{name}.jpg", W, H, seed=ord(name))
        (labels / f"{name}.txt").write_text("".join(kitti_line(c, b) for c, b in objects))  # type: ignore[attr-defined]
    write(root / "testing" / "image_2" / "c.jpg", W, H)
    return root


def tao(root: Path, write: Write) -> Path:
    """Write the folders of NVIDIA's TAO Toolkit, whose label files are KITTI's."""
    kitti(root, write)
    (root / "training" / "label_2").rename(root / "labels")
    (root / "training" / "image_2").rename(root / "images")
    return root


def dota_line(name: str, box: tuple[float, ...], difficult: int = 0) -> str:
    x1, y1, x2, y2 = box
    return f"{x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2} {name} {difficult}\n"


def dota(root: Path, write: Write) -> Path:
    header = "imagesource:GoogleEarth\ngsd:0.146343590398\n"
    (root / "train" / "labelTxt").mkdir(parents=True)
    for name, objects in (("a", OBJECTS), ("b", [])):
        write(root / "train" / "images" / f"{name}.jpg", W, H, seed=ord(name))
        lines = "".join(dota_line(c, b) for c, b in objects)  # type: ignore[attr-defined]
        (root / "train" / "labelTxt" / f"{name}.txt").write_text(header + lines)
    return root


OPEN_IMAGES_HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
IDS = {"cat": "/m/01yrx", "dog": "/m/0bt9lr"}


def open_images_row(image: str, name: str, box: tuple[float, ...], *, group: str = "0") -> str:
    x1, y1, x2, y2 = box
    return f"{image},xclick,{IDS[name]},1,{x1 / W},{x2 / W},{y1 / H},{y2 / H},0,1,{group},0,-1"


def open_images(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "train" / f"{name}.jpg", W, H, seed=ord(name))
    rows = [OPEN_IMAGES_HEADER, *(open_images_row("a", c, b) for c, b in OBJECTS)]
    (root / "oidv6-train-annotations-bbox.csv").write_text("\n".join(rows) + "\n")
    (root / "class-descriptions-boxable.csv").write_text(f"{IDS['dog']},dog\n{IDS['cat']},cat\n/m/011k07,Tortoise\n")
    return root


def lvis(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "train2017" / f"{name}.jpg", W, H, seed=ord(name))
    content = coco()
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"
        image |= {"neg_category_ids": [2] if image["id"] else [], "not_exhaustive_category_ids": [1]}
    content["categories"] = [
        {"id": i, "name": n, "synset": f"{n}.n.01", "frequency": "r"} for i, n in ((1, "cat"), (2, "dog"))
    ]
    (root / "annotations").mkdir()
    (root / "annotations" / "lvis_v1_train.json").write_text(json.dumps(content))
    return root / "annotations" / "lvis_v1_train.json"


EXPORTS = [
    *(kitti, tao, dota, open_images, lvis),
    *(roboflow_coco, roboflow_voc, roboflow_yolo, roboflow_csv),
    *(label_studio, label_studio_min, label_studio_yolo, label_studio_coco),
    *(cvat_xml, cvat_yolo, cvat_coco, cvat_voc, labelme),
]
