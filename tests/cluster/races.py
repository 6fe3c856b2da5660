"""Two gateways that change one device at the same time, on PostgreSQL: the device, the verbs, and how two of them meet.

The first is held inside its transaction, after its verb and before its commit, until the second is at the database and
waits. So each pair meets in the same way each time.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.core.command_types import CommandType
from gateway.core.topics import Topics
from gateway.domain import commands, devices, messages, plain_heartbeats
from gateway.errors import GatewayError
from gateway.models.devices import RegisterDevice
from gateway.store import Batch, Context, Store, Tx, View, device_sql, key_sql, token_sql
from gateway.store.postgres.connection import PostgresConnection
from tests.domain.support import receipt
from tests.support.postgres import database
from tests.support.wait import eventually

WAITING = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND (wait_event = 'advisory')::int = ?"""
NAMES = Topics()


@dataclass(frozen=True)
class Subject:
    """A device, the token that it was bound with, and a command for that token."""

    project_id: str
    id: str
    pk: int
    serial_number: str
    token: str
    token_id: int
    command_id: str = ""
    command_type: CommandType = CommandType.REBOOT


Verb = Callable[[Tx, Subject], object]
Start = Callable[[Tx, str, str], Subject]
"""Makes a device of this project with this serial number."""


def bound(tx: Tx, project_id: str, serial: str) -> Subject:
    """A bound device."""
    device, _ = devices.register(tx, project_id, RegisterDevice(serial_number=serial), "key_1")
    secret = devices.bind(tx, project_id, device.id, "eu_1", "key_1").device_token
    token = token_sql.by_secret(tx, secret)
    assert token is not None
    return Subject(project_id, device.id, device.pk, serial, secret, token.id)


# --- verbs ------------------------------------------------------------------------------------------------------------


def bind(tx: Tx, it: Subject) -> object:
    """Bind it."""
    return devices.bind(tx, it.project_id, it.id, "eu_2", "key_1")


def unbind(tx: Tx, it: Subject) -> object:
    """Unbind it."""
    return devices.unbind(tx, it.project_id, it.id, "key_1")


def reset(tx: Tx, it: Subject) -> object:
    """Reset it."""
    return devices.reset(tx, it.project_id, it.id, "key_1")


def supersede(tx: Tx, it: Subject) -> object:
    """Bind it, whatever reset is open."""
    devices.supersede_reset(tx, it.project_id, it.id, "key_1")
    return devices.bind(tx, it.project_id, it.id, "eu_3", "key_1")


def say(tx: Tx, topic: str, **body: object) -> object:
    """Store a message of the device, as it comes from the broker."""
    found = messages.apply(tx, messages.parse(NAMES, messages.Message(topic, json.dumps(body).encode(), retain=False)))
    if found is not None:
        raise GatewayError(found.refusal.code)
    return found


def acknowledge(tx: Tx, it: Subject, status: str = "executed") -> object:
    """Store the device's word about its command."""
    word = receipt(it.token, it.command_id, status, 1)
    return say(tx, NAMES.ack(it.id, it.command_type), command_id=it.command_id, status=status, receipt=word)


def refresh(tx: Tx, it: Subject) -> object:
    """Give the device another token."""
    return devices.refresh(tx, it.project_id, it.id, it.token_id)


def cancel(tx: Tx, it: Subject) -> object:
    """Cancel its command, after all that the broker holds was read."""
    return commands.cancel(tx, devices.require(tx, it.project_id, it.id), it.command_id, "key_1", taken_in=True)


def delete(tx: Tx, it: Subject) -> object:
    """Delete it."""
    return devices.delete(tx, it.project_id, it.id, "key_1")


def restore(tx: Tx, it: Subject) -> object:
    """Bring it back."""
    return devices.restore(tx, it.project_id, it.id, "key_1")


def heartbeat(tx: Tx, it: Subject) -> object:
    """Store a heartbeat."""
    return say(tx, NAMES.heartbeat(it.id), battery_percent=50)


def batch(tx: Tx, it: Subject) -> object:
    """A plain heartbeat that is stored beside those of other gateways; what is left of a batch is stored alone."""
    said = messages.Message(NAMES.heartbeat(it.id), b'{"battery_percent": 40}')
    if not plain_heartbeats.store_plain(Batch(tx), [said], NAMES).places:
        raise GatewayError("left")
    return said


# --- two gateways -----------------------------------------------------------------------------------------------------

STATE = {
    "tokens": "SELECT generation, state FROM tokens WHERE device_pk = ? ORDER BY id",
    "commands": "SELECT type, status, seq FROM commands WHERE device_pk = ? ORDER BY created_at, id",
    "resets": "SELECT outcome, generation_after FROM resets WHERE device_pk = ? ORDER BY requested_at, command_id",
    "certificates": """SELECT c.kind FROM certificates c JOIN resets r ON r.command_id = c.command_id
        WHERE r.device_pk = ? ORDER BY c.seq""",
    "bindings": """SELECT generation, end_user_id, unbound_at IS NULL FROM bindings WHERE device_pk = ?
        ORDER BY generation""",
    "events": "SELECT type FROM events WHERE device_pk = ? ORDER BY seq",
    "heartbeats": "SELECT battery_percent, previous IS NULL FROM heartbeats WHERE device_pk = ? ORDER BY id",
    "health": "SELECT battery_percent, connection FROM health WHERE device_pk = ?",
    "outbox": "SELECT kind, detail FROM outbox WHERE device_pk = ? ORDER BY kind, detail",
}


def state_of(view: View, pk: int) -> dict[str, Any]:
    """What is there of a device, without ids, secrets and times."""
    device = device_sql.by_pk(view, pk)
    found = {name: [tuple(row) for row in view.all(sql, pk)] for name, sql in STATE.items()}
    return {"device": (device.end_user_id, device.binding_generation, device.deleted_at is None), **found}


@dataclass
class Two:
    """Two gateways on one registry, and a session that looks at the server."""

    one: Store
    other: Store
    project_id: str
    looking: PostgresConnection

    async def subject(self, start: Start, serial: str) -> Subject:
        """A new device in this state."""
        return await self.one.write(lambda tx: start(tx, self.project_id, serial))

    async def alike(self, start: Start, number: int) -> tuple[Subject, Subject]:
        """Two new devices in this state."""
        serials = f"S{number}", f"R{number}"
        one, other = await self.one.write(lambda tx: [start(tx, self.project_id, each) for each in serials])
        return one, other

    async def serial(self, first: Verb, second: Verb, subject: Subject) -> list[str]:
        """One after the other; how each ended."""
        return [await ended(self.one, first, subject), await ended(self.other, second, subject)]

    async def at_once(self, first: Verb, second: Verb, subject: Subject) -> list[str]:
        """The second is at the database while the first is in its transaction; how each ended."""
        inside, go_on = threading.Event(), threading.Event()

        def held(tx: Tx, it: Subject) -> object:
            try:
                return first(tx, it)
            finally:
                inside.set()
                go_on.wait()

        leads = asyncio.create_task(ended(self.one, held, subject, shared=first is batch))
        try:
            await eventually(inside.is_set, "the first is in its transaction")
            follows = asyncio.create_task(ended(self.other, second, subject))
            alone = first is not batch or second is not batch
            # two batches meet on the device, all others on the registry
            await eventually(lambda: follows.done() or self._is_waiting(alone=alone), "the second is at the database")
            assert not follows.done(), "the second has not waited for the first"
        finally:
            go_on.set()
        return [await leads, await follows]

    def _is_waiting(self, *, alone: bool) -> bool:
        return bool(self.looking.execute(WAITING, (int(alone),)).fetchone()[0] == 1)

    async def states(self, *subjects: Subject) -> list[dict[str, Any]]:
        """See :func:`state_of`."""
        return await self.one.read(lambda view: [state_of(view, each.pk) for each in subjects])


async def ended(store: Store, verb: Verb, subject: Subject, *, shared: bool = False) -> str:
    """Run a verb at this gateway; how it ended."""
    try:
        if shared or verb is batch:
            await store.write_batch(lambda batch: verb(batch.tx, subject), shared=True)
        else:
            await store.write(lambda tx: verb(tx, subject))
    except GatewayError as error:
        return f"{error.code} {error.message}" if type(error) is GatewayError else error.code
    return "done"


@asynccontextmanager
async def two_gateways(folder: Path) -> AsyncIterator[Two]:
    """Start both, with one project."""
    where = database(folder)
    async with Store(where, Context()) as one, Store(where, Context()) as other:
        project_id = await one.write(lambda tx: key_sql.create_project(tx, "ward"))
        with closing(PostgresConnection(where)) as looking:
            yield Two(one, other, project_id, looking)
