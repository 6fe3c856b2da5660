"""Calls about cells of the client that blocks, made by ``scripts/sync_client.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from gateway.client.arguments import path
from gateway.client.sync_transport import Transport
from gateway.models.cells import Cell, CellDeviceList, CellList, MovedDevices

MOST_DEVICES_SHOWN: Final = 100


class CellCalls(Transport):
    """Calls about the brokers of a registry, and the devices whose home they are."""

    def list_cells(self) -> CellList:
        """Return the brokers, the address of each for devices, and how many devices have it as their home."""
        return self._get(CellList, path("cells"))

    def list_cell_devices(
        self, broker_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> CellDeviceList:
        """Return a page of the ids of devices whose home this broker is."""
        return self._get(CellDeviceList, path("cells", broker_id, "devices"), limit=limit, cursor=cursor)

    def iterate_cell_devices(self, broker_id: str) -> Iterator[str]:
        """Return the ids of all devices whose home this broker is, page by page."""
        cursor: str | None = None
        while True:
            page = self.list_cell_devices(broker_id, limit=MOST_DEVICES_SHOWN, cursor=cursor)
            for device_id in page.data:
                yield device_id
            cursor = page.next_cursor
            if cursor is None:
                return

    def move_devices(self, broker_id: str, device_ids: Sequence[str], *, once: str | None = None) -> MovedDevices:
        """Make this broker the home of devices. Open commands and resets go along."""
        body = {"device_ids": list(device_ids)}
        return self._post(MovedDevices, path("cells", broker_id, "devices"), body, once)

    def move_from_cell(
        self, broker_id: str, to: str, *, cursor: str | None = None, once: str | None = None
    ) -> MovedDevices:
        """Make the broker ``to`` the home of the next 500 devices of this one.

        Call it again with ``next_cursor`` as ``cursor`` until that is None.
        """
        body = {"to": to} if cursor is None else {"to": to, "cursor": cursor}
        return self._post(MovedDevices, path("cells", broker_id, "move"), body, once)

    def drain_broker(self, broker_id: str, *, draining: bool = True, once: str | None = None) -> Cell:
        """Give a broker no new devices, or let it have some again."""
        return self._post(Cell, path("cells", broker_id, "drain"), {"draining": draining}, once)
