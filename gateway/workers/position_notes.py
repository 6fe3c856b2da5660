"""Notes of the registry's position beside it: at once after a quiet time, then once a second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from gateway.errors import StoreError
from gateway.store.epoch_sql import Position, position
from gateway.store.position_file import write_position

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.store import Store
    from gateway.store.wakeups import Wakeups

log = structlog.get_logger()

SPACING_SECONDS: Final = 1.0
"""At most one write of one block in this time, and none while no event is written."""


class PositionNotes:
    """Writes the file of :mod:`gateway.store.position_file` when events were committed."""

    def __init__(self, store: Store, wakeups: Wakeups, data_dir: Path) -> None:
        self._store = store
        self._wakeups = wakeups
        self._data_dir = data_dir

    async def run(self) -> None:
        """Write until cancelled, and once more at the end."""
        try:
            while True:
                news = self._wakeups.news
                here = self._position()
                if here is not None:
                    await asyncio.to_thread(write_position, self._data_dir, here)
                await asyncio.sleep(SPACING_SECONDS)
                await news.wait()
        finally:
            here = self._position()
            if here is not None:
                write_position(self._data_dir, here)

    def _position(self) -> Position | None:
        try:
            return self._store.read_inline(position)
        except StoreError as error:
            log.warning("registry.position_not_noted", reason=error.message)
            return None
