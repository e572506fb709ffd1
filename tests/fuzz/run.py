"""Fuzz one target with atheris, guided by coverage: `python tests/fuzz/run.py coco -max_total_time=60`.

`make fuzz SECONDS=60` fuzzes all targets. An input that breaks a target is printed and written to tests/fuzz/found/.
After the fix, add a reduced form of the input to REGRESSIONS in tests/fuzz/test_untrusted.py.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Fuzz the target that the command line names. Other arguments go to libFuzzer."""
    sys.path.insert(0, str(ROOT))
    sys.path.insert(1, str(ROOT / "src"))
    name = sys.argv[1]
    if name == "--list":
        from tests.fuzz.targets import TARGETS

        print("\n".join(TARGETS))
        return
    import atheris

    # Branch coverage is measured for modules imported under `instrument_imports`, without the large libraries.
    include = ["retinanet", "yaml", "PIL", "json", "csv", "defusedxml"]
    with atheris.instrument_imports(include=include):
        for parser in ("yaml", "PIL.Image", "json", "csv", "defusedxml.ElementTree"):
            import_module(parser)
    for library in ("torch", "torchvision", "timm", "hotcoco", "rasterio", "lightning", "supervision"):
        import_module(library)
    with atheris.instrument_imports(include=include):
        from tests.fuzz.targets import BINARY, TARGETS, mutated, seeds
    warnings.simplefilter("ignore")
    target = TARGETS[name]

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        return mutated(data, random)[:max_size] if random.random() < 0.5 else atheris.Mutate(data, max_size)

    output = Path(__file__).parent / "found"
    output.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds(name)):
            (Path(corpus) / str(number)).write_bytes(seed)
        arguments = [
            sys.argv[0],
            f"-artifact_prefix={output}/{name}-",
            "-rss_limit_mb=4096",
            "-timeout=20",
            "-max_len=20000",
        ]
        options = {} if name in BINARY else {"custom_mutator": mutate}
        atheris.Setup([*arguments, *sys.argv[2:], corpus], target, **options)
        atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
