"""Shared secret between the broker and the endpoint: in a file, made at the first start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from gateway.core import credentials, files
from gateway.errors import UnavailableError

FILE_NAME: Final = "broker-auth-secret"
SHORTEST: Final = 32
_LETTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def shared_secret(path: Path) -> str:
    """Return the secret in this file. The file is made if it does not exist, readable by its owner alone.

    Raises:
        UnavailableError: it cannot be read or made, or holds no secret.
    """
    try:
        secret = path.read_text("utf-8").strip() if path.exists() else _made(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(f"The secret in {path} cannot be read: {error}.") from error
    if len(secret) < SHORTEST or not set(secret) <= _LETTERS:
        raise UnavailableError(
            f"{path} should hold a secret of at least {SHORTEST} letters, digits, _ or -, for example from "
            "'openssl rand -hex 32'. Take the file away to have one made."
        )
    return secret


def _made(path: Path) -> str:
    secret = credentials.mint(credentials.BROKER_SECRET, os.urandom)
    files.create(path, f"{secret}\n".encode())
    return secret
