"""Serve a trained model over HTTP: an API, a web page, health checks and metrics. It never imports torch."""

from retinanet.serve.app import create_app
from retinanet.serve.server import run_server

__all__ = ["create_app", "run_server"]
