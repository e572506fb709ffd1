"""Which format a file or a folder has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet import data
from retinanet.formats import recognise
from tests.formats.samples import EXPECTED, EXPORTS, Write, boxes, labelme


def test_a_guess_is_stated_and_can_be_overridden(tmp_path: Path, write_picture: Write) -> None:
    root = labelme(tmp_path / "set", write_picture)
    (root / "boxes.csv").write_text("a.jpg,5,5,9,9,cow\n")
    guessed = data.read(root)
    assert guessed.classes == ("cow",)
    assert "was read as CSV by its boxes.csv; it could also be labelme (--format overrides)" in " ".join(guessed.notes)
    assert boxes(data.read(root, format="labelme")) == EXPECTED


PLUGIN = '''
"""A format of one line per object: image, class, and the box xyxy in pixels."""

from retinanet.formats import (
    AnnotatedImage, AnnotatedObject, AnnotationFormat, Candidate, DataSource, DatasetBuilder, Evidence, FormatWriter
)
from retinanet.images import read_size


def recognise_file(source):
    return Evidence.OWN_FILE if source.suffix == ".lines" else None


def recognise_folder(folder):
    for file in sorted(folder.path.glob("*.lines")):
        yield Candidate(DataSource(file), Evidence.OWN_FILE, f" by its {file.name}")


def read(source, options):
    builder = DatasetBuilder(source.path, options)
    images = {}
    for number, line in enumerate(source.path.read_text().splitlines(), 1):
        name, written, *corners = line.split()
        path = source.path.parent / name
        if builder.is_outside(path, source.path, f"line {number}"):
            continue
        image = images.setdefault(name, AnnotatedImage(path, *read_size(path)))
        if (new_name := builder.selection.new_name(written)) is not None:
            found = AnnotatedObject(number, new_name, tuple(map(float, corners)))
            builder.add_object(image, found, file=source.path, where=f"line {number}")
    builder.images = list(images.values())
    return builder.build()


def write(splits, target):
    written = {}
    for split, found in splits.items():
        path = target.folder / f"{split or 'all'}.lines"
        rows = []
        for record, image in zip(found.records, target.images[split]):
            for box, label in zip(record.boxes_G4.tolist(), record.labels_G):
                rows.append(f"{image.relative_to(target.folder)} {found.classes[label]} {' '.join(map(str, box))}\\n")
        path.write_text("".join(rows))
        written[split] = path
    return written


LINES = AnnotationFormat(
    name="lines", title="lines", read=read, recognise_file=recognise_file, recognise_folder=recognise_folder,
    expects="a .lines file", writer=FormatWriter(write=write, not_stored=frozenset(("areas",))),
)
NOT_A_FORMAT = "a text"
COCO = AnnotationFormat(name="coco", title="another COCO", read=read)


def fail(_):
    raise RuntimeError("no luck")


FAILING = AnnotationFormat(name="failing", title="failing", read=read, recognise_file=fail, recognise_folder=fail)
'''


Install = Callable[..., None]


@pytest.mark.parametrize("export", EXPORTS, ids=lambda f: f.__name__)
def test_a_format_that_is_named_is_the_one_that_is_recognised(
    export: Callable[..., Path], tmp_path: Path, write_picture: Write
) -> None:
    path = export(tmp_path / "set", write_picture)
    folder = path / "train" if not any(path.glob("*.*")) and (path / "train").is_dir() else path
    found = recognise(folder)
    assert recognise(folder, found.format.name).source.path == found.source.path


def test_a_format_that_fails_to_recognise_stops_no_other_format(
    install: Install, write_voc: Write, caplog: pytest.LogCaptureFixture
) -> None:
    install(failing="lines_plugin:FAILING")
    root = write_voc({"a": [("cat", (1, 2, 30, 40))]})
    with caplog.at_level(logging.WARNING):
        assert data.load(root).num_objects == 1
    assert "'failing' of another package failed to recognise" in caplog.text
    assert "no luck" in caplog.text
