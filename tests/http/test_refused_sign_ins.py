"""Refused sign-ins of a whole gateway: counted by channel and reason, in the audit trail by address, and bounded."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import running
from gateway.core.addresses import Address
from gateway.domain.refused_sign_ins import EVENTS_PER_HOUR, RefusedSignIn, RefusedSignIns
from gateway.errors import StoreError
from gateway.running import Running
from gateway.settings.loading import Settings
from gateway.store import Context, Store, Tx, View, event_sql, key_sql, open_database
from tests.support import wire
from tests.support.faults import full_disk

WRONG = "sk_live_0000000000000000000000000000000000"
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
GUARD_SECONDS = 60


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Running]:
    """One with the embedded broker, on ports that the kernel picks."""
    anywhere = Address("127.0.0.1", 0)
    settings = Settings(
        data_dir=folder, http=anywhere, mqtt=anywhere, broker="embedded", refused_credentials_per_minute=3
    )
    async with asyncio.timeout(GUARD_SECONDS), running(settings) as site:
        yield site


def refused(folder: Path) -> list[dict[str, Any]]:
    """The events of refused sign-ins, with their project."""
    with closing(open_database(folder)) as connection:
        events = event_sql.administrative(View(connection), None, "auth.refused", 10_000)
    return [{**json.loads(event.data), "project": event.project} for event in reversed(events)]


async def test_each_refusal_is_counted_by_address(tmp_path: Path) -> None:
    """HTTP and MQTT alike; what was good before names its key, to its project; no credential is in any of it."""

    def make(tx: Tx) -> dict[str, tuple[str, str]]:
        made = {name: key_sql.create(tx, site.registry.project_id, name) for name in ("expired", "revoked", "rotated")}
        key_sql.expire(tx, made["expired"][0], tx.now - 1)
        key_sql.revoke(tx, made["revoked"][0])
        key_sql.rotate(tx, made["rotated"][0], 0)
        made["overlapped"] = key_sql.create(tx, site.registry.project_id, "overlapped")
        key_sql.rotate(tx, made["overlapped"][0], 1)
        return made

    async with gateway(tmp_path) as site:
        made = await site.store.write(make)
        await asyncio.sleep(0.01)  # the overlap of a millisecond is over
        async with httpx.AsyncClient(base_url=site.http.url) as http:

            async def ask(header: str | None) -> httpx.Response:
                return await http.get("/v1/devices", headers={} if header is None else {"Authorization": header})

            told = {name: await ask(f"Bearer {secret}") for name, (_, secret) in made.items()}
            answers = [await ask(header) for header in (*[f"Bearer {WRONG}"] * 5, "Basic eDp5", None)]
            metrics = (await http.get("/metrics")).text
        for client_id in ("dev_nobody", "integrator"):
            async with wire.Wire.open("127.0.0.1", site.broker.advertised.port) as client:
                assert await client.connect(client_id, client_id, WRONG) == 5
    assert {answer.status_code for answer in answers} <= {401, 429}
    assert "has expired" in told["expired"].json()["error"]["message"]
    assert "expire" not in told["revoked"].json()["error"]["message"]
    found = refused(tmp_path)
    seen = {(each["channel"], each.get("key_id")): (each["reasons"], each["project"]) for each in found}
    assert seen == {
        ("http", made["expired"][0]): ({"expired": 1}, "default"),
        ("http", made["revoked"][0]): ({"revoked": 1}, "default"),
        ("http", made["overlapped"][0]): ({"rotated": 1}, "default"),
        ("http", None): ({"unknown": 6, "malformed": 1}, None),
        ("mqtt", None): ({"unknown": 2}, None),
    }
    assert {each["address"] for each in found} == {"127.0.0.1"}
    assert "0000" not in json.dumps(found)
    for line in ('{channel="http",reason="unknown"} 6.0', '{channel="http",reason="missing"} 1.0'):
        assert f"gateway_refused_sign_ins_total{line}" in metrics


async def test_a_flood_writes_a_bounded_number_of_rows(tmp_path: Path) -> None:
    """For hours and from thousands of addresses: 21 rows an hour, and no refusal is lost from the sums."""
    now = 1_700_000_000_000 // HOUR_MS * HOUR_MS
    counted: Counter[str] = Counter()

    async with Store(tmp_path, Context(clock=lambda: now)) as store:
        sign_ins = RefusedSignIns(store, lambda channel, _: counted.update([channel]))
        for minute in range(3 * 60):
            for number in range(300):
                sign_ins.note(RefusedSignIn("http", "unknown", f"192.0.{number % 7}.{(minute * 31 + number) % 250}"))
            await sign_ins.write()
            now += MINUTE_MS
        await sign_ins.write()
    found = refused(tmp_path)
    assert len(found) == 3 * (EVENTS_PER_HOUR + 1)
    assert sum(each["count"] for each in found) == counted["http"] == 3 * 60 * 300
    assert sum("sources" in each for each in found) == 3


async def test_addresses_beyond_the_bound_are_counted_together(tmp_path: Path) -> None:
    """A hundred thousand in a minute take no more memory than a thousand; the most frequent address is reported."""
    now = 1_700_000_000_000 // HOUR_MS * HOUR_MS

    async with Store(tmp_path, Context(clock=lambda: now)) as store:
        sign_ins = RefusedSignIns(store, lambda *_: None)
        for number in range(100_000):
            sign_ins.note(RefusedSignIn("mqtt", "unknown", f"2001:db8::{number:x}"))
            sign_ins.note(RefusedSignIn("mqtt", "unknown", "192.0.2.1"))
        await sign_ins.write()
        now += HOUR_MS
        await sign_ins.write()
    found = refused(tmp_path)
    assert len(found) == EVENTS_PER_HOUR + 1
    assert (found[0]["address"], found[0]["count"]) == ("192.0.2.1", 100_000)
    assert sum(each["count"] for each in found) == 200_000


async def test_refusals_during_a_failed_write_are_not_lost(tmp_path: Path) -> None:
    """A refusal during the commit counts in the next event; after a commit that failed all of it is told later."""
    now = 1_700_000_000_000 // HOUR_MS * HOUR_MS
    refusal = RefusedSignIn("http", "unknown", "192.0.2.1")

    async with Store(tmp_path, Context(clock=lambda: now)) as store:
        sign_ins = RefusedSignIns(store, lambda *_: None)
        sign_ins.note(refusal)
        writing = asyncio.create_task(sign_ins.write())
        await asyncio.sleep(0)
        sign_ins.note(refusal)
        await writing
        await sign_ins.write()
        async with full_disk(store):
            for number in range(1_000):
                sign_ins.note(RefusedSignIn("http", "unknown", f"192.0.2.1{'x' * 8_000}{number}"))
            with pytest.raises(StoreError):
                await sign_ins.write()
            sign_ins.note(refusal)
        await sign_ins.write()
        now += HOUR_MS
        await sign_ins.write()
    found = refused(tmp_path)
    assert [each["count"] for each in found[:2]] == [1, 1]
    assert sum(each["count"] for each in found) == 2 + 1_000 + 1
