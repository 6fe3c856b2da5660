"""Keys and tokens: minting, hashing and checking (contract, section 1).

Every secret carries 200 random bits. A plain SHA-256 is the right hash for it: there is no dictionary to try, and the
hot path pays a microsecond instead of a slow key derivation. Only hashes are stored. The SHA-256 of a device token is
also the key of its receipts (contract, section 3). A device's MQTT password is derived from its token, one way. Who
runs the broker sees the password, but cannot call the HTTP API with it or sign a receipt.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.core.randomness import Entropy

DEVICE_TOKEN: Final = "dtok_"  # noqa: S105 - a prefix, not a password
WEBHOOK_SECRET: Final = "whsec_"  # noqa: S105 - a prefix, not a password
BROKER_SECRET: Final = "bsec_"  # noqa: S105 - a prefix, not a password
BROKER_PASSWORD: Final = "mqttpw_"  # noqa: S105 - a prefix, not a password
SESSION_SECRET: Final = "gws_"  # noqa: S105 - a prefix, not a password
SCOPES: Final = ("devices:read", "devices:write", "webhooks:read", "webhooks:write")
HINT_LENGTH: Final = 12

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_BYTES: Final = 25
_LENGTH: Final = 34  # 62 ** 34 exceeds 2 ** 200
_SALT_BYTES: Final = 12
_MQTT: Final = b"mqtt"
_CSRF: Final = b"csrf"


@dataclass(frozen=True)
class DeviceToken:
    """A new device token and its MQTT password, both shown once, and what the registry stores of them."""

    secret: str = field(repr=False)
    mqtt_password: str = field(repr=False)
    hash: bytes
    mqtt_hash: bytes
    broker_entry: str


def mint(prefix: str, entropy: Entropy) -> str:
    """Return a new secret: the prefix and 200 random bits in letters and digits."""
    value = int.from_bytes(entropy(_RANDOM_BYTES))
    digits = []
    for _ in range(_LENGTH):
        value, digit = divmod(value, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return prefix + "".join(digits)


def mint_device_token(entropy: Entropy) -> DeviceToken:
    """Return a new device token, its MQTT password, the hashes of both, and the line for a Mosquitto password file."""
    secret = mint(DEVICE_TOKEN, entropy)
    password = mqtt_password(secret)
    entry = broker_entry(password, entropy(_SALT_BYTES))
    return DeviceToken(secret, password, hash_secret(secret), hash_secret(password), entry)


def mqtt_password(token: str) -> str:
    """Return the MQTT password of a device token: 43 characters of base64url (contract, section 1)."""
    return _base64url(hmac.digest(token.encode(), _MQTT, "sha256"))


def api_key_prefix(*, restricted: bool, test: bool) -> str:
    """Return ``sk_live_``, ``sk_test_``, ``rk_live_`` or ``rk_test_``."""
    return f"{'rk' if restricted else 'sk'}_{'test' if test else 'live'}_"


def hash_secret(secret: str) -> bytes:
    """Return the SHA-256 of a secret. The registry stores it and looks secrets up by it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def same_hash(stored: bytes, given: bytes) -> bool:
    """Compare two hashes in constant time."""
    return hmac.compare_digest(stored, given)


def broker_entry(secret: str, salt: bytes) -> str:
    """Return the secret as Mosquitto's ``$6$`` password entry: SHA-512 over password and salt, one round.

    One round is enough, since the secret is random (see the module).
    """
    digest = hashlib.sha512(secret.encode() + salt).digest()
    return f"$6${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def csrf_token(session_secret: str) -> str:
    """Return the token that changes need beside the cookie of a session: 43 characters of base64url."""
    return _base64url(hmac.digest(session_secret.encode(), _CSRF, "sha256"))


def receipt(key: bytes, command_id: str, status: str, generation: int) -> str:
    """Return the receipt of an acknowledgement (contract, section 3); ``key`` is the SHA-256 of the device token."""
    message = f"{command_id}|{status}|{generation}".encode()
    return _base64url(hmac.digest(key, message, "sha256"))


def receipt_is_good(given: str, key: bytes, command_id: str, status: str, generation: int) -> bool:
    """Return whether ``given`` is the receipt that only the holder of the token can make. Padding is optional."""
    expected = receipt(key, command_id, status, generation)
    return hmac.compare_digest(given.rstrip("=").encode("utf-8", "surrogatepass"), expected.encode())


def _base64url(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
