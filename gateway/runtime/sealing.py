"""Encryption of secrets at rest, under a key that lies elsewhere: AES-256-GCM.

A sealed secret names its key and is bound to its place (table and id). It opens under no other key and in no other row.
The key is 32 random bytes, as 64 hexadecimal digits in a file (setting ``encryption_key_file``).
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final

from gateway.core.files import create
from gateway.errors import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_MAGIC: Final = b"sealed1:"
_ID_BYTES: Final = 8
_HEAD: Final = len(_MAGIC) + _ID_BYTES + NONCE_BYTES
_ROOT: Final = 0
_FORM: Final = f"It should hold {2 * KEY_BYTES} hexadecimal digits: gateway secrets new-key FILE makes one."


class Vault:
    """Seals and opens secrets under one key; without a key secrets stay as they are."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key
        self.key_id: str | None = None if key is None else key_id_of(key)
        """Public name of the key, or None without one."""

    def seal(self, place: str, secret: bytes, nonce: bytes) -> bytes:
        """Return the secret as it is stored. ``nonce`` is random and used once; ``place`` is table and id."""
        if self.key_id is None:
            return secret
        head = _MAGIC + bytes.fromhex(self.key_id) + nonce
        return head + self._cipher().encrypt(nonce, secret, _bound_to(head, place))

    def open(self, place: str, stored: bytes) -> bytes:
        """Return the secret that is stored at ``place``.

        Raises:
            UnavailableError: it was sealed under another key or not at all, or it was changed or moved.
        """
        sealed_under = key_of(stored)
        require_same(sealed_under, self.key_id)
        if sealed_under is None:
            return stored
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - only where there is a key

        head, sealed = stored[:_HEAD], stored[_HEAD:]
        try:
            return self._cipher().decrypt(head[-NONCE_BYTES:], sealed, _bound_to(head, place))
        except InvalidTag as error:
            raise UnavailableError(
                f"The secret at {place} was changed outside the gateway, so it is not used. Restore a backup."
            ) from error

    def _cipher(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - only where there is a key

        if self._key is None:
            raise LookupError("this vault has no key")
        return AESGCM(self._key)


def key_id_of(key: bytes) -> str:
    """Return the public name of a key: 16 hexadecimal digits."""
    return hashlib.sha256(b"device-gateway " + key).hexdigest()[: 2 * _ID_BYTES]


def key_of(stored: bytes) -> str | None:
    """Return the name of the key that sealed this secret, or None when it is stored in the clear."""
    if len(stored) <= _HEAD or not stored.startswith(_MAGIC):
        return None
    return stored[len(_MAGIC) : len(_MAGIC) + _ID_BYTES].hex()


def require_same(wanted: str | None, given: str | None) -> None:
    """Refuse any key except the one that seals the registry's secrets.

    Raises:
        UnavailableError: the setting names another key, or none, or one where none is in use.
    """
    if wanted == given:
        return
    if given is None:
        raise UnavailableError(
            f"The signing keys and webhook secrets of this registry are encrypted under the key {wanted}. Set "
            "encryption_key_file to the file that holds it ('gateway docs store')."
        )
    if wanted is None:
        raise UnavailableError(
            "encryption_key_file is set, and this registry is not encrypted yet. Start the gateway, which encrypts it, "
            "or stop it and run: gateway secrets encrypt"
        )
    raise UnavailableError(
        f"encryption_key_file holds the key {given}, and this registry is encrypted under {wanted}. Set it to the file "
        "that holds that one; another key takes its place by: gateway secrets rotate-key FILE"
    )


def vault_of(key_file: Path | None) -> Vault:
    """Return the vault of the setting ``encryption_key_file``.

    The rule for the file is PostgreSQL's for private keys: 0600 at most where this user owns it, 0640 where root does.

    Raises:
        UnavailableError: the file cannot be read, holds no key, or others may read or write it.
    """
    return Vault() if key_file is None else Vault(read_key(key_file, "encryption_key_file"))


def read_key(file: Path, setting: str) -> bytes:
    """Return the key in the file that this setting names.

    Raises:
        UnavailableError: as :func:`vault_of`.
    """
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as source:
            state = os.fstat(source.fileno())
            text = source.read(4 * KEY_BYTES)
    except OSError as error:
        raise UnavailableError(f"{setting}: {file} cannot be read ({error.strerror}).") from error
    if state.st_uid not in (_ROOT, os.geteuid()):
        raise UnavailableError(
            f"{setting}: {file} belongs to the user with the number {state.st_uid}. Give it to user "
            f"{os.geteuid()}, or to root."
        )
    allowed = 0o640 if state.st_uid == _ROOT else 0o600
    if stat.S_IMODE(state.st_mode) & 0o777 & ~allowed & ~0o100:
        raise UnavailableError(f"{setting}: others may read or write {file}: chmod {allowed:o} {file}")
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise UnavailableError(f"{setting}: {file} holds no key. {_FORM}")
    return key


def write_new_key(file: Path) -> Vault:
    """Make a file with a new key, readable by its owner alone; return its vault.

    Raises:
        FileExistsError: the file exists. It is never replaced: what its key opens would be lost.
        OSError: it cannot be written.
    """
    key = os.urandom(KEY_BYTES)
    create(file, f"{key.hex()}\n".encode())
    return Vault(key)


def _bound_to(head: bytes, place: str) -> bytes:
    return head + place.encode()
