"""Access at the embedded broker: which live sessions are ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.broker.access_rules import Role
from gateway.store import Store, View, account_sql, home_sql, token_sql
from gateway.store.outbox_sql import OutboxRow

if TYPE_CHECKING:
    from gateway.broker.embedded.server import EmbeddedBroker  # and with it amqtt, which only who runs it needs


class EmbeddedAccess:
    """Access to the embedded broker. It asks the registry at each CONNECT, so only live sessions are checked here."""

    name = "embedded"
    first_uses = None
    knows_new_tokens = True
    limitation = None
    trouble = None

    def __init__(self, broker: EmbeddedBroker, store: Store) -> None:
        self._broker = broker
        self._store = store

    async def sync(self, devices: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
        """Cut each device whose session was not opened with a token that is good now; drop its queue."""
        for device in devices:
            pk = device.device_pk
            good = await self._store.read(lambda view, pk=pk: self._good(view, pk))  # type: ignore[misc]
            session = self._broker.sessions().get(device.device_id)
            if session is None or session.token_id not in good:
                await self._broker.cut(device.device_id)
        return ()

    def _good(self, view: View, device_pk: int) -> set[int]:
        """Return the tokens that open this broker for the device."""
        is_served = home_sql.is_served(view, device_pk, self._store.context.broker)
        return {token.id for token in token_sql.live(view, device_pk)} if is_served else set()

    def stop(self) -> None:
        """Do nothing: nothing is under way."""

    async def compare(self) -> bool:
        """Cut integrators that were revoked or connected with an earlier password. Devices have their own rows."""
        good = {
            (row.name, row.created_at) for row in await self._store.read(account_sql.everyone) if not row.revoked_at
        }
        for key, identity in self._broker.kept_sessions().items():
            made = identity.token_id
            if identity.role is not Role.DEVICE and made is not None and (identity.username, made) not in good:
                await self._broker.cut(key)
        return True
