"""A fleet at rest: processor time while nothing happens, measured at all sizes at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from bench.growth import rows
from bench.growth.rows import Growth
from bench.growth.site import Site


async def measure(growth: Growth, sites: Sequence[Site], seconds: float) -> None:
    """Measure for so many seconds."""
    before, began = [_used(site) for site in sites], time.monotonic()
    await asyncio.sleep(seconds)
    passed = time.monotonic() - began
    for site, (gateway, broker) in zip(sites, before, strict=True):
        now_gateway, now_broker = _used(site)
        growth.add(rows.REST_GATEWAY, site.size, (now_gateway - gateway) / passed * 100)
        growth.add(rows.REST_BROKER, site.size, (now_broker - broker) / passed * 100)
        growth.add(rows.BROKER_MB, site.size, site.broker.resident_megabytes())


def _used(site: Site) -> tuple[float, float]:
    return site.server.process.cpu_seconds(), site.broker.cpu_seconds()
