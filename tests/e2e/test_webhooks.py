"""Webhooks and the event stream of the installed program, through kills and stops."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.program import GUARD_SECONDS
from tests.e2e.support import Site, running_site
from tests.support.receiver import OK, receiving
from tests.support.wait import eventually

ROUNDS = 5


async def create_webhook(site: Site, url: str) -> dict[str, Any]:
    """A webhook for every type of event."""
    answer = await site.http.post("/v1/webhooks", json={"url": url})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    webhook: dict[str, Any] = answer.json()
    return webhook


async def registered(site: Site, serial: str) -> None:
    """A new device."""
    assert (await site.http.post("/v1/devices", json={"serial_number": serial})).status_code == httpx.codes.CREATED


async def trail(site: Site) -> list[str]:
    """Ids of the registrations, the oldest first."""
    listed = await site.http.get("/v1/events?limit=100&type=device.registered")
    return [event["id"] for event in reversed(listed.json()["data"])]


async def test_events_are_delivered_although_the_gateway_is_killed(tmp_path: Path) -> None:
    """``kill -9`` in the middle of a try, again and again: after the restart nothing is missing, each under its id."""
    async with receiving() as receiver, running_site(tmp_path, "embedded", "--webhook-allow-loopback") as site:
        receiver.open.clear()
        webhook = await create_webhook(site, receiver.url)
        for number in range(ROUNDS):
            await registered(site, f"SN-{number}")
            await receiver.got(number + 1)  # each start tries the first anew
            await site.gateway.kill()
            await site.gateway.restart()
        receiver.open.set()
        expected = await trail(site)
        assert len(expected) == ROUNDS

        async def all_delivered() -> bool:
            listed = await site.http.get(f"/v1/webhooks/{webhook['id']}/deliveries?status=delivered")
            return len(listed.json()["data"]) == ROUNDS

        await eventually(all_delivered, "every delivery is over")
        came = [each.headers["webhook-id"] for each in receiver.received]
        assert list(dict.fromkeys(came)) == expected
        assert len(came) > ROUNDS
        assert all(each.is_signed_with(webhook["secret"]) for each in receiver.received)


async def test_delivered_events_are_not_sent_again_after_a_kill(tmp_path: Path) -> None:
    """Once its outcome is committed."""
    async with receiving(OK) as receiver, running_site(tmp_path, "embedded", "--webhook-allow-loopback") as site:
        webhook = await create_webhook(site, receiver.url)
        path = f"/v1/webhooks/{webhook['id']}/deliveries?status=delivered"

        async def delivered(number: int) -> bool:
            return len((await site.http.get(path)).json()["data"]) == number

        await registered(site, "SN-1")
        await eventually(lambda: delivered(1), "the first is delivered")
        await site.gateway.kill()
        await site.gateway.restart()
        await registered(site, "SN-2")
        await eventually(lambda: delivered(2), "the second is delivered")
        assert [each.headers["webhook-id"] for each in receiver.received] == await trail(site)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_stream_resumes_where_it_broke(tmp_path: Path, how: signal.Signals) -> None:
    """A stop ends it cleanly and in time, a kill breaks it; by ``Last-Event-ID`` nothing is missed."""
    async with running_site(tmp_path, "embedded", "--webhook-allow-loopback") as site, asyncio.timeout(GUARD_SECONDS):
        seen: list[str] = []
        for number in range(3):
            await registered(site, f"SN-{number}")
            headers = {"Last-Event-ID": seen[-1] if seen else "evt_0"}
            async with site.http.stream("GET", "/v1/events/stream?type=device.registered", headers=headers) as response:
                lines = response.aiter_lines()
                seen += [line.removeprefix("id: ") async for line in _up_to_an_id(lines)]
                site.gateway.send(how)
                code = await site.gateway.ended()
                await _ends(lines, broken=how == signal.SIGKILL)
            assert code == (0 if how == signal.SIGTERM else -signal.SIGKILL)
            assert site.gateway.logged("http.requests_cut") == []
            await site.gateway.restart()
        assert seen == await trail(site)


async def _up_to_an_id(lines: Any) -> Any:
    async for line in lines:
        if line.startswith("id: "):
            yield line
            return


async def _ends(lines: Any, *, broken: bool) -> None:
    if not broken:
        assert [line async for line in lines if line.startswith("id: ")] == []
        return
    with pytest.raises(httpx.RemoteProtocolError):
        async for _ in lines:
            pass
