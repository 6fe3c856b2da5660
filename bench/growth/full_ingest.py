"""Ingest as fast as the broker hands over, beside everything else that ``gateway serve`` runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from bench import ingest
from bench.growth import rows
from bench.growth.plan import Plan
from bench.growth.rows import Growth
from bench.growth.site import Site

_PER: Final = 100_000


async def measure(growth: Growth, site: Site, plan: Plan) -> None:
    """Let all senders send at once.

    Raises:
        BenchError: a heartbeat was lost.
    """
    newest, total = await asyncio.to_thread(site.newest_heartbeat), plan.senders * plan.each
    senders = replace(site.registry, devices=site.senders)
    async with ingest.loading(senders, site.broker.broker, plan.each, site.sent) as load:
        site.sent += plan.each
        before = site.server.process.cpu_seconds()
        await load.tell("go")
        async with asyncio.TaskGroup() as group:
            stored = group.create_task(site.stored(newest, total))
            sent = group.create_task(ingest.sent_by(load))
        used = site.server.process.cpu_seconds() - before
    growth.add(rows.RATE, site.size, total / (stored.result() - sent.result().began))
    growth.add(rows.CPU, site.size, used / total * _PER)
