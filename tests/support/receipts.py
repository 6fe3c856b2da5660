"""A device's signature under an acknowledgement, implemented a second time from the contract's section 3."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any


def receipt_of(token: str, command: Mapping[str, Any], status: str) -> str:
    """base64url(HMAC-SHA256(key = SHA-256(token), message = id|status|generation))."""
    word = f"{command['id']}|{status}|{command['binding_generation']}".encode()
    digest = hmac.digest(hashlib.sha256(token.encode()).digest(), word, "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
