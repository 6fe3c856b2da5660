"""Other gateways at the same broker and topic prefix. Two would clear each other's commands.

A gateway that connects checks before it receives or publishes anything. It asks on ``gateways/marks``, where each
running gateway answers, and reads what is retained on ``gateways/+/status``. A retained message alone proves nothing,
since a dead gateway may have left it. Two things count: an answer to a question just asked, and a status that has
changed since this gateway's last check. The second one finds a gateway that cannot answer because the two share a
session and take it from each other. They have one ``gateway_id``, or one user name that the broker makes a client id.
With one ``gateway_id`` the status is on the own topic, where a process of this registry may have left it, too. The
registry notes which one said online last. A status of any other counts as that of another gateway.

Of two gateways the one that started first goes on. The other one stays away from the broker until it is alone.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from pydantic import ValidationError

from gateway.core.received_json import parse_json
from gateway.models.mqtt import GatewayMark
from gateway.mqtt.session import LinkError, ReceivedMessage, Session
from gateway.store import broker_sql

if TYPE_CHECKING:
    from gateway.core.topics import Topics
    from gateway.domain.messages import Message
    from gateway.store import Store, View

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
"""How long a running gateway may take to answer."""
QUIET_SECONDS: Final = 0.25
"""How long after the gateway's own mark an answer, or a retained message, may still be on its way."""
COMES_BACK_SECONDS: Final = 3.0
"""How long a gateway whose session was taken over may take to reconnect."""
_REMEMBERED: Final = 20
_ASKED: Final = 64
_MARK_BYTES: Final = 16
_SEEN: Final = "peer_statuses"


class OtherGatewayError(LinkError):
    """Another gateway works at this broker, under this prefix, and was there first."""

    def __init__(self, gateway_id: str, started_at: str, own_id: str) -> None:
        remedy = (
            "A copy of a data directory must not run beside the original: stop one of the two. Two gateways of one "
            "registry that share a broker need the same broker_id."
            if gateway_id == own_id
            else "Stop one of the two, or give one of them a topic_prefix or a broker of its own."
        )
        super().__init__(
            f"Another gateway, '{gateway_id}' (started {started_at}), serves this broker under the same topic prefix, "
            f"and two would clear each other's commands. This one ('{own_id}') does nothing there until the other is "
            f"gone. {remedy}"
        )


class UnsettledError(LinkError):
    """It will show in a moment whether another gateway works here."""


@dataclass(frozen=True)
class GatewayIdentity:
    """This process of the gateway."""

    gateway_id: str
    instance: str
    started_at: str


class Peers:
    """Knows what other gateways published at this broker, and whether they are alive."""

    def __init__(
        self, store: Store, topics: Topics, identity: GatewayIdentity, met_younger: Callable[[], None]
    ) -> None:
        self._store = store
        self._topics = topics
        self._broker = store.context.broker
        self._identity = identity
        self._met_younger = met_younger
        self._asked: deque[str] = deque(maxlen=_ASKED)
        self._statuses: dict[str, bytes] = {}
        self._known = False
        self._speaker: str | None = None
        self._elder: OtherGatewayError | None = None
        self._found = asyncio.Event()
        self._to_answer: asyncio.Queue[GatewayMark] = asyncio.Queue(_ASKED)
        self._established = False

    def begin(self) -> None:
        """Begin to serve the broker, perhaps again: the status on the own topic may be of an owner in between."""
        self._established = self._known = False

    def mark(self, name: str, answers: str | None = None) -> bytes:
        """Return the payload of a mark. Other gateways answer every mark that is no answer."""
        if answers is None:
            self._asked.append(name)
        here = self._identity
        said = GatewayMark(
            gateway_id=here.gateway_id, instance=here.instance, started_at=here.started_at, mark=name, answers=answers
        )
        return said.model_dump_json().encode()

    def heard_mark(self, payload: bytes) -> str | None:
        """Return the name of a mark of our own. Record a mark of another gateway."""
        try:
            said = GatewayMark.model_validate_json(payload)
        except ValidationError:
            return None
        if said.instance == self._identity.instance:
            return said.mark
        if said.answers in self._asked:
            self._meet(said.gateway_id, said.started_at, said.instance)
        elif said.answers is None and not self._to_answer.full():
            self._to_answer.put_nowait(said)
        return None

    async def run(self, session: Session) -> None:
        """Answer other gateways until the connection is gone.

        Raises:
            OtherGatewayError: one of them has been there for longer.
            LinkError: the connection is gone.
        """
        while True:
            answering, finding = asyncio.ensure_future(self._to_answer.get()), asyncio.ensure_future(self._found.wait())
            try:
                await asyncio.wait((answering, finding), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in (answering, finding):
                    each.cancel()
            self._raise_elder()
            if answering.done() and not answering.cancelled():
                await self._answer(session, answering.result())

    async def _answer(self, session: Session, asked: GatewayMark) -> None:
        """Answer, and ask back a gateway that started first: its question may be old and the gateway gone."""
        await session.publish(self._topics.marks, self.mark(self._new_name(), answers=asked.mark))
        if self._is_elder(asked.started_at, asked.instance):
            await session.publish(self._topics.marks, self.mark(self._new_name()))

    def _is_elder(self, started_at: str, instance: str) -> bool:
        return (started_at, instance) < (self._identity.started_at, self._identity.instance)

    def _new_name(self) -> str:
        return self._store.context.entropy(_MARK_BYTES).hex()

    def _meet(self, gateway_id: str, started_at: str, instance: str) -> None:
        """Note that another gateway is alive."""
        here = self._identity
        error = OtherGatewayError(gateway_id, started_at, here.gateway_id)
        log.error("broker.other_gateway", gateway_id=gateway_id, started_at=started_at, own_id=here.gateway_id)
        if self._established and not self._is_elder(started_at, instance):
            self._met_younger()
        else:
            self._elder = error
            self._found.set()

    def _raise_elder(self) -> None:
        elder, self._elder = self._elder, None
        self._found.clear()
        if elder is not None:
            self._established = False
            raise elder

    # --- before anything is taken or published ------------------------------------------------------------------------

    async def look(self, session: Session) -> list[ReceivedMessage]:
        """Check whether another gateway works here. Return what was received meanwhile, for the ingest, unacknowledged.

        Raises:
            OtherGatewayError: one does.
            UnsettledError: it will show at the next connect.
            LinkError: the connection is gone.
        """
        if not self._known:
            self._statuses, self._speaker = await self._store.read(self._load)
            self._known = True
        self._asked.clear()  # an answer to an earlier question may come again, and its gateway be gone
        filters = [self._topics.gateway_status("+"), self._topics.marks]
        await session.subscribe(filters)
        name = self._new_name()
        await session.publish(self._topics.marks, self.mark(name))
        ahead: list[ReceivedMessage] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS) as limit:
                while True:
                    ahead += (some := await session.receive_batch())
                    if any(self._is_own(delivery.message, name) for delivery in some):
                        limit.reschedule(asyncio.get_running_loop().time() + QUIET_SECONDS)
        await session.unsubscribe(filters[:1])
        try:
            self._raise_elder()
            await self._compare([delivery.message for delivery in ahead])
        except LinkError:
            await session.unsubscribe(filters[1:])  # or marks would gather there
            await session.disconnect()  # without the last will: nothing was published
            raise
        return ahead

    def _is_own(self, message: Message, name: str) -> bool:
        return message.topic == self._topics.marks and self.heard_mark(message.payload) == name

    def _load(self, view: View) -> tuple[dict[str, bytes], str | None]:
        seen = json.loads(broker_sql.fact(view, self._broker, _SEEN) or "{}")
        statuses = {topic: payload.encode() for topic, payload in seen.items()}
        return statuses, broker_sql.fact(view, self._broker, broker_sql.SPEAKER)

    async def _compare(self, messages: Sequence[Message]) -> None:
        """Find statuses of others that changed since the last check, or are new."""
        found = {each.topic: each.payload for each in messages if each.retain and self._is_foreign(each)}
        shared = self._topics.gateway_status(self._identity.gateway_id) if self._established else None
        changed = [
            topic
            for topic, payload in found.items()
            if topic == shared or self._statuses.get(topic, payload) != payload
        ]
        unseen = [topic for topic in found if topic not in (shared, *self._statuses)]
        if changed or unseen:
            self._statuses |= found
            kept = dict(list(self._statuses.items())[-_REMEMBERED:])
            await self._store.write(lambda tx: broker_sql.set_fact(tx, self._broker, _SEEN, _dumped(kept)))
        for topic in changed:
            said = _read(found[topic])
            self._meet(topic.split("/")[-2], str(said.get("started_at")), str(said.get("instance")))
        self._raise_elder()
        if unseen and not self._established:
            raise UnsettledError(f"Another gateway left a status on {unseen[0]}. Looking whether it is still at work.")
        await self._settle()

    async def _settle(self) -> None:
        """Note that this process says online from now on."""
        here = self._identity.instance
        if self._speaker != here:
            await self._store.write(lambda tx: broker_sql.set_fact(tx, self._broker, broker_sql.SPEAKER, here))
            self._speaker = here
        self._established = True

    def _is_foreign(self, message: Message) -> bool:
        """Return whether this is the status of another gateway, not of an earlier process on this registry."""
        if not self._topics.is_gateway_status(message.topic) or not message.payload:
            return False  # of a device: the session may hold retained messages that an earlier owner asked for
        instance = _read(message.payload).get("instance")
        if message.topic != self._topics.gateway_status(self._identity.gateway_id):
            return True
        if self._established:
            return instance != self._identity.instance
        return instance not in (None, self._identity.instance, self._speaker)


def _read(payload: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        said = parse_json(payload)
        if isinstance(said, dict):
            return said
    return {}


def _dumped(statuses: dict[str, bytes]) -> str:
    return json.dumps({topic: payload.decode(errors="replace") for topic, payload in statuses.items()})
