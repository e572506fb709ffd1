"""Progress of long work, as lines and as bars. Nothing here prints: callers decide where both are shown."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

progress_log: Final = logging.getLogger("retinanet.progress")
"""Lines for the user, such as the losses of each epoch. The command line prints INFO on stdout and WARNING on stderr.
In Python, `logging.basicConfig(level=logging.INFO)` shows them."""


class ProgressBar(Protocol):
    """Opens a progress bar and yields the function that advances it by one."""

    def __call__(self, what: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """Open a bar of `total` steps, named `what`."""


@contextmanager
def no_progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show nothing."""
    yield lambda: None
