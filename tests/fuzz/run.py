"""Coverage-guided fuzzing of one target with atheris: `python tests/fuzz/run.py coco -max_total_time=60`.

`make fuzz SECONDS=60` goes through all of them. An input that breaks a target is written to tests/fuzz/found/ and
printed; put it (made small) into tests/fuzz/test_untrusted.py::BROKE_ONCE once it is mended.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Fuzz the target that the command line names; libFuzzer takes the other arguments."""
    import atheris

    sys.path.insert(0, str(ROOT))
    sys.path.insert(1, str(ROOT / "src"))
    name = sys.argv[1]
    # Libraries that are not ours stay as they are, PyYAML, Pillow's decoders and the XML reader apart.
    include = ["retinanet", "yaml", "PIL", "json", "csv", "defusedxml", "torch._weights_only_unpickler"]
    with atheris.instrument_imports(include=include):
        from tests.fuzz.targets import TARGETS, seeds
    warnings.simplefilter("ignore")
    target = TARGETS[name]
    found = Path(__file__).parent / "found"
    found.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds(name)):
            (Path(corpus) / str(number)).write_bytes(seed)
        arguments = [sys.argv[0], f"-artifact_prefix={found}/{name}-", "-rss_limit_mb=4096", "-timeout=20"]
        atheris.Setup([*arguments, *sys.argv[2:], corpus], target)
        atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
