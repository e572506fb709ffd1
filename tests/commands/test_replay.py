"""`replay`: its lines and its exit status."""

from pathlib import Path

import pytest

from retinanet.commands.replay import replay
from retinanet.train import flight_record

RECORD = {"step": 7, "epoch": 2, "device": "cuda", "version": "1.0", "said": "the loss is nan"}


@pytest.mark.parametrize(
    ("device", "is_same", "status", "note"),
    [("cuda", True, 0, False), ("cuda", False, 1, True), ("cpu", False, 1, False)],
)
def test_the_recorded_and_the_replayed_sentence(monkeypatch, capsys, device, is_same, status, note):
    monkeypatch.setattr(flight_record, "read_record", lambda _: {**RECORD, "device": device})
    monkeypatch.setattr(flight_record, "replay", lambda _: ("the loss is inf", is_same))
    assert replay(Path("nonfinite.pt")) == status
    said = capsys.readouterr().out
    assert f"step 7 of epoch 2, on {device}, retinanet 1.0\n" in said
    assert "recorded: the loss is nan\nreplayed: the loss is inf\n" in said
    assert ("note: the step was recorded on" in said) is note
