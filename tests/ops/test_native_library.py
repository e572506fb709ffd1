"""The C library as such: loading, choice of instruction set, threads, fork, the checks at its edge."""

import logging
import multiprocessing
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from retinanet.ops import native_library as library

CSRC = Path(library.__file__).with_name("native")


def python(code, **environment):
    """Run code in a fresh interpreter and return what it logged and printed."""
    prefix = (
        "import logging; logging.basicConfig(level=logging.INFO)\nfrom retinanet.ops import native_library as library\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prefix + code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_python_and_c_name_the_same_version():
    assert re.search(r"#define RN_ABI (\d+)", (CSRC / "common.h").read_text())[1] == str(library.ABI)


def test_the_sum_is_the_same_to_the_bit_whatever_the_threads(native, threads):
    values = torch.randn(1_000_003)
    found = set()
    for count in (1, 2, 3, 8):
        threads(count)
        found.update(native.total(values) for _ in range(5))
    assert len(found) == 1
    assert found.pop() == pytest.approx(values.double().sum().item(), rel=1e-12)


def test_every_instruction_set_agrees(native):
    values = torch.randn(70_001)
    for name in native.isas():
        with native.using_isa(name):
            assert native.total(values) == pytest.approx(values.double().sum().item(), rel=1e-12)
    with pytest.raises(ValueError, match="expected one of"), native.using_isa("sse9"):
        pass


def test_several_python_threads_at_once(native):
    values = [torch.randn(300_000) for _ in range(8)]
    expected = [native.total(v) for v in values]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(native.total, values)) == expected


def test_the_threads_are_those_of_torch(native, threads):
    """Threads of its own would stand beside OpenMP's, which keep the cores for a while after each operation."""
    threads(3)
    torch.randn(1_000_000).exp_()
    before = set(Path("/proc/self/task").iterdir()) if sys.platform == "linux" else None
    if before is None or not list((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        pytest.skip("torch brings no OpenMP of GNU's here")
    seen = set()
    watcher = ThreadPoolExecutor(1)
    done = watcher.submit(lambda: [seen.update(Path("/proc/self/task").iterdir()) for _ in range(200)])
    while not done.done():
        native.total(torch.zeros(1_000_000))
    watcher.shutdown()
    assert len(seen - before) == 1  # the one that watches


def _child(values, queue):
    queue.put(library.total(values))


def test_a_forked_child_can_use_it(native, threads):
    """Used by the parent with several threads, forked, used by the child: no thread pool that the child has lost."""
    threads(4)
    values = torch.randn(500_000)
    expected = native.total(values)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_child, args=(values, queue), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert queue.get() == expected


def test_the_edge_refuses_what_c_could_not_check(native):
    with pytest.raises(TypeError, match="float32"):
        native.total(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"expected shape \(2, None\)"):
        native.address(torch.zeros(3, 4), name="x", dtype=torch.float32, shape=(2, None))
    with pytest.raises(ValueError, match="contiguous"):
        native.address(torch.zeros(4, 3).T, name="x", dtype=torch.float32, shape=(3, 4))
    with pytest.raises(TypeError, match="meta"):
        native.address(torch.zeros(4, device="meta"), name="x", dtype=torch.float32, shape=(4,))
    assert native.total(torch.zeros(0)) == 0


@pytest.mark.slow
def test_switched_off_and_broken_libraries_are_said_once(tmp_path):
    code, said = python("print([library.available() for _ in range(3)])", RETINANET_NATIVE="0")
    assert (code, said.count("switched off"), "[False, False, False]" in said) == (0, 1, True)
    broken = tmp_path / "broken.so"
    broken.write_text("no library")
    code, said = python("print([library.available() for _ in range(3)])", RETINANET_NATIVE_LIBRARY=str(broken))
    assert (code, said.count("cannot be used"), "[False, False, False]" in said) == (0, 1, True)


@pytest.mark.slow
def test_the_environment_chooses_the_instruction_set(native):
    code, said = python("library.available()", RETINANET_ISA="baseline")
    assert code == 0
    assert said.strip().endswith("baseline")
    code, said = python("library.available()", RETINANET_ISA="sse9")
    assert code == 1
    assert "RETINANET_ISA must be one of" in said


def test_without_a_library_calls_say_so(monkeypatch, caplog):
    monkeypatch.setenv("RETINANET_NATIVE", "0")
    library.library.cache_clear()
    try:
        with caplog.at_level(logging.INFO), pytest.raises(RuntimeError, match="available"):
            library.total(torch.zeros(3))
    finally:
        monkeypatch.undo()
        library.library.cache_clear()
