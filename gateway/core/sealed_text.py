"""Text sealed under a secret that the gateway does not keep: it can be read only while a caller shows that secret."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32


def seal(secret: str, purpose: str, text: str, nonce: bytes) -> bytes:
    """Return the text, encrypted and authenticated (AES-256-GCM). ``nonce`` has 12 random bytes, used once."""
    return nonce + _cipher(secret, purpose).encrypt(nonce, text.encode(), purpose.encode())


def unseal(secret: str, purpose: str, sealed: bytes) -> str | None:
    """Return what was sealed under this secret for this purpose, or None where that is not so."""
    try:
        return _cipher(secret, purpose).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose.encode()).decode()
    except (InvalidTag, ValueError):  # ValueError: it is shorter than a nonce
        return None


def _cipher(secret: str, purpose: str) -> AESGCM:
    return AESGCM(HKDF(SHA256(), _KEY_BYTES, salt=None, info=purpose.encode()).derive(secret.encode()))
