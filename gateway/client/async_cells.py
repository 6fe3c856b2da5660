"""Calls about cells of the client for asyncio. ``scripts/sync_client.py`` makes ``sync_cells.py`` of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from gateway.client.arguments import path
from gateway.client.async_transport import AsyncTransport
from gateway.models.cells import Cell, CellDeviceList, CellList, MovedDevices

MOST_DEVICES_SHOWN: Final = 100


class AsyncCellCalls(AsyncTransport):
    """Calls about the brokers of a registry, and the devices whose home they are."""

    async def list_cells(self) -> CellList:
        """Return the brokers, the address of each for devices, and how many devices have it as their home."""
        return await self._get(CellList, path("cells"))

    async def list_cell_devices(
        self, broker_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> CellDeviceList:
        """Return a page of the ids of devices whose home this broker is."""
        return await self._get(CellDeviceList, path("cells", broker_id, "devices"), limit=limit, cursor=cursor)

    async def iterate_cell_devices(self, broker_id: str) -> AsyncIterator[str]:
        """Return the ids of all devices whose home this broker is, page by page."""
        cursor: str | None = None
        while True:
            page = await self.list_cell_devices(broker_id, limit=MOST_DEVICES_SHOWN, cursor=cursor)
            for device_id in page.data:
                yield device_id
            cursor = page.next_cursor
            if cursor is None:
                return

    async def move_devices(self, broker_id: str, device_ids: Sequence[str], *, once: str | None = None) -> MovedDevices:
        """Make this broker the home of devices. Open commands and resets go along."""
        body = {"device_ids": list(device_ids)}
        return await self._post(MovedDevices, path("cells", broker_id, "devices"), body, once)

    async def move_from_cell(
        self, broker_id: str, to: str, *, cursor: str | None = None, once: str | None = None
    ) -> MovedDevices:
        """Make the broker ``to`` the home of the next 500 devices of this one.

        Call it again with ``next_cursor`` as ``cursor`` until that is None.
        """
        body = {"to": to} if cursor is None else {"to": to, "cursor": cursor}
        return await self._post(MovedDevices, path("cells", broker_id, "move"), body, once)

    async def drain_broker(self, broker_id: str, *, draining: bool = True, once: str | None = None) -> Cell:
        """Give a broker no new devices, or let it have some again."""
        return await self._post(Cell, path("cells", broker_id, "drain"), {"draining": draining}, once)
