"""Two gloo processes under torchrun train as one process with both their batches: real runs of `fit`, in float64."""

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
PATIENCE = 400
"""Seconds for a run that takes ten on a machine of its own; a process that died unnoticed would take half an hour."""
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
    "USE_LIBUV": "0",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Eleven images to train on (an uneven last batch; six of them without objects), five to validate on."""
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
    """Return a port below those that systems give to outgoing connections, so that none takes it meanwhile."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def side_by_side(commands: list[list[str]], environments: list[dict[str, str]]) -> list[str]:
    """Run commands at the same time, and return what each said; none outlives this."""
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        said = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said[0][-2000:] + said[1][-2000:]
    return said


def launch(
    folder: Path, given: dict[str, Any], *, ranks: int, restarts: int = 0, **extra: Any
) -> subprocess.CompletedProcess[str]:
    """Run the worker alone or under torchrun; its files lie in folder/seen."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.json").write_text(json.dumps({"options": given, "extra": extra}))
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
        command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    (folder / "seen").mkdir(exist_ok=True)
    command += [str(WORKER), str(folder / "options.json"), str(folder / "seen")]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False)


def seen(folder: Path, rank: int, world: int) -> dict[str, Any]:
    return torch.load(folder / "seen" / f"rank{rank}-of-{world}.pt", weights_only=True)


def both(tmp_path: Path, data: tuple[Path, Path], *, double: bool = True, **more: Any) -> list[dict[str, Any]]:
    """Return what one process saw, and each of two."""
    for ranks, name in ((1, "one"), (2, "two")):
        done = launch(tmp_path / name, options(data, tmp_path / name / "run", **more), ranks=ranks, double=double)
        assert done.returncode == 0, done.stderr[-3000:]
    return [seen(tmp_path / "one", 0, 1), seen(tmp_path / "two", 0, 2), seen(tmp_path / "two", 1, 2)]


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float, what: str) -> None:
    """Compare tensors by name, relative to the norm of each."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        difference = (value.double() - b[name].double()).norm()
        assert difference <= tolerance * value.double().norm() + 1e-12, (what, name, float(difference))


@pytest.mark.parametrize(
    "more",
    [
        {"normaliser": "batch", "ema": 0.9, "epochs": 2, "patience": 5},
        {"normaliser": "image", "accumulate": 2},
    ],
    ids=["batch normaliser, running average", "image normaliser, accumulation"],
)
def test_two_equal_one_to_a_millionth(more: dict[str, Any], data: tuple[Path, Path], tmp_path: Path) -> None:
    one, *two = both(tmp_path, data, **more)
    assert min(two[0]["positives"]) == 0 or min(two[1]["positives"]) == 0, "a rank without objects"
    assert {*two[0]["sizes"], *two[1]["sizes"]} == {1, 2}, "an uneven batch"
    assert sum(two[0]["sizes"] + two[1]["sizes"]) == 11 * more.get("epochs", 1)
    for rank in two:
        assert rank["loss"] == pytest.approx(one["loss"], rel=1e-6)
        assert rank["log"] == pytest.approx(one["loss"], rel=1e-5), "the logged loss is that of the whole batch"
        assert len(rank["gradients"]) == len(one["gradients"]) > 1
        for step, (a, b) in enumerate(zip(one["gradients"], rank["gradients"], strict=True)):
            assert_close(a, b, 1e-6, f"gradient of step {step}")
        assert_close(one["weights"], rank["weights"], 1e-6, "weights")
        assert rank["best_ap"] == one["best_ap"]
    for name, value in two[0]["weights"].items():
        assert torch.equal(value, two[1]["weights"][name]), name
    # every image on one rank, once; the gathered numbers on both
    for (first, rows, ap), (second, rows_too, ap_too) in zip(two[0]["evaluated"], two[1]["evaluated"], strict=True):
        assert sorted(first + second) == [0, 1, 2, 3, 4]
        assert rows == rows_too
        assert ap == ap_too
    saved = [torch.load(tmp_path / n / "run" / "last.ckpt", weights_only=True) for n in ("one", "two")]
    assert_close(saved[0]["state_dict"], saved[1]["state_dict"], 1e-6, "last.ckpt")
    if "ema" in more:
        assert_close(
            saved[0]["current_model_state"], saved[1]["current_model_state"], 1e-6, "weights beside the average"
        )


def test_bf16(data: tuple[Path, Path], tmp_path: Path) -> None:
    """Rounding differs with the batch; a wrong scale of the gradients would be a factor of 2."""
    one, *two = both(tmp_path, data, double=False, precision="bf16")
    for rank in two:
        assert rank["loss"] == pytest.approx(one["loss"], rel=0.02)
        # the first step's: after it the weights differ
        whole = [torch.cat([g.flatten() for g in seen["gradients"][0].values()]) for seen in (one, rank)]
        assert (whole[0] - whole[1]).norm() < 0.1 * whole[0].norm()


def test_all_ranks_agree(data: tuple[Path, Path], tmp_path: Path) -> None:
    """BatchNorm that learns has one rank's statistics on all, early stopping comes at the same epoch.

    And validation has fewer images than ranks.
    """
    few = make_squares(tmp_path / "few", count=1, seed=3)
    given = options((data[0], few), tmp_path / "run", epochs=6, patience=1, lr=1e-12)
    done = launch(tmp_path, given, ranks=2, freeze_batchnorm=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = seen(tmp_path, 0, 2), seen(tmp_path, 1, 2)
    moved = 0
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name
        moved += name.endswith("running_mean") and bool((value != 0).any())
    assert moved > 10
    assert [rows for _, rows, _ in first["evaluated"]] == [rows for _, rows, _ in second["evaluated"]]
    assert first["epochs"] == second["epochs"] < 6


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_killed_rank_ends_the_job_and_a_restart_resumes_it(data: tuple[Path, Path], tmp_path: Path) -> None:
    more = {"epochs": 3, "ema": 0.9}
    undisturbed = launch(tmp_path / "a", options(data, tmp_path / "a" / "run", **more), ranks=2)
    assert undisturbed.returncode == 0, undisturbed.stderr[-3000:]
    kill = {"rank": 1, "step": 4}  # the second step of the second epoch
    killed = launch(tmp_path / "b", options(data, tmp_path / "b" / "run", **more), ranks=2, kill=kill)
    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.stderr
    again = launch(tmp_path / "c", options(data, tmp_path / "c" / "run", **more), ranks=2, restarts=1, kill=kill)
    assert again.returncode == 0, again.stderr[-3000:]
    assert (tmp_path / "c" / "seen" / "killed").exists()
    a, c = (torch.load(tmp_path / n / "run" / "last.ckpt", weights_only=True) for n in ("a", "c"))
    for key in ("state_dict", "current_model_state"):
        for name, value in a[key].items():
            assert torch.equal(value, c[key][name]), (key, name)
    assert rows(tmp_path / "a" / "run") == rows(tmp_path / "c" / "run")


def config_file(folder: Path, data: tuple[Path, Path]) -> Path:
    """Write the options of a run as a user would."""
    given = options(data, folder / "run")
    path = folder / "config.yaml"
    path.write_text(json.dumps({k: v for k, v in given.items() if k != "output"}))
    return path


@pytest.fixture(scope="module")
def torchrun(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the last.ckpt of the command line under torchrun, two processes on this machine."""
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
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("best AP") == 1, done.stdout
    return folder / "run" / "last.ckpt"


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = (torch.load(path, weights_only=True)["state_dict"] for path in (first, second))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def test_devices_by_the_flag(data: tuple[Path, Path], torchrun: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "retinanet", "train", "--config", str(config_file(tmp_path, data))]
    command += ["-o", str(tmp_path / "run"), "--devices", "2"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_weights(torchrun, tmp_path / "run" / "last.ckpt")


def test_slurm(data: tuple[Path, Path], torchrun: Path, tmp_path: Path) -> None:
    """Two tasks with the variables that srun sets."""
    command = [sys.executable, "-m", "retinanet", "train", "--config", str(config_file(tmp_path, data))]
    command += ["-o", str(tmp_path / "run"), "--devices", "2"]
    environments, port = [], str(free_port())
    for rank in (0, 1):
        slurm = {"JOB_ID": "1", "JOB_NAME": "batch", "NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1"}
        slurm |= {"PROCID": str(rank), "LOCALID": str(rank), "NODEID": "0", "NODELIST": "localhost"}
        environment = {**ENVIRONMENT, **{f"SLURM_{name}": value for name, value in slurm.items()}}
        environments.append(environment | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
    said = side_by_side([command, command], environments)
    assert ["best AP" in text for text in said] == [True, False]
    assert_same_weights(torchrun, tmp_path / "run" / "last.ckpt")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
def test_two_hosts(data: tuple[Path, Path], torchrun: Path, tmp_path: Path) -> None:
    """Two network namespaces with addresses of their own, and the command that users give."""
    names, addresses = [f"rnet{os.getpid()}-{i}" for i in (0, 1)], ("10.77.0.1", "10.77.0.2")
    made = subprocess.run(["ip", "netns", "add", names[0]], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    try:
        subprocess.run(["ip", "netns", "add", names[1]], check=True)
        pair = subprocess.run(
            ["ip", "link", "add", "rveth0", "netns", names[0], "type", "veth", "peer", "rveth1", "netns", names[1]],
            capture_output=True,
            text=True,
            check=False,
        )
        if pair.returncode:
            pytest.skip(f"no virtual network cards here: {pair.stderr.strip()}")
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
        said = side_by_side(commands, environments)
        assert "best AP" in said[0]
        assert "best AP" not in said[1]
        assert_same_weights(torchrun, tmp_path / "run" / "last.ckpt")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
