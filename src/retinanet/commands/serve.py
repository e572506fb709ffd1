"""`retinanet serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import ServeConfig
from retinanet.errors import explain_missing


def serve(
    model: Annotated[Path, Parameter(help="Checkpoint or exported model.")],
    *,
    options: Flags[ServeConfig] | None = None,
) -> None:
    """Serve a model over HTTP, with an API and a web page. The default address is http://127.0.0.1:8000.

    `retinanet serve model.onnx`
    """
    from retinanet.predict.loading import load

    try:
        from retinanet.serve.server import run_server
    except ModuleNotFoundError as error:
        raise explain_missing(error, "retinanet serve") from error
    run_server(load, model, options or ServeConfig())
