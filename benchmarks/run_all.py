"""`make bench`: every comparison with a peer, one after the other, into benchmarks/results/; hours on two cores.

    python benchmarks/run_all.py --only matching focal_loss

Not among them, because they need a trained model: export.py and serve_load.py; see their first lines.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
SCRIPTS = (
    *("focal_loss", "matching", "postprocess", "prediction", "training_step", "evaluation", "cost_curves", "loader"),
    *("gpu", "scaling", "soak", "bccd"),
)


def main() -> int:
    """Run what was asked for, each in a process of its own, and say how each ended. One that fails stops no other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS, metavar="NAME", help=", ".join(SCRIPTS))
    rows = []
    for name in parser.parse_args().only:
        if name == "gpu" and not torch.cuda.is_available():
            rows.append((name, "left out: no CUDA device", 0.0))
            continue
        print(f"\n==== {name}", flush=True)
        began = time.monotonic()
        status = subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode
        rows.append((name, f"failed with status {status}" if status else "done", time.monotonic() - began))
    print()
    for name, how, seconds in rows:
        print(f"{name:15} {how} ({seconds:.0f} s)")
    return int(any("failed" in how for _, how, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
