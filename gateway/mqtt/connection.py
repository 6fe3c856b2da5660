"""The gateway's broker connection: connect, publish online, receive, compare, publish; again after a loss."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, Literal

import structlog

from gateway import __version__
from gateway.core.backoff import Backoff, Pauses
from gateway.core.clock import to_rfc3339
from gateway.core.topics import Topics
from gateway.domain.messages import Message
from gateway.errors import StoreError
from gateway.models.mqtt import GatewayStatus
from gateway.mqtt.background_publisher import BackgroundPublisher, GuardedPublisher
from gateway.mqtt.barrier import Barrier
from gateway.mqtt.connect import BrokerAddress, LinkError, Session, VersionRefusedError, open_session
from gateway.mqtt.ingest import FirstUses, Ingest
from gateway.mqtt.lineage import Lineage
from gateway.mqtt.peers import COMES_BACK_SECONDS, GatewayIdentity, OtherGatewayError, Peers, UnsettledError
from gateway.mqtt.publisher import Publisher
from gateway.mqtt.reconciler import Reconciler
from gateway.mqtt.retained_scan import ScanMarker
from gateway.mqtt.session import ReceivedMessage
from gateway.store import Store
from gateway.store.wakeups import Wakeups

log = structlog.get_logger()

FAREWELL_SECONDS: Final = 1.0
_INSTANCE_BYTES: Final = 8
_OTHER_VERSION: Final = {"5": "3.1.1", "3.1.1": "5"}


@dataclasses.dataclass
class LinkStatus:
    """State of the connection to the broker, for ``/ready`` and the log.

    ``last_error`` is why the last connection ended. It stays until the next one has been compared with the broker.
    """

    connected: bool = False
    reconciled: bool = False
    version: str | None = None
    last_error: str | None = None


async def _nothing() -> None:
    pass


@dataclasses.dataclass(frozen=True)
class ConnectionObserver:
    """Callbacks: on a connect, on the seconds that a batch took, on the code of a refusal that is not stored.

    ``first_uses`` is called for devices that publish, while it waits for some.
    """

    connected: Callable[[], None] = lambda: None
    acknowledged: Callable[[float], None] = lambda _: None
    refused: Callable[[str], None] = lambda _: None
    first_uses: FirstUses | None = None
    listening: Callable[[], Awaitable[None]] = _nothing
    """Awaited at each connect, before anything is received."""
    lost: Callable[[], Awaitable[None]] = _nothing
    """Awaited after each loss of the connection."""
    may_connect: Callable[[], bool] = lambda: True
    """Returns whether this gateway owns the broker now. It is called before and after each connect."""


class BrokerConnection:
    """The gateway's one connection to its broker, across reconnects.

    ``instance`` names the process, as its leases do, so that the doctor can tell whose status the broker retains.
    """

    def __init__(  # noqa: PLR0913 - all but the address are passed by name
        self,
        address: BrokerAddress,
        *,
        auto_version: bool,
        store: Store,
        topics: Topics,
        wakeups: Wakeups,
        observer: ConnectionObserver = ConnectionObserver(),
        outlets: Iterable[Callable[[ScanMarker], BackgroundPublisher]] = (),
        pauses: Pauses = Pauses(),  # noqa: B008 - frozen
        instance: str | None = None,
    ) -> None:
        self.status = LinkStatus()
        self.access_allowed = asyncio.Event()
        """Set while no other gateway is known to serve the broker, from the first look there on. Otherwise this one may
        not change who can connect: it would cut the sessions of the other one's devices."""
        if not address.shared:
            self.access_allowed.set()
        self._met_other = False
        self._address = address
        self._auto_version = auto_version
        gateway_id = self._gateway_id = store.context.rules.gateway_id
        self._topics = topics
        self._status_topic = topics.gateway_status(gateway_id)
        self._started_at = self._connected = to_rfc3339(store.context.clock())
        self._instance = instance or store.context.entropy(_INSTANCE_BYTES).hex()
        identity = GatewayIdentity(gateway_id, self._instance, self._started_at)
        self._peers = Peers(store, topics, identity, self._met_younger)
        self._shared = address.shared
        self._compare_seconds = pauses.compare_seconds
        self._longest_pause = pauses.longest_seconds
        self._steady_seconds = pauses.steady_seconds
        self._ended_by: type[BaseException] | None = None
        self._was_steady = False
        self._clock = store.context.clock
        self._lineage = Lineage(store, wakeups, self._status_topic)
        mark = ScanMarker.own_status(topics, gateway_id, lambda: self._says("online"))
        self._reconciler = Reconciler(store, topics, mark, self._lineage)
        self._outlets = tuple(GuardedPublisher(outlet(mark), wakeups.comparison.set) for outlet in outlets)
        self.barrier = Barrier(topics.marks, store.context.entropy, self._peers.mark)
        told = observer.acknowledged, observer.refused, self._heard_mark, observer.first_uses
        self._ingest = Ingest(store, topics, self._heard, *told)
        self._publisher = Publisher(store, topics, wakeups, None if address.devices_wait else self._ingest.clear)
        self._backoff = Backoff(pauses)
        self._wakeups = wakeups
        self._observer = observer
        self._connected_at = math.inf

    async def run(self) -> None:
        """Stay connected until cancelled. Pauses between tries grow, with jitter, until a connection was steady.

        It runs once for each time that this process owns the broker. Another gateway may have owned it in between.
        """
        self.status, self._was_steady = LinkStatus(), False
        self._peers.begin()
        while True:
            self._connected_at = math.inf
            self._lost(await _end_of(asyncio.create_task(self._live(), name="broker connection")))
            with suppress(StoreError):  # the store has logged that
                await self._observer.lost()
            lasted = asyncio.get_running_loop().time() - self._connected_at
            self._was_steady = lasted >= self._steady_seconds and self._ended_by is not OtherGatewayError
            pause = self._pause(lasted)
            log.warning("broker.disconnected", reason=self.status.last_error, retry_in_seconds=round(pause, 3))
            await asyncio.sleep(pause)

    def _pause(self, lasted: float) -> float:
        if self._ended_by is OtherGatewayError:
            return self._longest_pause
        if self._ended_by is UnsettledError:
            return COMES_BACK_SECONDS
        return self._backoff.pause(lasted)

    def _lost(self, error: BaseException) -> None:
        self.status = LinkStatus(last_error=str(error) or repr(error))
        self._allow_access(error)
        self._ended_by = type(error)
        if isinstance(error, VersionRefusedError) and self._auto_version:
            self._address = dataclasses.replace(self._address, version=_OTHER_VERSION[self._address.version])
        if not isinstance(error, LinkError | StoreError):  # a bug of ours must not leave the fleet alone
            log.error("broker.connection_failed", exc_info=error)

    def _allow_access(self, error: BaseException) -> None:
        """Decide by the end of a connection whether access may be changed.

        A broker that refuses the gateway may lack its account, which a change of access brings there. Where it lets the
        gateway in, or once another gateway was met, access waits for a look that finds none.
        """
        if isinstance(error, OtherGatewayError):
            self._met_other = True
            self.access_allowed.clear()
        elif math.isinf(self._connected_at) and not self._met_other:
            self.access_allowed.set()

    async def _live(self) -> None:
        self._connected = to_rfc3339(self._clock())
        self._require_leave()
        will = (self._status_topic, await self._says("offline"))
        async with self.opened(self._address, will) as session:
            self._connected_at = asyncio.get_running_loop().time()
            self._require_leave()
            ahead = await self._peers.look(session) if self._shared and not self._was_steady else []
            self._met_other = False
            self.access_allowed.set()
            log.info("broker.connected", host=self._address.host, port=self._address.port, mqtt=self._address.version)
            self.status = dataclasses.replace(self.status, connected=True, version=self._address.version)
            self._observer.connected()
            await self._observer.listening()
            try:
                await self._work(session, ahead)
            except asyncio.CancelledError:
                await self._leave(session)
                raise

    def _require_leave(self) -> None:
        """Check that this gateway still owns the broker. A process that was paused may not end the owner's session.

        Raises:
            LinkError: it does not.
        """
        if not self._observer.may_connect():
            raise LinkError("Another gateway owns this broker by now, or this one cannot reach the registry.")

    def opened(self, address: BrokerAddress, will: tuple[str, bytes]) -> AbstractAsyncContextManager[Session]:
        """Open a session on the broker with this last will. The simulation overrides this."""
        return open_session(address, client_id=self._gateway_id, will=will)

    async def _work(self, session: Session, ahead: Sequence[ReceivedMessage]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ingest.run(session, ahead), name="ingest")
            await self._lineage.read(session)
            await session.publish(self._status_topic, await self._says("online"), retain=True)
            await session.subscribe(self._topics.inbound)
            group.create_task(self._publisher.run(session), name="publisher")
            group.create_task(self._peers.run(session), name="answers to other gateways")
            with self.barrier.attached(session):
                await self._compare_commands(session)
                self.status = dataclasses.replace(self.status, reconciled=True, last_error=None)
                for outlet in self._outlets:
                    group.create_task(outlet.run(session), name=outlet.name)
                await self._reconcile_loop(session)

    async def _reconcile_loop(self, session: Session) -> None:
        """Run one comparison after the other, when asked; those of commands first, and also at intervals."""
        asked = True
        while True:
            for outlet in self._outlets if asked else ():
                await outlet.compare(session)
            asked = await self._asked_to_compare()
            await self._compare_commands(session)

    async def _compare_commands(self, session: Session) -> None:
        await self._reconciler.run(session)
        await self._lineage.announce()

    async def _asked_to_compare(self) -> bool:
        """Wait until a comparison is asked for, or due. Return whether it was asked for."""
        wait = None if math.isinf(self._compare_seconds) else self._compare_seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._wakeups.comparison.wait()
        asked = self._wakeups.comparison.is_set()
        self._wakeups.comparison.clear()
        return asked

    def _met_younger(self) -> None:
        """Compare again after another gateway was here and is gone: what it cleared and published is put right."""
        asyncio.get_running_loop().call_later(COMES_BACK_SECONDS, self._wakeups.comparison.set)

    def _heard_mark(self, payload: bytes) -> None:
        mark = self._peers.heard_mark(payload)
        if mark is not None:
            self.barrier.received(mark)

    def _heard(self, message: Message) -> bool:
        """Pass a message to every scan. The gateway's own status is what they look for."""
        heard = [
            self._lineage.heard(message),
            self._reconciler.heard(message),
            *(outlet.heard(message) for outlet in self._outlets),
        ]
        return any(heard)

    async def _leave(self, session: Session) -> None:
        # A clean disconnect publishes no will, so the gateway publishes its offline message itself.
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await session.publish(self._status_topic, await self._says("offline"), retain=True)
                await session.disconnect()
        except (LinkError, StoreError, TimeoutError) as error:
            log.warning("broker.offline_not_published", reason=str(error) or "timed out")

    async def _says(self, status: Literal["online", "offline"]) -> bytes:
        here = await self._lineage.position()
        said = GatewayStatus(
            status=status,
            version=__version__,
            started_at=self._started_at,
            registry_id=here.registry_id if here else None,
            epoch_id=here.epoch_id if here else None,
            event_seq=here.event_seq if here else None,
            instance=self._instance,
            connected_at=self._connected,
        )
        return said.model_dump_json().encode()


async def _end_of(life: asyncio.Task[None]) -> BaseException:
    """Return why the life of a connection ended: the first failure of its parts. Cancel it when we are cancelled.

    It runs in a separate task, since a task group swallows a cancellation that coincides with a failure.
    """
    try:
        await asyncio.wait((life,))
    finally:
        life.cancel()
        await asyncio.wait((life,))
        error = None if life.cancelled() else life.exception()
    error = error or LinkError("The connection ended.")
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
