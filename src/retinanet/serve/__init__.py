"""A trained network behind HTTP: an API, a page for people, and what operating it needs. Never imports torch itself."""

from retinanet.serve.app import create_app
from retinanet.serve.server import run_server

__all__ = ["create_app", "run_server"]
