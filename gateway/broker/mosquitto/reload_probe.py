"""Reload probe: the check that Mosquitto has read the password file that was just written.

A SIGHUP is only a request: it is handled within 100 ms, and one that arrives during a reload is forgotten. Each file
therefore holds one account, :data:`NAME`, with a new password every time. When the broker accepts that password, the
rest of the file is in force too, and every session that the file ends has been cut.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import secrets
from typing import Final

from gateway.broker.mosquitto.password_file import (
    SALT_BYTES,
    BrokerSignalError,
    PasswordFile,
    password_entry,
    salt_of,
)
from gateway.broker.mosquitto.password_lines import MISSING, Stamp
from gateway.mqtt.probe import ProbeRefusedError, ProbeTarget, connected

NAME: Final = "gateway_sentinel"
"""This account may connect and do nothing else."""
AGAIN_SECONDS: Final = 1.0
"""After this long without effect the signal is sent once more. It is longer for a large file: see :func:`patience`."""
READ_BYTES_PER_SECOND: Final = 10_000_000
"""Mosquitto on a busy machine. Another signal would only make it read once more."""
TRIES: Final = 5
_LOOK_SECONDS: Final = 0.02
_SECRET_BYTES: Final = 24


def patience(written: Stamp | None) -> float:
    """Return the seconds that Mosquitto may take to read this file."""
    _, _, size = written or MISSING
    return AGAIN_SECONDS + size / READ_BYTES_PER_SECOND


class ReloadProbe:
    """Signals the broker, and waits for the effect."""

    def __init__(self, file: PasswordFile, target: ProbeTarget, secret: str | None = None) -> None:
        self._file = file
        self._target = target
        self._secret = secret or secrets.token_urlsafe(_SECRET_BYTES)
        self._password = ""
        self._is_kept = False

    def account(self, *, known: str | None = None) -> dict[str, str]:
        """Return the entry for the next file, by user name.

        ``known``: the entry of a file that says the same otherwise. It is kept if this secret made it.
        """
        salt = None if known is None else salt_of(known)
        password = "" if salt is None else self._derived(salt)
        self._is_kept = salt is not None and hmac.compare_digest(password_entry(password, salt), known or "")
        if not self._is_kept or salt is None:
            salt = os.urandom(SALT_BYTES)
            password = self._derived(salt)
        self._password = password
        return {NAME: password_entry(password, salt)}

    def _derived(self, salt: bytes) -> str:
        digest = hmac.digest(self._secret.encode("utf-8", "surrogatepass"), NAME.encode() + salt, "sha256")
        return base64.urlsafe_b64encode(digest).decode()

    async def taken_up(self) -> None:
        """Make the broker read the file unless it has, and return when it has.

        Raises:
            BrokerSignalError: it could not be signalled, or does not do what the signal says.
            ProbeError: it cannot be reached, so no client is connected to it either.
        """
        if await self.is_in_force():
            return
        for _ in range(TRIES):
            await asyncio.to_thread(self._file.reload)
            try:
                async with asyncio.timeout(patience(self._file.written)):
                    await self._let_in()
                    return
            except TimeoutError:
                continue
        raise BrokerSignalError(
            f"Mosquitto at {self._target.address} was signalled {TRIES} times and does not go by {self._file.path}. "
            "Check that its password_file is that file, that it may read it, and that mosquitto_pid_file is the pid "
            "file of the broker at that address."
        )

    async def is_in_force(self) -> bool:
        """Return whether the broker goes by the file already. A new entry was written after it read the last one.

        Raises:
            ProbeError: it cannot be reached.
        """
        if not self._is_kept:
            return False
        try:
            async with asyncio.timeout(patience(self._file.written)), connected(self._target, NAME, self._password):
                return True
        except (ProbeRefusedError, TimeoutError):
            return False

    async def _let_in(self) -> None:
        while True:
            try:
                async with connected(self._target, NAME, self._password):
                    return
            except ProbeRefusedError:
                await asyncio.sleep(_LOOK_SECONDS)
