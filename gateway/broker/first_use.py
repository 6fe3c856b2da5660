"""First use over MQTT of a token that replaces another, at a broker with a password file.

Mosquitto's password file holds one password per device. When the broker has read a file with the new one, it has cut
the session of the old one. The gateway then sends itself a mark through the broker (:mod:`gateway.mqtt.barrier`). What
a device publishes after that mark comes from a session that knew the new password.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import structlog

from gateway.domain import devices
from gateway.errors import StoreError

if TYPE_CHECKING:
    from gateway.store import Store, Tx

log = structlog.get_logger()

PASS_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 0.5

Passed = Callable[[float], Awaitable[bool]]
"""Returns whether a mark came back through the broker within so many seconds."""


class FirstUses:
    """Waits for the first message of devices whose new token has not been used yet."""

    def __init__(self, store: Store) -> None:
        self.waiting: dict[str, int] = {}
        """Device id and token: the next message of this device is the first use of this token."""
        self._store = store
        self._in_force: Mapping[str, int] = {}
        self._used: dict[str, int] = {}
        self._to_pass, self._to_note = asyncio.Event(), asyncio.Event()

    def in_force(self, tokens: Mapping[str, int]) -> None:
        """Note that the broker accepts these unused tokens.

        Each is the newest of a device whose older token is still good.
        """
        self._in_force = tokens
        self.waiting = {device: token for device, token in self.waiting.items() if tokens.get(device) == token}
        if tokens.keys() - self.waiting.keys():
            self._to_pass.set()

    def heard(self, device_ids: Iterable[str]) -> None:
        """Note that these devices have published something, just now or since the last mark."""
        for device_id in device_ids:
            token = self.waiting.pop(device_id, None)
            if token is not None:
                self._used[device_id] = token
                self._to_note.set()

    async def run(self, passed: Passed) -> None:
        """Send marks and record first uses until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_apart(passed), name="marks of new tokens")
            group.create_task(self._note(), name="first uses of tokens")

    async def _tell_apart(self, passed: Passed) -> None:
        while True:
            await self._to_pass.wait()
            self._to_pass.clear()
            before = self._in_force
            if await passed(PASS_SECONDS):
                now = self._in_force
                self.waiting |= {device: token for device, token in before.items() if now.get(device) == token}
            else:
                self._to_pass.set()

    async def _note(self) -> None:
        while True:
            await self._to_note.wait()
            self._to_note.clear()
            used, self._used = self._used, {}
            try:
                await self._store.write(lambda tx, used=used: _use(tx, used))  # type: ignore[misc]
            except StoreError as error:
                log.warning("token.use_not_noted", reason=error.message)
                self._used = used | self._used
                self._to_note.set()
                await asyncio.sleep(RETRY_SECONDS)


def _use(tx: Tx, used: Mapping[str, int]) -> None:
    for token_id in used.values():
        devices.use(tx, token_id)
