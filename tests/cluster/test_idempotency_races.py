"""One request with an ``Idempotency-Key`` reaches two gateways at the same moment: it is done once, on PostgreSQL.

The first is held inside its transaction until the second is at the database and waits.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import gateway.store
from gateway.http.idempotency import IdempotentRequest
from gateway.http.responses import ApiResponse
from gateway.http.unit_of_work import UnitOfWork
from gateway.store import Tx, event_sql, location
from gateway.store.postgres.connection import PostgresConnection
from tests.http.idempotent_calls import keyed
from tests.http.support import Api, Client, serving
from tests.support.postgres import database
from tests.support.wait import eventually

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "register": ("/v1/devices", {"serial_number": "BP-9"}),
    "bind": ("/v1/devices/{id}/bind", {"end_user_id": "eu_2"}),
    "unbind": ("/v1/devices/{id}/unbind", {}),
    "reset": ("/v1/devices/{id}/reset", {}),
    "command": ("/v1/devices/{id}/commands", {"type": "reboot"}),
    "bulk_reset": ("/v1/devices/bulk/reset", {"device_ids": ["{id}"]}),
    "webhook": ("/v1/webhooks", {"url": "https://example.com/hook", "events": ["device.bound"]}),
}


@dataclass
class Two:
    """Two gateways at one registry, a client of each with the same key, and a session that looks at the server."""

    api: Api
    first: Client
    second: Client
    looking: PostgresConnection

    def is_waiting(self) -> bool:
        """Return whether a gateway waits for the other."""
        return bool(self.looking.execute(WAITING).fetchone()[0])


@pytest.fixture
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    """Two gateways."""
    address = database(tmp_path)
    for module in (location, gateway.store):
        monkeypatch.setattr(module, "engine_of", lambda _: location.postgres_engine(address))
    async with serving(tmp_path, project="one") as api, serving(tmp_path, project="other") as beside:
        with closing(PostgresConnection(address)) as looking:
            yield Two(api, api.back_end, beside.as_(api.key), looking)


async def _at_once(
    two: Two, call: str, device_id: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[httpx.Response, httpx.Response]:
    """Send the request to the first, and to the second while the first is in its transaction."""
    path, asked = CALLS[call]
    body = {name: [device_id] if value == ["{id}"] else value for name, value in asked.items()}
    inside, go_on = threading.Event(), threading.Event()
    keep = IdempotentRequest.keep

    def held(request: IdempotentRequest, tx: Tx, *answer: Any) -> None:
        if not inside.is_set():
            inside.set()
            go_on.wait()
        keep(request, tx, *answer)

    monkeypatch.setattr(IdempotentRequest, "keep", held)

    def send(client: Client) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(client.post(path.format(id=device_id), json=body, headers=keyed(call)))

    leads = send(two.first)
    try:
        await eventually(inside.is_set, "the first is in its transaction")
        follows = send(two.second)
        await eventually(lambda: follows.done() or two.is_waiting(), "the second is at the database")
    finally:
        go_on.set()
    return await leads, await follows


async def _happened(two: Two, after: int) -> list[str]:
    return await two.api.store.read(
        lambda view: [row[0] for row in view.all("SELECT type FROM events WHERE seq > ? ORDER BY seq", after)]
    )


@pytest.mark.parametrize("call", CALLS)
async def test_a_request_that_reaches_two_gateways_is_done_once(
    two: Two, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One answers what the other has answered, and changes nothing. Steps of a bulk reset may be done by either."""
    device_id = (await (two.api.registered() if call == "bind" else two.api.bound()))["id"]
    before = await two.api.store.read(event_sql.newest)
    one, other = await _at_once(two, call, device_id, monkeypatch)
    assert one.is_success
    assert (other.status_code, other.content) == (one.status_code, one.content)
    assert [each.headers.get("Idempotent-Replay") for each in (one, other)].count("true") == 1
    happened = await _happened(two, before)
    assert len(happened) == len(set(happened)), happened


async def test_an_answer_kept_in_a_second_transaction_is_found(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the effect is committed before the answer is kept. Then the second gateway does it again."""

    async def commit(work: UnitOfWork, write: Callable[[Tx], ApiResponse]) -> ApiResponse:
        outcome = await work.store.write(write)
        idempotent = work.idempotent
        if idempotent is not None:
            await work.store.write(lambda tx: idempotent.keep(tx, outcome.status, outcome.content))
        return outcome

    device_id = (await two.api.bound())["id"]
    before = await two.api.store.read(event_sql.newest)
    monkeypatch.setattr(UnitOfWork, "commit", commit)
    await _at_once(two, "webhook", device_id, monkeypatch)
    assert await _happened(two, before) == ["webhook.created", "webhook.created"]
