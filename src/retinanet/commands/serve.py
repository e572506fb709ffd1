"""`retinanet serve`."""

from __future__ import annotations

from pathlib import Path

from retinanet.commands.options import Flags
from retinanet.config import ServeConfig
from retinanet.errors import explain_missing


def serve(model: Path, *, options: Flags[ServeConfig] | None = None) -> None:
    """Serve a model: an HTTP API with a page for people, at http://127.0.0.1:8000 unless told otherwise.

    `retinanet serve model.onnx`
    """
    from retinanet.predict.loading import load

    try:
        from retinanet.serve.server import run_server
    except ModuleNotFoundError as error:
        raise explain_missing(error, "retinanet serve") from error
    run_server(load, model, options or ServeConfig())
