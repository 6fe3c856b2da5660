"""The fixtures of the HTTP tests."""

from tests.http.fixtures import api

__all__ = ["api"]
