"""Makes sure that Mosquitto has taken up the password file that was just written.

A SIGHUP is only a request: it is taken up within 100 ms, and one that comes during a reload is forgotten. So each file
holds one account, :data:`NAME`, whose password is another one every time. Once the broker lets that in, all else in
the file is in force too, and every session that the file ends has been cut.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from gateway.broker.mosquitto.password_file import BrokerSignalError, PasswordFile, password_entry
from gateway.mqtt.probe import ProbeRefusedError, ProbeTarget, connected

NAME: Final = "gateway_sentinel"
"""It may do nothing but connect."""
AGAIN_SECONDS: Final = 1.0
"""After this long without effect the signal is sent once more."""
TRIES: Final = 5
_LOOK_SECONDS: Final = 0.02
_SECRET_BYTES: Final = 24


class ReloadProbe:
    """Signals, and waits until that had its effect."""

    def __init__(self, file: PasswordFile, target: ProbeTarget) -> None:
        self._file = file
        self._target = target
        self._password = ""
        self._entry = ""

    def account(self, *, again: bool = False) -> dict[str, str]:
        """The entry for the next file, by user name; with ``again`` the last one, for a file that says the same."""
        if not (again and self._entry):
            self._password = secrets.token_urlsafe(_SECRET_BYTES)
            self._entry = password_entry(self._password)
        return {NAME: self._entry}

    async def taken_up(self) -> None:
        """Have the broker read the file, and return when it has.

        Raises:
            BrokerSignalError: it could not be signalled, or does not do what the signal says.
            ProbeError: it cannot be reached, so nobody is connected to it either.
        """
        for _ in range(TRIES):
            await asyncio.to_thread(self._file.reload)
            try:
                async with asyncio.timeout(AGAIN_SECONDS):
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
