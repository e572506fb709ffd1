"""`retinanet replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def replay(record: Annotated[Path, Parameter(help="Record of a step, nonfinite.pt in the run folder.")], /) -> int:
    """Run a recorded training step with a NaN or infinite value again, on the CPU, and find where the value arose.

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
        print(f"note: the step was recorded on {recorded['device']}; its rounding and random numbers differ on a CPU")
    return 0 if is_same else 1
