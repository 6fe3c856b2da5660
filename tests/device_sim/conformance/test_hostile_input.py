"""What a broken device sends to the kit ends nothing but its own connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable

import pytest

from device_sim.conformance import packets
from device_sim.conformance.findings import LINES, Findings
from device_sim.conformance.http_server import HttpServer, Request, Response
from device_sim.conformance.kit import Kit, Settings
from device_sim.conformance.log import Log
from device_sim.conformance.packets import Connect, PacketReader, ProtocolError, Publish
from device_sim.conformance.passive_checks import judge
from tests.device_sim.conformance.bench import Rig
from tests.device_sim.support import seeded

ROUNDS = 3000
ODD: list[object] = [None, True, 1e308, -1, "x" * 70_000, [], {}, [[]], {"a": []}, ["wifi", {}]]


def test_any_bytes_are_packets_or_an_error() -> None:
    """Random bytes, and right packets with one byte changed, in pieces of any size."""
    rng = seeded("packets")
    right = packets.publish(Publish("a/b", b"{}", 1, retain=True, packet_id=7)) + packets.puback(3)
    for _ in range(ROUNDS):
        data = bytearray(right if rng.random() < 0.5 else rng.randbytes(rng.randrange(40)))
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
        reader = PacketReader()
        try:
            for at in range(0, len(data), 3):
                list(reader.feed(bytes(data[at : at + 3])))
        except ProtocolError:
            continue


def test_a_packet_survives_any_split() -> None:
    """Byte by byte, it is the same."""
    message = Publish("a/b", b"x" * 200, 1, retain=True, dup=True, packet_id=300)
    reader = PacketReader()
    found = [each for byte in packets.publish(message) for each in reader.feed(bytes([byte]))]
    assert found == [message]


def test_a_length_without_end_is_an_error() -> None:
    """As is a packet that is larger than any device sends."""
    for start in (b"\x30\xff\xff\xff\xff\xff", b"\x30\xff\xff\xff\x7f"):
        with pytest.raises(ProtocolError):
            list(PacketReader().feed(start))


def odd_heartbeats() -> Iterable[bytes]:
    """Each field with each odd value, and what is no object."""
    names = ("battery_percent", "device_state", "connection_type", "firmware_version", "sent_at", "last_command")
    for name in names:
        yield from (json.dumps({name: value}).encode() for value in ODD)
    yield from (b"", b"[]", b"\xff", b"[" * 5000, b"NaN")


async def test_odd_messages_are_findings() -> None:
    """Whatever a device puts into heartbeats and acknowledgements, the kit judges it."""
    findings = Findings(list(LINES))
    kit = Kit(Settings(), findings, Rig(), Log())
    topics = kit.issuer.topics
    kit.log.add("connect", 1, Connect("MQTT", 4))
    reset = kit.reset()
    for payload in odd_heartbeats():
        kit.log.add("publish", 1, Publish(topics.of("heartbeat"), payload, 1))
    for value in ODD:
        body = {"command_id": value, "status": value, "error": value, "result": value, "receipt": value}
        kit.log.add("publish", 1, Publish(topics.ack("factory_reset"), json.dumps(body).encode(), 1))
    judge(kit)
    assert not kit.wiped
    assert list(kit.acks(reset)) == []
    verdicts = findings.verdicts()
    assert {line for line, verdict in verdicts.items() if verdict == "failed"} == {"C2", "C5", "C6", "C7", "C11", "C18"}


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    """A server that answers each request with its path."""
    server = HttpServer(lambda request: None if request.path == "/lost" else _echo(request))
    await server.start("127.0.0.1", 0)
    yield server
    await server.stop()


def _echo(request: Request) -> Response:
    return Response(200, {"path": request.path, "body": request.body})


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b'{"path": "/a", "body": {}}'),
        (b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}x", b'{"path": "/a", "body": null}'),
        (b"POST /lost HTTP/1.1\r\n\r\n", b""),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /a HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", b"400"),
        (b"POST /a HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"400"),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST /a HTTP/1.1\r\nX: " + b"x" * 40_000, b""),
        (b"POST /a HT", b""),
    ],
)
async def test_each_request_is_answered_or_closed(server: HttpServer, sent: bytes, answer: bytes) -> None:
    """A client that sends half a request and goes away leaves nothing behind."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    writer.write_eof()
    try:
        got = await reader.read()
    except ConnectionResetError:
        got = b""
    assert answer in got
    assert bool(answer) is bool(got)
    writer.close()
