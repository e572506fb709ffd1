"""Run the app in one or several processes until SIGTERM or Ctrl+C. Requests in progress are finished first."""

from __future__ import annotations

import functools
import ipaddress
import os
import secrets
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

    from retinanet.serve.service import ServedDetector

Load = Callable[..., "ServedDetector"]

DRAIN_SECONDS: Final = 120
"""Maximum seconds for finishing requests in progress after SIGTERM."""
HEALTH_SECONDS: Final = 60
"""Maximum seconds that a worker process may fail to respond before it is replaced. Loading a model takes long."""


def run_server(load: Load, model: Path, config: ServeConfig) -> None:
    """Serve a model until SIGTERM or Ctrl+C, then finish the requests in progress and return.

    Args:
        load: `retinanet.load`, a function (path, device, threads=...) -> detector. It is an argument because this
            layer never imports torch.
        model: path of an .onnx or .xml file or of a checkpoint.
        config: options of the server.

    Raises:
        UserError: the model cannot be served, the key file cannot be read, or the address is in use.
    """
    if config.api_key_file:
        read_keys(config.api_key_file)
    load_detector = functools.partial(_load, load, model, config)
    detector = load_detector()  # also with several workers: an invalid model is reported once, before any worker starts
    device = detector.device
    if config.workers == 1:
        factory: Callable[[], FastAPI] = functools.partial(create_app, lambda: detector, config, name=model.name)
    else:
        del detector
        # The processes are one server: the page keeps a result whichever of them returned it.
        server_id = secrets.token_hex(8)
        factory = functools.partial(create_app, load_detector, config, name=model.name, server_id=server_id)
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
    except SystemExit as error:  # uvicorn exits after it has logged the reason
        raise UserError(
            f"cannot listen on {config.host}, port {config.port}: the log line above states the reason. "
            "Choose another --port or --host"
        ) from error
    socket.listen(settings.backlog)  # clients can connect from now on; they are answered when the app has started
    address = f"http://{_url_host(config.host)}:{socket.getsockname()[1]}"
    progress_log.info("serving %s on %s at %s (press Ctrl+C to stop)", model.name, device, address)
    if not _is_loopback(config.host) and not config.api_key_file:
        progress_log.warning("everyone who can reach this address can use the server: set --api-key-file")
    with suppress(KeyboardInterrupt):
        (_serve_one if config.workers == 1 else _serve_several)(settings, socket)
    progress_log.info("stopped")


def _load(load: Load, model: Path, config: ServeConfig) -> ServedDetector:
    cores = os.cpu_count() or 1
    # 0: a single process leaves the number of threads to the runtime. Several processes share the cores.
    threads = 0 if config.workers == 1 else max(1, cores // config.workers)
    detector = load(
        model,
        config.hardware.device,
        threads=threads,
        bit_depth=config.value_range.bit_depth,
        agnostic_nms=config.nms.agnostic_nms,
        nms_threshold=config.nms.nms_threshold,
    )
    if getattr(getattr(detector, "description", None), "raw", False):
        raise UserError(
            f"{model}: expected a model that returns detections, found one exported with --raw, which returns logits "
            "and offsets. Export the model again without --raw"
        )
    return detector


def _serve_one(settings: uvicorn.Config, socket: Socket) -> None:
    # uvicorn raises the signal again after a clean stop, which would end the process with an error status.
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
        raise UserError("a worker process could not start: the log lines above state the reason")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
