"""Tests of untrusted files: no code runs, memory stays bounded, no other file is read, and faults are `UserError`s."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import textwrap
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import retinanet
from retinanet import images, parse
from retinanet.config import EvaluateConfig, TrainConfig, resolve
from retinanet.data import DataError, load, read
from retinanet.errors import ConfigError, UserError
from retinanet.evaluate import evaluate
from retinanet.formats.image_files import images_below
from retinanet.model import BackboneError, load_pretrained
from retinanet.model.backbone import Backbone
from retinanet.parse import ParseError, parse_json, parse_yaml
from retinanet.train import CheckpointError, fit, load_checkpoint
from tests.fuzz.targets import BINARY, TARGETS, checkpoint_parts, mutated, seeds, zip_archive
from tests.shared import num_examples

Write = Callable[..., Path]
FEW = settings(max_examples=num_examples(40), deadline=None, suppress_health_check=list(HealthCheck))

DESCRIBED = {"format": 1, "classes": ["a"], "category_ids": [1]}

REGRESSIONS: list[tuple[str, bytes]] = [
    ("coco", b'{"images": [{"id": ' + b"9" * 5000 + b"}]}"),
    ("coco", b'{"images": [{"id": 1, "file_name": "' + b"a" * 5000 + b'"}], "categories": [], "annotations": []}'),
    (
        "coco",
        b'{"images": [{"id": 1, "file_name": "images/a.png", "width": 1' + b"0" * 400 + b', "height": 6}], "categories"'
        b': [{"id": 1, "name": "c"}], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}]}',
    ),
    ("coco", rb'{"images": [], "categories": [{"id": 1, "name": "\ud800"}], "annotations": []}'),
    ("coco", b'{"images": [' + b"[" * 900 + b"]" * 900 + b'], "categories": [], "annotations": []}'),
    ("coco", b'{"images": [], "categories": [{"id": 1, "name": "c", "supercategory": [1]}], "annotations": []}'),
    ("results", b"[" + b"[" * 900 + b"]" * 900 + b"]"),
    ("results", b"[" + b"9" * 5000 + b"]"),
    ("csv_classes", b"\xff"),
    ("csv_classes", "cat,²".encode()),
    ("csv_classes", b"cat," + b"9" * 5000),
    ("yolo_yaml", b"names: []\ntrain: images\n"),
    ("yolo_yaml", b"names: [a]\ntrain: 2020-99-99\n"),
    ("yolo_yaml", b"names: [a]\ntrain: " + b"a" * 5000 + b"\n"),
    ("yolo_yaml", b"names: {0: a}\nnc: !!bool maybe\ntrain: images\n"),
    # A BMP of 70,000,000 x 1 pixels, a row too long for Pillow
    (
        "image",
        b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 198, 0, 0, 54, 40, 70_000_000, -1, 1, 32, 0, 0, 0, 0, 0, 0)
        + bytes(144),
    ),
    ("darknet", b"names = obj.names\ntrain = data//\nvalid = ..//\n"),  # must not search the whole disk
    ("config", b"epochs: 1" + b"0" * 400 + b"\n"),
    ("config", b"lr: !!float x\n"),
    ("voc_split", b"a" * 5000 + b"\n"),
    ("checkpoint", pickle.dumps({"retinanet": 1}, protocol=2)),
    ("checkpoint", pickle.dumps({"retinanet": {"format": 1}}, protocol=2)),
    ("checkpoint", pickle.dumps({"retinanet": {**DESCRIBED, "config": {}}, "state_dict": {}}, protocol=2)),
    ("checkpoint", pickle.dumps({"retinanet": {**DESCRIBED, "config": {}}}, protocol=2)),
    ("label_studio", b'[{"data": {"image": "' + b"a" * 5000 + b'"}, "annotations": []}]'),
    ("labelme", b'{"imagePath": "images/a.png", "shapes": [{"label": "cat", "shape_type": [1], "points": [[1, 1]]}]}'),
    (
        "cvat",
        b'<annotations><meta><labels><label><name>dog</name></label></labels></meta><image id="0" name="images/a.png" '
        b'width="8" height="6"><box label="cat" xtl="1" ytl="1" xbr="4" ybr="4"/></image></annotations>',
    ),
    ("csv", b"a" * 5000 + b",1,1,3,3,cat\n"),
    ("coco", rb'{"images": [{"id": 1, "file_name": "\u0000"}], "categories": [], "annotations": []}'),
    ("checkpoint", b"J"),
    ("label_studio", b'[{"data": {"image": "//[a.png"}, "annotations": []}]'),
    ("yolo_yaml", b"names: [a]\ntrain: " + b"[" * 2000 + b"\n"),
]
"""Target and input of former bugs found by these tests or by `make fuzz`: unexpected exceptions, or long run times."""


@pytest.mark.parametrize(("name", "data"), REGRESSIONS, ids=lambda v: v if isinstance(v, str) else "")
def test_former_bugs_stay_fixed(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_valid_inputs_are_accepted(name: str) -> None:
    """The seeds of the fuzzer are accepted."""
    for seed in seeds(name):
        TARGETS[name](seed)


@pytest.mark.parametrize("name", sorted(set(TARGETS) - set(BINARY)))
@FEW
@given(random=st.randoms(use_true_random=False), place=st.integers(0, 9))
def test_nearly_valid_texts(name: str, random: Random, place: int) -> None:
    good = seeds(name)
    TARGETS[name](mutated(good[place % len(good)], random))


@pytest.mark.parametrize("name", BINARY)
@settings(FEW, max_examples=num_examples(15))
@given(data=st.data())
def test_nearly_valid_bytes(name: str, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(seeds(name))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(1, 4))] = data.draw(st.binary(max_size=6))
        content = content or bytearray(b"\0")
    TARGETS[name](bytes(content))


# ---- pickles that run code


class _Malicious:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(params=["archive", "old torch", "plain pickle"])
def malicious(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """Write a checkpoint whose pickle runs code. Return its path and the folder that the code creates."""
    path, folder = tmp_path / "malicious.ckpt", tmp_path / "created"
    content = {"retinanet": {"format": 1}, "state_dict": {}, "x": _Malicious(folder)}
    if request.param == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "archive")
    return path, folder


def test_the_malicious_pickle_runs_code(malicious: tuple[Path, Path]) -> None:
    """The code of the checkpoint runs if the pickle is loaded without protection."""
    path, folder = malicious
    if zipfile.is_zipfile(path) or path.read_bytes()[:2] == b"\x80\x02":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())  # noqa: S301
    assert folder.is_dir()


def test_malicious_pickles_are_refused_everywhere(
    malicious: tuple[Path, Path], tiny: dict[str, Any], tmp_path: Path, squares: tuple[Path, Path]
) -> None:
    path, folder = malicious
    weights = path.rename(path.with_suffix(".pth"))
    path = tmp_path / "malicious.ckpt"
    path.write_bytes(weights.read_bytes())
    run = tmp_path / "resumed"
    run.mkdir()
    (run / "last.ckpt").write_bytes(path.read_bytes())
    entries: dict[str, Callable[[], Any]] = {
        "load": lambda: retinanet.load(path),
        "read_model": lambda: load_checkpoint(path),
        "evaluate": lambda: evaluate(path, EvaluateConfig(data=squares[1])),
        "--from": lambda: fit(**{**tiny, "start_from": path}),
        "backbone weights": lambda: fit(**{**tiny, "pretrained": True, "backbone_weights": weights}),
        "--resume": lambda: fit(**{**tiny, "output": run, "resume": True}),
    }
    for name, entry in entries.items():
        with pytest.raises((CheckpointError, BackboneError), match="cannot be read"):
            entry()
        assert not folder.exists(), name


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".safetensors"])
def test_malicious_pickles_with_other_suffixes_are_refused(suffix: str, tmp_path: Path) -> None:
    """Only arrays and plain values of a pickle are read, such as Detectron2's .pkl."""
    for protocol in (0, 2, 4):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(pickle.dumps({"model": _Malicious(tmp_path / "created")}, protocol=protocol))
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_checkpoint(path)
        assert not (tmp_path / "created").exists()


def test_a_malicious_pickle_as_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(pickle.dumps(_Malicious(tmp_path / "created")))
    with pytest.raises(BackboneError, match="cannot be read"):
        load_pretrained(Backbone(name="tf_efficientnet_lite0"), weights=path)
    assert not (tmp_path / "created").exists()


# ---- checkpoints that grow


def test_compressed_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(zip_archive(checkpoint_parts()))
    assert load_checkpoint(path).classes == ("cat", "dog")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in checkpoint_parts().items():
            archive.writestr(name, data)
        archive.writestr("archive/data/999999", bytes(50_000_000))
    with pytest.raises(CheckpointError, match=r"uncompressed archive, found [\d,]+ bytes that unpack to [\d,]+"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"fpn_width": 10**7, "head_width": 10**7}, "weights do not fit"),
        ({"backbone": "vit_giant_patch14_dinov2"}, "do not fit"),
        ({"backbone": "no such"}, "do not fit"),
        ({"levels": "x"}, "levels"),
        ({"prior": float("nan")}, "prior must be finite"),
        ({"image_size": -1}, "image_size must be above 0"),
    ],
)
def test_a_network_without_its_weights_takes_no_memory(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(zip_archive(checkpoint_parts()))
    content = torch.load(path, weights_only=True)
    content["retinanet"]["config"] |= config
    torch.save(content, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kB"


def test_expanded_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(zip_archive(checkpoint_parts()))
    content = torch.load(path, weights_only=True)
    content["state_dict"]["model.big"] = torch.zeros(1).expand(10**12)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"claim to hold 4,000,0\d\d,\d{3},\d{3} bytes"):
        load_checkpoint(path)


# ---- texts that grow


def billion_laughs(levels: int, item: str = "[x, x]") -> str:
    lines = [f"a0: &a0 {item}"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


MERGES = "a0: &a0 {k: v}\n" + "\n".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12))


def test_a_billion_laughs_are_refused(tmp_path: Path) -> None:
    for text in (billion_laughs(12), MERGES):
        with pytest.raises(ParseError, match=r"line \d+: YAML whose aliases stand for more than 1,000,000 values"):
            parse_yaml(text)
    for text in ("a: &a [*a]", "&a ? *a : b"):
        with pytest.raises(ParseError, match="contains itself|not YAML"):
            parse_yaml(text)
    assert parse_yaml("a: &a [1, 2]\nb: *a\n<<: {c: 3}") == {"a": [1, 2], "b": [1, 2], "c": 3}
    path = tmp_path / "data.yaml"
    path.write_text(billion_laughs(12).replace("a11:", "names:"))
    with pytest.raises(DataError, match=r"data.yaml, line \d+: YAML whose aliases"):
        read(path)
    from retinanet.config.option_file import read_yaml

    with pytest.raises(ConfigError, match=r"config: .*data.yaml, line \d+: YAML whose aliases"):
        read_yaml(path)


def test_the_nesting_depth_of_yaml_is_limited() -> None:
    depth = parse.MAX_YAML_DEPTH
    assert str(parse_yaml("[" * depth + "]" * depth)).count("[") == depth
    with pytest.raises(ParseError, match=f"more than {depth} nested values"):
        parse_yaml("[" * (depth + 2) + "]" * (depth + 2))
    with pytest.raises(ParseError, match="line 2: YAML that is nested too deeply"):
        parse_yaml("a: 1\nb: " + "[" * 2000)


def test_a_folder_that_disappears_during_a_search_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of ended processes disappear during a search of `train = /`."""
    for name in ("present", "gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.PNG").write_bytes(b"")
    scandir = os.scandir

    def vanishing(path: Any) -> Any:
        if str(path).endswith("gone"):
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert images_below(tmp_path) == [tmp_path / "present" / "a.PNG"]


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.mkdir [created]", "a: !!python/name:os.system", "!!python/object/new:os.system [x]"],
)
def test_yaml_creates_no_objects(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParseError, match="could not determine a constructor"):
        parse_yaml(text)
    assert not Path("created").exists()


ENTITIES = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))


@pytest.mark.parametrize(
    "declared",
    [
        f'<!ENTITY a0 "ha">{ENTITIES}',
        '<!ENTITY a11 SYSTEM "file:///etc/passwd">',
        '<!ENTITY % x SYSTEM "http://127.0.0.1:1/x"> %x; <!ENTITY a11 "">',
    ],
    ids=["billion laughs", "a file", "an address"],
)
def test_xml_entities_are_refused(declared: str, tmp_path: Path, write_voc: Write) -> None:
    root = write_voc({"a": [("cat", (1, 2, 30, 40))]})
    body = "<annotation><object><name>&a11;</name></object></annotation>"
    (root / "Annotations" / "a.xml").write_text(f"<!DOCTYPE annotation [{declared}]>{body}")
    (fault,) = read(root).faults
    assert "XML that cannot be read" in fault.what
    assert "root:" not in str(fault)
    path = tmp_path / "annotations.xml"
    path.write_text(f"<!DOCTYPE annotations [{declared}]><annotations>&a11;</annotations>")
    with pytest.raises(DataError, match="XML that cannot be read"):
        read(path)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, rb'"\ud800"', b"\xff\xff", b""])
def test_json_that_python_cannot_hold_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError, match="JSON"):
        parse_json(data)


def test_json_keeps_valid_escapes() -> None:
    assert parse_json(rb'["\ud83d\ude00", 1e999, "\\ud800"]') == ["😀", float("inf"), r"\ud800"]


def test_messages_are_short_and_printable() -> None:
    assert parse.printable("\x1b[2Jé\n\ud800") == "\\x1b[2Jé\n\\ud800"
    assert len(parse.printable("x" * 10**6)) < 2100
    assert len(parse.shorten([[["x" * 10_000] * 1000] * 1000] * 1000)) < 400
    assert parse.shorten({"id": 2}) == "{'id': 2}"
    assert parse.shorten("\ud800").encode()


def test_options_must_be_finite() -> None:
    given = {"train": "a", "val": "b", "output": "c"}
    for options in ({"clip_gradients": float("nan")}, {"anchor_ratios": [1.0, float("inf")]}, {"weight_decay": "nan"}):
        with pytest.raises(ConfigError, match="must be finite"):
            resolve(TrainConfig, {**given, **options})


# ---- images


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def image_with_announced_size(kind: str, side: int) -> bytes:
    """Return a file of a few hundred bytes whose header announces side x side pixels."""
    if kind == "png":
        return png(side, side, zlib.compress(bytes(100)))
    if kind == "tiff":
        tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 100)]
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        return b"II*\0" + struct.pack("<I", 108) + bytes(100) + struct.pack("<H", len(tags)) + entries + bytes(4)
    buffer = io.BytesIO()
    if kind == "jpeg":  # progressive: the decoder stores all coefficients
        Image.new("RGB", (64, 64)).save(buffer, "JPEG", progressive=True)
        data = bytearray(buffer.getvalue())
        at = data.index(b"\xff\xc2") + 5
        data[at : at + 4] = struct.pack(">HH", min(side, 65500), min(side, 65500))
        return bytes(data)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, *[0] * 6)


@pytest.mark.parametrize("rasterio", [True, False])
@pytest.mark.parametrize("kind", ["png", "tiff", "jpeg", "bmp"])
def test_a_header_that_announces_ten_billion_pixels_is_refused(
    kind: str, rasterio: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rasterio:
        pytest.importorskip("rasterio")
    else:
        monkeypatch.setitem(sys.modules, "rasterio", None)
    path = tmp_path / f"x.{kind}"
    path.write_bytes(image_with_announced_size(kind, 100_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read_image in (images.read_size, images.verify, lambda p: images.decode_for(p, image_size=64, max_size=64)):
        with pytest.raises(images.ImageError, match="too many pixels|claim to hold"):
            read_image(path)
    with pytest.raises(images.ImageError, match="too many pixels"):
        images.decode(path.read_bytes())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000, "kB"


@pytest.mark.slow
def test_a_large_image_is_still_read_by_windows(tmp_path: Path) -> None:
    """A blank image has the highest compression of deflate: 81 million pixels in 240 kB."""
    pytest.importorskip("rasterio")
    pack, rows = zlib.compressobj(9), bytes(1 + 3 * 9000)
    data = b"".join(pack.compress(rows) for _ in range(9000)) + pack.flush()
    path = tmp_path / "blank.png"
    path.write_bytes(png(9000, 9000, data))
    assert path.stat().st_size < 300_000
    assert images.read_size(path) == (9000, 9000)
    with images.open_windows(path) as image:
        assert image.crop((8990, 8990, 9000, 9000)).getextrema() == ((0, 0),) * 3


def test_images_that_other_programs_would_open_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\n")
    with pytest.raises(images.ImageError, match="not an image in a format that can be read"):
        images.decode(path)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Opening a pipe would wait forever."""
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(images.ImageError, match="expected an image, found no file"):
        images.read_size(tmp_path / "x.png")


# ---- annotations that name files outside their folder


@pytest.fixture
def data_folder(tmp_path: Path, write_image: Write) -> Path:
    """Write a data folder work/set, and a private image outside of it. Return the data folder."""
    write_image(tmp_path / "private" / "p.png", 64, 48)
    write_image(tmp_path / "work" / "set" / "images" / "a.png", 64, 48)
    return tmp_path / "work" / "set"


def write_annotations(folder: Path, format: str, name: str) -> Path:
    """Write annotations of one image in a format."""
    content: dict[str, tuple[str, Any]] = {
        "coco": (
            "x.json",
            {
                "images": [{"id": 1, "file_name": name, "width": 64, "height": 48}],
                "categories": [{"id": 1, "name": "cat"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
            },
        ),
        "csv": ("x.csv", f"{name},1,2,4,6,cat\n"),
        "labelme": (
            "x.json",
            {"imagePath": name, "shapes": [{"label": "cat", "shape_type": "rectangle", "points": [[1, 2], [4, 6]]}]},
        ),
        "label_studio": (
            "x.json",
            [
                {
                    "data": {"image": f"/data/local-files/?d={name}"},
                    "annotations": [
                        {"result": [{"value": {"x": 1, "y": 2, "width": 9, "height": 9, "rectanglelabels": ["cat"]}}]}
                    ],
                }
            ],
        ),
        "cvat": (
            "x.xml",
            f'<annotations><image name="{name}"><box label="cat" xtl="1" ytl="2" xbr="4" ybr="6"/></image>'
            "</annotations>",
        ),
        "yolo": ("data.yaml", f"names: [cat]\ntrain: {name}\n"),
    }
    file, text = content[format]
    (folder / file).write_text(text if isinstance(text, str) else json.dumps(text))
    return folder / file


FORMATS = ("coco", "csv", "labelme", "label_studio", "cvat")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("path_kind", ["relative", "behind a link"])
def test_images_outside_are_refused_unless_allowed(format: str, path_kind: str, data_folder: Path) -> None:
    private = data_folder.parent.parent / "private" / "p.png"
    (data_folder / "link").symlink_to(data_folder.parent.parent / "private")
    name = {
        "relative": "../../private/p.png",
        "behind a link": "link/../private/p.png",  # `..` is the parent of the link's target
    }[path_kind]
    source = write_annotations(data_folder, format, name)
    data = read(source, format=format)  # type: ignore[arg-type]
    assert not data.records
    assert "which is outside of it" in str(data.faults[0])
    assert "--allow-outside" in str(data.faults[0])
    (record,) = read(source, format=format, allow_outside=True).records  # type: ignore[arg-type]
    assert record.path.samefile(private)
    if path_kind == "relative" and format != "coco":  # COCO uses the whole name, other formats also its last part
        (record,) = read(source, format=format, images=private.parent).records  # type: ignore[arg-type]
        assert record.path.samefile(private)


@pytest.mark.parametrize("format", FORMATS)
def test_common_layouts_need_no_option(format: str, data_folder: Path, write_image: Write) -> None:
    """Images in a subfolder, in the folder above, at an absolute path and behind links are read without an option."""
    elsewhere = str(data_folder.parent.parent / "private" / "p.png")
    write_image(data_folder.parent / "images" / "b.png", 64, 48)
    (data_folder / "linked").symlink_to(data_folder.parent.parent / "private")
    for name in ("images/a.png", "../images/b.png", elsewhere, "linked/p.png"):
        if format == "label_studio" and name.startswith("/"):
            continue
        data = load(write_annotations(data_folder, format, name), format=format)
        assert len(data.records) == 1, name
    again = data_folder.parent / "again"
    again.symlink_to(data_folder)  # the data folder itself is a link
    data = load(write_annotations(again, format, "../images/b.png"), format=format)
    assert len(data.records) == 1


def test_yolo_images_outside_are_refused_unless_allowed(data_folder: Path) -> None:
    label = data_folder / "labels" / "a.txt"
    label.parent.mkdir()
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    (data_folder.parent.parent / "private" / "p.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    source = write_annotations(data_folder, "yolo", "../../private")
    with pytest.raises(DataError, match=r"`train`: expected an image below .* is outside of it.*--allow-outside"):
        read(source)
    assert len(read(source, allow_outside=True).records) == 1
    assert len(read(write_annotations(data_folder, "yolo", str(data_folder.parent.parent / "private"))).records) == 1
    (data_folder / "list.txt").write_text("images/a.png\n../../private/p.png\n")
    with pytest.raises(DataError, match=r"list.txt, line 2: expected an image below .*--allow-outside"):
        read(write_annotations(data_folder, "yolo", "list.txt"))
    assert len(read(write_annotations(data_folder, "yolo", "images")).records) == 1


def test_voc_reads_no_annotations_outside(write_voc: Write, tmp_path: Path) -> None:
    root = write_voc({"a": [("cat", (1, 2, 30, 40))]})
    (tmp_path / "secret.xml").write_text("<annotation><filename>a.jpg</filename></annotation>")
    split = root / "ImageSets" / "Main" / "x.txt"
    split.parent.mkdir(parents=True)
    split.write_text("a\n../../secret\n")
    data = read(split)
    assert len(data.records) == 1
    assert "is outside of" in data.faults[0].what


def test_a_split_that_leaves_images_in_place_is_read_back(write_coco: Write, tmp_path: Path) -> None:
    from retinanet.cli import main

    source = write_coco([{"image_id": i, "category_id": 1, "bbox": [1, 2, 9, 9]} for i in range(1, 7)], images=6)
    for to in ("coco", "csv"):
        with pytest.raises(SystemExit) as stop:
            main(["split", str(source), "-o", str(tmp_path / f"parts-{to}"), "--to", to])
        assert not stop.value.code
        suffix = {"coco": "json", "csv": "csv"}[to]
        assert load(tmp_path / f"parts-{to}" / f"train.{suffix}").records


# ---- error messages of the command line


@pytest.mark.slow
def test_the_command_line_has_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"[" * 100_000)
    (tmp_path / "c.yaml").write_text(billion_laughs(12))
    (tmp_path / "x.ckpt").write_bytes(b"\x80\x02cos\nmkdir\nX\x07\0\0\0created\x85R.")
    code = """
        import sys
        from retinanet.cli import main
        for line in ("check x.json", "train --config c.yaml", "evaluate x.ckpt --data x.json"):
            try:
                main(line.split())
            except SystemExit as stop:
                assert stop.code in (1, 2), stop.code
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("error: ") == 3, result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "created").exists()


def test_expected_errors_are_user_errors() -> None:
    """The errors that the targets accept are subclasses of `UserError`."""
    assert issubclass(DataError, UserError)
    assert issubclass(CheckpointError, UserError)
    assert issubclass(BackboneError, UserError)
