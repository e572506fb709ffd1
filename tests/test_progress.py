"""Progress below the command line: a logger for lines, and a bar that shows nothing."""

import logging

from retinanet.progress import no_progress_bar, progress_log


def test_lines_are_records_of_a_logger_and_nothing_is_printed(caplog, capsys):
    with caplog.at_level(logging.INFO, logger="retinanet.progress"):
        progress_log.addHandler(caplog.handler)
        try:
            progress_log.info("epoch 1/3")
        finally:
            progress_log.removeHandler(caplog.handler)
    assert "epoch 1/3" in caplog.messages


def test_the_bar_that_shows_nothing_can_be_advanced(capsys):
    with no_progress_bar("images", 2) as advance:
        advance()
        advance()
        advance()  # more steps than the total
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
