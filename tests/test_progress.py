"""Tests of progress lines and of the progress bar that shows nothing."""

import logging

from retinanet.progress import no_progress_bar, progress_log


def test_progress_lines_are_log_records(caplog, capsys):
    with caplog.at_level(logging.INFO, logger="retinanet.progress"):
        progress_log.addHandler(caplog.handler)
        try:
            progress_log.info("epoch 1/3")
        finally:
            progress_log.removeHandler(caplog.handler)
    assert "epoch 1/3" in caplog.messages


def test_no_progress_bar_prints_nothing(capsys):
    with no_progress_bar("images", 2) as advance:
        advance()
        advance()
        advance()  # more steps than the total
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
