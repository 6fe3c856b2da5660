"""A batch of messages does what its messages do one after the other: same content, events, measures and answers."""

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.topics import Topics
from gateway.domain import heartbeats, message_batches, messages
from gateway.domain.message_batches import Incoming
from gateway.domain.messages import Message, MessageResult, Parsed
from gateway.models.heartbeats import Heartbeat
from gateway.store import Batch, Context, Rules, Tx, open_database, outbox_sql
from gateway.store.device_cache import DeviceCache
from gateway.store.dialect import POSTGRESQL, SQLITE
from gateway.store.measurements import Measure
from gateway.store.postgres.steps import STEP_TABLE
from tests.domain.support import World
from tests.support.dump import COUNTERS

RULES = Rules(heartbeat_history_days=2, mirrored=(outbox_sql.STATE, outbox_sql.DISCOVERY))
PART = 3
"""Messages in a part of a batch, so that a batch has several."""
DAY_MS = 86_400_000
BATTERIES = st.none() | st.integers(15, 25) | st.just(20.0) | st.just(101)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "battery_percent": BATTERIES,
        "storage_used_mb": st.integers(0, 3),
        "flags": st.sampled_from([0, 2, 4, 6, 8, 16]),
        "device_state": st.sampled_from(["idle", "lowBattery", "storageFull", "asleep"]),
        "firmware_version": st.sampled_from(["1.0", "1.1"]),
        "pending_recordings": st.integers(0, 2),
        "device_name": st.just("Ward 3"),
        "connection_type": st.sampled_from([["wifi"], ["4g", "ble"], []]),
        "sent_at": st.integers(0, 5).map(lambda second: f"2026-11-10T11:59:0{second}Z"),
        "last_command": st.just({"command_id": "cmd_X", "status": "executed"}),
    },
)
LEAVES = st.tuples(st.just("heartbeat"), BODIES) | st.tuples(
    st.just("status"), st.sampled_from([{"status": "offline"}, {"status": "online"}, {}])
)
DEVICES = ("active", "waits", "revoked", "deleted", "unknown", "second")
STEPS = st.lists(st.tuples(st.sampled_from(DEVICES), LEAVES, st.booleans()), min_size=2, max_size=14)
BETWEEN = ("nothing", "unbind", "threshold", "other process", "undone", "day", "set back", "prune", "sweep")
BATCHES = st.lists(st.tuples(st.sampled_from(BETWEEN), STEPS), min_size=1, max_size=5)


class Fleet:
    """A registry with one device in each state that matters, made alike each time."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory, rules=RULES).__enter__()
        if self.world.view.dialect is SQLITE:
            self.world.connection.execute("PRAGMA synchronous = OFF")
        self.ids = {name: self.world.bound(name)[0] for name in DEVICES if name != "unknown"}
        self.ids["unknown"] = "dev_UNKNOWN"
        self.world.reset(self.ids["waits"])
        self.world.unbind(self.ids["revoked"])
        self.world.delete(self.ids["deleted"])
        self.measures: Counter[tuple[str, str]] = Counter()
        self.kept = DeviceCache()
        self.with_token = {self.ids[name] for name in ("active", "second", "waits")}

    def messages(self, steps: list[Any]) -> list[Message]:
        """The messages of a batch."""
        return [
            Message(f"devices/{self.ids[who]}/{leaf}", json.dumps(body).encode(), retain)
            for who, (leaf, body), retain in steps
        ]

    def take(self, batch: list[Message], *, together: bool) -> list[MessageResult]:
        """All in one transaction; one by one in the order in which a batch goes."""

        def write(tx: Tx) -> tuple[list[MessageResult], list[Measure]]:
            if together:
                return _cut_short(Batch(tx, self.kept, lambda: len(batch) % 2 == 0), batch), tx.measures
            parsed = [messages.parse(self.world.names, each) for each in batch]
            answers = [messages.apply(tx, each) for each in _regrouped(parsed, self.with_token)]
            return [each for each in answers if each is not None], tx.measures

        self.world.now += 1_000
        answers, done = self.world.run(write)
        for name, label, value in done:
            self.measures[name, label] += int(value)
        return answers

    def meanwhile(self, what: str, batch: list[Message]) -> None:
        """What happens before a batch: to the device that says most, by this process or by another, or undone."""
        match what:
            case "unbind":
                self.world.unbind(self.ids["active"])
                self.with_token.discard(self.ids["active"])
            case "threshold":
                self.world.update(self.ids["active"], settings={"power": {"low_battery_threshold_percent": 24}})
            case "other process":
                with closing(open_database(self.world.data_dir)) as other:
                    other.execute("UPDATE health SET connection = 'offline', battery_percent = 1")
            case "undone":
                self._undone(batch)
            case "day":
                self.world.now += DAY_MS
            case "set back":
                self.world.now -= DAY_MS
            case "prune":
                self.world.run(heartbeats.prune)
            case "sweep":
                self.world.now += RULES.silence_ms
                self.world.run(heartbeats.sweep_presence)

    def _undone(self, batch: list[Message]) -> None:
        """The batch itself, but it cannot be committed: as the writer does, what it remembers is dropped."""
        self.world.connection.begin()
        tx = Tx(self.world.connection, Context(RULES, clock=lambda: self.world.now))
        message_batches.process_batch(Batch(tx, self.kept), batch, self.world.names)
        self.world.connection.execute("ROLLBACK")
        self.kept.forget()

    def content(self) -> list[str]:
        """All rows; of the outbox what is marked, since a mark that is set again has only another number."""
        rows = self.world.dump("outbox", "_sqlite_migrations", STEP_TABLE, *COUNTERS)
        marks = self.world.view.all("SELECT kind, device_pk, detail, not_before FROM outbox ORDER BY 1, 2, 3")
        return [*rows, *(str(tuple(mark)) for mark in marks)]


def _cut_short(batch: Batch, incoming: Sequence[Incoming]) -> list[MessageResult]:
    """Every other batch stops after each of its parts, as if an urgent write waited, and goes on."""
    answers: list[MessageResult] = []
    while incoming:
        count, more = message_batches.process_batch(batch, incoming, Topics())
        incoming, answers = incoming[count:], answers + more
    return answers


def _regrouped(batch: list[Parsed], with_token: set[str]) -> list[Parsed]:
    """In each part devices that have a token and say nothing but plain heartbeats come first; each keeps its order."""

    def plain(parsed: Parsed) -> bool:
        return isinstance(parsed.body, Heartbeat) and parsed.body.last_command is None

    def sender(parsed: Parsed) -> str:
        return str(getattr(parsed.topic, "device_id", ""))

    def sorted_part(part: list[Parsed]) -> list[Parsed]:
        first = with_token - {sender(each) for each in part if not plain(each)}
        return sorted(part, key=lambda each: sender(each) not in first)

    parts = (batch[begin : begin + PART] for begin in range(0, len(batch), PART))
    return [each for part in parts for each in sorted_part(part)]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(batches=BATCHES)
def test_a_batch_has_the_effect_of_its_messages_one_by_one(batches: list[Any]) -> None:
    """Whatever devices send, in any order: replays, refusals, offline messages, open resets, unknown devices.

    And whatever happens between two batches to what is remembered from one to the next.
    """
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        mock.patch.dict(vars(SQLITE), together=PART),
        mock.patch.dict(vars(POSTGRESQL), together=PART),
        mock.patch.object(message_batches, "LEAST", PART),
    ):
        together, alone = Fleet(Path(one)), Fleet(Path(other))
        try:
            assert together.ids == alone.ids, "the randomness is seeded"
            for meanwhile, steps in batches:
                batch = together.messages(steps)
                for fleet in (together, alone):
                    fleet.meanwhile(meanwhile, batch)
                assert together.take(batch, together=True) == alone.take(batch, together=False)
            assert together.content() == alone.content()
            assert together.measures == alone.measures
        finally:
            together.world.connection.close()
            alone.world.connection.close()
