"""The command line, called in this process."""

import pytest

from retinanet.cli import main


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)
