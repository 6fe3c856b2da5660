"""The endpoint where brokers ask: closed to all but the broker, and a no whenever anything is not as it should be."""

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.broker.external.endpoint import DIALECTS, MAX_BODY_BYTES
from gateway.store import DATABASE_NAME, account_sql
from tests.support.auth_endpoint import GATEWAY_PASSWORD, SECRET, Endpoint, serve_auth_endpoint
from tests.support.registry import GATEWAY_ID, Bound, Registry, registry

GOLDEN = Path(__file__).parent / "golden"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
QUESTIONS = [f"{name}/{question}" for name, dialect in DIALECTS.items() for question in dialect.questions]


def recorded(dialect: str) -> list[dict[str, Any]]:
    """What a broker of this kind sends, and what it wants to hear."""
    cases: list[dict[str, Any]] = json.loads((GOLDEN / f"http_auth_{dialect}.json").read_text())
    return cases


def is_denied(question: str, answer: httpx.Response) -> bool:
    """Whether the broker takes this answer for a no, in its own dialect."""
    dialect = question.partition("/")[0]
    if dialect == "mosquitto-go-auth":
        return answer.status_code == httpx.codes.FORBIDDEN
    if answer.status_code != httpx.codes.OK or dialect == "rabbitmq":
        return answer.text == "deny"
    no = {"emqx": {"result": "deny", "is_superuser": False}, "vernemq": {"result": {"error": "not_allowed"}}}
    return bool(answer.json() == no.get(dialect, {"ok": False}))


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry."""
    async with registry(tmp_path) as opened:
        yield opened


@pytest.fixture
async def endpoint(fleet: Registry) -> AsyncIterator[Endpoint]:
    """The endpoint in front of it."""
    async with serve_auth_endpoint(fleet.store, gateway_id=GATEWAY_ID) as served:
        yield served


def connect_request(device: Bound) -> dict[str, str]:
    """What EMQX asks when this device comes."""
    return {"clientid": device.id, "username": device.id, "password": device.mqtt_password}


@pytest.mark.parametrize("dialect", ["emqx", "vernemq", "mosquitto_go_auth", "amqtt", "rabbitmq"])
async def test_recorded_broker_requests_get_the_expected_answers(
    dialect: str, fleet: Registry, endpoint: Endpoint
) -> None:
    """The golden requests of each dialect, byte for byte, and each answer, which must not be cached."""
    device, other = await fleet.bound("SN-1"), await fleet.bound("SN-2")
    names = {"{device}": device.id, "{other}": other.id, "{other_password}": other.mqtt_password}
    names |= {"{password}": device.mqtt_password, "{token}": device.token}

    def filled(text: str) -> str:
        for name, value in names.items():
            text = text.replace(name, value)
        return text

    for case in recorded(dialect):
        answer = await endpoint.ask(case["path"], content=filled(case["body"]), headers=case["headers"])
        assert (answer.status_code, answer.text) == (case["status"], filled(case["answer"])), case["name"]
        assert answer.headers["cache-control"] == "no-store"


async def test_the_secret_may_be_sent_in_a_header(fleet: Registry, endpoint: Endpoint) -> None:
    """For brokers that can send one it need not stand in a path, which gets into logs."""
    question = connect_request(await fleet.bound("SN-1"))
    for given, result in ((f"Bearer {SECRET}", "allow"), (SECRET, "deny"), (f"Bearer {SECRET}x", "deny"), ("", "deny")):
        answer = await endpoint.http.post("/emqx/authenticate", json=question, headers={"Authorization": given})
        assert (answer.status_code, answer.json()["result"]) == (200, result), given


async def test_requests_without_the_secret_are_denied(endpoint: Endpoint) -> None:
    """In the dialect of the broker, for an empty and a wrong secret, and the log never shows what was tried."""
    with capture_logs() as logs:
        for question in QUESTIONS:
            await _refused_without_secret(endpoint, question)
    assert {entry["event"] for entry in logs} == {"broker_auth.wrong_secret"}
    assert "somebody" not in str(logs)


async def _refused_without_secret(endpoint: Endpoint, question: str) -> None:
    for secret in ("wrong-secret-of-somebody", SECRET[:-1], f"{SECRET}x", "%F0%9F%98%80"):
        assert is_denied(question, await endpoint.ask(question, secret=secret, json={"username": "gateway"}))
    assert is_denied(question, await endpoint.http.post(f"/{question}", json={}))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", JSON),
        (b"{", JSON),
        (b"[]", JSON),
        (b'"allow"', JSON),
        (b"{}", JSON),
        (b'{"username":1,"password":[],"clientid":{}}', JSON),
        (b'{"username":"\\ud800","password":"\\ud800","clientid":"x","client_id":"x"}', JSON),
        (b"[" * 100_000, JSON),
        (b"\xff\xfe", FORM),
        (b"username", FORM),
        (b"&".join(b"a%d=1" % number for number in range(100)), FORM),
        (b"username=gateway&password=gateway-password&client_id=gw_test", "text/plain"),
        (b"x" * (MAX_BODY_BYTES + 1), JSON),
    ],
)
async def test_malformed_requests_are_denied(body: bytes, kind: str, endpoint: Endpoint) -> None:
    """No body, half a body, another type, too deep, too long, no UTF-8: never an error that a broker could misread."""
    for question in QUESTIONS:
        for hook in ("auth_on_register", "auth_on_subscribe", "nonsense", ""):
            headers = {"content-type": kind, "vernemq-hook": hook}
            assert is_denied(question, await endpoint.ask(question, content=body, headers=headers))


async def test_unknown_paths_and_methods_are_refused(endpoint: Endpoint) -> None:
    """A broker with a mistake in its configuration admits no client; a path of no dialect is not found."""
    for path in ("emqx/authenticat", "emqx/", "emqx", "emqx/authenticate/x"):
        assert is_denied("emqx", await endpoint.ask(path, json={}))
    get = await endpoint.http.get(f"/{SECRET}/emqx/authenticate")
    assert is_denied("emqx", get)
    for path in ("/", f"/{SECRET}", f"/{SECRET}/", f"/{SECRET}/nats/user", "/v1/devices", "/health"):
        assert (await endpoint.http.post(path, json={})).status_code == httpx.codes.NOT_FOUND


async def test_an_unreadable_registry_refuses_every_client(fleet: Registry, endpoint: Endpoint, tmp_path: Path) -> None:
    """The database fails at each look: the answer is no, in time, and the log says why."""
    device = await fleet.bound("SN-1")
    assert (await endpoint.ask("emqx/authenticate", json=connect_request(device))).json()["result"] == "allow"
    with sqlite3.connect(tmp_path / "data" / DATABASE_NAME) as database:
        database.execute("ALTER TABLE tokens RENAME TO lost")
    with capture_logs() as logs:
        answer = await endpoint.ask("emqx/authenticate", json=connect_request(device))
    assert (answer.status_code, answer.json()["result"]) == (200, "deny")
    assert any(entry["log_level"] == "error" for entry in logs)
    topic = {"clientid": device.id, "username": device.id, "action": "publish", "topic": f"devices/{device.id}/status"}
    assert (await endpoint.ask("emqx/authorize", json=topic)).json()["result"] == "deny"


async def test_a_token_is_accepted_by_its_state(fleet: Registry, endpoint: Endpoint) -> None:
    """Active and waiting for a reset: in, with its own topics. Revoked: out, and its session may nothing any more."""
    device = await fleet.bound("SN-1")
    own = {"clientid": device.id, "username": device.id, "action": "publish", "topic": f"devices/{device.id}/status"}

    async def told() -> tuple[str, str]:
        entered = await endpoint.ask("emqx/authenticate", json=connect_request(device))
        allowed = await endpoint.ask("emqx/authorize", json=own)
        return entered.json()["result"], allowed.json()["result"]

    assert await told() == ("allow", "allow")
    await fleet.reset(device)
    assert await told() == ("allow", "allow")
    again = await fleet.bound("SN-2")
    await fleet.unbind(again)
    device, own = again, {**own, "clientid": again.id, "username": again.id, "topic": f"devices/{again.id}/status"}
    assert await told() == ("deny", "deny")


async def test_an_integrator_of_the_registry_reads_and_writes_nothing(fleet: Registry, endpoint: Endpoint) -> None:
    """Made on the command line, it comes in at once; revoked, neither it nor a session of it may anything."""
    password = await fleet.store.write(lambda tx: account_sql.create(tx, "integrator_acme"))
    who = {"clientid": "integrator_acme-1", "username": "integrator_acme"}

    async def told() -> list[str]:
        answers = [await endpoint.ask("emqx/authenticate", json={**who, "password": password})]
        for action in ("subscribe", "publish"):
            question = {**who, "action": action, "topic": "devices/dev_A/state"}
            answers.append(await endpoint.ask("emqx/authorize", json=question))
        return [answer.json()["result"] for answer in answers]

    assert await told() == ["allow", "allow", "deny"]
    await fleet.store.write(lambda tx: account_sql.revoke(tx, "integrator_acme"))
    assert await told() == ["deny", "deny", "deny"]


async def test_no_secret_reaches_the_log(fleet: Registry, endpoint: Endpoint) -> None:
    """Neither a token in the wrong field, nor a password, nor the endpoint's own secret, beyond 12 characters."""
    device = await fleet.bound("SN-1")
    with capture_logs() as logs:
        await endpoint.ask("emqx/authenticate", json={**connect_request(device), "username": device.token})
        await endpoint.ask("emqx/authenticate", json={**connect_request(device), "clientid": GATEWAY_PASSWORD})
        await endpoint.ask("emqx/authorize", json={"username": device.token, "clientid": "x"})
        await endpoint.ask("emqx/authenticate", json={**connect_request(device), "clientid": device.mqtt_password})
    for secret in (device.token, device.mqtt_password, SECRET, GATEWAY_PASSWORD):
        assert secret[:13] not in str(logs)
