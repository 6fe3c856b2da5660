"""Check of the password file: its devices are compared with the registry, a page at a time, while the broker works.

A write of the file changes the lines of the devices that the outbox names. The check finds what no row names. It marks
those devices, so that the next write brings them in step. A start waits for none of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from gateway.broker.mosquitto.password_lines import PasswordLines
from gateway.errors import GatewayError
from gateway.store import broker_entry_sql, broker_sql, device_sql, outbox_sql

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.broker.mosquitto.access import MosquittoAccess
    from gateway.store import Store, Tx
    from gateway.store.broker_entry_sql import EntryPage

log = structlog.get_logger()

PAGE: Final = 1_000
PAUSE_SECONDS: Final = 0.02
"""Between two pages: the check takes a fifth of a core, and a million devices about half a minute."""
SPACING_SECONDS: Final = 60.0
"""Between two checks."""


class PasswordFileCheck:
    """Compares after each comparison of access, at most once in SPACING_SECONDS.

    The locks are prepared at once. Until then the gateway does not know whether a restarted broker has them.
    """

    def __init__(self, access: MosquittoAccess, store: Store, *, spacing_seconds: float = SPACING_SECONDS) -> None:
        self._access = access
        self._store = store
        self._spacing_seconds = spacing_seconds

    async def run(self) -> None:
        """Check until cancelled."""
        now = asyncio.get_running_loop().time
        earliest, is_owed = now(), False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(earliest if is_owed else None):
                    await self._access.to_check.wait()
            self._access.to_check.clear()
            is_owed = True
            try:
                await self._access.prepare()
                if now() >= earliest:
                    await self._access.look_for_unused()
                    await self.check()
                    is_owed = False
            except GatewayError as error:
                log.warning("broker.password_file_not_checked", reason=error.message)
            if now() >= earliest:
                earliest = now() + self._spacing_seconds

    async def check(self) -> int:
        """Compare all devices; return how many were marked.

        Raises:
            StoreError: the registry cannot be read or written.
        """
        broker, file = self._store.context.broker, self._access.file
        after, has_more, marked = "", True, 0
        while has_more:
            read = partial(broker_entry_sql.page, broker=broker, after=after, limit=PAGE)
            entries, has_more = page = await self._store.read(read)
            lines = PasswordLines.of(file.path, file.written)
            differing = await asyncio.to_thread(_differing, lines, after, page)
            if differing:
                marked += await self._store.write(partial(_mark, devices=differing, broker=broker), urgent=False)
            after = entries[-1][0] if entries else after
            await asyncio.sleep(PAUSE_SECONDS)
        log.info("broker.password_file_checked", marked=marked)
        return marked


def _differing(lines: PasswordLines, after: str, page: EntryPage) -> Collection[str]:
    """Return the devices of a page whose line in the file is missing, wrong or too many."""
    until = page.entries[-1][0] if page.has_more else None
    found = lines.between(after, until)
    if found is None or found == "".join(f"{name}:{entry}\n" for name, entry in page.entries).encode():
        return ()
    there = dict(line.split(":", 1) for line in found.decode("utf-8", "replace").splitlines() if ":" in line)
    wanted = dict(page.entries)
    return {name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name)}


def _mark(tx: Tx, devices: Collection[str], broker: int) -> int:
    """Mark those that no row names; return how many there were."""
    marked = []
    for name in sorted(devices):
        device = device_sql.any_by_id(tx, name)
        if device is None:  # nothing can name it: the next write compares the whole file
            broker_sql.forget_fact(tx, broker, broker_sql.FILE_RECORD)
        elif not outbox_sql.has(tx, outbox_sql.CREDENTIAL, device.pk, brokers=[broker]):
            outbox_sql.mark_credential(tx, device.pk, broker=broker)
            marked.append(name)
    if marked:
        log.warning("broker.password_file_differed", devices=marked[:10], count=len(marked))
    return len(marked)
