"""`retinanet replay`."""

from __future__ import annotations

from pathlib import Path


def replay(record: Path, /) -> int:
    """Run a step again that was not finite, from the record that `train` wrote, on the CPU; says where it went wrong.

    `retinanet replay runs/first/nonfinite.pt`
    """
    from retinanet.train.flight_record import read_record
    from retinanet.train.flight_record import replay as run_again

    recorded = read_record(record)
    sentence, is_same = run_again(record)
    print(
        f"step {recorded['step']} of epoch {recorded['epoch']}, on {recorded['device']}, "
        f"retinanet {recorded['version']}\nrecorded: {recorded['said']}\nreplayed: {sentence}"
    )
    if not is_same and recorded["device"] != "cpu":
        print(f"note: it was recorded on {recorded['device']}, whose rounding and random numbers a CPU does not have")
    return 0 if is_same else 1
