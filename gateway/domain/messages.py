"""Messages from devices over MQTT: bytes become a frozen model, and the model is dispatched to its verb.

A refused message changes nothing. It is counted, stored for diagnosis and answered on the device's ``errors`` topic
(contract, section 3).
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from gateway.core import topics
from gateway.core.clock import DAY_MS, MINUTE_MS
from gateway.core.redaction import redact
from gateway.domain import acknowledgements, heartbeats
from gateway.domain.acknowledgements import AcknowledgementSource
from gateway.domain.commands import Refusal
from gateway.models.commands import Ack
from gateway.models.heartbeats import Heartbeat, Status
from gateway.models.mqtt import RefusedMessage
from gateway.models.validation import invalid
from gateway.store import (
    Tx,
    View,
    command_sql,
    device_sql,
    event_budget_sql,
    event_sql,
    health_sql,
    home_sql,
    measurements,
    outbox_sql,
)
from gateway.store.device_cache import SenderRecord
from gateway.store.records import DeviceKey

MAX_PAYLOAD_BYTES: Final = 65_536
_AUDITED_PER_MINUTE: Final = 10
_REFUSED: Final = "acknowledgement.refused"
_SOURCE_SHOWN: Final = 256
_PAYLOAD_READ: Final = 1_024

M = TypeVar("M", bound=BaseModel)
_read_heartbeat: Final = TypeAdapter(Heartbeat).validator.validate_json


class Message(NamedTuple):
    """One message as it came from the broker."""

    topic: str
    payload: bytes
    retain: bool = False
    traceparent: str | None = None
    """The sender's place in a trace, if it sends one (MQTT 5)."""


Body = Heartbeat | Status | Ack | Refusal | None


class Parsed(NamedTuple):
    """A parsed message: its topic, and the model or the reason why it was refused.

    ``None`` stands for the empty message that cleared a retained one and has no effect.
    """

    message: Message
    topic: topics.Topic | None
    body: Body
    plain: str = ""
    """The device of a heartbeat that says nothing of commands: many of those can be stored together."""


class MessageResult(NamedTuple):
    """The answer on the device's ``errors`` topic."""

    device_id: str
    refusal: Refusal


def parse(names: topics.Topics, message: Message) -> Parsed:
    """Parse a message. It never raises: a flaw becomes a refusal."""
    topic = names.parse(message.topic)
    if isinstance(topic, topics.HeartbeatTopic) and not message.retain and len(message.payload) <= MAX_PAYLOAD_BYTES:
        body = read_heartbeat(message.payload)
        plain = isinstance(body, Heartbeat) and body.last_command is None
        return Parsed(message, topic, body, topic.device_id if plain else "")
    return Parsed(message, topic, _body(topic, message))


def read_heartbeat(payload: bytes) -> Heartbeat | Refusal:
    """Return the heartbeat, or why it is refused."""
    try:
        heartbeat: Heartbeat = _read_heartbeat(payload)
    except ValidationError as error:
        return _invalid(error)
    return heartbeat


def _retained(message: Message) -> Refusal | None:
    """Refuse a heartbeat that was sent retained. An empty message is its clearing."""
    if not message.payload:
        return None
    return Refusal("retained_heartbeat", "A heartbeat should not be retained: publish it with retain off.")


def _body(topic: topics.Topic | None, message: Message) -> Body:
    if len(message.payload) > MAX_PAYLOAD_BYTES:
        return Refusal(
            "payload_too_large", f"The payload has {len(message.payload)} bytes. Send at most {MAX_PAYLOAD_BYTES}."
        )
    match topic:
        case topics.HeartbeatTopic():
            return _retained(message) if message.retain else read_heartbeat(message.payload)
        case topics.StatusTopic():
            return _validate(Status, message.payload) if message.payload else None
        case topics.AckTopic():
            # An empty one is a clearing that comes back live: the gateway clears here, and QoS 1 may double that.
            return _validate(Ack, message.payload) if message.payload else None
        case _:
            return Refusal(
                "wrong_topic",
                "The gateway takes no messages on this topic. A device publishes to its own heartbeat, status and "
                "commands/{type}/ack, beneath devices/{id}.",
            )


def _validate(kind: type[M], payload: bytes) -> M | Refusal:
    try:
        return kind.model_validate_json(payload)
    except ValidationError as error:
        return _invalid(error)


def _invalid(error: ValidationError) -> Refusal:
    problem = invalid(error, whole="The payload")
    return Refusal("invalid_request", problem.message, problem.details["field"])


def apply(tx: Tx, parsed: Parsed) -> MessageResult | None:
    """Do what the message asks, or refuse it. Return the answer for the device's ``errors`` topic, or None."""
    tx.traceparent = parsed.message.traceparent
    device = None if parsed.topic is None else _sender(tx, parsed.topic)
    if parsed.body is None or (device is None and _left_behind(tx, parsed.topic)):
        return None
    outcome = parsed.body if isinstance(parsed.body, Refusal) else _dispatch(tx, parsed, device)
    if outcome is None:
        return None
    _refuse(tx, parsed, device, outcome)
    return None if device is None else MessageResult(device.id, outcome)


def _sender(tx: Tx, topic: topics.Topic) -> SenderRecord | None:
    if isinstance(topic, topics.GatewayStatusTopic | topics.MarksTopic):
        return None
    return health_sql.device_state(tx, topic.device_id)


def _left_behind(tx: Tx, topic: topics.Topic | None) -> bool:
    """Return whether this is the status of a deleted device, such as the last will of a session that was cut for that.

    It is retained, and must be cleared (contract, section 3).
    """
    known = device_sql.any_by_id(tx, topic.device_id) if isinstance(topic, topics.StatusTopic) else None
    if known is None or known.deleted_at is None:
        return False
    outbox_sql.mark_topic(tx, known.pk, outbox_sql.STATUS, broker=tx.context.broker)
    return True


def _dispatch(tx: Tx, parsed: Parsed, device: SenderRecord | None) -> Refusal | None:
    if device is None:
        return Refusal(
            "unknown_device", "No such device is registered here, or it was deleted. Register or restore it."
        )
    match parsed.body:
        case Ack():
            command_type = parsed.topic.type if isinstance(parsed.topic, topics.AckTopic) else None
            outcome = acknowledgements.acknowledge(tx, device, command_type, parsed.body)
            return outcome if isinstance(outcome, Refusal) else None
        case Status():
            _status(tx, device, parsed.body, retained=parsed.message.retain)
        case Heartbeat():
            if device.token_state is None:
                return Refusal(
                    "token_revoked",
                    "The token of this device was revoked. Bind the device again, and give it the new one.",
                )
            return heartbeats.record_heartbeat(tx, device, parsed.body, parsed.body.radio, at_broker=True)
    return None


def is_news(view: View, parsed: Parsed) -> bool:
    """Return whether this is an acknowledgement that would change its command, by a few indexed look-ups."""
    if not isinstance(parsed.topic, topics.AckTopic) or not isinstance(parsed.body, Ack):
        return False
    if command_sql.by_id(view, parsed.body.command_id) is None:
        return False  # the usual case in a flood: one look-up
    device = device_sql.by_id(view, parsed.topic.device_id)
    return device is not None and acknowledgements.is_news(view, device, parsed.topic.type, parsed.body)


def _status(tx: Tx, device: SenderRecord, status: Status, *, retained: bool) -> None:
    # Its token opened nothing when it said so, and the broker did not know that yet: what it left there is wrong.
    is_stale = status.status == "online" and device.token_state is None
    # A move has ended or will end this session.
    if is_stale or not home_sql.is_served(tx, device.pk, tx.context.broker):
        outbox_sql.mark_topic(tx, device.pk, outbox_sql.STATUS, broker=tx.context.broker)
    if status.status == "offline":
        (heartbeats.left_broker if retained else heartbeats.device_offline)(tx, device)
    elif not retained and device.token_state is not None:
        # A retained online message may be older than the silence after it: the next heartbeat decides.
        heartbeats.device_online(tx, device)


def _refuse(tx: Tx, parsed: Parsed, device: SenderRecord | None, refusal: Refusal) -> None:
    claimed = getattr(parsed.topic, "device_id", None)
    if device is not None and isinstance(parsed.topic, topics.AckTopic):
        audit_rejection(tx, device, refusal)
    elif device is not None and isinstance(parsed.body, Heartbeat) and device.token_state is not None:
        audit_last_command(tx, device, refusal)
    record_rejection(tx, claimed, parsed.message.topic, refusal, parsed.message.payload)


def record_rejection(tx: Tx, device_id: str | None, source: str, refusal: Refusal, payload: bytes) -> None:
    """Store a refused message for diagnosis, with secrets redacted."""
    tx.measure(measurements.REFUSAL, refusal.code)
    shown = redact(payload[:_PAYLOAD_READ].decode("utf-8", "replace")).replace("\0", "\ufffd")
    source = redact(source.encode("utf-8", "replace").decode())[:_SOURCE_SHOWN]
    health_sql.refuse(tx, device_id, source, refusal.code, refusal.message, refusal.field, shown)


def audit_rejection(
    tx: Tx,
    device: DeviceKey,
    refusal: Refusal,
    sender: AcknowledgementSource | None = None,
    *,
    most: int = _AUDITED_PER_MINUTE,
    window_ms: int = MINUTE_MS,
) -> None:
    """Write a refused acknowledgement into the audit trail, ``most`` in ``window_ms`` (milliseconds) per device."""
    if event_sql.recent(tx, device.pk, _REFUSED, tx.now - window_ms, tx.now) >= most:
        return
    said = {"code": refusal.code, "field": refusal.field}
    if sender is None:
        event_budget_sql.record(tx, device, _REFUSED, device.id, **said)
    else:  # a key that forges acknowledgements must not hide behind the device's own budget
        event_sql.record(tx, device, _REFUSED, sender.actor, **said, **sender.facts)


def audit_last_command(
    tx: Tx, device: SenderRecord, refusal: Refusal, sender: AcknowledgementSource | None = None
) -> None:
    """Write a refused ``last_command`` into the audit trail.

    Firmware repeats it with every heartbeat, so one event a day per device is enough. A relayed one is written each
    time, within the bounds of :func:`audit_rejection`: a key that forges them must not hide behind a device's own
    refusal.
    """
    if sender is None:
        audit_rejection(tx, device, refusal, most=1, window_ms=DAY_MS)
    else:
        audit_rejection(tx, device, refusal, sender)


def error_payload(refusal: Refusal) -> bytes:
    """Return a refusal as the payload for a device's ``errors`` topic."""
    answer = RefusedMessage(code=refusal.code, message=refusal.message, field=refusal.field)
    return answer.model_dump_json().encode()
