"""Targets of fuzzing. A target takes any bytes; the only exception it may raise and catch is an error for the user.

The Hypothesis and regression tests (test_untrusted.py) and atheris (run.py) use these targets.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from PIL import Image

from retinanet import images
from retinanet.config import CheckConfig, EvaluateConfig, TrainConfig, resolve
from retinanet.data import read
from retinanet.errors import UserError

CLASSES = ("cat", "dog")
WHOLE_DISK = re.compile(rb"[:=]\s*[\"'\[]?\s*/[/.]*\W*?$", re.MULTILINE)
"""Matches `train: /`. Absolute paths are allowed, but searching the whole disk takes too long."""
_FOLDER: list[Path] = []


def folder() -> Path:
    """Return a folder with a few images, created once, in memory if possible."""
    if not _FOLDER:
        place = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108
        (place / "set" / "images").mkdir(parents=True)
        for name in ("a.png", "b.png"):
            Image.new("RGB", (8, 6), "white").save(place / "set" / "images" / name)
        (place / "secret.png").write_bytes((place / "set" / "images" / "a.png").read_bytes())
        _FOLDER.append(place / "set")
    return _FOLDER[0]


@contextlib.contextmanager
def written(name: str, data: bytes) -> Iterator[Path]:
    """Write a file, and remove it at the end of the `with` block."""
    path = folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    try:
        yield path
    finally:
        path.unlink()


def _read(path: Path, **options: object) -> None:
    """Read a dataset, and check that its messages are printable and short and that no path leads outside."""
    try:
        data = read(path, **options)  # type: ignore[arg-type]
    except UserError as error:
        message = str(error)
        message.encode()
        assert len(message) < 20_000, len(message)
        return
    for fault in data.faults:
        str(fault).encode()
        assert len(str(fault)) < 20_000
    for record in data.records:
        record.boxes_G4.sum()
        if ".." in record.path.parts and "\0" not in str(record.path):  # absolute paths are allowed
            assert os.path.realpath(record.path).startswith(str(folder().parent)), record.path
    for note in data.notes:
        note.encode()
    data.to_coco()


def coco(data: bytes) -> None:
    with written("coco.json", data) as path:
        _read(path)
        _read(path, classes=CLASSES)


def label_studio(data: bytes) -> None:
    with written("studio.json", data) as path:
        _read(path, format="label_studio")


def labelme(data: bytes) -> None:
    with written("a.json", data) as path:
        _read(path, format="labelme")


def cvat(data: bytes) -> None:
    with written("annotations.xml", data) as path:
        _read(path, format="cvat")


def voc(data: bytes) -> None:
    with written("voc/Annotations/a.xml", data) as path:
        _read(path.parent.parent, format="voc", images=folder() / "images")


def voc_split(data: bytes) -> None:
    xml = b"<annotation><filename>a.png</filename><size><width>8</width><height>6</height></size></annotation>"
    with written("voc/Annotations/a.xml", xml), written("voc/ImageSets/Main/x.txt", data) as path:
        _read(path, format="voc", images=folder() / "images")


def csv(data: bytes) -> None:
    with written("x.csv", data) as path:
        _read(path)


def csv_classes(data: bytes) -> None:
    with written("classes.csv", data), written("x.csv", b"images/a.png,1,1,3,3,cat\n") as path:
        _read(path)


def yolo_yaml(data: bytes) -> None:
    if WHOLE_DISK.search(data):
        return
    with written("labels/a.txt", b"0 0.5 0.5 0.2 0.2\n"), written("data.yaml", data) as path:
        _read(path)
        _read(path, split="val")


def yolo_labels(data: bytes) -> None:
    with written("labels/a.txt", data), written("data.yaml", b"names: [cat, dog]\ntrain: images\n") as path:
        _read(path)


def yolo_list(data: bytes) -> None:
    with (
        written("labels/a.txt", b"0 0.5 0.5 0.2 0.2\n"),
        written("classes.txt", b"cat\ndog\n"),
        written("list.txt", data) as path,
    ):
        _read(path, format="yolo")


def darknet(data: bytes) -> None:
    if WHOLE_DISK.search(data):
        return
    with written("obj.names", b"cat\n"), written("train.txt", b"images/a.png\n"), written("obj.data", data) as path:
        _read(path)


def lvis(data: bytes) -> None:
    with written("lvis.json", data) as path:
        _read(path, format="lvis")


def open_images(data: bytes) -> None:
    with written("boxes.csv", data) as path:
        _read(path, format="open_images")


def open_images_classes(data: bytes) -> None:
    rows = b"ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/1,0.1,0.5,0.1,0.5\n"
    with written("class-descriptions.csv", data), written("boxes.csv", rows) as path:
        _read(path)


def open_images_labels(data: bytes) -> None:
    rows = b"ImageID,LabelName,XMin,XMax,YMin,YMax\na,cat,0.1,0.5,0.1,0.5\n"
    with written("human-imagelabels.csv", data), written("boxes.csv", rows) as path:
        _read(path)


def kitti(data: bytes) -> None:
    with written("label_2/a.txt", data) as path:
        _read(path.parent.parent, format="kitti")


def visdrone(data: bytes) -> None:
    with written("annotations/a.txt", data) as path:
        _read(path.parent.parent, format="visdrone")


def dota(data: bytes) -> None:
    with written("labelTxt/a.txt", data) as path:
        _read(path.parent.parent, format="dota")


def config(data: bytes) -> None:
    """Read bytes as the YAML file of --config, and resolve the config of several commands."""
    from retinanet.config.option_file import read_yaml

    with written("config.yaml", data) as path:
        try:
            values = read_yaml(path)
        except UserError as error:
            str(error).encode()
            return
    for kind, given in (
        (TrainConfig, {"train": "a", "val": "b", "output": "c"}),
        (EvaluateConfig, {"data": "a"}),
        (CheckConfig, {}),
    ):
        try:
            resolve(kind, {**given, **values})
        except UserError as error:
            str(error).encode()


def image(data: bytes) -> None:
    with written("x.png", data) as path:
        for read_image in (
            lambda: images.read_size(path),
            lambda: images.verify(path),
            lambda: images.decode_for(path, image_size=8, max_size=16),
            lambda: images.decode(data),
        ):
            try:
                read_image()
            except images.ImageError as error:
                str(error).encode()


def _small_checkpoint() -> dict[str, bytes]:
    """Return the parts of the archive of a small checkpoint."""
    import torch

    from retinanet.checkpoint.loaded_model import KEY, describe_run
    from retinanet.config import to_dict
    from retinanet.model import RetinaNet

    options = {"backbone": "tf_efficientnet_lite0", "fpn_width": 8, "head_width": 8, "head_depth": 0}
    run = resolve(TrainConfig, {"train": "a", "val": "b", "output": "c", **options})
    model = RetinaNet(num_classes=2, config=run.model)
    about = describe_run(run, CLASSES, (1, 2))
    assert to_dict(run) == about["config"]
    buffer = io.BytesIO()
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({KEY: about, "state_dict": state}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


_PARTS: dict[str, bytes] = {}


def checkpoint_parts() -> dict[str, bytes]:
    """Return the parts of a checkpoint, created once: its pickle '.../data.pkl' and its tensors '.../data/N'."""
    if not _PARTS:
        _PARTS.update(_small_checkpoint())
    return _PARTS


def zip_archive(parts: dict[str, bytes]) -> bytes:
    """Return a ZIP archive of parts, as torch.save writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def checkpoint(data: bytes) -> None:
    """Load bytes as a checkpoint, and as the pickle inside a checkpoint."""
    from retinanet.train import load_checkpoint

    pickled = next(name for name in checkpoint_parts() if name.endswith("/data.pkl"))
    archive = zip_archive({**checkpoint_parts(), pickled: data}) if data else b""
    for name, content in (("x.ckpt", data), ("x.ckpt", archive), ("x.pkl", data), ("x.safetensors", data)):
        with written(name, content) as path:
            try:
                load_checkpoint(path)
            except UserError as error:
                str(error).encode("utf-8", "backslashreplace")


def backbone(data: bytes) -> None:
    """Load bytes as the weights of a backbone."""
    from retinanet.model import load_pretrained
    from retinanet.model.backbone import Backbone

    global _backbone  # noqa: PLW0603
    _backbone = _backbone or Backbone(name="tf_efficientnet_lite0")
    for name in ("x.pth", "x.safetensors"):
        with written(name, data) as path:
            try:
                load_pretrained(_backbone, weights=path)
            except UserError as error:
                str(error).encode("utf-8", "backslashreplace")


_backbone = None


def results(data: bytes) -> None:
    """Evaluate bytes as a file of COCO results."""
    from retinanet.evaluate import evaluate_results

    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3], "area": 9, "iscrowd": 0}],
    }
    with written("results.json", data) as path:
        try:
            evaluate_results(truth, path)
        except UserError as error:
            message = str(error)
        else:
            message = ""
        assert len(message) < 20_000


def description(data: bytes) -> None:
    """Parse bytes as the description in the metadata of an exported model."""
    from retinanet.runtime.description import Description

    try:
        Description.from_json(data.decode("utf-8", "replace"), "x.onnx")
    except UserError as error:
        str(error).encode("utf-8", "backslashreplace")


_client: list[object] = []


def http(data: bytes) -> None:
    """Send bytes as the body of a request. The server must respond with a status below 500."""
    from starlette.testclient import TestClient

    from retinanet.config import ServeConfig
    from retinanet.serve.app import create_app
    from tests.serve.fakes import Fake

    if not _client:
        limits = ServeConfig(max_queue=8, max_upload_mb=0.5, max_pixels=100_000)
        client = TestClient(create_app(Fake, limits, name="x"), raise_server_exceptions=True)
        client.__enter__()  # kept open until the process ends
        _client.append(client)
    assert isinstance(_client[0], TestClient)
    for kind in ("application/octet-stream", f"multipart/form-data; boundary={BOUNDARY}", "application/json"):
        response = _client[0].post("/v1/detect", content=data, headers={"content-type": kind})
        assert response.status_code < 500, response.text
        response.json()


BOUNDARY = "b0undary"

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(coco, label_studio, labelme, cvat, voc, voc_split, csv, csv_classes),
        *(lvis, open_images, open_images_classes, open_images_labels, kitti, visdrone, dota),
        *(
            yolo_yaml,
            yolo_labels,
            yolo_list,
            darknet,
            config,
            image,
            checkpoint,
            backbone,
            results,
            description,
            http,
        ),
    )
}


BINARY = ("image", "checkpoint", "backbone", "http")
"""Targets with binary input."""
_TOKEN = re.compile(rb"[\w.+-]+|\s+|.", re.DOTALL)
_UNUSUAL = [
    *(b"", b"0", b"1", b"-1", b"1e308", b"1e999", b"NaN", b"-Infinity", b"nan", b"inf", b"9" * 30, b"9" * 5000, b"0.5"),
    *(b"null", b"true", b"[]", b"{}", b'""', b'"x"', b"[" * 2000, b'{"a":' * 500, b"(", b"<", b"&a;", b"<<", b"*a"),
    *(b"&a ", b"../../secret.png", b"/etc/passwd", b"../" * 9 + b"dev/zero", b"a" * 5000, b"\\u0000", b"\\ud800"),
    *(b"!!python/object/apply:os.system [x]", b"!!int x", b"!!timestamp x", b"2020-99-99", b"\xc2\xb2", b"-", b","),
    *(b"\n", b'"', b"\xff", b"\0", b"\x1b[2J"),
]


def mutated(data: bytes, random: Random) -> bytes:
    """Return a text with one to four of its words replaced by unusual values, removed, duplicated or swapped."""
    words = _TOKEN.findall(data) or [b""]
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(words))
        change = random.randrange(5)
        if change <= 1:
            words[place] = random.choice(_UNUSUAL)
        elif change == 2:
            words.insert(place, random.choice([*_UNUSUAL, random.choice(words)]))
        elif change == 3 and len(words) > 1:
            del words[place]
        else:
            other = random.randrange(len(words))
            words[place], words[other] = words[other], words[place]
    return b"".join(words)


def _encoded(format: str, **save: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, format, **save)
    return buffer.getvalue()


def seeds(name: str) -> list[bytes]:
    """Return valid inputs of a target, from which a fuzzer derives nearly valid inputs."""
    coco_json = (
        b'{"images": [{"id": 1, "file_name": "images/a.png", "width": 8, "height": 6}], "categories": [{"id": 1, '
        b'"name": "cat", "supercategory": "none"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, '
        b'"bbox": [1, 1, 3, 3], "area": 9, "iscrowd": 0}]}'
    )
    inputs: dict[str, list[bytes]] = {
        "coco": [coco_json, coco_json.replace(b"images/a.png", b"../../secret.png")],
        "lvis": [
            coco_json.replace(
                b'"width": 8', b'"width": 8, "neg_category_ids": [1], "not_exhaustive_category_ids": []'
            ).replace(b'"file_name": "images/', b'"coco_url": "http://h/images/')
        ],
        "open_images": [
            b"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsIns"
            b"ide\na,xclick,/m/1,1,0.1,0.5,0.2,0.9,0,0,1,0,-1\nb,xclick,/m/2,1,0,1,0,1,1,0,0,0,0\n",
            b"ImageID,LabelName,XMin,XMax,YMin,YMax\n../../secret,cat,0.1,0.5,0.1,0.5\nimages/a,cat,0.1,0.5,0.1,0.5\n",
        ],
        "open_images_classes": [b"/m/1,Cat\n/m/2,Dog\n", b'LabelName,DisplayName\n/m/1,"Cat, wild"\n'],
        "open_images_labels": [b"ImageID,Source,LabelName,Confidence\na,verification,cat,1\na,verification,dog,0\n"],
        "kitti": [
            b"Car 0.00 0 -1.58 1.00 1.00 4.00 5.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
            b"DontCare -1 -1 -10 2 2 6 5 -1 -1 -1 -1000 -1000 -1000 -10\n"
        ],
        "visdrone": [b"1,1,3,3,1,4,0,1\n2,2,4,3,0,0,0,0\n0,0,5,5,0,11,0,0,\n"],
        "dota": [b"imagesource:GoogleEarth\ngsd:0.146\n1 1 4 1 4 5 1 5 plane 0\n2 1 5 3 4 5 1 3 small-vehicle 1\n"],
        "results": [b'[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3], "score": 0.5}]'],
        "label_studio": [
            b'[{"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-a.png"}, "annotations": [{"result": [{"id": "x", '
            b'"original_width": 8, "original_height": 6, "type": "rectanglelabels", "value": {"x": 10, "y": 10, "width"'
            b': 50, "height": 50, "rotation": 10, "rectanglelabels": ["cat"]}}]}]}]',
            b'[{"id": 1, "annotator": 1, "image": "images/a.png", "label": [{"x": 1, "y": 2, "width": 9, "height": 9, '
            b'"rectanglelabels": ["cat"], "original_width": 8, "original_height": 6}]}]',
            b'[{"id": 1, "data": {"image": "s3://b/a.png"}, "annotations": [{"result": [{"value": {"points": [[1, 2], '
            b'[50, 3], [20, 60]], "polygonlabels": ["dog"]}}, {"value": {"x": 50, "y": 50, "radiusX": 10, "radiusY": 9,'
            b' "ellipselabels": ["cat"]}}]}]}]',
        ],
        "labelme": [
            b'{"imagePath": "images/a.png", "imageWidth": 8, "imageHeight": 6, "shapes": [{"label": "cat", "shape_type"'
            b': "rectangle", "points": [[1, 1], [4, 4]]}, {"label": "dog", "shape_type": "circle", "points": [[3, 3], '
            b'[4, 4]]}, {"label": "dog", "points": [[1, 1], [2, 4], [5, 5]]}]}'
        ],
        "cvat": [
            b'<?xml version="1.0"?><annotations><meta><task><labels><label><name>cat</name></label></labels></task></me'
            b'ta><image id="0" name="images/a.png" width="8" height="6" subset="train"><box label="cat" xtl="1" ytl="1"'
            b' xbr="4" ybr="4" rotation="30"/><polygon label="cat" points="1,1;2,5;4,4"/><ellipse label="cat" cx="3" '
            b'cy="3" rx="2" ry="1"/><mask label="cat" left="1" top="1" width="3" height="3"/></image></annotations>'
        ],
        "voc": [
            b"<annotation><filename>a.png</filename><size><width>8</width><height>6</height></size><object><name>cat</n"
            b"ame><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></ob"
            b"ject></annotation>",
            b'<!DOCTYPE x [<!ENTITY a "b">]><annotation><filename>&a;</filename></annotation>',
        ],
        "voc_split": [b"a\n", b"a.png 1\n../../x -1\n"],
        "csv": [
            b"images/a.png,1,1,3,3,cat\nb.png,,,,,\n",
            b'filename,width,height,class,xmin,ymin,xmax,ymax\n"a.png",8,6,cat,1,1,4,4\n',
        ],
        "csv_classes": [b"cat,0\ndog,1\n", b"class,id\ncat,1\n"],
        "yolo_yaml": [
            b"names: [cat, dog]\nnc: 2\ntrain: images\nval: images\n",
            b"path: .\ntrain: [images, ../set/images]\nnames:\n  0: cat\n  1: dog\n",
            b"a: &a [x, x]\nb: &b [*a, *a]\nnames: *b\n<<: {train: images}\n",
        ],
        "yolo_labels": [b"0 0.5 0.5 0.2 0.2\n", b"1 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n"],
        "yolo_list": [b"images/a.png\n./images/b.png\ndata/images/a.png\n"],
        "darknet": [b"classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"],
        "config": [
            b"preset: small\nlr: 0.01\nepochs: 3\nanchor_sizes: [16, 32, 64, 128, 256]\nclasses: [cat]\n",
            b"loss: focal\nalpha: .nan\nmulti_scale: [64, 80]\nimages: images\nresume: true\n",
            b"a: &a [1, 1]\nb: [*a, *a]\nc: 2001-01-01\nd: !!binary aGVsbG8=\n",
        ],
        "image": [
            *(
                _encoded(f)
                for f in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX", "JPEG2000")
            ),
            _encoded("JPEG", progressive=True),
            _encoded("TIFF", compression="tiff_lzw"),
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n",
        ],
        "backbone": [struct.pack("<Q", 57) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}   ' + bytes(4)],
    }
    if name == "description":
        from retinanet.config import ImageConfig, PostprocessConfig, TileConfig
        from retinanet.runtime.description import Description

        about = Description(
            classes=CLASSES,
            category_ids=(1, 2),
            image_config=ImageConfig(),
            postprocess_config=PostprocessConfig(),
            tiling=TileConfig(),
            levels=(3,),
            cells=(((0.0, 0.0, 8.0, 8.0),),),
            uint8=False,
            raw=False,
            anchor_style="exact",
            precision="float32",
            version="1",
            train_config={},
        )
        return [about.to_json().encode()]
    if name == "http":
        form = "".join(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"{more}\r\n\r\n'
            for key, more in (("threshold", ""), ("file", '; filename="a.png"'))
        ).encode()
        first, second = form.split(b'name="file"')
        whole = first.replace(b'"threshold"\r\n\r\n', b'"threshold"\r\n\r\n0.5\r\n') + b'name="file"' + second
        return [_encoded("PNG"), whole + _encoded("PNG") + f"\r\n--{BOUNDARY}--\r\n".encode(), b'{"threshold": 1}']
    if name == "checkpoint":
        parts = checkpoint_parts()
        return [next(data for part, data in parts.items() if part.endswith("/data.pkl"))]
    return inputs[name]
