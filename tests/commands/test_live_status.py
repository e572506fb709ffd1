"""The live line of a training run: one line at the end of the terminal, everything else above it, nothing left."""

import io
import re
import sys
import warnings
from typing import Any

import pytest

from retinanet.commands import live_status as live_status_module
from retinanet.commands.live_status import is_live, live_status, status_line
from retinanet.commands.terminal import print_warning, progress_bar, show_progress
from retinanet.progress import TrainingStatus, progress_log
from retinanet.train import fit

EPOCH = "epoch 1/3  loss 4.1397  val loss 3.9643  AP 0.000  AP50 0.000  0:03 left"
STATUS = TrainingStatus(
    epoch=3, epochs=12, step=45, steps=250, loss=0.4312, best_ap=0.412, images_per_second=38.21, seconds_left=754.0
)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Return that this is a terminal."""
        return True


def screen(raw: str, width: int) -> list[str]:
    """Return the lines that a terminal shows after output with line feeds, returns and the codes that Rich writes."""
    lines, row, column = [""], 0, 0
    for code, mark in re.findall(r"\x1b\[([?0-9;]*[A-Za-z])|(.|\n)", raw):
        if code == "1A":
            row -= 1
        elif code == "2K":
            lines[row] = ""
        elif code:
            assert code.endswith("m"), code  # a colour
        elif mark == "\r":
            column = 0
        elif mark == "\n":
            row, column = row + 1, 0
        else:
            if column == width:
                row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
            lines[row] = lines[row][:column].ljust(column) + mark + lines[row][column + 1 :]
            column += 1
        lines += [""] * (row + 1 - len(lines))
    return lines


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Replace stdout and stderr by one terminal of 80 columns. pytest would replace them again after a fixture."""
    stream = Terminal()
    for name, value in (("COLUMNS", "80"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    for name in ("CI", "JPY_PARENT_PID", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(warnings, "showwarning", print_warning)
    show_progress()
    return stream


def test_one_line_is_live_and_all_other_output_stays_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    path = "/a/" + "b" * 100
    with live_status() as show:
        show(STATUS)
        progress_log.info(EPOCH)
        warnings.warn(f"cannot read {path}", stacklevel=1)
        print("from a callback")
        shown = screen(terminal.getvalue(), 80)
    *above, live = shown
    assert live == "epoch 3/12  step 45/250  loss 0.4312  best AP 0.412  38.2 images/s  12:34 left"
    assert above[0] == EPOCH
    assert "".join(above[1:3]) == f"warning: cannot read {path}"
    assert f"warning: cannot read {path}\n" in terminal.getvalue()  # no line break within the path
    assert above[3:] == ["from a callback"]
    assert [line for line in screen(terminal.getvalue(), 80) if line] == above  # the live line is gone
    assert "\x1b[?25l" not in terminal.getvalue()  # the cursor is never hidden


@pytest.mark.parametrize("error", [RuntimeError("planted"), KeyboardInterrupt()])
def test_an_error_removes_the_line_and_gives_the_streams_back(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    terminal = open_terminal(monkeypatch)

    def train() -> None:
        with live_status() as show:
            show(STATUS)
            raise error

    with pytest.raises(type(error)):
        train()
    assert "".join(screen(terminal.getvalue(), 80)) == ""
    assert sys.stdout is sys.stderr is terminal


def test_a_long_status_is_cut_at_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "40")
    with live_status() as show:
        show(STATUS)
        assert screen(terminal.getvalue(), 40)[-1] == "epoch 3/12  step 45/250  loss 0.4312  b…"


def test_a_status_without_numbers_has_none() -> None:
    line = status_line(TrainingStatus(epoch=1, epochs=None, step=2, steps=3, is_evaluating=True, images_per_second=5.0))
    assert line.plain == "epoch 1  evaluating 2/3"


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("JPY_PARENT_PID", "7"), ("TERM", "dumb")])
def test_notebooks_and_logs_of_ci_systems_show_no_live_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    terminal = open_terminal(monkeypatch)
    assert is_live(terminal)
    monkeypatch.setenv(name, value)
    with live_status() as show:
        show(STATUS)
    with progress_bar("images", 2) as advance:
        advance()
    assert "\x1b[2K" not in terminal.getvalue()
    assert "epoch" not in terminal.getvalue()


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_other_streams_are_not_live(stream: Any) -> None:
    assert not is_live(stream)


class _ClosedTerminal(Terminal):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_closed_terminal_does_not_end_training(monkeypatch: pytest.MonkeyPatch) -> None:
    open_terminal(monkeypatch)
    closed = _ClosedTerminal()
    monkeypatch.setattr(sys, "stdout", closed)
    with live_status() as show:
        show(STATUS)
        progress_log.info("epoch 1/3")
    assert sys.stdout is closed


@pytest.mark.slow
def test_a_training_run_shows_its_epochs_and_leaves_nothing_of_the_live_line(
    monkeypatch: pytest.MonkeyPatch, tiny: dict[str, Any]
) -> None:
    terminal = open_terminal(monkeypatch)
    monkeypatch.setattr(live_status_module, "SECONDS_BETWEEN", 0.0)
    fit(**tiny, epochs=2, live=live_status)
    lines = screen(terminal.getvalue(), 80)
    epochs = [line for line in lines if line.startswith("epoch")]
    pattern = (
        r"epoch {}/2  loss \d+\.\d{{4}}  val loss \d+\.\d{{4}}  AP [01]\.\d{{3}}  AP50 [01]\.\d{{3}}  \d+:\d\d left"
    )
    for number, line in enumerate(epochs, start=1):
        assert re.fullmatch(pattern.format(number), line), line
    assert len(epochs) == 2
    live = re.findall(r"epoch \d/2  (?:step|evaluating) \d/\d[^\x1b]*", terminal.getvalue())
    assert live[0].startswith("epoch 1/2  step 1/3  loss ")
    assert any("evaluating" in line for line in live)
    assert "best AP" in live[-1]
