"""Run all benchmarks one after the other and write their results to benchmarks/results/. Takes hours on two cores.

    make bench
    python benchmarks/run_all.py --only matching focal_loss

export.py and serve_load.py are not included, because they require a model file; see their first lines.
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
    *("launches", "gpu", "scaling", "soak", "bccd"),
)


def main() -> int:
    """Run each chosen benchmark in a new process, and print its result. All benchmarks run, even after a failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SCRIPTS,
        default=SCRIPTS,
        metavar="NAME",
        help=f"benchmarks to run: {', '.join(SCRIPTS)}",
    )
    rows = []
    for name in parser.parse_args().only:
        if name == "gpu" and not torch.cuda.is_available():
            rows.append((name, "skipped: no CUDA device", 0.0))
            continue
        print(f"\n==== {name}", flush=True)
        start = time.monotonic()
        status = subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode
        rows.append((name, f"failed with status {status}" if status else "done", time.monotonic() - start))
    print()
    for name, result, seconds in rows:
        print(f"{name:15} {result} ({seconds:.0f} s)")
    return int(any("failed" in result for _, result, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
