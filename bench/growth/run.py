"""One run on one engine: registries of all sizes, then each measurement at every size in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from bench import large
from bench.caller import caller
from bench.expected import in_a_line
from bench.growth import access, calls, full_ingest, rest, rows, start
from bench.growth.plan import Plan
from bench.growth.rows import Growth
from bench.growth.site import PATIENT, Site, site
from bench.large import Large
from bench.postgres import SETTINGS, Databases
from bench.registry import prepare
from bench.server import gateway
from bench.storage import busy_seconds
from gateway.runtime.postgres_server import PostgresServer

SQLITE, POSTGRESQL = "sqlite", "postgresql"
ENGINES: Final = (SQLITE, POSTGRESQL)
Notes = Callable[[str], None]
"""Called with what is done now."""


async def measure(engine: str, folder: Path, sizes: Sequence[int], plan: Plan, notes: Notes) -> Growth:
    """Measure everything on registries of these sizes, the smallest first.

    A failure ends the run. What was measured before it is returned.

    Raises:
        BenchError: the registries could not be made, or no broker started.
    """
    async with AsyncExitStack() as stack:
        server = stack.enter_context(PostgresServer(*SETTINGS, durable=True)) if engine == POSTGRESQL else None
        databases = None if server is None else Databases(server)
        made = [_made(folder / f"data-{size}", size, plan, databases, notes) for size in sizes]
        sites = [
            await stack.enter_async_context(site(folder, size, each.registry, plan.senders))
            for size, each in zip(sizes, made, strict=True)
        ]
        growth = Growth(engine, tuple(sizes), calls.rows(sites[0]))
        for size, each in zip(sizes, made, strict=True):
            growth.add(rows.DEVICE, size, each.device_bytes)
            if each.heartbeat_bytes is not None:
                growth.add(rows.HISTORY, size, each.heartbeat_bytes)
        try:
            await _measure_all(growth, sites, plan, notes)
        except Exception as error:
            growth.ended_by = in_a_line(error)
            if growth.ended_by is None:
                raise
        growth.server_seconds = 0.0 if server is None else busy_seconds(server.pid)
    for stopped in sites:
        if stopped.peaks:
            growth.add(rows.PEAK_MB, stopped.size, max(stopped.peaks))
    return growth


async def _measure_all(growth: Growth, sites: Sequence[Site], plan: Plan, notes: Notes) -> None:
    for each in sites:
        notes(f"embedded broker beside {each.size:,} devices")
        await _embedded(growth, each, plan)
    for each in sites:
        notes(f"first start beside {each.size:,} devices, with all their states")
        await start.first(growth, each)
    await _starts(growth, sites, plan, notes)
    notes("at rest")
    await rest.measure(growth, sites, plan.rest_seconds)
    notes(f"{len(growth.calls)} calls")
    await calls.measure(growth, sites, plan)
    for number in range(1, plan.rounds + 1):
        notes(f"round {number} of {plan.rounds}: full ingest")
        for each in sites:
            await full_ingest.measure(growth, each, plan)
        notes(f"round {number} of {plan.rounds}: resets, binds, revocations")
        await access.resets(growth, sites, plan)
        for each in sites:
            await access.binds(growth, each, plan)
            await access.revocations(growth, each, plan)
    for each in sites:
        notes(f"{rows.BURST} beside {each.size:,} devices")
        await access.burst(growth, each, plan)
        each.require_online()


async def _starts(growth: Growth, sites: Sequence[Site], plan: Plan, notes: Notes) -> None:
    began: list[float] = []
    for number in range(1, plan.rounds + 1):
        notes(f"start {number} of {plan.rounds}")
        began = [await start.again(growth, each) for each in sites]
    notes("comparing all states")
    for each, moment in zip(sites, began, strict=True):
        await start.compared(growth, each, moment)


async def _embedded(growth: Growth, each: Site, plan: Plan) -> None:
    """Revoke sessions at the embedded broker. It has no states: it is no broker for those of a large fleet."""
    more = {**each.registry.environ, **PATIENT, "GATEWAY_PUBLISH_STATE": "false"}
    async with gateway(each.registry.data_dir, None, more) as server:
        at = (await server.process.line("MQTT")).split()[0]
        port = int(at.rpartition(":")[2])
        async with caller(server.port, each.registry.api_key) as http:
            for _ in range(plan.rounds):
                taken = await access.embedded_revocations(each, http, port, plan.revocations)
                growth.add(rows.CUT_EMBEDDED, each.size, max(taken))


def _made(data_dir: Path, size: int, plan: Plan, databases: Databases | None, notes: Notes) -> Large:
    shown: set[str] = set()

    def progress(what: str, done: int, of: int) -> None:
        line = f"{size:,} devices: {what} {done * 10 // of * 10} %"
        if line not in shown:
            shown.add(line)
            notes(line)

    registry = prepare(data_dir, 0, databases)
    return large.fill(registry, size, members=plan.members, history=plan.history, progress=progress)
