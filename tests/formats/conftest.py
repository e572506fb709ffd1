"""A package with annotation formats, installed for one test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a package with entry points: install(lines="lines_plugin:LINES")."""

    def put(**entry_points: str) -> None:
        place = tmp_path / "site"
        folder = place / "lines_plugin-1.0.dist-info"
        folder.mkdir(parents=True)
        (place / "lines_plugin.py").write_text(PLUGIN)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: lines-plugin\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in entry_points.items())
        (folder / "entry_points.txt").write_text(f"[retinanet.formats]\n{lines}")
        monkeypatch.syspath_prepend(str(place))

    return put
