"""Tests of the format registry and of formats that another package adds by an entry point."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from retinanet import data
from retinanet.cli import main
from retinanet.errors import ConfigError
from retinanet.formats import all_formats, find_format, find_writer
from retinanet.formats.registry import BUILT_IN
from tests.formats.conftest import Install
from tests.formats.samples import Write, boxes


@pytest.fixture
def source(tmp_path: Path, write_image: Write) -> Path:
    for name in ("a", "b"):
        write_image(tmp_path / "set" / f"{name}.png")
    file = tmp_path / "set" / "data.lines"
    file.write_text("a.png cat 1 2 30 40\na.png dog 5 5 9 9\nb.png cat 0 0 64 48\n")
    return file


def run_command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_built_in_formats_and_their_order() -> None:
    assert list(BUILT_IN) == [
        *("coco", "voc", "yolo", "csv", "labelme", "label_studio", "cvat"),
        *("lvis", "open_images", "kitti", "visdrone", "dota"),
    ]
    assert [name for name, format in BUILT_IN.items() if format.writer is not None] == ["coco", "voc", "yolo", "csv"]
    assert list(all_formats())[: len(BUILT_IN)] == list(BUILT_IN)


def test_an_unknown_name_lists_the_formats() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^format must be one of coco, voc, yolo, csv, labelme, label_studio, cvat, lvis, .*, found 'labeme'. "
        "Did you mean 'labelme'",
    ):
        find_format("labeme")
    with pytest.raises(ConfigError, match=r"^to must be one of coco, voc, yolo, csv, found 'labelme'"):
        find_writer("labelme", option="to")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "SOURCE", "--format", "coc"), "format must be one of coco, .* Did you mean 'coco'"),
        (("convert", "SOURCE", "OUT", "--format", "ylo"), "format must be one of coco, voc, yolo, csv, found 'ylo'"),
        (("convert", "SOURCE", "OUT", "--format", "coco", "--from-format", "vco"), "Did you mean 'voc'"),
        (("split", "SOURCE", "-o", "OUT", "--to", "ylo"), "to must be one of coco, voc, yolo, csv, found 'ylo'"),
        (("split", "SOURCE", "-o", "OUT", "--to", "voc"), "voc finds images by their location: .* copy or link"),
        (
            ("convert", "SOURCE", "OUT", "--format", "yolo", "--image-files", "none"),
            "YOLO finds labels by the location",
        ),
    ],
)
def test_an_unknown_format_stops_a_command_before_it_writes(
    arguments: tuple[str, ...], message: str, tmp_path: Path, write_voc: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    root = write_voc({"a": [("cat", (1, 2, 30, 40))]})
    places = {"SOURCE": root, "OUT": tmp_path / "out"}
    assert run_command(*(places.get(argument, argument) for argument in arguments)) == 2
    error = capfd.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


class TestFormatOfAnotherPackage:
    def test_recognised_read_and_written(
        self, install: Install, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(lines="lines_plugin:LINES")
        assert list(all_formats()) == [*BUILT_IN, "lines"]
        expected = {"a.png": [("cat", (1, 2, 30, 40)), ("dog", (5, 5, 9, 9))], "b.png": [("cat", (0, 0, 64, 48))]}
        assert boxes(data.load(source)) == expected
        assert boxes(data.load(source, format="lines")) == expected
        assert "was read as lines by its data.lines" in " ".join(data.load(source.parent).notes)
        assert run_command("convert", source, tmp_path / "coco", "--format", "coco") == 0
        back = tmp_path / "lines"
        assert run_command("convert", tmp_path / "coco" / "annotations.json", back, "--format", "lines") == 0
        assert boxes(data.load(back / "all.lines")) == expected
        assert run_command("check", back / "all.lines", "--format", "lines", "--json", tmp_path / "check.json") == 0
        assert json.loads((tmp_path / "check.json").read_text())["sets"]["train"]["objects"] == 3
        capsys.readouterr()

    def test_named_in_yaml(self, install: Install, source: Path, tmp_path: Path) -> None:
        install(lines="lines_plugin:LINES")
        options = tmp_path / "options.yaml"
        options.write_text("from_format: lines\nformat: csv\n")
        assert run_command("--config", options, "convert", source, tmp_path / "csv") == 0
        assert data.load(tmp_path / "csv").num_objects == 3

    def test_built_in_formats_come_first(self, install: Install, source: Path) -> None:
        install(lines="lines_plugin:LINES")
        (source.parent / "boxes.csv").write_text("a.png,1,2,3,4,cow\n")
        found = data.read(source.parent)
        assert found.classes == ("cow",)
        assert "as CSV by its boxes.csv; it could also be lines" in " ".join(found.notes)
        assert data.read(source.parent, format="lines").classes == ("cat", "dog")

    def test_listed_in_messages(self, install: Install, tmp_path: Path) -> None:
        install(lines="lines_plugin:LINES")
        with pytest.raises(ConfigError, match=r"dota, lines, found 'line'\. Did you mean 'lines'"):
            find_format("line")
        with pytest.raises(data.DataError, match=r"a DOTA folder, a \.lines file, or an export of"):
            data.read(tmp_path / "missing")

    def test_paths_outside_are_refused(self, install: Install, source: Path, write_image: Write) -> None:
        install(lines="lines_plugin:LINES")
        write_image(source.parent.parent.parent / "c.png")
        source.write_text("../../c.png cat 1 2 30 40\n")
        assert "is outside of it" in str(data.read(source).faults[0])
        assert data.read(source, allow_outside=True).num_objects == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:X", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("lines_plugin:MISSING", "AttributeError"),
        ("lines_plugin:NOT_A_FORMAT", "expected a retinanet.formats.AnnotationFormat .* found 'a text'"),
        ("lines_plugin:COCO", "the name 'coco' already belongs to another format"),
    ],
)
def test_a_broken_entry_point_is_reported_once(
    value: str, message: str, install: Install, write_voc: Write, caplog: pytest.LogCaptureFixture
) -> None:
    install(broken=value)
    root = write_voc({"a": [("cat", (1, 2, 30, 40))]})
    with caplog.at_level(logging.WARNING):
        found = data.load(root)
        data.load(root)
    assert found.num_objects == 1
    (warning,) = caplog.records  # one warning for two reads
    expected = rf"the annotation format 'broken' of the package lines-plugin cannot be used \(.*{message}"
    assert re.search(expected, warning.getMessage())
    assert find_format("coco").title == "COCO JSON"
    with pytest.raises(ConfigError, match=rf"format: {expected}"):
        data.load(root, format="broken")
