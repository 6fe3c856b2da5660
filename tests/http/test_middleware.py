"""What every request gets: an id, the state of its rate limit, a line in the log, and an answer whatever happens."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.core.clock import MINUTE_MS, SECOND_MS, system_clock
from gateway.core.topics import Topics
from gateway.http.app import build
from gateway.http.rate_limit import NO_LIMIT
from gateway.http.server.server import HttpServer
from gateway.http.services import Services
from gateway.store import Context, Store
from tests.http.support import JSON, Api, Client, Json, body, error, serving
from tests.support.faults import away, full_disk

SECRETS = ("sk_live_", "dtok_")


@pytest.mark.parametrize("given", ["a", "0c8f3e52-9d51-4a6c-8a0e-3b1c5d8f7a10", "req_1.2-3", "x" * 64])
async def test_a_callers_request_id_is_logged_beside_ours(api: Api, given: str) -> None:
    """Both sides find the request in their logs, and no caller gives two requests the same id of ours."""
    with capture_logs() as logs:
        answers = [await api.back_end.get("/v1/devices", headers={"X-Request-Id": given}) for _ in range(2)]
    ours = {answer.headers["x-request-id"] for answer in answers}
    assert len(ours) == len(answers)
    assert all(each.startswith("req_") for each in ours)
    assert given not in ours
    assert [line["client_request_id"] for line in logs if line["event"] == "http.request"] == [given, given]


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "ä".encode(), "<script>", "dtok_0123456789abcdef"])
async def test_an_invalid_request_id_is_left_out(api: Api, given: str | bytes) -> None:
    """It reaches neither the answer nor the log."""
    headers = {b"X-Request-Id": given.encode() if isinstance(given, str) else given}
    with capture_logs() as logs:
        ids = {(await api.back_end.get("/v1/devices", headers=headers)).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(each.startswith("req_") for each in ids)
    assert not [line for line in logs if "client_request_id" in line]


async def test_each_request_is_one_log_line(api: Api) -> None:
    """Method, path template, status, duration, ids, address and who it was; never a secret, nor the path as it came."""
    bound = await api.bound()
    device = api.as_(bound["device_token"])
    with capture_logs() as logs:
        await api.back_end.get(f"/v1/devices/{bound['id']}", headers={"X-Request-Id": "one"})
        await device.post("/v1/devices/me/heartbeat", json={"battery_percent": 200})
        await api.as_(None).get(f"/v1/{api.key}?token={bound['device_token']}")
    lines = [line for line in logs if line["event"] == "http.request"]
    assert {line.pop("client_address") for line in lines} == {"127.0.0.1"}
    facts = [{name: value for name, value in line.items() if name not in ("duration_ms", "event")} for line in lines]
    assert facts == [
        {
            "method": "GET",
            "path": "/v1/devices/{device_id}",
            "status": 200,
            "key_id": api.key_id,
            "client_request_id": "one",
            "log_level": "info",
        },
        {
            "method": "POST",
            "path": "/v1/devices/{device_id}/heartbeat",
            "status": 400,
            "device_id": bound["id"],
            "error": "invalid_request",
            "log_level": "info",
        },
        {"method": "GET", "path": "-", "status": 401, "error": "unauthorized", "log_level": "info"},
    ]
    assert all(line["duration_ms"] >= 0 for line in lines)
    assert not [secret for secret in SECRETS if secret in json.dumps(logs)]


async def test_an_internal_error_is_a_500_with_the_request_id(api: Api) -> None:
    """``internal_error`` for the caller; traceback and id for the operator of the gateway."""
    device = await api.registered()
    await api.store.write(lambda tx: tx.run("UPDATE devices SET metadata = 'no JSON'"))
    with capture_logs() as logs:
        answer = await api.back_end.get(f"/v1/devices/{device['id']}", headers={"X-Request-Id": "seven"})
    failure = error(answer, 500, "internal_error")
    ours = answer.headers["x-request-id"]
    assert failure["details"] == {"request_id": ours}
    assert ours in failure["message"]
    assert [line["exc_info"] for line in logs if line["event"] == "http.failed"] == [True]
    assert [line["status"] for line in logs if line["event"] == "http.request"] == [500]
    body(await api.as_(None).get("/health"), 200)


async def test_an_unwritable_database_is_a_503(api: Api) -> None:
    """With ``Retry-After``; nothing was changed, reads go on, and later the same request succeeds."""
    await api.registered("BP-0")
    await api.settled()
    async with full_disk(api.store):
        answers = [
            await api.back_end.post("/v1/devices", json={"serial_number": f"BP-{n}", "metadata": {"x": "y" * 8_000}})
            for n in range(1, 17)
        ]
        listed = body(await api.back_end.get("/v1/devices"), 200)["data"]
    refused = [answer for answer in answers if answer.status_code != 201]
    error(refused[0], 503, "service_unavailable")
    assert int(refused[0].headers["retry-after"]) > 0
    assert len(listed) == 1 + len(answers) - len(refused)
    await api.registered("BP-9")


async def test_health_has_the_documented_body(api: Api) -> None:
    """Byte for byte, without a credential."""
    answer = await api.as_(None).get("/health")
    assert (answer.status_code, answer.content) == (
        200,
        b'{"status":"healthy","database":"connected","billing":"disabled"}',
    )


async def test_without_a_database_requests_are_503(tmp_path: Path) -> None:
    """``/health`` says ``unhealthy`` with 503, the API 503 instead of failing; both recover by themselves."""

    async def synced(_device_pk: int, _seconds: float) -> bool:
        return True

    async def report() -> Json:
        return {}

    async with Store(tmp_path, Context()) as store:
        services = Services(store, Topics(), lambda: ("localhost", 1883, False), synced, report)
        async with HttpServer(build(services), "127.0.0.1", 0) as server, Client(base_url=server.url) as client:
            with away(store, tmp_path):
                answer = await client.get("/health")
                assert answer.content == b'{"status":"unhealthy","database":"disconnected","billing":"disabled"}'
                assert answer.status_code == 503
                headers = {"Authorization": f"Bearer sk_live_{'x' * 34}"}
                error(await client.get("/v1/devices", headers=headers), 503, "service_unavailable")
            body(await client.get("/health"), 200)


async def test_ready_reports_the_state(api: Api) -> None:
    """200 when all is well, 503 with the same facts when the broker is away."""
    assert body(await api.as_(None).get("/ready"), 200) == api.readiness
    api.readiness["ready"] = False
    api.readiness["broker"] |= {"connected": False, "reconciled": False, "mqtt_version": None, "error": "refused"}
    assert body(await api.as_(None).get("/ready"), 503) == api.readiness


async def test_signing_keys_are_published(api: Api) -> None:
    """None before the first device is bound; then the one that devices are given, also for caches."""
    assert body(await api.as_(None).get("/.well-known/jwks.json"), 200) == {"keys": []}
    bound = await api.bound()
    answer = await api.as_(None).get("/.well-known/jwks.json")
    assert body(answer, 200) == {"keys": [bound["grant_key"]]}
    assert "max-age" in answer.headers["cache-control"]


def quota(answer: Any) -> tuple[int, int]:
    """Limit and remaining, by the headers."""
    return int(answer.headers["x-ratelimit-limit"]), int(answer.headers["x-ratelimit-remaining"])


async def test_the_rate_limit_counts_each_key_and_each_device(tmp_path: Path) -> None:
    """429 with ``Retry-After`` past the limit; others are not touched; in the next minute all is back."""
    async with serving(tmp_path, rate_limit_per_minute=4) as api:
        api.clock.ahead_ms = -system_clock() % MINUTE_MS  # no minute ends in the middle of the test
        now = api.clock() // SECOND_MS
        bound = await api.bound()  # two requests
        device, other = api.as_(bound["device_token"]), api.as_(await api.another_key())
        assert quota(await api.back_end.get("/v1/devices")) == (4, 1)
        assert quota(await api.back_end.get("/v1/nowhere")) == (4, 0)
        refused = await api.back_end.post("/v1/devices", content=b"not even read", headers=JSON)
        details = error(refused, 429, "rate_limit_exceeded")["details"]
        assert quota(refused) == (4, 0)
        seconds = int(refused.headers["retry-after"])
        assert details == {"retry_after_seconds": seconds}
        assert 0 < seconds <= 60
        assert now <= int(refused.headers["x-ratelimit-reset"]) <= now + 60

        assert quota(await device.post("/v1/devices/me/heartbeat")) == (4, 3)
        assert quota(await other.get("/v1/devices")) == (4, 3)
        assert quota(await api.as_(None).get("/v1/devices")) == (4, 4)
        assert quota(await api.as_(None).get("/health")) == (4, 4)
        api.clock.ahead_ms += seconds * SECOND_MS
        assert quota(await api.back_end.get("/v1/devices")) == (4, 3)


async def test_without_a_rate_limit_no_request_is_refused(tmp_path: Path) -> None:
    """Limit 0 means no limit: the headers name a number so large that no client ever waits."""
    async with serving(tmp_path, rate_limit_per_minute=0) as api:
        for _ in range(3):
            limit, remaining = quota(await api.back_end.get("/v1/devices"))
            assert limit == NO_LIMIT
            assert remaining >= NO_LIMIT - 3


async def test_concurrent_requests_are_served(api: Api) -> None:
    """A hundred registrations of ten serial numbers at the same time make ten devices."""
    requests = [api.back_end.post("/v1/devices", json={"serial_number": f"BP-{n % 10}"}) for n in range(100)]
    answers = await asyncio.gather(*requests)
    assert sorted(answer.status_code for answer in answers) == [200] * 90 + [201] * 10
    assert len({answer.json()["id"] for answer in answers}) == 10
