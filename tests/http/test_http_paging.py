"""Reading a list page by page while others write: nothing that was there is missed."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from http_support import Api, Json, body, serving
from hypothesis import given, settings
from hypothesis import strategies as st

WRITES = st.lists(st.integers(0, 4), max_size=6)
"""How many rows come in between one page and the next."""


async def by_cursor(api: Api, path: str, limit: int) -> AsyncIterator[list[str]]:
    """The ids of each page, from the newest on."""
    cursor: str | None = None
    while True:
        query: Json = {"limit": limit, **({} if cursor is None else {"cursor": cursor})}
        page = body(await api.back_end.get(path, params=query), 200)
        yield [row["id"] for row in page["data"]]
        assert (page["next_cursor"] is not None) == page["has_more"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


async def by_offset(api: Api, limit: int) -> AsyncIterator[list[str]]:
    """The same of the devices."""
    offset, more = 0, True
    while more:
        page = body(await api.back_end.get("/v1/devices", params={"limit": limit, "offset": offset}), 200)
        yield [row["id"] for row in page["data"]]
        offset, more = offset + limit, page["has_more"]


async def another_command(api: Api, device: Json) -> str:
    """A command that was queued and cancelled, since one of a type is open at a time."""
    path = f"/v1/devices/{device['id']}/commands"
    made = body(await api.back_end.post(path, json={"type": "reboot"}), 201)
    body(await api.back_end.post(f"{path}/{made['id']}/cancel"), 200)
    return str(made["id"])


@settings(max_examples=15, deadline=None)
@given(before=st.integers(0, 9), limit=st.integers(1, 4), writes=WRITES)
def test_commands_and_events_by_cursor(before: int, limit: int, writes: list[int]) -> None:
    """What was there at the first page comes exactly once, newest first, whatever is written meanwhile."""
    asyncio.run(_by_cursor(before, limit, writes))


async def _by_cursor(before: int, limit: int, writes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder), rate_limit_per_minute=0) as api:
            device = await api.bound()
            for _ in range(before):
                await another_command(api, device)
            for what in ("commands", "events"):
                path = f"/v1/devices/{device['id']}/{what}"
                there = [each async for page in by_cursor(api, path, 100) for each in page]
                seen: list[str] = []
                async for page in by_cursor(api, path, limit):
                    assert len(page) <= limit
                    seen += page
                    for _ in range(writes[len(seen) % len(writes)] if writes else 0):
                        await another_command(api, device)
                assert seen == there


@settings(max_examples=15, deadline=None)
@given(before=st.integers(0, 12), limit=st.integers(1, 5), writes=WRITES)
def test_devices_by_offset(before: int, limit: int, writes: list[int]) -> None:
    """New devices push the known ones on, so some may come twice; none is missed, and the order holds."""
    asyncio.run(_by_offset(before, limit, writes))


async def _by_offset(before: int, limit: int, writes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder), rate_limit_per_minute=0) as api:
            there = [str((await api.registered(f"BP-{number}"))["id"]) for number in range(before)]
            seen: list[str] = []
            more = iter(writes)
            async for page in by_offset(api, limit):
                assert len(page) <= limit
                assert page == sorted(page, reverse=True)
                seen += page
                for number in range(next(more, 0)):  # pages must come to an end
                    await api.registered(f"new-{len(seen)}-{number}-{len(there)}")
            assert set(there) <= set(seen)
            first_seen = list(dict.fromkeys(seen))
            assert [each for each in first_seen if each in there] == there[::-1]
