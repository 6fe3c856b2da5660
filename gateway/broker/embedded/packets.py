"""Handlers for the packets of a connected client, in the order of arrival."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from amqtt.mqtt import packet as kinds
from amqtt.mqtt.pingresp import PingRespPacket
from amqtt.mqtt.pubcomp import PubcompPacket
from amqtt.mqtt.suback import SubackPacket
from amqtt.mqtt.unsuback import UnsubackPacket

from gateway.broker.embedded.codec import MalformedPacketError, Packet, decode
from gateway.broker.embedded.receipts import PUBACK, PUBREC
from gateway.broker.embedded.routing import REFUSED, RoutingBroker
from gateway.broker.embedded.session import ClientConnection, ClientSession

_QOS_1: Final = 1
_QOS_2: Final = 2
_ANSWERS: Final = {_QOS_1: PUBACK, _QOS_2: PUBREC}


async def handle(broker: RoutingBroker, connection: ClientConnection, session: ClientSession, packet: Packet) -> None:
    """Do what the packet asks for.

    Raises:
        MalformedPacketError: the client may not send it.
    """
    decoded = await decode(packet)
    await _HANDLERS[packet.kind](broker, connection, session, decoded)


async def _publish(broker: RoutingBroker, connection: ClientConnection, session: ClientSession, packet: Any) -> None:
    """Route a PUBLISH. What the gateway reads is acknowledged after its commit, all else at once.

    A message that may not be published is acknowledged and dropped [MQTT-3.3.5-2].
    """
    topic, qos, packet_id = packet.topic_name, packet.qos, packet.packet_id
    if not topic or "\0" in topic:
        raise MalformedPacketError("a topic that is empty or holds NUL [MQTT-4.7.3-1]")
    if not broker.limits.take_topic(topic):
        raise MalformedPacketError(f"a topic of {len(topic)} characters and {topic.count('/') + 1} levels, too many")
    readers = await broker.readers_of(session, connection, topic)
    if not connection.open:
        return
    receipt = connection.debts.owe(_ANSWERS[qos], packet_id) if qos else None
    if qos != _QOS_2 or packet_id not in session.incoming:
        retain = packet.retain_flag
        broker.publish_from(session, topic, packet.data, qos, retain=retain, receipt=receipt, readers=readers)
    if qos == _QOS_2:
        session.incoming.add(packet_id)
    connection.debts.pay()


async def _release(_: RoutingBroker, connection: ClientConnection, session: ClientSession, packet: Any) -> None:
    """Answer the second half of QoS 2: the packet id may be used again [MQTT 4.3.3]."""
    session.incoming.discard(packet.packet_id)
    connection.send(PubcompPacket.build(packet.packet_id))


async def _acknowledge(_: RoutingBroker, __: ClientConnection, session: ClientSession, packet: Any) -> None:
    session.acknowledged(packet.packet_id)


async def _subscribe(broker: RoutingBroker, connection: ClientConnection, session: ClientSession, packet: Any) -> None:
    wanted = packet.payload.topics
    if not wanted or any(qos > _QOS_2 for _, qos in wanted):
        raise MalformedPacketError("a SUBSCRIBE without topics, or with a QoS above 2 [MQTT-3.8.3-3]")
    codes = [await broker.subscribe(session, topic_filter, qos) for topic_filter, qos in wanted]
    connection.send(SubackPacket.build(packet.variable_header.packet_id, codes))
    for (topic_filter, _), code in zip(wanted, codes, strict=True):
        if code != REFUSED:
            broker.hand_retained(session, topic_filter, code)


async def _unsubscribe(
    broker: RoutingBroker, connection: ClientConnection, session: ClientSession, packet: Any
) -> None:
    if not packet.payload.topics:
        raise MalformedPacketError("an UNSUBSCRIBE without topics [MQTT-3.10.3-2]")
    for topic_filter in packet.payload.topics:
        broker.unsubscribe(session, topic_filter)
    connection.send(UnsubackPacket.build(packet.variable_header.packet_id))


async def _ping(_: RoutingBroker, connection: ClientConnection, __: ClientSession, ___: Any) -> None:
    connection.send(PingRespPacket.build())


Handler = Callable[[RoutingBroker, ClientConnection, ClientSession, Any], Awaitable[None]]
_HANDLERS: Final[dict[int, Handler]] = {
    kinds.PUBLISH: _publish,
    kinds.PUBREL: _release,
    kinds.PUBACK: _acknowledge,
    kinds.SUBSCRIBE: _subscribe,
    kinds.UNSUBSCRIBE: _unsubscribe,
    kinds.PINGREQ: _ping,
}
