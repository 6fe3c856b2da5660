"""A real gateway API for each test: the store on disk, uvicorn on a free port, httpx against it.

Every answer that the test client gets is held against the OpenAPI document: its status has to be one that the operation
says it can give, its body one that the schema allows, its headers all there.
"""

import asyncio
import sqlite3
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from gateway.core.topics import Topics
from gateway.errors import StoreError
from gateway.http.app import build
from gateway.http.operation import AnyOperation
from gateway.http.resources.operations import OPERATIONS
from gateway.http.server.server import HttpServer
from gateway.http.services import HttpOptions, Services
from gateway.http.sign_in.people import People
from gateway.observability.commit_listener import CommitListener
from gateway.observability.metrics import Metrics
from gateway.observability.metrics_endpoint import Scrape
from gateway.oidc.options import OidcOptions
from gateway.store import DATABASE_NAME, Context, Rules, Store, key_sql, outbox_sql
from gateway.store.wakeups import EVERY, Wakeups
from gateway.webhooks.sender import WebhookSender
from tests.http.contract import check_contract
from tests.support import postgres
from tests.support.clock import ShiftedClock
from tests.support.ports import free_port

Json = dict[str, Any]

GUARDED = [operation for operation in OPERATIONS if not operation.access.public]
WITH_BODY = [operation for operation in GUARDED if operation.method == "POST"]
# What only a person's session opens is tried in tests/http/sign_in.
WITH_QUERY = [operation for operation in GUARDED if operation.method == "GET" and not operation.access.person]
TLS = ssl.create_default_context()  # costly to make, and never used: one for all clients
JSON = {"Content-Type": "application/json"}
REQUIRED: dict[str, Json] = {
    "bind_device": {"end_user_id": "eu_1"},
    "create_command": {"type": "reboot"},
    "move_devices": {"device_ids": ["dev_nowhere"]},
    "move_from_cell": {"to": "brk_nowhere"},
    "create_job": {"name": "recall", "action": "reboot", "targets": {"device_ids": ["dev_nowhere"]}},
}
"""Bodies of the operations that need one, apart from those of devices and of registration."""

# Ids of what the operations on webhooks are about; what they do to those that exist has tests of its own.
NOWHERE = {
    "webhook_id": "wh_nowhere",
    "delivery_id": "dlv_nowhere",
    "end_user_id": "eu_nowhere",
    "job_id": "job_nowhere",
    "broker_id": "brk_nowhere",
}
# What may change although a request was refused: that a credential was used.
USE = {"api_keys": "last_used_at", "tokens": "first_used_at"}


RETRY_SECONDS = 0.01


@dataclass
class BrokerStub:
    """Stands where publisher and broker stand: works the outbox off while it is up."""

    store: Store
    wakeups: Wakeups
    up: asyncio.Event = field(default_factory=asyncio.Event)
    _working: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Work off whatever waits, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kinds in ((outbox_sql.COMMAND, outbox_sql.TOPIC), (outbox_sql.CREDENTIAL,)):
                group.create_task(self._drain(kinds))

    async def _drain(self, kinds: tuple[str, ...]) -> None:
        while True:
            await self.up.wait()
            try:
                async with self._working:
                    await self._work_off(kinds)
            except StoreError:  # a test took the registry away for a moment; the publisher tries again, too
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.wakeups.notify_progress()
            await self.wakeups.wait_for(kinds[0])

    async def _work_off(self, kinds: tuple[str, ...]) -> None:
        seqs = [
            row.seq
            for kind in kinds
            for row in await self.store.read(partial(outbox_sql.pending, kind=kind, limit=100))
        ]
        await self.store.write(lambda tx: outbox_sql.done(tx, seqs))

    def switch(self, *, up: bool) -> None:
        """Take it down, or bring it back, where it works off what waited."""
        if up:
            self.up.set()
            self.wakeups.notify_outbox(EVERY)
        else:
            self.up.clear()

    async def pause(self) -> None:
        """Take it down, and wait until it has ended what it was at."""
        self.switch(up=False)
        async with self._working:
            pass


class Client(httpx.AsyncClient):
    """Speaks with one credential; every answer is held against the contract."""

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send, and check the answer."""
        response = await super().send(request, **options)
        check_contract(request, response)
        return response


@dataclass
class Api:
    """One gateway's HTTP API, and what a test needs to know of it."""

    url: str
    services: Services
    data_dir: Path
    broker: BrokerStub
    clock: ShiftedClock
    project_id: str
    key_id: str
    key: str
    readiness: Json
    clients: list[Client] = field(default_factory=list)

    def as_(self, credential: str | None) -> Client:
        """A client with this credential."""
        headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        client = Client(base_url=self.url, headers=headers, timeout=30, verify=TLS)
        self.clients.append(client)
        return client

    def __post_init__(self) -> None:
        self.back_end = self.as_(self.key)
        """A client with the project's secret key."""
        self.store = self.services.store

    async def another_key(self, *scopes: str, project: str | None = None) -> str:
        """A key with these scopes (none: all), of this project or of a new one with that name."""
        project_id = self.project_id
        if project is not None:
            project_id = await self.store.write(lambda tx: key_sql.create_project(tx, project))
        return (await self.store.write(lambda tx: key_sql.create(tx, project_id, "another", scopes=scopes)))[1]

    async def registered(self, serial: str = "BP-1", **fields: Any) -> Json:
        """A device just registered."""
        return body(await self.back_end.post("/v1/devices", json={"serial_number": serial, **fields}), 201)

    async def bound(self, serial: str = "BP-1", end_user_id: str = "eu_1") -> Json:
        """A device registered and bound: what the bind answered."""
        device = await self.registered(serial)
        answer = await self.back_end.post(f"/v1/devices/{device['id']}/bind", json={"end_user_id": end_user_id})
        return body(answer, 200)

    async def reset(self, device_id: str) -> Json:
        """A device whose reset has been asked for: the open command."""
        body(await self.back_end.post(f"/v1/devices/{device_id}/reset"), 200)
        commands = body(await self.back_end.get(f"/v1/devices/{device_id}/commands"), 200)["data"]
        newest: Json = commands[0]
        return newest

    async def settled(self) -> None:
        """Wait until the broker knows everything and the notes of used credentials are written."""
        rows = await self.store.read(lambda view: view.all("SELECT pk FROM devices"))
        for row in rows:
            assert await self.broker.wakeups.synced(self.store, row["pk"], 30)
        await self.store.write(lambda _: None, urgent=False)

    def dump(self) -> list[str]:
        """Everything in the database, but for the notes that a credential was used."""
        if not self.store.is_local:
            return postgres.dump(postgres.database(self.data_dir), USE)
        connection = sqlite3.connect(self.data_dir / DATABASE_NAME)
        try:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return [row for table in sorted(tables) for row in _rows(connection, table)]
        finally:
            connection.close()


class Caller:
    """Calls any operation as those may who may, on a device that is bound and a command that is open."""

    def __init__(self, api: Api, bound: Json, command: Json) -> None:
        self.api = api
        self.path = {"device_id": bound["id"], "command_id": command["id"], **NOWHERE}
        self.token: str = bound["device_token"]
        self.device = api.as_(self.token)

    def client(self, operation: AnyOperation) -> Client:
        """A client that the operation opens to."""
        return self.device if operation.access.device else self.api.back_end

    def url(self, operation: AnyOperation, **path: str) -> str:
        """Its path with the ids of things that exist, or with those given."""
        return operation.path.format(**{**self.path, **path})

    async def call(self, operation: AnyOperation, **options: Any) -> httpx.Response:
        """Call it."""
        return await self.client(operation).request(operation.method, self.url(operation), **options)


@contextmanager
def trying(*what: object) -> Iterator[None]:
    """Say with a failure what was tried, where one test tries many things on one server."""
    try:
        yield
    except AssertionError as failure:
        failure.add_note(f"tried: {' '.join(str(each)[:200] for each in what)}")
        raise


def _rows(connection: sqlite3.Connection, table: str) -> list[str]:
    rows = connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - names of our own tables
    names = [each[0] for each in rows.description]
    return [f"{table} {[v for n, v in zip(names, row, strict=True) if n != USE.get(table)]}" for row in rows]


def body(response: httpx.Response, status: int) -> Json:
    """The JSON of an answer that has to have this status."""
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    content: Json = response.json()
    return content


def error(response: httpx.Response, status: int, code: str) -> Json:
    """The error of an answer that has to be this one."""
    content: Json = body(response, status)["error"]
    assert set(content) == {"code", "message", "details"}
    assert content["code"] == code
    assert content["message"].strip()
    return content


@asynccontextmanager
async def serving(
    data_dir: Path,
    *,
    project: str = "one",
    kept_seconds: float = 0,
    allow_loopback: bool = True,
    rules: Rules | None = None,
    oidc: Callable[[str], Awaitable[OidcOptions]] | None = None,
    **settings: Any,
) -> AsyncIterator[Api]:
    """An API on this data directory, with a new project of this name.

    ``settings`` are fields of ``Services`` and of ``HttpOptions``.
    Webhooks may lead to this machine, where the receivers of the tests are, unless ``allow_loopback`` is off.
    ``oidc`` returns how people sign in at the page with this address.
    """
    names = {field.name for field in fields(HttpOptions)}
    options = {name: value for name, value in settings.items() if name in names}
    parts = {name: value for name, value in settings.items() if name not in names}
    parts = {"sender": WebhookSender(allow_loopback=allow_loopback), **parts}
    clock, wakeups, metrics = ShiftedClock(), Wakeups(), Metrics()
    readiness: Json = {
        "ready": True,
        "broker": {"kind": "external", "connected": True, "reconciled": True, "mqtt_version": "5", "error": None},
        "access": {"managed_by": "mosquitto", "error": None},
        "gateway": {"id": "gw_1", "alone": True},
        "registry": {"error": None},
        "leases": [
            {"name": name, "held": True, "owner": "gw_1", "epoch": 1, "age_seconds": 60, "error": None}
            for name in ("broker:default", "fleet")
        ],
        "brokers": [{"id": "default", "owner": "gw_1", "connected": True, "followed": True, "outbox": 0}],
        "outbox": {"depth": 0, "at_least": False, "oldest_seconds": 0},
        "certificates": [],
    }

    async def report() -> Json:
        return readiness

    async with (
        Store(
            data_dir,
            Context(rules=rules or Rules(webhook_allow_loopback=allow_loopback), clock=clock),
            CommitListener(wakeups, metrics),
        ) as store,
        asyncio.TaskGroup() as group,
    ):
        project_id = await store.write(lambda tx: key_sql.create_project(tx, project))
        key_id, key = await store.write(lambda tx: key_sql.create(tx, project_id, "back end"))
        broker = BrokerStub(store, wakeups)
        broker.switch(up=True)
        worker = group.create_task(broker.run())
        port = 0 if oidc is None else free_port()
        people = None if oidc is None else People(store, await oidc(f"http://127.0.0.1:{port}"))
        services = Services(
            store=store,
            people=people,
            topics=Topics(),
            broker_address=lambda: ("mqtt.example.com", 8883, True),
            synced=lambda device_pk, seconds: wakeups.synced(store, device_pk, seconds),
            readiness=report,
            wakeups=wakeups,
            metrics=metrics,
            scrape=Scrape(metrics, store, data_dir, report, kept_seconds=kept_seconds).text,
            options=HttpOptions(**options),
            **parts,
        )
        async with HttpServer(build(services), "127.0.0.1", port, stopping=services.streams.close) as server:
            api = Api(server.url, services, data_dir, broker, clock, project_id, key_id, key, readiness)
            try:
                yield api
            finally:
                for client in api.clients:
                    await client.aclose()
        worker.cancel()
