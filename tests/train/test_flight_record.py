"""Files that are no flight record."""

from pathlib import Path

import pytest
import torch

from retinanet.errors import UserError
from retinanet.train import RecordError, replay


def test_files_that_are_no_flight_record_are_refused(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"a": 1}, tmp_path / "other.pt")
    torch.save(Evil(), tmp_path / "evil.pt")
    (tmp_path / "damaged.pt").write_bytes(b"nothing")
    for name, words in (("other", "no flight record"), ("evil", "cannot be read"), ("damaged", "cannot be read")):
        with pytest.raises(RecordError, match=words):
            replay(tmp_path / f"{name}.pt")
    with pytest.raises(UserError, match="no flight record"):
        replay(tmp_path / "missing.pt")
