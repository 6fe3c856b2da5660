"""What the owner of a broker does, and nothing while another gateway owns it (contract, section 6).

The owner connects, takes in what devices say, publishes and clears commands, compares, manages accounts, cuts sessions,
mirrors states and events. It also judges silence, since it alone knows whether all is taken in that the broker kept.
Each part is made again for each epoch of the lease, so nothing is left of an earlier one.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from gateway.broker.access_sync import AccessSyncer
from gateway.broker.mosquitto.access import MosquittoAccess
from gateway.broker.mosquitto.file_watch import PasswordFileWatch
from gateway.broker.mosquitto.password_check import PasswordFileCheck
from gateway.core.backoff import Pauses
from gateway.domain import backlog, brokers
from gateway.domain.backlog import BacklogRequests
from gateway.domain.brokers import DeviceAddress
from gateway.mqtt.connection import BrokerConnection, ConnectionObserver, LinkStatus
from gateway.outbound.outlets import outlets
from gateway.settings.types import AUTO
from gateway.store import broker_sql
from gateway.workers.presence import PresenceWorker

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Any

    from gateway.broker.selection import Broker
    from gateway.cluster.lease import Lease
    from gateway.core.topics import Topics
    from gateway.observability.metrics import Metrics
    from gateway.settings.loading import Settings
    from gateway.store import Store, Tx
    from gateway.store.wakeups import Wakeups

_NOT_TOLD = "The broker has not been told yet who may connect."


class BrokerOwner:
    """The broker of this gateway: served by this gateway while it holds the lease, otherwise by another one."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        wakeups: Wakeups,
        topics: Topics,
        metrics: Metrics,
        *,
        broker: Broker,
        lease: Lease,
    ) -> None:
        self._settings = settings
        self._store = store
        self._wakeups = wakeups
        self._topics = topics
        self._metrics = metrics
        self._broker = broker
        self._lease = lease
        self._connection: BrokerConnection | None = None
        self._access: AccessSyncer | None = None

    @property
    def status(self) -> LinkStatus:
        """Return the state of the connection; without one that of a gateway that is not connected."""
        return LinkStatus() if self._connection is None else self._connection.status

    @property
    def managed_by(self) -> str:
        """Return who steers accounts and sessions at the broker."""
        return self._broker.access.name

    @property
    def access_error(self) -> str | None:
        """Return why the broker does not know who may connect, or None when it does."""
        return _NOT_TOLD if self._access is None else self._access.last_error

    @property
    def access_limitation(self) -> str | None:
        """Return what can never be done about access at this broker, or None."""
        return self._broker.access.limitation

    async def taken_in(self, seconds: float) -> bool:
        """Wait until all is committed that the broker had received; return False when that took longer.

        A gateway that stands by asks the owner, by way of the registry; with several brokers each owner is asked.
        """
        broker, instant = self._store.context.broker, self._store.context.clock()
        is_shared = await self._store.read(partial(backlog.is_shared, broker=broker, instant=instant))
        connection = self._connection  # read after the wait, in which the lease may have been lost
        if connection is None or is_shared:
            return await backlog.ask(self._store, seconds)
        return await connection.barrier.passed(seconds)

    async def work(self, store: Store) -> None:
        """Do all that the owner does, until cancelled; ``store`` checks the lease.

        Raises:
            ExceptionGroup: a part failed.
        """
        await store.write(self._begin)
        if isinstance(self._broker.access, MosquittoAccess):
            await self._broker.access.begin()
        connection, presence = self._parts(store)
        self._connection = connection
        access = AccessSyncer(store, self._wakeups, self._broker.access, connection.access_allowed)
        self._access = access
        try:
            async with asyncio.TaskGroup() as group:
                for each in (
                    *self._watchers(connection),
                    access.run(),
                    connection.run(),
                    presence.run(),
                    BacklogRequests(store, self._wakeups, connection.barrier.passed).run(),
                ):
                    group.create_task(each)
        finally:
            self._connection = self._access = None

    def _begin(self, tx: Tx) -> None:
        self._store.context.link.broker = brokers.begin(
            tx,
            self._settings.broker_id,
            knows_tokens=self._broker.access.knows_new_tokens,
            address=DeviceAddress(self._broker.advertised.host, self._broker.advertised.port, self._broker.tls),
        )

    def _parts(self, store: Store) -> tuple[BrokerConnection, PresenceWorker]:
        """Return the connection, and the worker that forgives devices the silence before each connect."""

        async def listening() -> None:
            await store.write(self._begin)
            await presence.forgive()

        async def lost() -> None:
            await store.write(lambda tx: broker_sql.note_lost(tx, tx.context.broker))

        connection = BrokerConnection(
            self._broker.upstream,
            auto_version=self._settings.mqtt_version == AUTO,
            store=store,
            topics=self._topics,
            wakeups=self._wakeups,
            observer=ConnectionObserver(
                self._connected,
                self._metrics.acknowledged,
                self._metrics.refused,
                self._broker.access.first_uses,
                listening,
                lost,
                lambda: self._lease.is_held,
            ),
            outlets=outlets(self._settings, store, self._topics, self._wakeups),
            pauses=Pauses(compare_seconds=self._settings.compare_seconds),
            instance=self._lease.instance,
        )
        presence = PresenceWorker(store, connection.barrier.passed, lambda: connection.status.connected)
        return connection, presence

    def _connected(self) -> None:
        self._metrics.connected()
        self._wakeups.access_changed()  # a broker that has just started may have any password file

    def _watchers(self, connection: BrokerConnection) -> Iterator[Coroutine[Any, Any, None]]:
        """Yield the workers that a broker with a password file needs."""
        access = self._broker.access
        if isinstance(access, MosquittoAccess):
            yield PasswordFileWatch(access.file, self._wakeups, access.people).run()
            yield PasswordFileCheck(access, self._store).run()
            yield access.first_uses.run(connection.barrier.passed)
