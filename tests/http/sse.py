"""Reads server-sent events off a real connection, as the HTML standard has them (section 9.2.6)."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.http.support import TLS, Api, Json

PATH = "/v1/events/stream"
GUARD_SECONDS = 60


class Reader:
    """One open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def block(self) -> dict[str, str] | None:
        """The fields up to the next empty line, a comment under ``""``; ``None`` at the end. A broken end raises."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                return fields
            name, _, fields[name] = line.partition(": ")
        return None

    async def take(self, number: int) -> list[Json]:
        """The next events, each held against its ``id`` and ``event``."""
        taken: list[Json] = []
        while len(taken) < number:
            block = await self.block()
            assert block is not None, f"the stream ended after {len(taken)} of {number}"
            if "data" in block:
                event = json.loads(block["data"])
                assert (block["id"], block["event"]) == (event["id"], event["type"])
                taken.append(event)
        return taken

    async def comment(self) -> str:
        """The next comment."""
        while (block := await self.block()) is not None:
            if "" in block:
                return block[""]
        raise AssertionError("the stream ended")

    async def end(self) -> list[str]:
        """Ids of all that still comes, until the gateway ends the stream."""
        ids = []
        while (block := await self.block()) is not None:
            ids += [block["id"]] if "id" in block else []
        return ids


@asynccontextmanager
async def open_stream(
    api: Api, query: str = "", *, key: str | None = None, last_event_id: str | None = None
) -> AsyncIterator[Reader]:
    """An open stream, once the gateway has begun it."""
    headers = {"Authorization": f"Bearer {key or api.key}"}
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    async with (
        httpx.AsyncClient(base_url=api.url, headers=headers, timeout=GUARD_SECONDS, verify=TLS) as client,
        client.stream("GET", f"{PATH}?{query}") as response,
    ):
        assert response.status_code == httpx.codes.OK, await response.aread()
        assert response.headers["content-type"] == "text/event-stream"
        reader = Reader(response)
        assert await reader.block() == {"": f"events of {api.project_id}", "retry": "2000"} or key
        yield reader
