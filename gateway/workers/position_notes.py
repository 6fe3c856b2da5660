"""Notes of the registry's position beside it: at once after a quiet time, then once a second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from gateway.domain import epoch
from gateway.errors import StoreError
from gateway.store.epoch_sql import Position, position
from gateway.store.position_file import read_position, write_position

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.store import Store, View
    from gateway.store.wakeups import Wakeups

log = structlog.get_logger()

SPACING_SECONDS: Final = 1.0
"""At most one write of one block in this time, and none while no event is written."""


class PositionNotes:
    """Writes the file of :mod:`gateway.store.position_file` when events were committed.

    ``shared``: the registry is on a server, which may be put back to an earlier state while this gateway runs.
    """

    def __init__(self, store: Store, wakeups: Wakeups, data_dir: Path, *, shared: bool = False) -> None:
        self._store = store
        self._wakeups = wakeups
        self._data_dir = data_dir
        self._shared = shared
        self._noted = read_position(data_dir) if shared else None

    async def run(self) -> None:
        """Write until cancelled, and once more at the end."""
        try:
            while True:
                news = self._wakeups.news
                here = await self._position()
                if here is not None:
                    await asyncio.to_thread(write_position, self._data_dir, here)
                    self._noted = here
                await asyncio.sleep(SPACING_SECONDS)
                await news.wait()
        finally:
            here = await self._position()
            if here is not None:
                write_position(self._data_dir, here)

    async def _position(self) -> Position | None:
        try:
            if self._shared and await self._store.read(self._put_back) is not None:
                await self._store.write(lambda tx: epoch.settle(tx, self._noted, shared=True))
            return await self._store.read_small(position)
        except StoreError as error:
            log.warning("registry.position_not_noted", reason=error.message)
            return None

    def _put_back(self, view: View) -> str | None:
        return epoch.put_back(view, self._noted, shared=True)
