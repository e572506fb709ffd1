"""The fixture `exports`: a folder with exported models."""

from tests.export.conftest import exports

__all__ = ["exports"]
