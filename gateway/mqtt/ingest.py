"""Ingest: parse what devices send, commit a batch, then acknowledge, in this order.

A message is acknowledged to the broker only after the commit that holds it. While the database cannot commit, nothing
is acknowledged. The broker then keeps what is not stored, and its in-flight window holds back the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

import structlog

from gateway.core import topics
from gateway.core.backoff import Backoff, Pauses
from gateway.core.clock import Clock
from gateway.core.limits import CellRate
from gateway.domain import message_batches, messages, plain_heartbeats
from gateway.domain.commands import Refusal
from gateway.domain.message_batches import Incoming
from gateway.domain.messages import Message, MessageResult, Parsed
from gateway.errors import StoreError
from gateway.mqtt.clearing import Clearing
from gateway.mqtt.session import ReceivedMessage, Session
from gateway.store import Store

log = structlog.get_logger()

SLICE: Final = 250
"""Messages that are parsed, or acknowledged, at a time: about a sixth of a millisecond."""
FEW: Final = 100
"""A batch of fewer heartbeats costs mostly its commit."""
FIRST_GATHERING_SECONDS: Final = 0.025
GATHERING_SECONDS: Final = 0.2
"""How long after such a batch the next one gathers: a slow stream shares five commits a second. The first pauses are
shorter, since it may be the beginning of a great many."""
RETRIES: Final = Pauses(first_seconds=0.2, longest_seconds=10.0)
_HEARTBEAT: Final = "/heartbeat"
_FROM_DEVICES: Final = (topics.HeartbeatTopic, topics.StatusTopic, topics.AckTopic)
_TOO_MANY: Final = "too_many_messages"
_BUDGETED: Final = (_HEARTBEAT, "/status")
_ACK: Final = "/ack"
_COMMANDS: Final = "/commands/"
SAVED_SECONDS: Final = 200
"""A device saves the message budget of so many seconds, or more.

The broker sends the messages of all devices in one stream and waits for acknowledgements. Delaying some would delay
all. What is over the budget is therefore acknowledged at once, and refused.
"""
SAVED_MESSAGES: Final = 10_000
"""At least so many messages are saved. A device that sends once a minute and was away for a week has a backlog."""
SAVED_ACKNOWLEDGEMENTS_SECONDS: Final = 2
SAVED_ACKNOWLEDGEMENTS: Final = 100
"""A device has few open commands, so few acknowledgements to catch up on. Each costs as much as ten heartbeats."""

_ANSWERED: Final = 10_000
"""Number of devices whose last answer is remembered."""


class FirstUses(Protocol):
    """Waits for the next message of some devices."""

    waiting: dict[str, int]

    def heard(self, device_ids: Iterable[str]) -> None:
        """Note that these devices have published something."""


class Ingest:
    """Receives what devices publish. Messages that no device may send go to ``heard``, for the comparison."""

    def __init__(
        self,
        store: Store,
        names: topics.Topics,
        heard: Callable[[Message], bool],
        on_acknowledged: Callable[[float], None] = lambda _: None,
        on_refused: Callable[[str], None] = lambda _: None,
        on_mark: Callable[[bytes], None] = lambda _: None,
        first_uses: FirstUses | None = None,
    ) -> None:
        self._store = store
        self._topics = names
        self._heard = heard
        self._on_acknowledged = on_acknowledged
        self._throttle = _one_a_second(store.context.clock)
        per_second = store.context.rules.device_messages_per_second
        self._budget = CellRate[str](per_second, store.context.clock, saved_seconds=SAVED_SECONDS, saved=SAVED_MESSAGES)
        self._over_budget = _one_a_second(store.context.clock)
        self._ack_budget = CellRate[str](
            per_second,
            store.context.clock,
            saved_seconds=SAVED_ACKNOWLEDGEMENTS_SECONDS,
            saved=SAVED_ACKNOWLEDGEMENTS,
        )
        self._news: set[tuple[str, bytes]] = set()
        """Acknowledgements of this batch that are over the budget, and accepted all the same."""
        self._doubtful: set[int] = set()
        """``id`` of each message of this batch that is over the budget and may be news."""
        self._on_refused = on_refused
        self._on_mark = on_mark
        self._clearing = Clearing()
        self._first_uses = first_uses
        self._marks: list[bytes] = []
        """Marks in the batch that is being parsed."""

    async def run(self, session: Session, ahead: Sequence[ReceivedMessage] = ()) -> None:
        """Receive messages until the connection is gone, first those that were read ahead.

        Raises:
            LinkError: it is gone; what was not acknowledged arrives again.
        """
        before: asyncio.Task[None] | None = None
        pause = FIRST_GATHERING_SECONDS
        self._clearing.begin()
        try:
            while True:
                deliveries, ahead = list(ahead) or await session.receive_batch(), ()
                count = len(deliveries)
                waiting, awaited = await self._admit_all(deliveries)  # while the batch before is committed
                marks, self._marks = self._marks, []
                retained = self._clearing.take()
                if before is not None:
                    await before
                take = self._take(session, deliveries, waiting, marks, retained)
                before = asyncio.create_task(take, name="ingest batch")
                if awaited:
                    session.expect_reply()  # after an acknowledgement the next is often on its way
                elif count < FEW:
                    await session.pause_reading_for(pause)
                    pause = min(2 * pause, GATHERING_SECONDS)
                else:
                    pause = FIRST_GATHERING_SECONDS
        finally:
            if before is not None:
                before.cancel()
                await asyncio.gather(before, return_exceptions=True)

    async def clear(self, session: Session, topics: Sequence[str]) -> None:
        """Clear what may be retained on these topics, and recognise the empty messages that come back.

        Raises:
            LinkError: the connection is gone.
        """
        await self._clearing.clear(session, topics)

    async def _take(
        self,
        session: Session,
        deliveries: list[ReceivedMessage],
        waiting: list[Incoming],
        marks: Sequence[bytes],
        retained: Sequence[str],
    ) -> None:
        """Commit all of a batch, and acknowledge what a commit holds before the next begins."""
        began = time.perf_counter()
        while waiting:
            count, answers = await self._commit(waiting)
            await _acknowledge(session, deliveries, waiting, count)
            self._on_acknowledged(time.perf_counter() - began)
            await self._answer(session, answers)
        for mark in marks:  # all that came before it is committed
            self._on_mark(mark)
        await self._clearing.clear(session, retained)

    async def _admit_all(self, deliveries: Sequence[ReceivedMessage]) -> tuple[list[Incoming], bool]:
        """Return all of them as they are to be stored, and whether a client may wait for one of them.

        A slice at a time, so that other tasks of the loop get a turn in between.
        """
        waiting: list[Incoming] = []
        awaited = False
        self._news.clear()
        self._doubtful.clear()
        if self._first_uses is not None and self._first_uses.waiting:
            self._first_uses.heard(self._speakers(deliveries))
        for begin in range(0, len(deliveries), SLICE):
            some = deliveries[begin : begin + SLICE]
            waiting += map(self._admit, some)
            if self._doubtful:
                await self._judge(waiting, begin)
            awaited = awaited or any(isinstance(taken, Parsed) and not _is_budgeted(taken) for taken in waiting[begin:])
            await asyncio.sleep(0)
        return waiting, awaited

    def _speakers(self, deliveries: Sequence[ReceivedMessage]) -> Iterator[str]:
        """Yield the ids of devices whose heartbeats have just arrived.

        A status may be a last will of an earlier session. An acknowledgement may be refused, and what is refused must
        not end a token. An empty message is the gateway's own: it clears what is retained.
        """
        for message in (delivery.message for delivery in deliveries):
            topic = None if message.retain else self._topics.parse(message.topic)
            if isinstance(topic, topics.HeartbeatTopic) and message.payload:
                yield topic.device_id

    def _admit(self, delivery: ReceivedMessage) -> Incoming:
        message = delivery.message
        topic, payload, retain, _ = message
        if (retain or not payload) and self._clearing.sees(message):
            return None
        if topic.endswith(_BUDGETED) and not self._budget.take(topic):
            return self._refuse_over_budget(message)
        if topic.endswith(_HEARTBEAT):
            return message
        if topic.endswith(_ACK):
            sender = topic.partition(_COMMANDS)[0]  # of any type, since a device can make up types
            if not self._ack_budget.take(sender):
                self._doubtful.add(id(message))
                return message
        parsed = messages.parse(self._topics, message)
        if isinstance(parsed.topic, topics.MarksTopic):
            self._marks.append(message.payload)
            return None
        from_device = isinstance(parsed.topic, _FROM_DEVICES)
        has_no_effect = parsed.body is None  # empty: it cleared its topic, as the gateway does at each bind
        return None if (has_no_effect if from_device else self._heard(message)) else parsed

    def _refuse_over_budget(self, message: Message) -> Parsed | None:
        """Store and answer one refusal a second, since each would cost as much as accepting it. All are counted."""
        if self._over_budget.take(message.topic.partition(_COMMANDS)[0]):
            return self._too_much(message)
        self._on_refused(_TOO_MANY)
        return None

    async def _judge(self, waiting: list[Incoming], begin: int) -> None:
        """Replace acknowledgements over the budget by what is to be stored of them."""
        for place, message in enumerate(waiting[begin:], begin):
            if isinstance(message, Message) and id(message) in self._doubtful:
                waiting[place] = await self._news_in(message) or self._refuse_over_budget(message)
        self._doubtful.clear()

    async def _news_in(self, message: Message) -> Parsed | None:
        """Accept an acknowledgement over the budget if it would change its command. No command has many of those."""
        word = (message.topic, message.payload)
        if word in self._news:
            return None
        parsed = messages.parse(self._topics, message)
        if not await self._store.read_small(lambda view: messages.is_news(view, parsed)):
            return None
        self._news.add(word)
        return parsed

    def _too_much(self, message: Message) -> Parsed:
        most = self._store.context.rules.device_messages_per_second
        log.warning("ingest.over_budget", topic=message.topic, per_second=most)
        return Parsed(
            message,
            self._topics.parse(message.topic),
            Refusal(
                _TOO_MANY,
                f"More than {most} messages a second for a long time. What is over that is not taken: send fewer.",
            ),
        )

    async def _commit(self, batch: list[Incoming]) -> tuple[int, list[MessageResult]]:
        """Commit; return how many of the first messages are committed now, and their results."""
        if not any(batch):
            return len(batch), []
        try:
            return await self._store_some(batch)
        except Exception:  # one unforeseen message must not hold up the others
            messages = [each for each in batch if each is not None]
            log.exception("ingest.batch_failed", messages=len(messages))
            return len(batch), [answer for each in messages for answer in await self._commit_alone(each)]

    async def _commit_alone(self, waiting: Message | Parsed) -> list[MessageResult]:
        message = waiting if isinstance(waiting, Message) else waiting.message
        try:
            _, answers = await self._store_some([waiting])
        except Exception:  # a bug of ours: logged in full, stored, and not asked for again
            log.exception("ingest.message_failed", topic=message.topic)
            return await self._keep_broken(message)
        return answers

    async def _keep_broken(self, message: Message) -> list[MessageResult]:
        broken = Parsed(
            message,
            None,
            Refusal("internal_error", "The gateway failed on this message and did not take it. Its log says why."),
        )
        try:
            _, answers = await self._store_some([broken])
        except Exception:  # the log has it in full
            log.exception("ingest.message_not_kept", topic=message.topic)
            return []
        return answers

    async def _store_some(self, batch: list[Incoming]) -> tuple[int, list[MessageResult]]:
        """Store as many of the first as one transaction holds; try again until the registry can be written."""
        backoff = Backoff(RETRIES)
        while True:
            try:
                return await self._store_once(batch)
            except StoreError as error:
                pause = backoff.pause()
                log.error("ingest.not_stored", reason=error.message, retry_in_seconds=round(pause, 3))  # noqa: TRY400 - no bug of ours
            await asyncio.sleep(pause)

    async def _store_once(self, batch: list[Incoming]) -> tuple[int, list[MessageResult]]:
        """Store the plain heartbeats of the first messages beside other gateways, then the rest of those alone.

        What the first transaction holds is taken out of ``batch`` at once, so it is not stored again when the second
        one fails.
        """
        first: Sequence[Incoming] = batch
        if not self._store.is_local and any(isinstance(each, Message) for each in batch):
            count, places = await self._store.write_batch(
                lambda tx: plain_heartbeats.store_plain(tx, batch, self._topics), shared=True
            )
            for place in places:
                batch[place] = None
            first = batch[:count]
            if not any(first):
                return count, []
        return await self._store.write_batch(lambda tx: message_batches.process_batch(tx, first, self._topics))

    async def _answer(self, session: Session, answers: Sequence[MessageResult]) -> None:
        for answer in answers:
            if self._throttle.take(answer.device_id):
                refusal = answer.refusal
                log.info("message.refused", device_id=answer.device_id, code=refusal.code, field=refusal.field)
                await session.publish(self._topics.errors(answer.device_id), messages.error_payload(refusal), qos=0)


def _is_budgeted(taken: Parsed) -> bool:
    return taken.message.topic.endswith(_BUDGETED)


async def _acknowledge(
    session: Session, deliveries: list[ReceivedMessage], waiting: list[Incoming], count: int
) -> None:
    """Acknowledge the first so many, which are stored.

    A slice at a time: freeing them takes as long as acknowledging them.
    """
    for begin in range(0, count, SLICE):
        some = slice(min(SLICE, count - begin))
        session.acknowledge(deliveries[some])
        del deliveries[some], waiting[some]
        await asyncio.sleep(0)


def _one_a_second(clock: Clock) -> CellRate[str]:
    """Return the limit for answers to devices, and for log lines that a device causes."""
    return CellRate(1, clock, saved_seconds=1, remembered=_ANSWERED)
