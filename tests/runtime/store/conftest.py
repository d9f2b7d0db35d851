"""Fixtures of this folder alone."""

from tests.fixtures.hub import hub

__all__ = ["hub"]
