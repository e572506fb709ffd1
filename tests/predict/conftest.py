"""Fixtures that several files of this folder use."""

from tests.export.conftest import folder

__all__ = ["folder"]
