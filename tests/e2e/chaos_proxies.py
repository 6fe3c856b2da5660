"""The lines of a chaos round: between gateway and broker, recording what was acknowledged and published."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.proxy import Direction, MqttProxy, ProxiedConnection, packet_of
from tests.support.wire import Kind, Packet, parse_publish

_MQTT_5 = 5
_LEVEL_AT = 6  # of a CONNECT: after the length-prefixed name of the protocol


@dataclass(frozen=True)
class DeliveredMessage:
    """A message that the broker handed to the gateway."""

    topic: str
    payload: bytes

    @property
    def heartbeat(self) -> tuple[str, str] | None:
        """Device id and `sent_at`, if this is a heartbeat; an empty message clears what was retained there."""
        root, device_id, leaf = (*self.topic.split("/", 2), "")[:3]
        return (
            (device_id, json.loads(self.payload).get("sent_at", ""))
            if self.payload and (root, leaf) == ("devices", "heartbeat")
            else None
        )


@dataclass
class _ConnectionState:
    """What one connection has been told and has not answered yet, by packet id."""

    is_mqtt5: bool = False
    unanswered: dict[int, DeliveredMessage] = field(default_factory=dict)


class RecordingBrokerProxy(MqttProxy):
    """`acknowledged` is what the gateway has answered for with a PUBACK; `commands` the ids it has published."""

    def __init__(self, target_port: Callable[[], int]) -> None:
        super().__init__(target_port)
        self.acknowledged: list[DeliveredMessage] = []
        self.commands: set[str] = set()

    def record_incoming(self, line: ProxiedConnection, towards: Direction, piece: bytes) -> None:
        """Take note when the gateway has said something, whether or not that arrives."""
        if towards is Direction.SERVER:
            self._record_sent(_state_of(line), packet_of(piece))

    def record_forwarded(self, line: ProxiedConnection, towards: Direction, piece: bytes) -> None:
        """Take note of what has reached the gateway."""
        packet = packet_of(piece)
        if towards is Direction.CLIENT and packet.kind == Kind.PUBLISH:
            state = _state_of(line)
            message = parse_publish(packet)
            state.unanswered[message.packet_id] = DeliveredMessage(message.topic, _payload(state, message.payload))

    def _record_sent(self, state: _ConnectionState, packet: Packet) -> None:
        match packet.kind:
            case Kind.CONNECT:
                state.is_mqtt5 = packet.body[_LEVEL_AT] == _MQTT_5
            case Kind.PUBACK:
                delivered = state.unanswered.pop(int.from_bytes(packet.body[:2]), None)
                if delivered is not None:
                    self.acknowledged.append(delivered)
            case Kind.PUBLISH:
                message = parse_publish(packet)
                payload = _payload(state, message.payload)
                if payload and "/commands/" in message.topic:
                    self.commands.add(json.loads(payload)["id"])


def _state_of(line: ProxiedConnection) -> _ConnectionState:
    state = line.notes.setdefault("life", _ConnectionState())
    assert isinstance(state, _ConnectionState)
    return state


def _payload(state: _ConnectionState, rest: bytes) -> bytes:
    """What follows the packet id; MQTT 5 has properties before it, here always fewer than 128 bytes."""
    return rest[1 + rest[0] :] if state.is_mqtt5 else rest
