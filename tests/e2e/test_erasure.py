"""Erasure of a person with the installed program: nothing is left in the file and on the broker, also after a kill."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.support import AUDITOR, Site, running_site
from tests.support.long_history import lengthen
from tests.support.receiver import receiving
from tests.support.wait import eventually

MARK = "eu_MARK7q2Zk"
PERSON = f"/v1/end-users/{MARK}"
PLANTED = {
    *("bindings", "commands", "devices", "end_user_salts", "events", "idempotency", "refusals", "webhooks"),
}
"""Tables in which the id stands before the erasure."""
HEARTBEATS = 40_000
_END = "auditor/end"


async def test_nothing_names_an_erased_person(tmp_path: Path) -> None:
    """The id stands wherever it can get; after the erasure, and where people wrote it after their change, nowhere.

    The gateway's log of this run is searched, too: it never had the id. Free pages of the file are searched after a
    VACUUM, which the documents ask for.
    """
    options = ("--webhook-allow-loopback", "--home-assistant", "--publish-events")
    async with receiving() as receiver, running_site(tmp_path, "mosquitto", *options) as site:
        device_id = await _plant(site, receiver.url)
        assert MARK in str(await _retained(site))
        assert _tables(site) >= PLANTED
        await eventually(lambda: "reset.requested" in receiver.types, "the webhook has the newest event")
        await eventually(lambda: site.count(_PENDING) == 0, "every delivery has ended")
        erased = await _erased(site)
        counts = erased["counts"]
        assert {name for name, count in counts.items() if not count} == set()
        assert {each["field"] for each in erased["mentions"]} == MENTIONED
        await _change_what_people_wrote(site, device_id)
        assert (await _erased(site))["mentions"] == []
        await eventually(lambda: _nothing_retained(site), "no retained message names the person")
        await site.gateway.stop()
        with closing(sqlite3.connect(site.gateway.data / "gateway.db")) as database:
            assert _tables(site) == set()
            database.execute("VACUUM")
        left = {file.name for file in site.gateway.data.rglob("*") if file.is_file() and _holds(file)}
        assert left == set()
        assert MARK not in site.gateway.err


async def test_an_accepted_erasure_survives_a_kill(tmp_path: Path) -> None:
    """``kill -9`` in the middle; the next start finishes it without being asked."""
    async with running_site(tmp_path, "embedded") as site:
        device_id = await _bound(site)
        await site.post(f"{device_id}/unbind")
        await site.gateway.stop()
        lengthen(site.gateway.data, device_id, HEARTBEATS)
        await site.gateway.restart()
        asked = asyncio.create_task(site.http.delete(PERSON))
        await eventually(lambda: 0 < _heartbeats(site) < HEARTBEATS, "some heartbeats are erased")
        await site.gateway.kill()
        await asyncio.gather(asked, return_exceptions=True)
        assert 0 < _heartbeats(site) < HEARTBEATS
        await site.gateway.restart()
        await eventually(lambda: site.count("SELECT count(*) FROM erasures") == 0, "the erasure is finished")
        assert _heartbeats(site) == 0
        assert _tables(site) == set()
        (told,) = (await site.http.get("/v1/events", params={"type": "end_user.erased"})).json()["data"]
        assert (told["data"]["counts"]["heartbeats"], told["data"]["counts"]["bindings"]) == (HEARTBEATS + 1, 1)
        assert set((await _erased(site))["counts"].values()) == {0}


_PENDING = "SELECT count(*) FROM deliveries WHERE status = 'pending'"
MENTIONED = {"device.name", "device.metadata", "webhook.description"}


async def _bound(site: Site) -> str:
    device = (await site.http.post("/v1/devices", json={"serial_number": "BP-1"})).json()
    answer = await site.http.post(
        f"/v1/devices/{device['id']}/bind", json={"end_user_id": MARK}, headers={"Idempotency-Key": "once"}
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    token = answer.json()["device_token"]
    assert (await site.as_device(token, "POST", "heartbeat", {"battery_percent": 50})).status_code == httpx.codes.OK
    return str(device["id"])


async def _plant(site: Site, receiver: str) -> str:
    """Put the id wherever it can get; the device, whose reset is open."""
    hook = {"url": receiver, "description": f"for {MARK}"}
    assert (await site.http.post("/v1/webhooks", json=hook)).status_code == httpx.codes.CREATED
    device_id = await _bound(site)
    change = {"name": f"of {MARK}", "metadata": {"wearer": MARK}}
    assert (await site.http.patch(f"/v1/devices/{device_id}", json=change)).status_code == httpx.codes.OK
    asked = {"type": "start_recording", "params": {"label": MARK}, "idempotency_key": f"visit-{MARK}"}
    command = await site.post(f"{device_id}/commands", asked, status=201)
    await site.post(f"{device_id}/commands/{command['id']}/cancel")
    await site.publish(f"devices/{device_id}/heartbeat", f'{{"wearer": "{MARK}'.encode())
    await eventually(lambda: site.count("SELECT count(*) FROM refusals") == 1, "the message is refused")
    await eventually(lambda: _is_retained(site, device_id), "the state is retained")
    await site.reset(device_id)
    return device_id


async def _change_what_people_wrote(site: Site, device_id: str) -> None:
    gone = {"name": None, "metadata": None}
    assert (await site.http.patch(f"/v1/devices/{device_id}", json=gone)).status_code == httpx.codes.OK
    (hook,) = (await site.http.get("/v1/webhooks")).json()["data"]
    changed = await site.http.patch(f"/v1/webhooks/{hook['id']}", json={"description": None})
    assert changed.status_code == httpx.codes.OK


async def _erased(site: Site) -> dict[str, Any]:
    answer = await site.http.delete(PERSON)
    assert answer.status_code == httpx.codes.OK, answer.text
    erased: dict[str, Any] = answer.json()
    return erased


async def _retained(site: Site) -> dict[str, str]:
    """Every retained message of the broker."""
    async with site.broker.client(AUDITOR) as auditor:
        await auditor.subscribe("#", _END)
        await auditor.publish(_END, b"that was all")
        messages = await auditor.read_until(_END)
    return {each.topic: each.payload.decode() for each in messages}


async def _is_retained(site: Site, device_id: str) -> bool:
    state = (await _retained(site)).get(f"devices/{device_id}/state", "{}")
    return bool(json.loads(state).get("end_user_id") == MARK)


async def _nothing_retained(site: Site) -> bool:
    return MARK not in str(await _retained(site))


def _tables(site: Site) -> set[str]:
    """The tables in which the id stands; sealed answers and signed texts cannot be read."""
    found = set()
    with closing(sqlite3.connect(f"{(site.gateway.data / 'gateway.db').as_uri()}?mode=ro", uri=True)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if MARK in str(database.execute(f"SELECT * FROM {table}").fetchall()):  # noqa: S608 - our own tables
                found.add(table)
    return found - {"device_search", "device_search_end_users"}


def _heartbeats(site: Site) -> int:
    return site.count("SELECT count(*) FROM heartbeats")


def _holds(file: Path) -> bool:
    return MARK.encode() in file.read_bytes()
