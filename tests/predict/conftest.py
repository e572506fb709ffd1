"""A fixture of the exported models."""

from tests.export.conftest import folder

__all__ = ["folder"]
