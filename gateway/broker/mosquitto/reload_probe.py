"""Reload probe: the check that Mosquitto has read the password file that was just written.

A SIGHUP is only a request: it is handled within 100 ms, and one that arrives during a reload is forgotten. Each file
therefore holds one account, :data:`NAME`, with a new password every time. When the broker accepts that password, the
rest of the file is in force too, and every session that the file ends has been cut.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from gateway.broker.mosquitto.password_file import MISSING, BrokerSignalError, PasswordFile, Stamp, password_entry
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

    def __init__(self, file: PasswordFile, target: ProbeTarget) -> None:
        self._file = file
        self._target = target
        self._password = ""
        self._entry = ""

    def account(self, *, again: bool = False) -> dict[str, str]:
        """Return the entry for the next file, by user name.

        ``again``: the last one, for a file that says the same.
        """
        if not (again and self._entry):
            self._password = secrets.token_urlsafe(_SECRET_BYTES)
            self._entry = password_entry(self._password)
        return {NAME: self._entry}

    async def taken_up(self) -> None:
        """Make the broker read the file, and return when it has.

        Raises:
            BrokerSignalError: it could not be signalled, or does not do what the signal says.
            ProbeError: it cannot be reached, so no client is connected to it either.
        """
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

    async def _let_in(self) -> None:
        while True:
            try:
                async with connected(self._target, NAME, self._password):
                    return
            except ProbeRefusedError:
                await asyncio.sleep(_LOOK_SECONDS)
