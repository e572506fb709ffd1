"""Two gloo processes under torchrun train like one process with the joined batches: runs of `fit` in float64."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.squares import make_squares

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[2]
TIMEOUT = 400
"""Limit for a training run, seconds. It takes 10 s on an idle machine; without a limit, a dead rank blocks 30 min."""
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
    "USE_LIBUV": "0",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return 11 training images, of which 6 have no objects and the last batch is smaller, and 5 validation images."""
    folder = tmp_path_factory.mktemp("data")
    train, val = make_squares(folder / "train", count=11, seed=1), make_squares(folder / "val", count=5, seed=2)
    content = json.loads(train.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] % 2 == 0]
    train.write_text(json.dumps(content))
    return train, val


def options(data: tuple[Path, Path], output: Path, **more: Any) -> dict[str, Any]:
    return {
        **{"train": str(data[0]), "val": str(data[1]), "output": str(output), "preset": "small", "pretrained": False},
        **{"fpn_width": 8, "head_width": 8, "head_depth": 0, "head_norm": "none", "image_size": 64, "max_size": 96},
        **{"anchor_sizes": [16.0, 32.0, 64.0, 128.0, 256.0], "batch_size": 2, "workers": 0, "log_every": 1},
        **{"device": "cpu", "epochs": 1, "measure_imbalance": 0, "color_jitter": 0.2, "warmup_steps": 0},
        **more,
    }


def free_port() -> int:
    """Return a free port below the range of outgoing connections, so that no outgoing connection takes the port."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def run_in_parallel(commands: list[list[str]], environments: list[dict[str, str]]) -> list[str]:
    """Run commands at the same time, and return the output of each command. No process remains afterwards."""
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs[0][-2000:] + outputs[1][-2000:]
    return outputs


def launch(
    folder: Path, train_options: dict[str, Any], *, ranks: int, restarts: int = 0, **extra: Any
) -> subprocess.CompletedProcess[str]:
    """Run the worker alone (one rank) or under torchrun. It writes into folder/results."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.json").write_text(json.dumps({"options": train_options, "extra": extra}))
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
        command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    (folder / "results").mkdir(exist_ok=True)
    command += [str(WORKER), str(folder / "options.json"), str(folder / "results")]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def read_results(folder: Path, rank: int, world: int) -> dict[str, Any]:
    return torch.load(folder / "results" / f"rank{rank}-of-{world}.pt", weights_only=True)


def train_with_one_and_two(
    tmp_path: Path, data: tuple[Path, Path], *, double: bool = True, **more: Any
) -> list[dict[str, Any]]:
    """Train with one process and with two. Return the results of the one process and of each of the two ranks."""
    for ranks, name in ((1, "one"), (2, "two")):
        process = launch(tmp_path / name, options(data, tmp_path / name / "run", **more), ranks=ranks, double=double)
        assert process.returncode == 0, process.stderr[-3000:]
    two = tmp_path / "two"
    return [read_results(tmp_path / "one", 0, 1), read_results(two, 0, 2), read_results(two, 1, 2)]


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float, what: str) -> None:
    """Check that tensors of the same name differ by at most `tolerance` times their norm."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        difference = (value.double() - b[name].double()).norm()
        assert difference <= tolerance * value.double().norm() + 1e-12, (what, name, float(difference))


@pytest.mark.parametrize(
    "more",
    [
        {"normaliser": "batch", "ema": 0.9, "epochs": 2, "patience": 5},
        {"normaliser": "image", "accumulate": 2},
        {"loss": "eql_v2"},
        {"loss": "ghm_c"},
    ],
    ids=["batch normaliser, running average", "image normaliser, accumulation", "eql_v2", "ghm_c"],
)
def test_two_processes_equal_one_to_a_millionth(more: dict[str, Any], data: tuple[Path, Path], tmp_path: Path) -> None:
    one, *two = train_with_one_and_two(tmp_path, data, **more)
    assert min(two[0]["positives"]) == 0 or min(two[1]["positives"]) == 0, "a rank without objects"
    assert {*two[0]["sizes"], *two[1]["sizes"]} == {1, 2}, "an uneven batch"
    assert sum(two[0]["sizes"] + two[1]["sizes"]) == 11 * more.get("epochs", 1)
    for rank in two:
        assert rank["loss"] == pytest.approx(one["loss"], rel=1e-6)
        assert rank["log"] == pytest.approx(one["loss"], rel=1e-5), "the logged loss is the loss of the whole batch"
        assert len(rank["gradients"]) == len(one["gradients"]) > 1
        for step, (a, b) in enumerate(zip(one["gradients"], rank["gradients"], strict=True)):
            assert_close(a, b, 1e-6, f"gradient of step {step}")
        assert_close(one["weights"], rank["weights"], 1e-6, "weights")
        assert rank["best_ap"] == one["best_ap"]
    for name, value in two[0]["weights"].items():
        assert torch.equal(value, two[1]["weights"][name]), name
    # One of the ranks evaluates each image, once. Both ranks have the gathered results.
    evaluations = zip(two[0]["evaluated"], two[1]["evaluated"], strict=True)
    for (images_0, rows_0, ap_0), (images_1, rows_1, ap_1) in evaluations:
        assert sorted(images_0 + images_1) == [0, 1, 2, 3, 4]
        assert rows_0 == rows_1
        assert ap_0 == ap_1
    validation = [[row for row in rows(tmp_path / n / "run") if row["val_loss"]] for n in ("one", "two")]
    assert len(validation[0]) == len(validation[1]) == more.get("epochs", 1)
    for row_of_one, row_of_two in zip(*validation, strict=True):
        for name in ("val_loss", "val_classification_loss", "val_box_loss"):
            assert float(row_of_two[name]) == pytest.approx(float(row_of_one[name]), rel=1e-5), "five images, once each"
    saved = [torch.load(tmp_path / n / "run" / "last.ckpt", weights_only=True) for n in ("one", "two")]
    assert_close(saved[0]["state_dict"], saved[1]["state_dict"], 1e-6, "last.ckpt")
    assert_close(saved[0]["loss_state"], saved[1]["loss_state"], 1e-6, "state of the loss")
    if "ema" in more:
        assert_close(
            saved[0]["current_model_state"], saved[1]["current_model_state"], 1e-6, "weights without the average"
        )


def test_two_processes_nearly_equal_one_with_bf16(data: tuple[Path, Path], tmp_path: Path) -> None:
    """Rounding depends on the batch. A gradient with a wrong scale would differ by a factor of 2."""
    one, *two = train_with_one_and_two(tmp_path, data, double=False, precision="bf16")
    for rank in two:
        assert rank["loss"] == pytest.approx(one["loss"], rel=0.02)
        # Only the first step is compared, because the weights differ after it.
        gradients = [torch.cat([g.flatten() for g in results["gradients"][0].values()]) for results in (one, rank)]
        assert (gradients[0] - gradients[1]).norm() < 0.1 * gradients[0].norm()


def test_a_cache_in_each_rank_changes_no_number(data: tuple[Path, Path], tmp_path: Path) -> None:
    losses = []
    for cache in ("none", "ram"):
        folder = tmp_path / cache
        process = launch(folder, options(data, folder / "run", epochs=2, cache=cache), ranks=2)
        assert process.returncode == 0, process.stderr[-3000:]
        losses.append([read_results(folder, rank, 2)["loss"] for rank in (0, 1)])
    assert losses[0] == losses[1]
    assert "cache: ram" in (tmp_path / "ram" / "run" / "config.yaml").read_text()


def test_ranks_share_batchnorm_statistics_and_the_last_epoch(data: tuple[Path, Path], tmp_path: Path) -> None:
    """All ranks have the BatchNorm statistics of rank 0 and stop early at the same epoch.

    The validation data has fewer images than there are ranks.
    """
    single_image = make_squares(tmp_path / "few", count=1, seed=3)
    train_options = options((data[0], single_image), tmp_path / "run", epochs=6, patience=1, lr=1e-12)
    process = launch(tmp_path, train_options, ranks=2, freeze_batchnorm=False)
    assert process.returncode == 0, process.stderr[-3000:]
    first, second = read_results(tmp_path, 0, 2), read_results(tmp_path, 1, 2)
    changed = 0
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name
        changed += name.endswith("running_mean") and bool((value != 0).any())
    assert changed > 10
    assert [rows for _, rows, _ in first["evaluated"]] == [rows for _, rows, _ in second["evaluated"]]
    assert first["epochs"] == second["epochs"] < 6


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_killed_rank_ends_the_job_and_a_restart_resumes_it(data: tuple[Path, Path], tmp_path: Path) -> None:
    more = {"epochs": 3, "ema": 0.9}
    uninterrupted = launch(tmp_path / "a", options(data, tmp_path / "a" / "run", **more), ranks=2)
    assert uninterrupted.returncode == 0, uninterrupted.stderr[-3000:]
    kill = {"rank": 1, "step": 4}  # the second step of the second epoch
    killed = launch(tmp_path / "b", options(data, tmp_path / "b" / "run", **more), ranks=2, kill=kill)
    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.stderr
    restarted = launch(tmp_path / "c", options(data, tmp_path / "c" / "run", **more), ranks=2, restarts=1, kill=kill)
    assert restarted.returncode == 0, restarted.stderr[-3000:]
    assert (tmp_path / "c" / "results" / "killed").exists()
    a, c = (torch.load(tmp_path / n / "run" / "last.ckpt", weights_only=True) for n in ("a", "c"))
    for key in ("state_dict", "current_model_state"):
        for name, value in a[key].items():
            assert torch.equal(value, c[key][name]), (key, name)
    assert rows(tmp_path / "a" / "run") == rows(tmp_path / "c" / "run")


def config_file(folder: Path, data: tuple[Path, Path]) -> Path:
    """Write the options of a training run into a file for `--config`."""
    train_options = options(data, folder / "run")
    path = folder / "config.yaml"
    path.write_text(json.dumps({k: v for k, v in train_options.items() if k != "output"}))
    return path


@pytest.fixture(scope="module")
def torchrun(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the last.ckpt of the command under torchrun with two processes on this machine."""
    folder = tmp_path_factory.mktemp("torchrun")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command += [
        "--master-port",
        str(free_port()),
        "-m",
        "retinanet",
        "train",
        "--config",
        str(config_file(folder, data)),
    ]
    command += ["-o", str(folder / "run")]
    process = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout.count("best AP") == 1, process.stdout
    return folder / "run" / "last.ckpt"


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = (torch.load(path, weights_only=True)["state_dict"] for path in (first, second))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def test_the_flag_devices_equals_torchrun(data: tuple[Path, Path], torchrun: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "retinanet", "train", "--config", str(config_file(tmp_path, data))]
    command += ["-o", str(tmp_path / "run"), "--devices", "2"]
    process = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    assert_same_weights(torchrun, tmp_path / "run" / "last.ckpt")


def test_slurm_equals_torchrun(data: tuple[Path, Path], torchrun: Path, tmp_path: Path) -> None:
    """Run two tasks with the variables that srun sets."""
    command = [sys.executable, "-m", "retinanet", "train", "--config", str(config_file(tmp_path, data))]
    command += ["-o", str(tmp_path / "run"), "--devices", "2"]
    environments, port = [], str(free_port())
    for rank in (0, 1):
        slurm = {"JOB_ID": "1", "JOB_NAME": "batch", "NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1"}
        slurm |= {"PROCID": str(rank), "LOCALID": str(rank), "NODEID": "0", "NODELIST": "localhost"}
        environment = {**ENVIRONMENT, **{f"SLURM_{name}": value for name, value in slurm.items()}}
        environments.append(environment | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
    outputs = run_in_parallel([command, command], environments)
    assert ["best AP" in output for output in outputs] == [True, False]
    assert_same_weights(torchrun, tmp_path / "run" / "last.ckpt")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
def test_two_hosts_equal_two_processes(data: tuple[Path, Path], torchrun: Path, tmp_path: Path) -> None:
    """Run the command in two network namespaces with different addresses, which stand for two machines."""
    names, addresses = [f"rnet{os.getpid()}-{i}" for i in (0, 1)], ("10.77.0.1", "10.77.0.2")
    namespace = subprocess.run(["ip", "netns", "add", names[0]], capture_output=True, text=True, check=False)
    if namespace.returncode:
        pytest.skip(f"network namespaces are not available: {namespace.stderr.strip()}")
    try:
        subprocess.run(["ip", "netns", "add", names[1]], check=True)
        pair = subprocess.run(
            ["ip", "link", "add", "rveth0", "netns", names[0], "type", "veth", "peer", "rveth1", "netns", names[1]],
            capture_output=True,
            text=True,
            check=False,
        )
        if pair.returncode:
            pytest.skip(f"virtual network interfaces are not available: {pair.stderr.strip()}")
        for i, name in enumerate(names):
            for command in (f"addr add {addresses[i]}/24 dev rveth{i}", f"link set rveth{i} up", "link set lo up"):
                subprocess.run(["ip", "-n", name, *command.split()], check=True)
        config = config_file(tmp_path, data)
        commands, environments = [], []
        for i, name in enumerate(names):
            command = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
            command += ["--node-rank", str(i), "--nproc-per-node", "1", "--master-addr", addresses[0]]
            command += ["--master-port", "29511", "-m", "retinanet", "train", "--config", str(config)]
            commands.append([*command, "-o", str(tmp_path / "run")])
            environments.append({**ENVIRONMENT, "GLOO_SOCKET_IFNAME": f"rveth{i}"})
        outputs = run_in_parallel(commands, environments)
        assert "best AP" in outputs[0]
        assert "best AP" not in outputs[1]
        assert_same_weights(torchrun, tmp_path / "run" / "last.ckpt")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
