"""Fuzzing of the broker's side: packets at the embedded broker, and the questions of brokers that ask over HTTP."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.broker.doctor_accounts import ProbeAccounts
from gateway.broker.embedded.server import EmbeddedBroker
from gateway.broker.external.admissions import Admissions
from gateway.broker.external.decisions import AuthDecisions
from gateway.broker.external.endpoint import DIALECTS, AuthEndpoint
from gateway.broker.service_accounts import service_accounts
from tests.broker.embedded.support import PASSWORD, authenticate, connected, subscribed_gateway
from tests.support.auth_endpoint import GATEWAY_PASSWORD, SECRET
from tests.support.fuzzing import JSON, TEXTS, TOKEN, Target, encoded, fuzz, leaks, mangled, objects
from tests.support.registry import GATEWAY_ID, registry
from tests.support.wire import Kind, Packet, Will, connect_packet, publish_packet, subscribe_packet, text

CORPUS = Path(__file__).parent / "corpus"
OK = 200


@contextmanager
def no_bug_in_the_log() -> Iterator[None]:
    """Nothing that the gateway itself calls its own failure is logged."""
    with capture_logs() as logged:
        yield
    assert [line for line in logged if line["log_level"] in ("error", "critical")] == []


# --- packets ----------------------------------------------------------------------------------------------------------

_CONNECTS = st.sampled_from(
    [
        connect_packet("dev_A", "dev_A", PASSWORD),
        connect_packet("dev_A", "dev_A", PASSWORD, clean=False, will=Will("devices/dev_A/status", b"{}", retain=True)),
        connect_packet("dev_A", "dev_A", PASSWORD, level=5),
        connect_packet("", None, None),
        connect_packet("dev_A", "dev_A", PASSWORD, will=Will("devices/dev_B/commands/reboot", b"{}", retain=True)),
    ]
).map(Packet.encode)
_TOPICS = st.sampled_from(
    ["devices/dev_A/heartbeat", "devices/dev_A/status", "devices/dev_B/status", "$SYS/x", "#", "a//b", ""]
)
_PACKETS = st.one_of(
    st.builds(publish_packet, _TOPICS, st.binary(max_size=40), qos=st.integers(0, 3), retain=st.booleans()).map(
        Packet.encode
    ),
    st.builds(lambda topic: subscribe_packet(topic).encode(), _TOPICS),
    st.builds(
        lambda kind, flags, body: Packet(kind, flags, body).encode(),
        st.integers(0, 15),
        st.integers(0, 15),
        st.binary(max_size=20),
    ),
    st.just(Packet(Kind.UNSUBSCRIBE, 2, b"\x00\x01" + text("devices/dev_A/errors")).encode()),
    st.just(Packet(Kind.PINGREQ, 0, b"").encode()),
    st.just(b"\x30\xff\xff\xff\x7f"),
)
_STREAMS = st.builds(lambda first, rest: first + b"".join(rest), _CONNECTS, st.lists(_PACKETS, max_size=4))
PACKETS = Target("packets", 0.02, st.one_of(_STREAMS, mangled(_STREAMS)))


async def test_random_packets_never_break_the_broker() -> None:
    """Each connection ends, no other client's topic is written, and other clients are served all the time."""
    async with (
        EmbeddedBroker(authenticate=authenticate) as broker,
        subscribed_gateway(broker) as gateway,
        connected(broker, "dev_C") as other,
    ):

        def check(raw: bytes) -> None:
            with socket.create_connection((broker.host, broker.port), timeout=60) as connection:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                _until_closed(connection)

        with no_bug_in_the_log():
            await asyncio.to_thread(fuzz, PACKETS, check, CORPUS / "packets.json")
        await other.ping()
        await other.publish("devices/dev_C/heartbeat", b"last word")
        await _only_of(gateway, {"devices/dev_A/", "devices/dev_C/"})


async def _only_of(gateway: Any, owners: set[str]) -> None:
    while True:
        message = await gateway.read_publish()
        assert any(message.topic.startswith(owner) for owner in owners), message.topic
        await gateway.acknowledge(message)
        if message.payload == b"last word":
            return


def _until_closed(connection: socket.socket) -> None:
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        pass


# --- questions --------------------------------------------------------------------------------------------------------

_FIELDS = {
    "clientid": st.sampled_from(["dev_BOUND", "dev_NOBODY", "gateway"]),
    "client_id": st.sampled_from(["dev_BOUND", "gateway"]),
    "username": st.sampled_from(["dev_BOUND", "gateway", "doctor"]),
    "password": st.sampled_from(["GOODTOKEN", TOKEN, GATEWAY_PASSWORD, ""]),
    "action": st.sampled_from(["publish", "subscribe", "all"]),
    "topic": st.sampled_from(
        ["devices/dev_BOUND/heartbeat", "devices/dev_BOUND/commands/reboot", "#", "devices/+/state"]
    ),
    "acc": st.integers(0, 5) | TEXTS,
    "topics": JSON,
    "vhost": st.just("/"),
    "resource": st.sampled_from(["exchange", "queue", "topic"]),
    "name": TEXTS,
    "permission": st.sampled_from(["read", "write", "configure"]),
    "routing_key": st.sampled_from(["devices.dev_BOUND.heartbeat", "*", "#"]),
}
_QUESTIONS = [f"{name}/{question}" for name, dialect in DIALECTS.items() for question in dialect.questions]
_FORMS = st.dictionaries(st.sampled_from(sorted(_FIELDS)) | TEXTS, TEXTS | st.just("dev_BOUND"), max_size=4).map(
    lambda pairs: "&".join(f"{_quoted(key)}={_quoted(value)}" for key, value in pairs.items()).encode()
)


def _quoted(value: str) -> str:
    return quote(value[:300].encode("utf-8", "replace"))


def _auth_request(secret: str, question: str, kind: str, hook: str, payload: bytes) -> bytes:
    return f"{secret}|{question}|{kind}|{_quoted(hook)}\n".encode() + payload.replace(b"\n", b" ")


QUESTIONS = Target(
    "questions",
    0.04,
    st.builds(
        _auth_request,
        st.sampled_from([SECRET, SECRET, SECRET, "wrong"]),
        st.sampled_from(_QUESTIONS),
        st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain", ""]),
        st.sampled_from(["auth_on_register", "auth_on_publish_m5", "auth_on_subscribe"]) | TEXTS,
        encoded(objects(_FIELDS)) | _FORMS | mangled(_FORMS),
    ),
)


async def test_random_auth_requests_never_break_the_endpoint(tmp_path: Path) -> None:
    """Answered as the dialect wants it, with a yes only to who shows the secret, and what was right is still let in."""
    async with registry(tmp_path) as fleet:
        device = await fleet.bound("SN-1")
        accounts = service_accounts(GATEWAY_PASSWORD, ProbeAccounts())
        door = AuthEndpoint(AuthDecisions(fleet.store, accounts, Admissions(), own_id=GATEWAY_ID, prefix=""), SECRET)
        loop = asyncio.get_running_loop()

        def check(raw: bytes) -> None:
            filled = raw.replace(b"dev_BOUND", device.id.encode()).replace(b"GOODTOKEN", device.mqtt_password.encode())
            status, answer = asyncio.run_coroutine_threadsafe(_asked(door, filled), loop).result(60)
            assert status in (200, 403, 404)
            assert leaks(answer) == []
            assert device.mqtt_password not in answer
            assert filled.startswith(SECRET.encode()) or not _is_allowed(answer)

        with no_bug_in_the_log():
            await asyncio.to_thread(fuzz, QUESTIONS, check, CORPUS / "questions.json")
        good = json.dumps({"clientid": device.id, "username": device.id, "password": device.mqtt_password})
        assert _is_allowed((await _asked(door, f"{SECRET}|emqx/authenticate|application/json|\n{good}".encode()))[1])


def _is_allowed(answer: str) -> bool:
    plain = answer.replace(" ", "")
    return plain.startswith("allow") or any(word in plain for word in ('"allow"', '"ok":true', '"result":"ok"'))


async def _asked(door: AuthEndpoint, raw: bytes) -> tuple[int, str]:
    head, _, payload = raw.partition(b"\n")
    secret, question, kind, hook = (part.decode("latin-1") for part in (*head.split(b"|", 3), b"", b"", b"")[:4])
    messages: list[Any] = []
    bodies: list[dict[str, Any]] = [{"type": "http.request", "body": payload, "more_body": False}]
    headers = [(b"content-type", kind.encode("latin-1")), (b"vernemq-hook", hook.encode("latin-1"))]
    scope = {"type": "http", "method": "POST", "path": f"/{secret}/{question}", "headers": headers}

    async def receive() -> dict[str, Any]:
        return bodies.pop() if bodies else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        messages.append(message)

    await door(scope, receive, send)
    return messages[0]["status"], messages[1]["body"].decode()
