"""Signatures of webhooks (contract, section 5): they prove who sent a request, and that it is unchanged.

A request has two signatures, since receivers may support either. The secret is shown as ``whsec_`` and the base64 of 24
random bytes.

- ``webhook-signature`` (https://www.standardwebhooks.com): ``v1,`` and the base64 of the HMAC-SHA256 of
  ``{id}.{timestamp}.{body}``. The key is the 24 bytes, as libraries for it expect.
- ``X-Bota-Signature``: ``v1=`` and the hexadecimal HMAC-SHA256 of ``{timestamp}.{body}``. The key is the secret as it
  was shown, with ``whsec_``, in ASCII.

While a rotated secret is still good, each header carries two signatures, that of the new secret first. Standard
Webhooks separates them by a space, ``X-Bota-Signature`` by a comma.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Final

from gateway.core.credentials import WEBHOOK_SECRET

if TYPE_CHECKING:
    from gateway.core.randomness import Entropy

_RANDOM_BYTES: Final = 24

Keys = tuple[bytes, ...]
"""The keys that sign a delivery: the current one, then the previous one while it is still good."""


def mint_key(entropy: Entropy) -> bytes:
    """Return the key of a new webhook: 192 random bits."""
    return entropy(_RANDOM_BYTES)


def secret(key: bytes) -> str:
    """Return the secret in the form in which its owner gets it, once."""
    return WEBHOOK_SECRET + base64.b64encode(key).decode()


def headers(keys: Keys, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers for ``body``; ``timestamp`` is that of the attempt, in Unix seconds."""
    stamped = f"{timestamp}.".encode() + body
    named = f"{event_id}.".encode() + stamped
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_standard(key, named) for key in keys),
        "X-Bota-Event-Id": event_id,
        "X-Bota-Timestamp": str(timestamp),
        "X-Bota-Signature": ",".join(_own(key, stamped) for key in keys),
    }


def _standard(key: bytes, message: bytes) -> str:
    return f"v1,{base64.b64encode(hmac.digest(key, message, 'sha256')).decode()}"


def _own(key: bytes, message: bytes) -> str:
    return f"v1={hmac.digest(secret(key).encode(), message, 'sha256').hex()}"
