"""Keeping sessions in step at a broker that asks the gateway: it lets nobody in anew, so what is left is to cut."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Final

import structlog

from gateway import ids
from gateway.broker.cutters import Cutter
from gateway.broker.http_auth.admissions import Admissions
from gateway.store import Row, Store, View, accounts, tokens

log = structlog.get_logger()

NOT_CUT: Final = (
    "The broker asks the gateway who may come in, and the gateway cannot tell it to close a session that is there "
    "already: a revoked token opens nothing anew, and may be heard and served until its device reconnects. Set "
    "broker_api_url where the broker has an API for that ('gateway docs other-brokers')."
)
_AT_ONCE: Final = 16


class AskedAccess:
    """Cuts each session that was not opened with a token which is good now; one of which nothing is known too."""

    name = "http"

    def __init__(self, store: Store, admissions: Admissions, cutter: Cutter | None) -> None:
        self.caution = None if cutter else NOT_CUT
        self._store = store
        self._admissions = admissions
        self._cutter = cutter
        self._beginning: set[str] = set()

    async def sync(self, devices: Sequence[Row]) -> Sequence[Row]:
        """Cut what has to be cut of these devices; none at the start means of all that are connected.

        Returns those whose session may only just be beginning, since the gateway let them in a moment ago.

        Raises:
            UnavailableError: the broker's API does not do it.
        """
        if self._cutter is None:
            if devices:
                log.warning("broker.sessions_not_cut", devices=[row["device_id"] for row in devices][:10])
            return ()
        if not devices:
            await self._compare(self._cutter)
        return await self._all(devices, self._cutter)

    async def _compare(self, cutter: Cutter) -> None:
        """Sessions of devices without a good token, left from before a restart or a backup, and of integrators."""
        there = await cutter.connected()
        may = {name for name, _ in await self._store.read(tokens.broker_entries)}
        integrators = await self._store.read(accounts.everyone)
        devices = {name for name in there if ids.is_id(ids.DEVICE, name)}
        for name in sorted(devices - may | self._foul_integrators(integrators, there)):
            await cutter.cut(name)
            self._admissions.forget(name)
            log.info("broker.session_cut", client_id=name)

    def _foul_integrators(self, known: Sequence[Row], there: set[str]) -> set[str]:
        """Client ids of those that were revoked, or came in with a password that is another one by now."""
        foul = {
            row["name"]
            for row in known
            if row["revoked_at"] or self._admissions.token_of(row["name"]) not in (None, row["created_at"])
        }
        return foul | {name for name in there if name.partition("-")[0] in foul}

    async def _all(self, devices: Sequence[Row], cutter: Cutter) -> list[Row]:
        waiting, unsettled = iter(devices), []
        while batch := list(itertools.islice(waiting, _AT_ONCE)):
            settled = await asyncio.gather(*(self._cut(row["device_id"], row["device_pk"], cutter) for row in batch))
            unsettled += [row for row, done in zip(batch, settled, strict=True) if not done]
        return unsettled

    async def _cut(self, device_id: str, device_pk: int, cutter: Cutter) -> bool:
        """Cut it if need be; whether that is all."""
        if not await self._is_foul(device_id, device_pk):
            return True
        settled = self._admissions.is_settled(device_id)
        await cutter.cut(device_id)
        if device_id not in self._beginning:
            log.info("broker.session_cut", client_id=device_id)
        if settled:
            self._admissions.forget(device_id)
            self._beginning.discard(device_id)
        else:
            self._beginning.add(device_id)
        return settled

    async def _is_foul(self, device_id: str, device_pk: int) -> bool:
        good = await self._store.read(lambda view: _good(view, device_pk))
        return self._admissions.token_of(device_id) not in good


def _good(view: View, device_pk: int) -> set[int]:
    return {row["id"] for row in tokens.live(view, device_pk)}
