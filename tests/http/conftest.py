"""The fixtures of the HTTP tests."""

from tests.http.fixtures import api, caller, issuer

__all__ = ["api", "caller", "issuer"]
