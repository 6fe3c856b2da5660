"""Sessions at a broker that asks: which are cut, when once more, and what is asked of each broker's API for it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.broker.clients import BrokerClient
from gateway.broker.external.admissions import SETTLE_SECONDS, Admissions
from gateway.broker.external.disconnect_clients import ClientDisconnector, disconnector_of
from gateway.broker.external.session_sync import NOT_CUT, SessionSync
from gateway.errors import UnavailableError
from gateway.http.server.server import HttpServer
from gateway.settings.broker_api import BrokerApi
from gateway.store import account_sql, broker_session_sql
from gateway.store.broker_session_sql import MOST_CLIENTS
from tests.broker.external.support import RecordedDisconnector, due, let_in_before, token_id
from tests.support.clock import ManualTimer
from tests.support.ports import closed_port
from tests.support.registry import Bound, Registry, registry
from tests.support.wait import eventually

GOLDEN = Path(__file__).parent / "golden" / "broker_api.json"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry."""
    async with registry(tmp_path) as opened:
        yield opened


async def test_sessions_without_a_valid_token_are_cut(fleet: Registry) -> None:
    """A reset ends no session. A revocation ends the device's session, and a session without a known token ends too."""
    scissors, clock = RecordedDisconnector(), ManualTimer()
    admissions = Admissions(clock)
    access = SessionSync(fleet.store, admissions, scissors)
    good, revoked, unknown = [await fleet.bound(f"SN-{number}") for number in range(3)]
    for device in (good, revoked):
        admissions.let_in(BrokerClient.of_device(device.id), await token_id(fleet, device))
    clock.now += SETTLE_SECONDS
    await fleet.reset(good)
    await fleet.unbind(revoked)
    assert await access.sync(await due(fleet)) == []
    assert sorted(scissors.cuts) == sorted([revoked.id, unknown.id])


async def test_a_session_that_may_start_during_the_cut_is_cut_again(fleet: Registry) -> None:
    """Let in a moment before the revocation, it may not be there yet to be cut: so once more, until it must be."""
    scissors, clock = RecordedDisconnector(), ManualTimer()
    admissions = Admissions(clock)
    access = SessionSync(fleet.store, admissions, scissors)
    device = await fleet.bound("SN-1")
    admissions.let_in(BrokerClient.of_device(device.id), await token_id(fleet, device))
    await fleet.unbind(device)
    rows = await due(fleet)
    assert [row.device_id for row in await access.sync(rows)] == [device.id]
    clock.now += SETTLE_SECONDS
    with admissions.knock(device.id):
        assert await access.sync(rows), "it is being answered just now"
    assert await access.sync(rows) == []
    assert scissors.cuts == [device.id] * 3


async def test_a_session_of_a_new_binding_is_not_cut_for_the_old_one(fleet: Registry) -> None:
    """A device that was bound again and admitted with its new token has a new session: it took over the old one."""
    scissors = RecordedDisconnector()
    admissions = Admissions()
    access = SessionSync(fleet.store, admissions, scissors)
    device = await fleet.bound("SN-1")
    await fleet.unbind(device)
    again = await fleet.bound_again(device)
    admissions.let_in(BrokerClient.of_device(device.id), await token_id(fleet, again))
    assert await access.sync(await due(fleet)) == []
    assert scissors.cuts == []


async def test_sessions_without_a_valid_token_are_cut_at_the_start(fleet: Registry) -> None:
    """Devices whose session has a revoked token, or one of which nothing is known; who is no device stays."""
    good, revoked, rebound, unknown = [await fleet.bound(f"SN-{number}") for number in range(4)]
    for device in (good, revoked, rebound):
        await let_in_before(fleet, device)
    await fleet.unbind(revoked)
    await fleet.unbind(rebound)
    await fleet.bound_again(rebound)
    strays = {revoked.id, rebound.id, unknown.id, "dev_FROMABACKUP"}
    devices = {BrokerClient.of_device(each) for each in (good.id, *strays)}
    others = {
        BrokerClient("gw_test", "gateway"),
        BrokerClient("integrator", "integrator"),
        BrokerClient("billing", "billing"),
    }
    scissors = RecordedDisconnector(there=devices | others)
    assert not await SessionSync(fleet.store, Admissions(), scissors).compare()
    assert sorted(scissors.cuts) == sorted(strays)


async def test_revoked_or_rotated_integrators_are_cut(fleet: Registry) -> None:
    """By every client id of theirs; one whose password is still the one that let it in stays."""
    names = ("integrator", "integrator_old", "integrator_new")
    for name in names:
        await fleet.store.write(lambda tx, name=name: account_sql.create(tx, name))  # type: ignore[misc]
    admissions = Admissions()
    made = {row.name: row.created_at for row in await fleet.store.read(account_sql.everyone)}
    there = {BrokerClient("integrator-2", "integrator"), BrokerClient("integrator_old-7", "integrator_old")}
    there |= {BrokerClient(name, name) for name in names}
    for client in there:
        admissions.let_in(client, made[client.username])
    await fleet.store.write(lambda tx: account_sql.revoke(tx, "integrator_old"))
    await fleet.store.write(lambda tx: tx.run("UPDATE broker_accounts SET created_at = 1 WHERE name = ?", names[2]))
    scissors = RecordedDisconnector(there=set(there))
    await SessionSync(fleet.store, admissions, scissors).compare()
    assert sorted(scissors.cuts) == ["integrator_new", "integrator_old", "integrator_old-7"]


async def test_integrator_sessions_of_unknown_origin_are_cut_once(fleet: Registry) -> None:
    """Rotated while the gateway was away: after its start the session is cut, and after the next start it stays."""
    await fleet.store.write(lambda tx: account_sql.create(tx, "integrator"))
    client = BrokerClient("integrator-1", "integrator")
    scissors = RecordedDisconnector(there={client})
    access = SessionSync(fleet.store, Admissions(), scissors)
    assert not await access.compare()
    assert scissors.cuts == ["integrator-1"]
    scissors.there.add(client)
    assert await SessionSync(fleet.store, Admissions(), RecordedDisconnector()).compare()
    assert await SessionSync(fleet.store, Admissions(), scissors).compare()
    assert scissors.cuts == ["integrator-1"]
    await fleet.store.write(lambda tx: account_sql.rotate(tx, "integrator"))
    assert not await SessionSync(fleet.store, Admissions(), scissors).compare()
    assert scissors.cuts == ["integrator-1"] * 2


async def test_a_session_that_cannot_be_cut_does_not_delay_others(fleet: Registry) -> None:
    """Twenty of them, of which some answer never: the others are settled at once, and the trouble is told."""
    stuck = [await fleet.bound(f"SN-{number}") for number in range(20)]
    fine = await fleet.bound("SN-fine")
    never = asyncio.Event()

    class Stuck(RecordedDisconnector):
        async def cut(self, client: BrokerClient) -> None:
            if client.client_id == stuck[0].id:
                await never.wait()
            if client.client_id in {device.id for device in stuck}:
                raise UnavailableError("it does not close")
            await super().cut(client)

    access = SessionSync(fleet.store, Admissions(), Stuck())
    for device in (*stuck, fine):
        await fleet.unbind(device)
    await left_are(access, fleet, stuck)
    assert access.trouble
    assert access.trouble.endswith("sessions could not be cut: it does not close")
    late = await fleet.bound("SN-late")
    await fleet.unbind(late)
    await left_are(access, fleet, stuck)
    access.stop()


async def left_are(access: SessionSync, fleet: Registry, stuck: list[Bound]) -> None:
    """Wait until exactly these are left: one call waits only a moment, and a busy machine may need several."""

    async def only_they() -> bool:
        left = await access.sync(await due(fleet))
        return {row.device_id for row in left} == {device.id for device in stuck}

    await eventually(only_they, "all others are settled")


async def test_remembered_clients_of_an_integrator_are_bounded(fleet: Registry) -> None:
    """Those that were let in last, in the registry too; of the others nothing is known any more."""
    await fleet.store.write(lambda tx: account_sql.create(tx, "integrator"))
    made = (await fleet.store.read(lambda view: account_sql.require(view, "integrator"))).created_at
    admissions, names = Admissions(), [f"integrator-{number}" for number in range(MOST_CLIENTS + 1)]
    for name in names:
        admissions.let_in(BrokerClient(name, "integrator"), made)
    for name in names:
        await fleet.store.write(lambda tx, name=name: broker_session_sql.note(tx, name, "integrator", made))  # type: ignore[misc]
    assert len(admissions.integrators()) == MOST_CLIENTS
    assert (admissions.token_of(names[0]), admissions.token_of(names[1])) == (None, made)
    kept = await fleet.store.read(lambda view: [broker_session_sql.credential_of(view, name) for name in names])
    assert kept.count(made) == MOST_CLIENTS
    assert kept[-1] == made


async def test_without_an_api_the_limitation_is_reported(fleet: Registry) -> None:
    """The outbox is worked off all the same, since there is nothing to do."""
    access = SessionSync(fleet.store, Admissions(), None)
    await fleet.bound("SN-1")
    assert access.limitation == NOT_CUT
    assert await access.sync(await due(fleet)) == ()


class RecordedApi:
    """Answers as the API of a broker does, by its documentation, and keeps what it was asked."""

    def __init__(self, answers: dict[str, dict[str, object]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call."""
        request = Request(scope)
        path = scope["raw_path"].decode().partition("?")[0]  # as it travels: %2F is not a slash
        line = f"{request.method} {path}" + (f"?{request.url.query}" if request.url.query else "")
        self.asked.append(f"{line} {request.headers['authorization']}")
        answer = self.answers.get(line, {"status": 404})
        body = json.dumps(answer["body"]) if "body" in answer else ""
        status = answer["status"]
        assert isinstance(status, int)
        await Response(body, status, media_type="application/json")(scope, receive, send)


@asynccontextmanager
async def api_of(
    kind: str, answers: dict[str, dict[str, object]]
) -> AsyncIterator[tuple[RecordedApi, ClientDisconnector]]:
    """That API over a socket, and what the gateway makes of it."""
    recorded = RecordedApi(answers)
    async with HttpServer(recorded, "127.0.0.1", 0) as server:
        user = "key" if kind == "vernemq" else "key:secret"
        yield recorded, disconnector_of(BrokerApi.parse(f"{kind}+http://{user}@{server.address}"), None)


@pytest.mark.parametrize("kind", ["rabbitmq", "emqx", "vernemq"])
async def test_each_broker_api_gets_its_own_request_format(kind: str) -> None:
    """The golden calls, in their order, with the credentials, and what is read from the recorded answers."""
    golden = json.loads(GOLDEN.read_text())[kind]
    async with api_of(kind, golden["answers"]) as (recorded, cutter):
        await cutter.cut(BrokerClient.of_device("dev_A"))
        assert recorded.asked == [f"{line} {golden['authorization']}" for line in golden["cut"]]
        recorded.asked.clear()
        listed = [client async for page in cutter.connected() for client in page]
        assert listed == [BrokerClient(*each) for each in golden["connected"]]
        assert recorded.asked == [f"{line} {golden['authorization']}" for line in golden["list"]]


async def test_a_page_that_rabbitmq_no_longer_has_ends_the_list() -> None:
    """Connections were closed since the page before, so it refuses the next one."""
    golden = json.loads(GOLDEN.read_text())["rabbitmq"]
    async with api_of("rabbitmq", golden["answers"] | {golden["list"][1]: {"status": 400}}) as (_, cutter):
        listed = [client async for page in cutter.connected() for client in page]
        assert listed == [BrokerClient(*each) for each in golden["connected"][:2]]
    async with api_of("rabbitmq", {golden["list"][0]: {"status": 400}}) as (_, cutter):
        with pytest.raises(UnavailableError, match="broker_api_url"):
            await anext(cutter.connected())


@pytest.mark.parametrize("kind", ["rabbitmq", "emqx", "vernemq"])
@pytest.mark.parametrize("status", [401, 403, 500, 302])
async def test_an_api_that_refuses_is_named_without_its_secret(kind: str, status: int) -> None:
    """Nothing counts as cut, and the message says which setting to look at."""
    lines = json.loads(GOLDEN.read_text())[kind]["cut"]
    async with api_of(kind, {line: {"status": status} for line in lines}) as (_, cutter):
        with pytest.raises(UnavailableError, match="broker_api_url") as caught:
            await cutter.cut(BrokerClient.of_device("dev_A"))
        assert "secret" not in caught.value.message


@pytest.mark.parametrize("kind", ["rabbitmq", "emqx", "vernemq"])
async def test_an_unreachable_api_is_named(kind: str) -> None:
    """Nothing counts as connected, and the message says that the API does not answer."""
    user = "key" if kind == "vernemq" else "key:secret"
    with closed_port() as port, pytest.raises(UnavailableError, match="does not answer") as caught:
        await anext(disconnector_of(BrokerApi.parse(f"{kind}+http://{user}@127.0.0.1:{port}"), None).connected())
    assert "secret" not in caught.value.message
