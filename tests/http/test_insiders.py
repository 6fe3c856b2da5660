"""Who is told how the gateway is, and what a stranger hears instead."""

from pathlib import Path

import pytest
from starlette.types import Scope

from gateway.http.insiders import is_local
from gateway.observability.metrics_endpoint import Scrape
from tests.http.support import Api, body, error, serving
from tests.support.faults import away

BY_PROXY = {"X-Forwarded-For": "203.0.113.7"}
TOKEN = "metrics_" + "x" * 40


def bearer(secret: str) -> dict[str, str]:
    """By a proxy, with this credential."""
    return BY_PROXY | {"Authorization": f"Bearer {secret}"}


async def test_metrics_need_a_key_that_may_read_devices(api: Api) -> None:
    """A key that may read devices opens them; none, another scope, a device's token and a wrong one do not."""
    other = await api.another_key("webhooks:read")
    device = await api.bound()
    client = api.as_(None)
    assert (await client.get("/metrics")).status_code == 200
    error(await client.get("/metrics", headers=BY_PROXY), 401, "unauthorized")
    error(await client.get("/metrics", headers=bearer(TOKEN)), 401, "unauthorized")
    error(await client.get("/metrics", headers=bearer(other)), 403, "insufficient_scope")
    error(await client.get("/metrics", headers=bearer(device["device_token"])), 403, "insufficient_scope")
    assert (await client.get("/metrics", headers=bearer(api.key))).status_code == 200


async def test_a_metrics_token_is_required_of_every_caller(tmp_path: Path) -> None:
    """Also on the machine; it opens nothing else."""
    async with serving(tmp_path, metrics_token=TOKEN) as api:
        client = api.as_(None)
        error(await client.get("/metrics"), 401, "unauthorized")
        error(await client.get("/metrics", headers=bearer(TOKEN[:-1])), 401, "unauthorized")
        assert (await client.get("/metrics", headers=bearer(TOKEN))).status_code == 200
        assert (await client.get("/metrics", headers=bearer(api.key))).status_code == 200
        error(await client.get("/v1/devices", headers=bearer(TOKEN)), 401, "unauthorized")


async def test_metrics_are_computed_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask."""
    made = 0
    make = Scrape._made  # noqa: SLF001 - what it costs is what is counted

    async def counted(scrape: Scrape) -> bytes:
        nonlocal made
        made += 1
        return await make(scrape)

    monkeypatch.setattr(Scrape, "_made", counted)
    async with serving(tmp_path, kept_seconds=3_600) as api:
        for _ in range(50):
            assert (await api.as_(None).get("/metrics")).status_code == 200
    assert made == 1


async def test_ready_hides_details_from_remote_callers(api: Api) -> None:
    """They hear that something is wrong; a key that may read devices, and who is on the machine, hear what."""
    api.readiness["ready"] = False
    api.readiness["broker"] |= {"connected": False, "error": "mqtt://10.1.2.3:1883 refused"}
    client = api.as_(None)
    assert body(await client.get("/ready"), 503) == api.readiness
    assert body(await client.get("/ready", headers=bearer(api.key)), 503) == api.readiness
    device = await api.bound()
    for headers in (BY_PROXY, bearer(device["device_token"]), bearer(await api.another_key("webhooks:read"))):
        answer = await client.get("/ready", headers=headers)
        told = body(answer, 503)
        assert told["broker"]["connected"] is False
        assert "devices:read" in told["broker"]["error"]
        assert "10.1.2.3" not in answer.text
        assert {**told, "broker": None} == {**api.readiness, "broker": None}
    error(await client.get("/ready", headers=bearer("sk_live_" + "x" * 34)), 401, "unauthorized")


async def test_ready_is_answered_without_a_registry(api: Api) -> None:
    """A key that cannot be looked up makes a stranger, and no error in place of what is wrong."""
    api.readiness["ready"] = False
    api.readiness["registry"] |= {"error": "the disk at /srv/secret is gone"}
    with away(api.store, api.data_dir):
        told = body(await api.as_(None).get("/ready", headers=bearer(api.key)), 503)
    assert "devices:read" in told["registry"]["error"]


@pytest.mark.parametrize(
    ("client", "server", "header", "local"),
    [
        ("127.0.0.1", "127.0.0.1", None, True),
        ("127.9.9.9", "127.0.0.1", None, True),
        ("::1", "::1", None, True),
        ("::ffff:127.0.0.1", "::", None, True),
        ("192.0.2.1", "192.0.2.1", None, True),
        ("192.0.2.2", "192.0.2.1", None, False),
        ("::ffff:192.0.2.2", "::", None, False),
        ("", "", None, False),
        ("127.0.0.1", "127.0.0.1", b"forwarded", False),
        ("127.0.0.1", "127.0.0.1", b"via", False),
        ("127.0.0.1", "127.0.0.1", b"x-real-ip", False),
    ],
)
def test_local_callers_are_recognised(client: str, server: str, header: bytes | None, *, local: bool) -> None:
    """By the connection, unless a proxy says that it sends for another."""
    headers = [] if header is None else [(header, b"127.0.0.1")]
    scope: Scope = {"client": (client, 1), "server": (server, 2), "headers": headers}
    assert is_local(scope) == local
    assert not is_local({**scope, "client": None})
