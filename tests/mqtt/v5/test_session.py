"""The link for MQTT 5 on a broker that does as the test says: split packets, hostile ones, silence, limits."""

import asyncio
from typing import Any

import mqtt5
import pytest
from mqtt5 import DisconnectReasonCode as Reason

from gateway.mqtt.session import LinkError, PublishRefusedError, VersionRefusedError
from gateway.mqtt.v5 import session as mqtt5_session
from gateway.mqtt.v5.receive_queue import WAITING
from gateway.mqtt.v5.session import Mqtt5Session
from gateway.runtime.loop_priority import Loop, LoopPriority
from tests.mqtt.scripted_broker import WELCOME, ScriptedBroker, joined, message
from tests.support.wait import eventually

NOT_UTF_8 = b"\x30\x06\x00\x02\xff\xfe\x00x"
HOSTILE = {
    "no packet type": (b"\x00\x00", Reason.MALFORMED_PACKET),
    "an endless length": (b"\x30\xff\xff\xff\xff", Reason.MALFORMED_PACKET),
    "a topic that is not UTF-8": (NOT_UTF_8, Reason.MALFORMED_PACKET),
    "reserved flags": (b"\x41\x02\x00\x01", Reason.MALFORMED_PACKET),
    "an unknown property": (b"\x30\x06\x00\x01a\x02\x7f\x00", Reason.MALFORMED_PACKET),
    "QoS 2": (message(7, qos=mqtt5.QoS.EXACTLY_ONCE), Reason.QOS_NOT_SUPPORTED),
    "a topic alias": (message(topic_alias=1), Reason.TOPIC_ALIAS_INVALID),
    "a second CONNACK": (WELCOME, Reason.PROTOCOL_ERROR),
    "a CONNECT": (mqtt5.ConnectPacket("me").write(), Reason.PROTOCOL_ERROR),
    "a SUBSCRIBE": (mqtt5.SubscribePacket(1, [mqtt5.TopicFilter("#")]).write(), Reason.PROTOCOL_ERROR),
    "AUTH that nobody asked for": (mqtt5.AuthPacket().write(), Reason.PROTOCOL_ERROR),
    "a packet without an end": (b"\x30\xff\xff\xff\x7f" + bytes(5_000_000), Reason.PACKET_TOO_LARGE),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # how the codec says: not UTF-8
@pytest.mark.parametrize("what", HOSTILE)
async def test_protocol_errors_close_the_connection(what: str) -> None:
    """The broker gets the reason, the will stays with it, and waiting callers get an error; nothing else happens."""
    packet, reason = HOSTILE[what]
    async with ScriptedBroker() as broker:
        async with joined(broker) as session:
            waiting = asyncio.create_task(session.publish("gateways/gw/status", b"here"))
            await broker.until(mqtt5.PublishPacket)
            broker.say(packet)
            with pytest.raises(LinkError, match="broke the protocol"):
                await session.receive_batch()
            with pytest.raises(LinkError):
                await waiting
            said = await broker.until(mqtt5.DisconnectPacket)
            assert isinstance(said, mqtt5.DisconnectPacket)
            assert said.reason_code == reason
        assert await broker.next() is None


async def test_packets_arrive_in_pieces() -> None:
    """Every split of two messages gives the same two."""
    whole = message(1, b"one") + message(2, b"two")
    async with ScriptedBroker() as broker, joined(broker) as session:
        for at in range(1, len(whole)):
            broker.say(whole[:at])
            await broker.writer.drain()
            await asyncio.sleep(0)
            broker.say(whole[at:])
            got: list[Any] = []
            while len(got) < 2:
                got += await session.receive_batch()
            assert [each.message.payload for each in got] == [b"one", b"two"]
            assert [each.packet_id for each in got] == [1, 2]


async def test_acknowledgements_go_out_in_the_order_of_receipt() -> None:
    """[MQTT-4.6.0-2], for those at QoS 1 alone; a redelivered one counts like any other."""
    async with ScriptedBroker() as broker, joined(broker) as session:
        broker.say(message(9), message(None), message(3, duplicate=True), message(5, retain=True))
        deliveries: list[Any] = []
        while len(deliveries) < 4:
            deliveries += await session.receive_batch()
        assert [each.message.retain for each in deliveries] == [False, False, False, True]
        session.acknowledge(deliveries)
        acknowledged = [await broker.next() for _ in range(3)]
        assert [packet.packet_id for packet in acknowledged if isinstance(packet, mqtt5.PubAckPacket)] == [9, 3, 5]


async def test_the_reason_of_a_disconnect_is_reported() -> None:
    """DISCONNECT from a server carries a reason (here: session taken over) and words."""
    async with ScriptedBroker() as broker, joined(broker) as session:
        broker.say(mqtt5.DisconnectPacket(reason_code=Reason.SESSION_TAKEN_OVER, reason_str="somebody else").write())
        with pytest.raises(LinkError, match="Session taken over: somebody else"):
            await session.receive_batch()


async def test_a_refused_publish_names_reason_and_topic() -> None:
    """Those that were taken are not among them."""
    async with ScriptedBroker() as broker, joined(broker) as session:
        waiting = asyncio.create_task(session.publish_retained([("a", b"1"), ("b", b"2"), ("c", b"3")]))
        for code in ("SUCCESS", "QUOTA_EXCEEDED", "NO_MATCHING_SUBSCRIBERS"):
            sent = await broker.next()
            assert isinstance(sent, mqtt5.PublishPacket)
            assert sent.retain
            assert sent.packet_id
            broker.say(mqtt5.PubAckPacket(sent.packet_id, reason_code=getattr(mqtt5.PubAckReasonCode, code)).write())
        with pytest.raises(PublishRefusedError, match="Quota exceeded") as refused:
            await waiting
        assert refused.value.topics == ("b",)


async def test_no_more_is_in_flight_than_the_broker_takes() -> None:
    """Its receive maximum of 2 [MQTT-3.3.4-7]: the third publish waits for the first answer."""
    async with ScriptedBroker(mqtt5.ConnAckPacket(receive_max=2).write()) as broker, joined(broker) as session:
        waiting = [asyncio.create_task(session.publish("a", b"%d" % n)) for n in range(5)]
        for _ in range(5):
            sent = await broker.next()
            assert isinstance(sent, mqtt5.PublishPacket)
            assert sent.packet_id
            assert broker.packets.qsize() <= 1
            broker.say(mqtt5.PubAckPacket(sent.packet_id).write())
        await asyncio.gather(*waiting)


async def test_a_flood_is_held_back_at_the_socket() -> None:
    """A broker that keeps to no receive maximum: the socket is not read while enough waits, and nothing is lost."""
    count = 200_000
    async with ScriptedBroker() as broker, joined(broker) as session:
        assert isinstance(session, Mqtt5Session)
        for n in range(count):
            broker.say(message(n % 60_000 + 1, b"x" * 200))
        await eventually(lambda: session.wire.paused, "the socket is not read any more")
        first = await session.receive_batch(count)
        assert WAITING <= len(first) < 2 * WAITING, "no more than one read above the bound"
        got = len(first)
        while got < count:
            got += len(await session.receive_batch())
        assert not session.wire.paused


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"\x20\x02\x00\x01", VersionRefusedError, "does not speak this version"),
        (b"\x20\x02\x00\x05", VersionRefusedError, "does not speak this version"),
        (b"\x20\x03\x00\x84\x00", VersionRefusedError, "does not speak this version"),
        (b"\x20\x03\x00\x87\x00", LinkError, "refused the gateway: Not authorized"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", LinkError, "broke the protocol"),
        (mqtt5.ConnAckPacket(retain_available=False).write(), LinkError, "offers no retained messages"),
        (mqtt5.ConnAckPacket(max_qos=mqtt5.QoS.AT_MOST_ONCE).write(), LinkError, "offers no retained messages"),
    ],
)
async def test_connack_codes_become_errors(answer: bytes, error: type[LinkError], words: str) -> None:
    """An older broker is known as such, also by its own CONNACK; what is missing or refused is named."""
    async with ScriptedBroker(answer) as broker:
        with pytest.raises(LinkError, match=words) as raised:
            async with joined(broker):
                pass
        assert type(raised.value) is error or isinstance(raised.value, error)
        assert isinstance(raised.value, VersionRefusedError) == (error is VersionRefusedError)


async def test_a_silent_broker_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own keepalive goes before ours [MQTT-3.2.2-21]; a ping without an answer ends the connection."""
    monkeypatch.setattr(mqtt5_session, "_PINGS_PER_KEEPALIVE", 20)
    async with ScriptedBroker(mqtt5.ConnAckPacket(server_keep_alive=1).write()) as broker, joined(broker) as session:
        for _ in range(3):
            assert isinstance(await broker.until(mqtt5.PingReqPacket), mqtt5.PingReqPacket)
            broker.say(mqtt5.PingRespPacket().write())
        with pytest.raises(LinkError, match="not even to a ping"):
            await session.receive_batch()


async def test_waiting_tasks_can_be_cancelled() -> None:
    """Its packet id is not used again before the answer has come, and a late answer does no harm."""
    async with ScriptedBroker() as broker, joined(broker) as session:
        waiting = asyncio.create_task(session.publish("a", b""))
        sent = await broker.next()
        assert isinstance(sent, mqtt5.PublishPacket)
        assert sent.packet_id
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        broker.say(mqtt5.PubAckPacket(sent.packet_id).write(), message(4))
        assert [each.packet_id for each in await session.receive_batch()] == [4]


class RecordingLoop(Loop):
    """A loop that remembers which sockets it was told of."""

    def __init__(self, selector: Any) -> None:
        super().__init__(selector)
        self.told: list[tuple[str, int]] = []

    def deprioritise(self, descriptor: int) -> None:
        """One more goes last."""
        super().deprioritise(descriptor)
        self.told.append(("last", descriptor))

    def forget(self, descriptor: int) -> None:
        """One less does."""
        super().forget(descriptor)
        self.told.append(("forget", descriptor))


async def _one_message() -> tuple[list[tuple[str, int]], bytes]:
    async with ScriptedBroker() as broker:
        async with joined(broker) as session:
            broker.say(message(1, b"x"))
            deliveries = await session.receive_batch()
        assert await broker.until(type(None)) is None
    loop = asyncio.get_running_loop()
    assert isinstance(loop, RecordingLoop)
    return loop.told, deliveries[0].message.payload


def test_the_event_loop_reads_the_broker_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only while the connection is open: its descriptor may belong to a request afterwards."""
    monkeypatch.setattr("gateway.runtime.loop_priority.Loop", RecordingLoop)
    with asyncio.Runner(loop_factory=LoopPriority().new_loop) as runner:
        told, payload = runner.run(_one_message())
    assert [what for what, _ in told] == ["last", "forget"]
    assert len({descriptor for _, descriptor in told}) == 1
    assert payload == b"x"
