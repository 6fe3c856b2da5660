"""What bad input gets (over HTTP and MQTT): a clear error or a refusal that is kept, and a gateway that goes on.

The tests share one gateway per broker.
"""

import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.e2e.support import BROKERS, Site, running_site
from tests.support import wire
from tests.support.mqtt_password import mqtt_password_of
from tests.support.wait import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20


@dataclass(frozen=True)
class BoundDevice:
    """A device that was bound, and how it shows itself."""

    id: str
    token: str


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BROKERS)
async def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A gateway with each kind of broker."""
    async with running_site(tmp_path_factory.mktemp("site"), request.param) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def bound(site: Site) -> AsyncIterator[BoundDevice]:
    """A device of this test's own; after the test the gateway still serves it, over HTTP and over MQTT."""
    binding = await site.device(f"BAD{secrets.token_hex(4)}").provision(end_user_id="eu_1")
    await site.synced()
    device = BoundDevice(binding.device_id, binding.device_token)
    yield device
    assert (await site.as_device(device.token, "POST", "heartbeat", {"battery_percent": 50})).json()["status"] == "ok"
    async with wire.Wire.open(site.gateway.host, site.gateway.port) as raw:
        assert await raw.connect(device.id, device.id, mqtt_password_of(device.token)) == wire.ACCEPTED
        await raw.publish(f"devices/{device.id}/heartbeat", b'{"battery_percent": 51}')
    await eventually(lambda: _battery_is(site, device, 51), "a good heartbeat is stored after the bad input")
    assert not site.gateway.logged("process.crashed")
    assert [line for line in site.gateway.logged("http.request") if _is_a_failure(line)] == []


def _is_a_failure(line: dict[str, Any]) -> bool:
    """Return whether a request failed; readiness is 503 until the gateway has started."""
    return bool(line["status"] >= 500) and line["path"] != "/ready"


async def _battery_is(site: Site, device: BoundDevice, percent: int) -> bool:
    return bool((await site.get(device.id))["battery_percent"] == percent)


BODIES: tuple[tuple[str, bytes, int, str], ...] = (
    ("cut off", b'{"serial_number": "X', 400, "invalid_request"),
    ("no object", b"[1, 2]", 400, "invalid_request"),
    ("not UTF-8", b'{"serial_number": "\xff\xfe"}', 400, "invalid_request"),
    ("a lone surrogate", b'{"serial_number": "\\ud800"}', 400, "invalid_request"),
    ("NUL", b'{"serial_number": "\\u0000"}', 400, "invalid_request"),
    ("unknown field", b'{"serial_number": "X", "colour": "red"}', 400, "invalid_request"),
    ("wrong type", b'{"serial_number": 12}', 400, "invalid_request"),
    ("missing", b"{}", 400, "invalid_request"),
    ("too long", b'{"serial_number": "' + b"X" * 5_000 + b'"}', 400, "invalid_request"),
    ("unknown model", b'{"serial_number": "X", "model": "toaster"}', 400, "invalid_request"),
    (
        "deep",
        b'{"serial_number": "X", "metadata": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}",
        400,
        "invalid_request",
    ),
    ("a huge number", b'{"serial_number": ' + b"9" * 5_000 + b"}", 400, "invalid_request"),
    ("too large", b'{"serial_number": "' + b"X" * 70_000 + b'"}', 413, "payload_too_large"),
    ("1 MiB", b" " * MIB, 413, "payload_too_large"),
)


@pytest.mark.parametrize(("body", "status", "code"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
@pytest.mark.usefixtures("bound")
async def test_a_bad_body_changes_nothing(site: Site, body: bytes, status: int, code: str) -> None:
    """The contract's error, with the field where there is one; no row is changed."""
    before = site.fingerprint()
    answer = await site.http.post("/v1/devices", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert len(answer.json()["error"]["message"]) > 10
    assert answer.headers["X-Request-Id"]
    assert site.fingerprint() == before


async def test_bad_credentials_methods_and_paths_are_refused(site: Site, bound: BoundDevice) -> None:
    """401 without a good key, 404 for another project's device and unknown paths, 405 with Allow, 415, 400."""
    async with httpx.AsyncClient(base_url=site.gateway.url) as stranger:
        for header in ({}, {"Authorization": "Bearer sk_live_wrong"}, {"Authorization": "Basic eDp5"}):
            answer = await stranger.post(f"/v1/devices/{bound.id}/reset", headers=header)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    wrong_method = await site.http.put(f"/v1/devices/{bound.id}/reset")
    assert wrong_method.status_code == 405
    assert "POST" in wrong_method.headers["Allow"].split(", ")
    for path in ("/v1/nothing", "/v1/devices/", "/v2/devices", "/v1/devices/dev_x/y/z"):
        assert (await site.http.get(path)).status_code == 404, path
    assert (await site.http.get("/v1/devices?limit=0")).status_code == 400
    assert (await site.http.get("/v1/devices?colour=red")).status_code == 400
    text = await site.http.post("/v1/devices", content=b"serial=1", headers={"Content-Type": "text/plain"})
    assert (text.status_code, text.json()["error"]["code"]) == (415, "unsupported_media_type")
    other = await site.device(f"OTHER{secrets.token_hex(4)}").provision(end_user_id="eu_2")
    before = site.fingerprint()
    foreign = await site.http.post(
        f"/v1/devices/{other.device_id}/heartbeat", json={}, headers={"Authorization": f"Bearer {bound.token}"}
    )
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "not_found")
    nothing = await site.as_device(
        bound.token, "POST", "commands/cmd_nothing/ack", {"command_id": "cmd_nothing", "status": "executed"}
    )
    assert nothing.status_code == 404
    assert site.fingerprint() == before


@pytest.mark.usefixtures("bound")
async def test_bytes_that_are_not_http_are_refused(site: Site) -> None:
    """Garbage on the port is answered with 400 and closed."""
    address = httpx.URL(site.gateway.url)
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00 TLS to a plain port\r\n\r\n", b"GET\r\n\r\n", b"\0" * 100):
        async with wire.Wire.open(address.host, address.port or 0) as raw:
            await raw.send(garbage)
            assert (await raw._reader.read()).startswith(b"HTTP/1.1 400")  # noqa: SLF001 - bytes, not MQTT


PAYLOADS: tuple[tuple[str, bytes, str | None], ...] = (
    ("cut off", b'{"battery_percent": 5', None),
    ("empty", b"", None),
    ("no object", b"7", None),
    ("not UTF-8", b"\xff\xfe\x00", None),
    ("wrong type", b'{"battery_percent": "full"}', "battery_percent"),
    ("out of range", b'{"battery_percent": 101}', "battery_percent"),
    ("not a number", b'{"battery_percent": NaN}', None),
    ("a huge number", b'{"pending_recordings": ' + b"9" * 400 + b"}", "pending_recordings"),
    ("unknown state", b'{"device_state": "melting"}', "device_state"),
    ("deep", b'{"x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", None),
    ("above 64 KiB", b'{"x": "' + b"y" * 70_000 + b'"}', None),
)


@pytest.mark.parametrize(("payload", "field"), [case[1:] for case in PAYLOADS], ids=[case[0] for case in PAYLOADS])
async def test_a_bad_heartbeat_over_mqtt_changes_nothing(
    site: Site, bound: BoundDevice, payload: bytes, field: str | None
) -> None:
    """Refused, kept for diagnosis, and answered on the device's `errors` topic; no row is changed."""
    before, kept = site.fingerprint(), site.count("SELECT count(*) FROM refusals")
    async with wire.Wire.open(site.gateway.host, site.gateway.port) as raw:
        assert await raw.connect(bound.id, bound.id, mqtt_password_of(bound.token)) == wire.ACCEPTED
        await raw.subscribe(f"devices/{bound.id}/errors")
        await raw.publish(f"devices/{bound.id}/heartbeat", payload)
        answer = json.loads((await raw.read_publish()).payload)
    assert set(answer) == {"code", "message", "field"}
    if field is not None:
        assert answer["field"].startswith(field)
    assert site.count("SELECT count(*) FROM refusals") == kept + 1
    assert site.fingerprint() == before


@pytest.mark.usefixtures("bound")
async def test_a_bad_acknowledgement_over_mqtt_changes_nothing(site: Site) -> None:
    """For nothing, with a bad receipt, of another type: refused, kept, audited; the command stays as it is."""
    wiped_later = await site.device(f"ACK{secrets.token_hex(4)}").provision(end_user_id="eu_2")
    device_id = wiped_later.device_id
    reset = await site.reset(device_id)
    await site.synced()
    kept = site.count("SELECT count(*) FROM refusals")
    acks = (
        ("factory_reset", {"command_id": "cmd_01ARZ3NDEKTSV4RRFFQ69G5FAV", "status": "executed"}),
        ("factory_reset", {"command_id": reset["id"], "status": "executed"}),
        ("factory_reset", {"command_id": reset["id"], "status": "executed", "receipt": "A" * 43}),
        ("factory_reset", {"command_id": reset["id"], "status": "done"}),
        ("reboot", {"command_id": reset["id"], "status": "delivered"}),
    )
    async with wire.Wire.open(site.gateway.host, site.gateway.port) as raw:
        assert await raw.connect(device_id, device_id, wiped_later.mqtt_password) == wire.ACCEPTED
        # The broker's rights name the types that there are: this one goes no further.
        await raw.publish(f"devices/{device_id}/commands/no_such_type/ack", b"{}")
        for kind, ack in acks:
            await raw.publish(f"devices/{device_id}/commands/{kind}/ack", json.dumps(ack).encode())
    await eventually(lambda: site.count("SELECT count(*) FROM refusals") == kept + len(acks), "each refusal is kept")
    assert (await site.newest(device_id))["status"] == "pending"
    assert "acknowledgement.refused" in await site.events(device_id)


async def test_topics_of_other_devices_are_denied(site: Site, bound: BoundDevice) -> None:
    """A device that writes where it may not changes nothing: not for its neighbour, not for the integrators."""
    victim = await site.device(f"VICTIM{secrets.token_hex(4)}").provision(end_user_id="eu_2")
    await site.synced()
    before = await site.get(victim.device_id)
    topics = (
        f"devices/{victim.device_id}/heartbeat",
        f"devices/{victim.device_id}/status",
        f"devices/{bound.id}/heartbeat/more",
        f"devices/{bound.id}/state",
        f"devices/{bound.id}/commands/factory_reset",
        "devices//heartbeat",
        "gateways/x/status",
        "$SYS/broker/uptime",
        "heartbeat",
    )
    async with wire.Wire.open(site.gateway.host, site.gateway.port) as raw:
        assert await raw.connect(bound.id, bound.id, mqtt_password_of(bound.token)) == wire.ACCEPTED
        for name in topics:
            await raw.publish(name, b'{"battery_percent": 1, "status": "online"}')
        await raw.publish(f"devices/{bound.id}/heartbeat", b'{"battery_percent": 33}')
    await eventually(lambda: _battery_is(site, bound, 33), "what was allowed on the same connection is stored")
    assert await site.get(victim.device_id) == before


async def test_a_payload_of_1_mib_over_mqtt_changes_nothing(site: Site, bound: BoundDevice) -> None:
    """The broker closes that connection; nothing is stored."""
    before = site.fingerprint()
    async with wire.Wire.open(site.gateway.host, site.gateway.port) as raw:
        assert await raw.connect(bound.id, bound.id, mqtt_password_of(bound.token)) == wire.ACCEPTED
        with contextlib.suppress(ConnectionError):  # it may close before it has read all
            await raw.send(wire.publish_packet(f"devices/{bound.id}/heartbeat", b"x" * MIB))
        await raw.closed()
    assert site.fingerprint() == before
