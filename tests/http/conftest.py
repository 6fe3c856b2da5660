"""The fixtures of the HTTP tests."""

from tests.http.fixtures import api, caller

__all__ = ["api", "caller"]
