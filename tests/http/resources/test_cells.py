"""Cells over HTTP: what brokers there are, moves and drains, and what they refuse."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from gateway.domain import brokers
from gateway.domain.brokers import DeviceAddress
from gateway.store import Rules, Tx, broker_sql, lease_sql
from gateway.store.lease_sql import Holder
from tests.http.support import Api, body, error, serving


def _own(tx: Tx, broker_id: str) -> None:
    lease_sql.acquire(tx, lease_sql.of_broker(broker_id), Holder(f"gw_{broker_id}", broker_id), 1 << 40)
    address = DeviceAddress(f"{broker_id}.example.org", 8883, tls=True)
    broker_sql.note_compared(tx, brokers.begin(tx, broker_id, knows_tokens=True, address=address))


@pytest.fixture
async def homes(tmp_path: Path) -> AsyncIterator[Api]:
    """An API whose devices have homes: the broker of this gateway, and another one that is there."""
    async with serving(tmp_path, rules=Rules(assigns_homes=True), bind_broker_wait_seconds=0) as api:
        for broker_id in ("cell_1", "cell_2"):
            await api.store.write(partial(_own, broker_id=broker_id))
        yield api


async def _devices(api: Api, broker_id: str, query: str = "") -> list[str]:
    found: list[str] = body(await api.back_end.get(f"/v1/cells/{broker_id}/devices{query}"), 200)["data"]
    return found


async def test_devices_are_bound_listed_and_moved(homes: Api) -> None:
    """The bind and the refresh tell the address of the home; a key reaches the devices of its project alone."""
    made = [await homes.bound(f"BP-{number}") for number in range(4)]
    assert [each["mqtt"]["host"] for each in made] == [f"cell_{n}.example.org" for n in (1, 2, 1, 2)]
    ids = [each["id"] for each in made]
    listed = body(await homes.back_end.get("/v1/cells"), 200)
    assert listed["cells"] == "home"
    assert [(each["broker_id"], each["devices"], each["connected"]) for each in listed["data"]] == [
        ("cell_1", 2, True),
        ("cell_2", 2, True),
    ]
    first = body(await homes.back_end.get("/v1/cells/cell_1/devices?limit=1"), 200)
    assert (first["data"], first["has_more"]) == ([ids[0]], True)
    assert await _devices(homes, "cell_1", f"?cursor={first['next_cursor']}") == [ids[2]]
    moved = body(await homes.back_end.post("/v1/cells/cell_2/devices", json={"device_ids": ids[:2]}), 200)
    assert moved == {"moved": [ids[0]], "unchanged": [ids[1]], "wiping": [], "next_cursor": None}
    other = homes.as_(await homes.another_key(project="two"))
    unknown = await other.post("/v1/cells/cell_1/devices", json={"device_ids": [ids[0]]})
    error(unknown, 404, "not_found")
    assert body(await other.post("/v1/cells/cell_2/move", json={"to": "cell_1"}), 200)["moved"] == []
    assert body(await homes.back_end.post("/v1/cells/cell_2/move", json={"to": "cell_1"}), 200)["moved"] == [
        each for each in ids if each != ids[2]
    ]
    assert sorted(await _devices(homes, "cell_1")) == sorted(ids)
    refreshed = await homes.as_(made[1]["device_token"]).post("/v1/devices/me/token/refresh")
    assert body(refreshed, 200)["mqtt"]["host"] == "cell_1.example.org"
    (told, *_) = body(await homes.back_end.get(f"/v1/devices/{ids[0]}/events"), 200)["data"]
    assert (told["type"], told["data"]["from_broker"], told["data"]["to_broker"]) == (
        "device.moved",
        "cell_2",
        "cell_1",
    )


async def test_a_drained_broker_gets_no_devices(homes: Api) -> None:
    """The same request twice is the same; with several projects only the command line can do it."""
    for _ in range(2):
        cell = body(await homes.back_end.post("/v1/cells/cell_1/drain", json={}), 200)
        assert (cell["broker_id"], cell["draining"]) == ("cell_1", True)
    device = await homes.bound()
    assert device["mqtt"]["host"] == "cell_2.example.org"
    asked = {"device_ids": [device["id"]]}
    error(await homes.back_end.post("/v1/cells/cell_1/devices", json=asked), 409, "broker_draining")
    error(await homes.back_end.post("/v1/cells/cell_2/drain", json={}), 409, "last_broker")
    body(await homes.back_end.post("/v1/cells/cell_1/drain", json={"draining": False}), 200)
    body(await homes.back_end.post("/v1/cells/cell_1/devices", json=asked), 200)
    await homes.another_key(project="two")
    error(await homes.back_end.post("/v1/cells/cell_2/drain", json={}), 409, "registry_shared")


async def test_what_cannot_be_is_refused(homes: Api) -> None:
    """Each with the status and the field that say what to change."""
    call = homes.back_end
    error(await call.get("/v1/cells/cell_x/devices"), 404, "not_found")
    error(await call.post("/v1/cells/cell_x/drain", json={}), 404, "not_found")
    error(await call.post("/v1/cells/cell_x/move", json={"to": "cell_1"}), 404, "not_found")
    error(await call.post("/v1/cells/cell_1/move", json={"to": "cell_x"}), 404, "not_found")
    same = error(await call.post("/v1/cells/cell_1/move", json={"to": "cell_1"}), 400, "invalid_request")
    assert same["details"]["field"] == "to"
    no_cursor = {"to": "cell_2", "cursor": "x"}
    wrong = error(await call.post("/v1/cells/cell_1/move", json=no_cursor), 400, "invalid_request")
    assert wrong["details"]["field"] == "cursor"
    await homes.store.write(lambda tx: broker_sql.note_lost(tx, broker_sql.join(tx, "cell_2")))
    error(await call.post("/v1/cells/cell_1/move", json={"to": "cell_2"}), 409, "broker_away")


async def test_nothing_is_moved_in_the_mode_any(api: Api) -> None:
    """Every broker serves every device, and the list says so."""
    device = await api.bound()
    assert body(await api.back_end.get("/v1/cells"), 200)["cells"] == "any"
    asked = {"device_ids": [device["id"]]}
    error(await api.back_end.post("/v1/cells/default/devices", json=asked), 409, "no_home_brokers")
    error(await api.back_end.post("/v1/cells/default/drain", json={}), 409, "no_home_brokers")
