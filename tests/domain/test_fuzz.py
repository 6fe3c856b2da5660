"""Fuzzing of what comes in over MQTT, and of changes: refused in words or taken whole, and never an exception."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.core import topics
from gateway.core.command_types import CommandType
from gateway.domain import device_updates, messages
from gateway.domain.commands import Refusal
from gateway.errors import InvalidRequestError
from gateway.models import device_settings
from gateway.models.commands import Ack
from gateway.models.devices import UpdateDevice
from gateway.models.heartbeats import Heartbeat, Status
from gateway.models.states import CommandStatus, DeviceState
from gateway.models.validation import invalid
from gateway.store import Tx
from gateway.store.engine import DatabaseConnection
from tests.domain.support import World
from tests.support.fuzzing import JSON, TEXTS, Target, encoded, fuzz, leaks, mangled, objects

CORPUS = Path(__file__).parent / "corpus"

BOUND, WAITING, DELETED = "dev_BOUND", "dev_WAITING", "dev_DELETED"
"""Stand in inputs for the devices that there are, whose ids are only known when the registry is made."""

_STATE = (
    "SELECT pk, end_user_id, binding_generation, name, metadata, settings, deleted_at FROM devices",
    "SELECT id, state FROM tokens",
    "SELECT id, status, result, error FROM commands",
    "SELECT kind, device_pk, detail FROM outbox WHERE kind IN ('command', 'credential')",
)


class FuzzRegistry:
    """A registry with a device that is bound, one whose reset is open, and one that is deleted."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.bound, _ = world.bound("BOUND")
        self.waiting, self.token = world.bound("WAITING")
        self.command = world.reset(self.waiting)
        self.deleted, _ = world.bound("DELETED")
        world.delete(self.deleted)
        self._names = {BOUND: self.bound, WAITING: self.waiting, DELETED: self.deleted, "cmd_A": self.command.id}

    def filled(self, raw: bytes) -> bytes:
        """The input with real ids in it."""
        for name, real in self._names.items():
            raw = raw.replace(name.encode(), real.encode())
        return raw

    def state(self, connection: DatabaseConnection) -> list[Any]:
        """What no refusal may change."""
        return [tuple(row) for sql in _STATE for row in connection.execute(sql)]


@pytest.fixture
def fuzz_registry(tmp_path: Path) -> Iterator[FuzzRegistry]:
    """A registry on disk; what an input does to it is taken back."""
    with World(tmp_path) as world:
        yield FuzzRegistry(world)


def assert_helpful(refusal: Refusal) -> None:
    """A refusal has a code, names a field or the whole, says what to do, and repeats no secret."""
    assert re.fullmatch(r"[a-z_]+", refusal.code)
    assert refusal.message.endswith("."), refusal.message
    assert len(refusal.message) < 1_000
    assert leaks(f"{refusal.message} {refusal.field}") == []
    json.loads(messages.error_payload(refusal))


# --- topics -----------------------------------------------------------------------------------------------------------

TOPICS = Target(
    "topics",
    0.22,
    st.one_of(
        mangled(
            st.sampled_from(
                ["devices/dev_A/heartbeat", "devices/dev_A/commands/reboot/ack", "site/gateways/gw_1/status"]
            ).map(str.encode)
        ),
        st.lists(
            st.one_of(st.sampled_from(["devices", "gateways", "commands", "ack", "+", "#", "$SYS", "site"]), TEXTS),
            max_size=7,
        ).map(lambda levels: "/".join(levels).encode("utf-8", "surrogatepass")),
    ),
)


def test_random_topics_never_break_the_parser() -> None:
    """None, or a topic that is written again exactly as it came."""

    def check(raw: bytes) -> None:
        text = raw.decode("utf-8", "replace")
        for names in (topics.Topics(), topics.Topics("site/")):
            written = _written(names, names.parse(text))
            assert written is None or written == text

    fuzz(TOPICS, check, CORPUS / "topics.json")


def _written(names: topics.Topics, topic: topics.Topic | None) -> str | None:
    match topic:
        case topics.HeartbeatTopic():
            return names.heartbeat(topic.device_id)
        case topics.StatusTopic():
            return names.status(topic.device_id)
        case topics.AckTopic():
            return names.ack(topic.device_id, topic.type)
        case topics.CommandTopic():
            return names.command(topic.device_id, topic.type)
        case topics.GatewayStatusTopic():
            return names.gateway_status(topic.gateway_id)
    return None


# --- messages ---------------------------------------------------------------------------------------------------------

_RECEIPTS = st.one_of(st.just("A" * 43), TEXTS)
_LAST = objects(
    {"command_id": st.just("cmd_A"), "status": st.sampled_from(["executed", "failed"]), "receipt": _RECEIPTS}
)
HEARTBEAT = objects(
    {
        "battery_percent": st.integers(0, 100) | st.floats(0, 100),
        "storage_used_mb": st.floats(min_value=0, allow_infinity=False) | st.integers(0, 10**19),
        "storage_total_mb": st.integers(0, 2**53),
        "signal_strength_dbm": st.integers(-200, 0),
        "firmware_version": st.text(max_size=32),
        "device_name": st.text(max_size=64),
        "device_state": st.sampled_from([str(each) for each in DeviceState]),
        "pending_recordings": st.integers(0, 2**63),
        "flags": st.integers(0, 255),
        "connection_type": st.lists(st.sampled_from(["wifi", "4g", "ble"]), max_size=3),
        "sent_at": st.datetimes().map(lambda moment: f"{moment.isoformat()}Z"),
        "last_command": _LAST,
    }
)
ACK = objects(
    {
        "command_id": st.sampled_from(["cmd_A", "cmd_B"]),
        "status": st.sampled_from([str(each) for each in CommandStatus]),
        "receipt": _RECEIPTS,
        "result": st.dictionaries(TEXTS, JSON, max_size=2),
        "error": objects({"code": TEXTS, "message": TEXTS}),
    }
)
STATUS = objects({"status": st.sampled_from(["online", "offline"])})
_DEVICES = st.sampled_from([BOUND, WAITING, DELETED, "dev_NOBODY"])


def _message(retain: bool, device: str, leaf: str, payload: bytes) -> bytes:  # noqa: FBT001 - called by Hypothesis
    return b"-R"[retain : retain + 1] + f"devices/{device}/{leaf}\n".encode() + payload


MESSAGES = Target(
    "messages",
    0.26,
    st.one_of(
        st.builds(_message, st.booleans(), _DEVICES, st.just("heartbeat"), encoded(HEARTBEAT)),
        st.builds(
            _message,
            st.booleans(),
            _DEVICES,
            st.sampled_from([f"commands/{each}/ack" for each in CommandType]),
            encoded(ACK),
        ),
        st.builds(_message, st.booleans(), _DEVICES, st.just("status"), encoded(STATUS)),
        mangled(st.builds(_message, st.booleans(), _DEVICES, st.just("heartbeat"), encoded(JSON))),
    ),
)


def test_random_messages_never_break_the_registry(fuzz_registry: FuzzRegistry) -> None:
    """A heartbeat, status or acknowledgement is taken, or refused and answered; a refused one changes nothing."""

    def check(raw: bytes) -> None:
        head, _, payload = fuzz_registry.filled(raw).partition(b"\n")
        message = messages.Message(head[1:].decode("utf-8", "replace"), payload, head[:1] == b"R")
        fuzz_registry.world.connection.begin()
        try:
            _take(fuzz_registry, Tx(fuzz_registry.world.connection, fuzz_registry.world.context), message)
        finally:
            fuzz_registry.world.connection.execute("ROLLBACK")

    fuzz(MESSAGES, check, CORPUS / "messages.json")


def _take(fuzz_registry: FuzzRegistry, tx: Tx, message: messages.Message) -> None:
    before = fuzz_registry.state(tx.connection)
    parsed = messages.parse(fuzz_registry.world.names, message)
    answer = messages.apply(tx, parsed)
    if isinstance(parsed.body, Heartbeat | Status | Ack):
        kind = type(parsed.body)
        assert kind.model_validate_json(parsed.body.model_dump_json(exclude_unset=True)) == parsed.body
    if answer is not None:
        assert_helpful(answer.refusal)
        assert fuzz_registry.state(tx.connection) == before
    for row in tx.all("SELECT source, message, field, payload FROM refusals"):
        assert leaks(" ".join(str(each) for each in row)) == []


# --- changes of a device ----------------------------------------------------------------------------------------------

SETTINGS = objects(
    {
        "connection": objects(
            {
                "enabled_connections": objects({"wifi": st.booleans(), "cellular": st.booleans()}),
                "upload_network_preference": st.lists(st.sampled_from(["wifi", "ble", "cellular"]), max_size=4),
                "power_management": objects(
                    {
                        "wifi_idle_timeout_seconds": st.sampled_from([-2, -1, 0, 9, 10, 2540, 2541]),
                        "cellular_idle_timeout_seconds": st.integers(0, 3_000),
                    }
                ),
            }
        ),
        "upload": objects(
            {
                "streaming_enabled": st.booleans(),
                "streaming_chunk_kb": st.integers(60, 1_030),
                "daily_data_limit_mb": st.integers(-1, 10**7),
                "off_peak_hours": st.none()
                | objects(
                    {
                        "start": st.just("22:00"),
                        "end": st.just("06:00"),
                        "enabled": st.booleans(),
                        "timezone": st.sampled_from(["UTC", "Europe/Berlin", "utc", "../UTC", "\0", None]),
                    }
                ),
            }
        ),
        "audio": objects(
            {
                "codec": st.sampled_from(["opus", "aac", "wav", "mp3"]),
                "sample_rate_khz": st.sampled_from([16, 24, 48, 44]),
                "bitrate_kbps": st.integers(0, 330),
            }
        ),
        "power": objects(
            {"auto_sleep_minutes": st.integers(-1, 2_000), "low_battery_threshold_percent": st.integers(-1, 101)}
        ),
    }
)
CHANGE = objects(
    {
        "name": st.text(max_size=140) | st.none(),
        "firmware_version": st.text(max_size=40) | st.none(),
        "metadata": st.dictionaries(TEXTS, JSON, max_size=3) | st.none(),
        "settings": SETTINGS,
    }
)
CHANGES = Target("changes", 0.14, encoded(CHANGE))


def test_random_changes_never_break_the_registry(fuzz_registry: FuzzRegistry) -> None:
    """`PATCH` of name, metadata and settings: refused with the field, or taken, and then it reads back the same."""

    def check(raw: bytes) -> None:
        fuzz_registry.world.connection.begin()
        try:
            _change(fuzz_registry, Tx(fuzz_registry.world.connection, fuzz_registry.world.context), raw)
        finally:
            fuzz_registry.world.connection.execute("ROLLBACK")

    fuzz(CHANGES, check, CORPUS / "changes.json")


def _change(fuzz_registry: FuzzRegistry, tx: Tx, raw: bytes) -> None:
    before = fuzz_registry.state(tx.connection)
    try:
        change = _parsed(raw)
        device = device_updates.update(tx, fuzz_registry.world.project_id, fuzz_registry.bound, change, "key_1")
    except InvalidRequestError as refusal:
        _is_a_good_refusal(refusal)
        _is(fuzz_registry.state(tx.connection), before)
        return
    shown = device_settings.with_defaults(json.loads(device.settings))
    again = UpdateDevice.model_validate_json(json.dumps({"name": device.name, "settings": shown}))
    assert (
        device_updates.update(tx, fuzz_registry.world.project_id, fuzz_registry.bound, again, "key_1").settings
        == device.settings
    )


def _is_a_good_refusal(refusal: InvalidRequestError) -> None:
    assert refusal.message.endswith("."), refusal.message
    assert leaks(f"{refusal.message} {refusal.details}") == []


def _is(now: list[Any], before: list[Any]) -> None:
    assert now == before


def _parsed(raw: bytes) -> UpdateDevice:
    try:
        return UpdateDevice.model_validate_json(raw)
    except ValidationError as error:
        raise invalid(error, whole="The body") from error
