"""The accounts in Mosquitto's password file that are no devices: the gateway's own, and those an operator added."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from pathlib import Path
from typing import Final

from gateway import ids
from gateway.broker.mosquitto import PasswordFileError
from gateway.credentials import broker_entry

_SALT_BYTES: Final = 12


def kept_entries(path: Path) -> dict[str, str]:
    """User name and entry of each account in the file that is no device's; empty when there is no file yet.

    Raises:
        PasswordFileError: the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PasswordFileError(
            f"the password file {path} cannot be read ({error.strerror}): the gateway's user must be able to read and "
            "write it"
        ) from error
    accounts = (line.partition(":")[::2] for line in lines if ":" in line and not line.startswith("#"))
    return {name: entry for name, entry in accounts if not name.startswith(ids.DEVICE)}


def own_entry(password: str, known: str | None) -> str:
    """The entry for a password; the known one where that is right, since a changed entry cuts the client off."""
    if known is not None and _opens(known, password):
        return known
    return broker_entry(password, os.urandom(_SALT_BYTES))


def _opens(entry: str, password: str) -> bool:
    _, _, rest = entry.partition("$6$")
    try:
        salt = base64.b64decode(rest.partition("$")[0], validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(broker_entry(password, salt).encode(), entry.encode())
