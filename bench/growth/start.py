"""Start of the gateway: until it is ready, until a heartbeat is stored, until the states at the broker are settled."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from bench import ingest
from bench.growth import rows
from bench.growth.rows import Growth
from bench.growth.site import Site


async def first(growth: Growth, site: Site) -> None:
    """Measure the first start beside a broker that knows nothing yet."""
    began = time.monotonic()
    growth.add(rows.FIRST_READY, site.size, await site.start())
    await site.settled()
    growth.add(rows.FIRST_SETTLED, site.size, time.monotonic() - began)


async def again(growth: Growth, site: Site) -> float:
    """Measure a later start; return when it began. A device has sent a heartbeat before, which the broker kept."""
    site.require_online()
    await site.stop()
    newest = await asyncio.to_thread(site.newest_heartbeat)
    await _send_one(site)
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        stored = group.create_task(site.stored(newest, 1))
        ready = group.create_task(site.start())
    growth.add(rows.READY, site.size, ready.result())
    growth.add(rows.HEARTBEAT, site.size, stored.result() - began)
    growth.add(rows.READY_MB, site.size, site.server.process.resident_megabytes())
    return began


async def compared(growth: Growth, site: Site, began: float) -> None:
    """Measure until the comparison is over that begins after a start."""
    await site.settled()
    growth.add(rows.SETTLED, site.size, time.monotonic() - began)


async def _send_one(site: Site) -> None:
    sender = replace(site.registry, devices=site.senders[:1])
    async with ingest.loading(sender, site.broker.broker, 1, site.sent) as load:
        await load.tell("go")
        await ingest.sent_by(load)
    site.sent += 1
