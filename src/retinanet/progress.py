"""Progress of long operations, as log lines and as bars. This module prints nothing; its callers decide."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

progress_log: Final = logging.getLogger("retinanet.progress")
"""Logger of progress lines, such as the losses of each epoch. The command line prints INFO on stdout and WARNING on
stderr. In Python, `logging.basicConfig(level=logging.INFO)` shows the lines."""


class ProgressBar(Protocol):
    """A context manager that opens a progress bar and yields a function that advances the bar by one step."""

    def __call__(self, what: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """Open a bar with the label `what` and `total` steps."""


@contextmanager
def no_progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Open a progress bar that shows nothing."""
    yield lambda: None
