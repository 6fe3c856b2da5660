"""Receive queue under MQTT 5: messages that have arrived and wait for the ingest; bounded.

The receive maximum [MQTT 5, 4.9] should bound it, but Mosquitto 2.0 ignores that after the first acknowledgement. So
the socket is not read while too much waits.
"""

from __future__ import annotations

from typing import Final

import mqtt5
import structlog
from mqtt5 import DisconnectReasonCode as Reason

from gateway.domain.messages import Message
from gateway.mqtt.session import AT_LEAST_ONCE, RECEIVE_MAXIMUM, TOLD_EVERY, WAITING_AT_QOS_0, ReceivedMessage
from gateway.mqtt.v5.wire import ProtocolError
from gateway.runtime.tracing import HEADER, well_formed

log = structlog.get_logger()

_ACK: Final = "/ack"
_EXACTLY_ONCE: Final = mqtt5.QoS.EXACTLY_ONCE
WAITING: Final = 2 * RECEIVE_MAXIMUM
"""Messages at QoS 1 that may wait before the socket is no longer read."""
WAITING_BYTES: Final = 8_388_608
"""Bytes of payload that may wait."""


class ReceiveQueue:
    """Messages in the order of their arrival."""

    def __init__(self) -> None:
        self._deliveries: list[ReceivedMessage] = []
        self._bytes = 0
        self._at_qos_0 = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._deliveries)

    def put(self, packet: mqtt5.PublishPacket) -> None:
        """Add a message, or drop it when it may be dropped [MQTT 5, 4.3.1] and too many wait.

        Nothing else bounds QoS 0.

        Raises:
            ProtocolError: the broker may not send this message.
        """
        if packet.qos == _EXACTLY_ONCE:
            raise ProtocolError("a message at QoS 2", Reason.QOS_NOT_SUPPORTED)
        if packet.topic_alias is not None:
            raise ProtocolError("a topic alias", Reason.TOPIC_ALIAS_INVALID)
        topic, payload, packet_id = packet.topic, packet.payload, packet.packet_id
        qos = AT_LEAST_ONCE
        if packet_id is None:
            if self._at_qos_0 >= WAITING_AT_QOS_0:
                self._drop(packet)
                return
            self._at_qos_0 += 1
            packet_id = qos = 0
        trace = _trace(packet) if topic.endswith(_ACK) else None
        self._deliveries.append(ReceivedMessage(Message(topic, payload, packet.retain, trace), packet_id, qos))
        self._bytes += len(payload)

    def _drop(self, packet: mqtt5.PublishPacket) -> None:
        if self._dropped % TOLD_EVERY == 0:
            log.warning("ingest.dropped_at_qos_0", topic=packet.topic, dropped_before=self._dropped)
        self._dropped += 1

    def take(self, limit: int) -> list[ReceivedMessage]:
        """Return the oldest, at most ``limit``."""
        deliveries = self._deliveries[:limit]
        del self._deliveries[:limit]
        self._at_qos_0 -= [delivery.qos for delivery in deliveries].count(0)
        self._bytes -= sum([len(delivery.message.payload) for delivery in deliveries])
        return deliveries

    @property
    def full(self) -> bool:
        """Return whether so much waits that the socket should not be read."""
        return self._waits(WAITING, WAITING_BYTES)

    @property
    def roomy(self) -> bool:
        """Return whether so little waits that reading can go on."""
        return not self._waits(WAITING // 2, WAITING_BYTES // 2)

    def _waits(self, messages: int, size: int) -> bool:
        return self._bytes > size or len(self._deliveries) - self._at_qos_0 > messages


def _trace(packet: mqtt5.PublishPacket) -> str | None:
    """Return the device's place in a trace. Only acknowledgements are checked for it, to keep heartbeats cheap."""
    return well_formed(dict(packet.user_properties).get(HEADER))
