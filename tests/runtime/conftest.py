"""A fixture of the exported models."""

from tests.export.conftest import exports

__all__ = ["exports"]
