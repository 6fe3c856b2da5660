"""Reading a list page by page while others write: nothing that was there is missed."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.paging import MAX_ANSWER_BYTES
from gateway.store import key_sql
from tests.http.support import Api, Json, body, serving

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
def test_commands_and_events_are_paged_by_cursor(before: int, limit: int, writes: list[int]) -> None:
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
def test_devices_are_paged_by_offset(before: int, limit: int, writes: list[int]) -> None:
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


LARGEST_NAME = "☃" * 128  # three bytes of JSON each
LARGEST_METADATA = {"a": "ö" * 4_090}


async def test_a_page_of_the_largest_devices_fits(api: Api) -> None:
    """Pages of devices go by offset, so they must never end early: a hundred with all that they may have are 1 MiB."""
    for number in range(100):
        fields = {"name": LARGEST_NAME, "metadata": LARGEST_METADATA, "firmware_version": "☃" * 32}
        device = await api.registered(f"{number:0128}", **fields)
        end_user_id = f"eu_{'e' * 64}"
        body(await api.back_end.post(f"/v1/devices/{device['id']}/bind", json={"end_user_id": end_user_id}), 200)
        limit = body(await api.back_end.get("/v1/devices/stats"), 200)["total_count"]
        assert limit == number + 1
    answer = await api.back_end.get("/v1/devices", params={"limit": 100})
    assert len(answer.json()["data"]) == 100
    assert 900_000 < len(answer.content) <= MAX_ANSWER_BYTES


async def test_a_page_that_would_be_too_long_ends_early(api: Api) -> None:
    """Pages that go by a cursor do; all rows come all the same, each once."""
    device = await api.bound()
    path = f"/v1/devices/{device['id']}/commands"
    for number in range(100):
        made = body(
            await api.back_end.post(path, json={"type": "reboot", "params": {"n": number, "a": "x" * 16_000}}), 201
        )
        body(await api.back_end.post(f"{path}/{made['id']}/cancel"), 200)
    answer = await api.back_end.get(path, params={"limit": 100})
    assert answer.json()["has_more"]
    assert 900_000 < len(answer.content) <= MAX_ANSWER_BYTES
    pages = [page async for page in by_cursor(api, path, 100)]
    seen = [each for page in pages for each in page]
    assert (len(pages), len(seen), len(set(seen))) == (2, 100, 100)


async def test_the_newest_is_first_although_the_clock_was_set_back(tmp_path: Path) -> None:
    """Ids go on after those that are there when the gateway starts again, an hour before it stopped."""
    async with serving(tmp_path, rate_limit_per_minute=0) as api:
        api.clock.ahead_ms = 3_600_000
        device = await api.bound()
        commands = [await another_command(api, device) for _ in range(3)]
    async with serving(tmp_path, project="two", rate_limit_per_minute=0) as api:
        key = await api.store.write(lambda tx: key_sql.create(tx, device["project_id"], "another"))
        api.back_end = api.as_(key[1])
        commands += [await another_command(api, device) for _ in range(3)]
        path = f"/v1/devices/{device['id']}/commands"
        assert [each async for page in by_cursor(api, path, 2) for each in page] == commands[::-1]
