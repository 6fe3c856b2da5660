"""The lines of a chaos round: between gateway and broker, recording what was acknowledged and published."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.proxy import Line, MqttProxy, Towards, packet_of
from tests.support.wire import Kind, Packet, parse_publish

_MQTT_5 = 5
_LEVEL_AT = 6  # of a CONNECT: after the length-prefixed name of the protocol


@dataclass(frozen=True)
class Heard:
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
class _Life:
    """What one connection has been told and has not answered yet, by packet id."""

    modern: bool = False
    unanswered: dict[int, Heard] = field(default_factory=dict)


class BrokerLine(MqttProxy):
    """`acknowledged` is what the gateway has answered for with a PUBACK; `commands` the ids it has published."""

    def __init__(self, target_port: Callable[[], int]) -> None:
        super().__init__(target_port)
        self.acknowledged: list[Heard] = []
        self.commands: set[str] = set()

    def came(self, line: Line, towards: Towards, piece: bytes) -> None:
        """Take note when the gateway has said something, whether or not that arrives."""
        if towards is Towards.SERVER:
            self._said(_life(line), packet_of(piece))

    def passed(self, line: Line, towards: Towards, piece: bytes) -> None:
        """Take note of what has reached the gateway."""
        packet = packet_of(piece)
        if towards is Towards.CLIENT and packet.kind == Kind.PUBLISH:
            life = _life(line)
            message = parse_publish(packet)
            life.unanswered[message.packet_id] = Heard(message.topic, _payload(life, message.payload))

    def _said(self, life: _Life, packet: Packet) -> None:
        match packet.kind:
            case Kind.CONNECT:
                life.modern = packet.body[_LEVEL_AT] == _MQTT_5
            case Kind.PUBACK:
                heard = life.unanswered.pop(int.from_bytes(packet.body[:2]), None)
                if heard is not None:
                    self.acknowledged.append(heard)
            case Kind.PUBLISH:
                message = parse_publish(packet)
                payload = _payload(life, message.payload)
                if payload and "/commands/" in message.topic:
                    self.commands.add(json.loads(payload)["id"])


def _life(line: Line) -> _Life:
    life = line.notes.setdefault("life", _Life())
    assert isinstance(life, _Life)
    return life


def _payload(life: _Life, rest: bytes) -> bytes:
    """What follows the packet id; MQTT 5 has properties before it, here always fewer than 128 bytes."""
    return rest[1 + rest[0] :] if life.modern else rest
