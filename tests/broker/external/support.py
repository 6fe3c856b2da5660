"""A broker's API that a test plays, and what the registry says of sessions there."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from gateway.broker.clients import BrokerClient
from gateway.store import broker_session_sql, outbox_sql
from gateway.store.outbox_sql import OutboxRow
from tests.support.registry import Bound, Registry


@dataclass
class RecordedDisconnector:
    """A broker's API that says what it was asked to cut."""

    there: set[BrokerClient] = field(default_factory=set)
    cuts: list[str] = field(default_factory=list)
    page: int = 500
    listed: int = 0

    async def cut(self, client: BrokerClient) -> None:
        """Note it, and close it."""
        self.cuts.append(client.client_id)
        self.there.discard(client)

    async def connected(self) -> AsyncIterator[Sequence[BrokerClient]]:
        """Who is connected, as an API that numbers the pages again at each call."""
        self.listed += 1
        number, has_more = 0, True
        while has_more:
            page = sorted(self.there)[number * self.page : (number + 1) * self.page]
            has_more = len(page) == self.page
            yield page
            number += 1


async def due(fleet: Registry) -> list[OutboxRow]:
    """What the outbox says of credentials."""
    return await fleet.store.read(lambda view: outbox_sql.pending(view, outbox_sql.CREDENTIAL, 100))


async def token_id(fleet: Registry, device: Bound) -> int:
    """The row of its newest token."""
    rows = await fleet.store.read(
        lambda view: view.all("SELECT id FROM tokens WHERE device_pk = ? ORDER BY id", device.pk)
    )
    return int(rows[-1]["id"])


async def let_in_before(fleet: Registry, device: Bound) -> None:
    """Have the gateway let this device in, in a process that has ended since."""
    token = await token_id(fleet, device)
    assert await fleet.store.write(lambda tx: broker_session_sql.note(tx, device.id, device.id, token))
