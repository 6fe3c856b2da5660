"""Watch of the password file: notices that another process edited it, put an old one back, or removed it.

A comparison as at the start follows: devices as in the registry, other accounts as in the file, and a reload. Files
that the gateway has replaced are watched too, since a program that had one open writes there. An account that
``mosquitto_passwd`` has just made is thus in force seconds later.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from gateway.broker.mosquitto.password_entries import OperatorAccounts
from gateway.broker.mosquitto.password_file import PasswordFile
from gateway.store.wakeups import Wakeups

log = structlog.get_logger()

LOOKED_AT_EVERY_SECONDS: Final = 2.0


class PasswordFileWatch:
    """Looks at the file, and asks for a comparison when it has changed and then stayed unchanged between two looks.

    A program that writes in place leaves it half written for a moment. Such a state is not compared.
    """

    def __init__(
        self,
        file: PasswordFile,
        wakeups: Wakeups,
        people: OperatorAccounts | None = None,
        *,
        every_seconds: float = LOOKED_AT_EVERY_SECONDS,
    ) -> None:
        self._file = file
        self._wakeups = wakeups
        self._people = people or OperatorAccounts(file.path)
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Watch until cancelled."""
        before = told = self._file.written
        while True:
            await asyncio.sleep(self._every_seconds)
            now, written = self._file.stamp(), self._file.written
            if now == written:
                told = written
            elif written is not None and now == before and now != told:
                told = now
                self._tell()
            if self._people.wrote():  # an account that would be lost; the comparison keeps it
                self._wakeups.access_changed()
            before = now

    def _tell(self) -> None:
        log.warning(
            "broker.password_file_changed",
            file=str(self._file.path),
            message="Somebody else changed it, or took it away. It is compared with the registry.",
        )
        self._wakeups.access_changed()
