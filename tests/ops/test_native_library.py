"""The C library: loading, choice of the instruction set, threads, fork, and checks of arguments."""

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

from retinanet.ops import native_library

CSRC = Path(native_library.__file__).with_name("native")


def run_python(code, **environment):
    """Run code in a new interpreter and return its exit code and its output, including the log."""
    prefix = "import logging; logging.basicConfig(level=logging.INFO)\nfrom retinanet.ops import native_library\n"
    completed = subprocess.run(
        [sys.executable, "-c", prefix + code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return completed.returncode, completed.stdout + completed.stderr


def test_python_and_c_have_one_abi_version():
    assert re.search(r"#define RN_ABI (\d+)", (CSRC / "common.h").read_text())[1] == str(native_library.ABI)


def test_the_sum_does_not_depend_on_the_number_of_threads(native, threads):
    values = torch.randn(1_000_003)
    sums = set()
    for count in (1, 2, 3, 8):
        threads(count)
        sums.update(native.total(values) for _ in range(5))
    assert len(sums) == 1
    assert sums.pop() == pytest.approx(values.double().sum().item(), rel=1e-12)


def test_every_instruction_set_computes_the_sum(native):
    values = torch.randn(70_001)
    for name in native.instruction_sets():
        with native.use_instruction_set(name):
            assert native.total(values) == pytest.approx(values.double().sum().item(), rel=1e-12)
    with pytest.raises(ValueError, match="expected one of"), native.use_instruction_set("sse9"):
        pass


def test_concurrent_calls_from_python_threads(native):
    values = [torch.randn(300_000) for _ in range(8)]
    expected = [native.total(v) for v in values]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(native.total, values)) == expected


def test_the_library_shares_torchs_threads(native, threads):
    """Other threads would compete with OpenMP's threads, which keep the cores busy for a while after an operation."""
    threads(3)
    torch.randn(1_000_000).exp_()
    before = set(Path("/proc/self/task").iterdir()) if sys.platform == "linux" else None
    if before is None or not list((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        pytest.skip("this build of torch has no GNU OpenMP")
    seen = set()
    watcher = ThreadPoolExecutor(1)
    watching = watcher.submit(lambda: [seen.update(Path("/proc/self/task").iterdir()) for _ in range(200)])
    while not watching.done():
        native.total(torch.zeros(1_000_000))
    watcher.shutdown()
    assert len(seen - before) == 1  # the thread of `watcher`


def _child(values, queue):
    queue.put(native_library.total(values))


def test_a_forked_child_can_use_the_library(native, threads):
    """The parent uses several threads before the fork. The child has none of these threads, and starts its own."""
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


def test_invalid_tensors_raise_errors_before_the_c_code_runs(native):
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
def test_a_missing_library_is_logged_once(tmp_path):
    code, output = run_python("print([native_library.available() for _ in range(3)])", RETINANET_NATIVE="0")
    assert (code, output.count("switched off"), "[False, False, False]" in output) == (0, 1, True)
    broken = tmp_path / "broken.so"
    broken.write_text("no library")
    three_calls = "print([native_library.available() for _ in range(3)])"
    code, output = run_python(three_calls, RETINANET_NATIVE_LIBRARY=str(broken))
    assert (code, output.count("cannot be used"), "[False, False, False]" in output) == (0, 1, True)


@pytest.mark.slow
def test_the_environment_chooses_the_instruction_set(native):
    code, output = run_python("native_library.available()", RETINANET_ISA="baseline")
    assert code == 0
    assert output.strip().endswith("baseline")
    code, output = run_python("native_library.available()", RETINANET_ISA="sse9")
    assert code == 1
    assert "RETINANET_ISA must be one of" in output


def test_a_call_without_the_library_raises_an_error(monkeypatch, caplog):
    monkeypatch.setenv("RETINANET_NATIVE", "0")
    native_library.library.cache_clear()
    try:
        with (
            caplog.at_level(logging.INFO),
            pytest.raises(RuntimeError, match=r"rn_sum: expected a loaded C library.*available\(\)"),
        ):
            native_library.total(torch.zeros(3))
    finally:
        monkeypatch.undo()
        native_library.library.cache_clear()
