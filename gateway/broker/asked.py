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
from gateway.store import Row, Store, View, tokens

log = structlog.get_logger()

NOT_CUT: Final = (
    "The broker asks the gateway who may come in, and the gateway cannot tell it to close a session that is there "
    "already: a revoked token opens nothing anew, and may be heard and served until its device reconnects. Set "
    "broker_api_url where the broker has an API for that (docs/other-brokers.md)."
)
_AT_ONCE: Final = 16
_AGAIN_SECONDS: Final = 0.25


class AskedAccess:
    """Cuts each session that was not opened with a token which is good now; one of which nothing is known too."""

    name = "http"

    def __init__(self, store: Store, admissions: Admissions, cutter: Cutter | None) -> None:
        self.caution = None if cutter else NOT_CUT
        self._store = store
        self._admissions = admissions
        self._cutter = cutter

    async def sync(self, devices: Sequence[Row]) -> None:
        """Cut what has to be cut of these devices; none at the start means of all that are connected.

        Raises:
            UnavailableError: the broker's API does not do it.
        """
        if self._cutter is None:
            if devices:
                log.warning("broker.sessions_not_cut", devices=[row["device_id"] for row in devices][:10])
            return
        if devices:
            known = {row["device_id"]: row["device_pk"] for row in devices}
            await self._all(known, self._cutter)
        else:
            await self._compare(self._cutter)

    async def _compare(self, cutter: Cutter) -> None:
        """Sessions of devices that have no good token: left from before a restart, or from before a backup."""
        there = {name for name in await cutter.connected() if ids.is_id(ids.DEVICE, name)}
        may = {name for name, _ in await self._store.read(tokens.broker_entries)}
        for name in sorted(there - may):
            await cutter.cut(name)
            log.info("broker.session_cut", client_id=name)

    async def _all(self, devices: dict[str, int], cutter: Cutter) -> None:
        waiting = iter(devices.items())
        while batch := list(itertools.islice(waiting, _AT_ONCE)):
            await asyncio.gather(*(self._cut(name, pk, cutter) for name, pk in batch))

    async def _cut(self, device_id: str, device_pk: int, cutter: Cutter) -> None:
        """Cut, and once more as long as a session that was let in before may only just be beginning."""
        while await self._is_foul(device_id, device_pk):
            settled = self._admissions.is_settled(device_id)
            await cutter.cut(device_id)
            log.info("broker.session_cut", client_id=device_id)
            if settled:
                self._admissions.forget(device_id)
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _is_foul(self, device_id: str, device_pk: int) -> bool:
        good = await self._store.read(lambda view: _good(view, device_pk))
        return self._admissions.token_of(device_id) not in good


def _good(view: View, device_pk: int) -> set[int]:
    return {row["id"] for row in tokens.live(view, device_pk)}
