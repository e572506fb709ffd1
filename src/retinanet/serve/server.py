"""Run the app: one process or several, until it is told to stop; what was accepted is finished."""

from __future__ import annotations

import functools
import ipaddress
import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from retinanet.config import ServeConfig
from retinanet.errors import UserError
from retinanet.progress import progress_log
from retinanet.serve.app import create_app, read_keys
from retinanet.serve.metrics import MULTIPROCESS

if TYPE_CHECKING:
    from socket import socket as Socket

    from fastapi import FastAPI

    from retinanet.serve.service import Served

Load = Callable[..., "Served"]

DRAIN_SECONDS: Final = 120
"""How long what was accepted may take to finish after SIGTERM."""
HEALTH_SECONDS: Final = 60
"""How long a worker process may be silent, loading the model for example, before it is replaced."""


def run_server(load: Load, model: Path, config: ServeConfig) -> None:
    """Serve a model until SIGTERM or Ctrl+C; then finish what was accepted, and return.

    Args:
        load: `retinanet.load`: (path, device, threads=...) -> detector. Given, as this layer never imports torch.
        model: .onnx, .xml or a checkpoint.
        config: all options.

    Raises:
        UserError: a model that cannot be served, a key file that cannot be read, an address that is not free.
    """
    if config.api_key_file:
        read_keys(config.api_key_file)
    loading = functools.partial(_load, load, model, config)
    first = loading()  # what is wrong with the model is said here, in one line
    if config.workers == 1:
        factory: Callable[[], FastAPI] = functools.partial(create_app, lambda: first, config, name=model.name)
    else:
        del first
        factory = functools.partial(create_app, loading, config, name=model.name)
    settings = uvicorn.Config(
        factory,
        factory=True,
        host=config.host,
        port=config.port,
        workers=config.workers,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=HEALTH_SECONDS,
    )
    try:
        socket = settings.bind_socket()
    except SystemExit as error:  # uvicorn's way to say it, after a line in the log
        raise UserError(f"cannot listen on {config.host}, port {config.port}") from error
    socket.listen(settings.backlog)  # whoever reads the next line may connect, and waits until the app has started
    address = f"http://{_shown(config.host)}:{socket.getsockname()[1]}"
    progress_log.info("%s at %s (Ctrl+C stops)", model.name, address)
    if not _is_loopback(config.host) and not config.api_key_file:
        progress_log.warning("everybody who reaches this address may use it: give --api-key-file")
    with suppress(KeyboardInterrupt):
        (_serve_one if config.workers == 1 else _serve_several)(settings, socket)
    progress_log.info("stopped")


def _load(load: Load, model: Path, config: ServeConfig) -> Served:
    cores = os.cpu_count() or 1
    # One process has all cores, which the runtimes do best by themselves; several share them.
    threads = 0 if config.workers == 1 else max(1, cores // config.workers)
    detector = load(model, config.hardware.device, threads=threads)
    if getattr(getattr(detector, "description", None), "raw", False):
        raise UserError(f"{model} was exported with --raw: it gives logits and offsets, not detections")
    return detector


def _serve_one(settings: uvicorn.Config, socket: Socket) -> None:
    # uvicorn raises the signal again when all is done, which would end the process as if it had failed.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        uvicorn.Server(settings).run(sockets=[socket])
    finally:
        signal.signal(signal.SIGTERM, before)


def _serve_several(settings: uvicorn.Config, socket: Socket) -> None:
    with tempfile.TemporaryDirectory(prefix="retinanet-metrics-") as folder:
        os.environ[MULTIPROCESS] = folder
        try:
            processes = Multiprocess(settings, sockets=[socket])
            processes.run()
        finally:
            del os.environ[MULTIPROCESS]
    if any(process.exitcode == STARTUP_FAILURE for process in processes.processes):
        raise UserError("a worker could not start: the lines above say why")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
