"""What commands print: progress lines, faults, findings."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from retinanet.analysis.finding import Finding
from retinanet.commands.terminal import (
    print_any_text,
    print_faults,
    print_findings,
    progress_bar,
    show_progress,
    write_json,
)
from retinanet.files import STDOUT
from retinanet.formats.records import DetectionData, Fault
from retinanet.progress import progress_log

FAULT = Fault(file=Path("a.json"), where="line 7", what="expected [4] numbers, found 3", advice="Mend the line")


@pytest.fixture
def own_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the progress log back as it was."""
    monkeypatch.setattr(progress_log, "handlers", [])
    monkeypatch.setattr(progress_log, "propagate", True)
    level = progress_log.level
    yield
    progress_log.setLevel(level)


@pytest.mark.usefixtures("own_log")
def test_lines_go_to_stdout_and_warnings_to_stderr_once(capsys):
    show_progress()
    show_progress()
    progress_log.info("epoch %d/%d", 1, 3)
    progress_log.warning("one image was left out")
    progress_log.debug("not shown")
    captured = capsys.readouterr()
    assert captured.out == "epoch 1/3\n"
    assert captured.err == "warning: one image was left out\n"
    assert len(progress_log.handlers) == 1
    assert progress_log.level == logging.INFO


def test_a_bar_shows_nothing_where_stderr_is_no_terminal(capsys):
    with progress_bar("images", 2) as advance:
        advance()
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_findings_and_faults_are_printed_without_markup(capsys):
    console = Console(width=40)
    finding = Finding(kind="k", severity="note", what="3 of [b]", cause="c", advice="a", where=tuple("uvwxyz"))
    print_findings(console, [finding])
    assert capsys.readouterr().out == "note: 3 of [b] (u, v, w, x, y, ...). c. a.\n"
    data = DetectionData(records=(), classes=(), category_ids=(), source=Path("a.json"), faults=(FAULT,))
    assert print_faults(console, [data, data]) == 2
    line = "fault: a.json, line 7: expected [4] numbers, found 3. Mend the line.\n"
    summary = "2 faults: these images and annotations are left out of all numbers below."
    assert capsys.readouterr().out == f"{line}{line}{summary}\n\n"
    assert print_faults(console, []) == 0
    assert capsys.readouterr().out == ""


class _Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.usefixtures("own_log")
def test_a_line_that_cannot_be_printed_ends_nothing(monkeypatch):
    """The reader of the pipe has ended, as in `retinanet train ... | head`, or pythonw has no stdout."""
    show_progress()
    for stream in (_Closed(), None):
        monkeypatch.setattr(sys, "stdout", stream)
        print_any_text()
        progress_log.info("epoch 1/3")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_every_text_can_be_printed_and_json_stays_json(monkeypatch, encoding):
    """Windows encodes a redirected stdout in the code page of the machine."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    print_any_text()
    write_json({"class": "行人 é 😀", "file": "bild_\udcfc"}, STDOUT)
    print("出力 bild_\udcfc", flush=True)
    document, _, line = sys.stdout.buffer.getvalue().decode(encoding).rpartition("}\n")
    assert json.loads(document + "}") == {"class": "行人 é 😀", "file": "bild_%FC"}
    assert line.strip() == ("出力" if encoding == "utf-8" else "\\u51fa\\u529b") + " bild_\\udcfc"
