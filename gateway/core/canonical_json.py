"""Canonical JSON (RFC 8785), and the digest of a command's params that its grant signs (contract, section 3)."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import rfc8785


def params_digest(params: dict[str, Any]) -> str:
    """Return base64url(SHA-256 of the canonical JSON), without padding: the claim ``par``.

    Raises:
        ValueError: an integer is beyond 2^53 - 1, a number is not finite, or a text holds half of a surrogate pair.
    """
    digest = hashlib.sha256(rfc8785.dumps(params)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
