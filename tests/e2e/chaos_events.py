"""An integrator of a cluster under chaos: it follows the event stream at one gateway after the other."""

import asyncio
import contextlib
from contextlib import AsyncExitStack
from itertools import zip_longest

import httpx

from tests.e2e.chaos_audit import registry
from tests.e2e.chaos_world import SETTLE_SECONDS, ChaosWorld
from tests.support.wait import eventually

_PAUSE_SECONDS = 0.1
_QUIET_SECONDS = 20.0
"""A stream says something each 15 s; one that says less is dead."""


class EventReader:
    """Reads from the newest event on, and goes on behind the last one that it has heard."""

    def __init__(self, world: ChaosWorld) -> None:
        self._world = world
        self._rng = world.rng("events")
        self._first = _events(world)[-1]
        self.heard: list[str] = []

    async def run(self) -> None:
        """Read until cancelled."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(httpx.AsyncClient(timeout=_QUIET_SECONDS))
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await self._read(client)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _read(self, client: httpx.AsyncClient) -> None:
        port = self._rng.choice(self._world.members).http.port
        last = self.heard[-1] if self.heard else self._first
        headers = {"Authorization": f"Bearer {self._world.key}", "Last-Event-ID": last}
        async with client.stream("GET", f"http://127.0.0.1:{port}/v1/events/stream", headers=headers) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    self.heard.append(line.removeprefix("id: "))

    async def has_heard_all(self) -> None:
        """Each event was heard once, in the order of the registry."""
        try:
            await eventually(self._is_at_end, "the stream is at its end", guard_seconds=SETTLE_SECONDS)
        finally:
            wanted = self._wanted()
            for number, (heard, event) in enumerate(zip_longest(self.heard, wanted)):
                if heard != event:
                    self._world.log(f"event {number} of {len(wanted)} is {event}, heard was {heard}")
                    for row in _rows(self._world, event, heard):
                        self._world.log(str(row))
                    break
        assert self.heard == wanted
        self._world.log(f"{len(self.heard)} events were streamed, each once and in order")

    def _is_at_end(self) -> bool:
        return len(self.heard) >= len(self._wanted())

    def _wanted(self) -> list[str]:
        listed = _events(self._world)
        return listed[listed.index(self._first) + 1 :]


def _rows(world: ChaosWorld, *ids: str | None) -> list[tuple[object, ...]]:
    with registry(world) as database:
        query = "SELECT seq, id, project_id, type, created_at, data FROM events WHERE id = ?"
        return [tuple(row) for each in ids for row in database.execute(query, (each or "",))]


def _events(world: ChaosWorld) -> list[str]:
    with registry(world) as database:
        return [row[0] for row in database.execute("SELECT id FROM events WHERE project_id <> '' ORDER BY seq")]
