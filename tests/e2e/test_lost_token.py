"""The answer to a token refresh is lost: the device asks again over HTTP, and gets its reset (contract, section 2)."""

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from device_sim import SimulatedDevice
from gateway.store import DATABASE_NAME
from tests.e2e.support import BROKERS, BrokerKind, Site, running, running_site, token_of
from tests.e2e.test_reset_after_crashes import offline_device, reconnect_and_wipe
from tests.support import wire
from tests.support.clock import ShiftedClock
from tests.support.wait import eventually


async def lose_a_refresh(site: Site, device: SimulatedDevice) -> None:
    """A new token is minted that the device never gets to know."""
    answer = await site.as_device(token_of(device), "POST", "token/refresh")
    assert answer.status_code == httpx.codes.OK, answer.text


def advance_a_minute(site: Site) -> None:
    """As far as tokens are concerned."""
    with closing(sqlite3.connect(site.gateway.data / DATABASE_NAME)) as database, database:
        database.execute("UPDATE tokens SET created_at = created_at - 60000")


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_reset_is_fetched_although_the_new_token_was_lost(kind: BrokerKind, tmp_path: Path) -> None:
    """Mosquitto knows the new token alone and refuses the old one: the firmware asks for another, and is wiped."""
    async with running_site(tmp_path, kind) as site:
        device, device_id = await offline_device(site)
        await lose_a_refresh(site, device)
        await site.reset(device_id)
        advance_a_minute(site)
        await reconnect_and_wipe(site, device, device_id)


async def test_the_old_token_is_revoked_at_the_first_use_of_the_new_one(tmp_path: Path) -> None:
    """At Mosquitto, over MQTT alone: its holder could else throw the device out, and take its place."""
    async with running_site(tmp_path, "mosquitto") as site:
        device, device_id = await offline_device(site)
        old = token_of(device)
        new = (await site.as_device(old, "POST", "token/refresh")).json()["mqtt"]["password"]
        async with wire.Wire.open(site.gateway.host, site.gateway.port) as raw:
            assert await raw.connect(device_id, device_id, new) == wire.ACCEPTED

            async def refused() -> bool:
                await raw.publish(f"devices/{device_id}/heartbeat", b"{}")
                answer = await site.as_device(old, "GET", "commands/pending")
                return answer.status_code == httpx.codes.UNAUTHORIZED

            await eventually(refused, "the old token is revoked")
            assert (await site.as_device(old, "POST", "token/refresh")).status_code == httpx.codes.UNAUTHORIZED
            await site.synced()
            await raw.ping()


async def test_a_device_waits_until_it_may_refresh_again(tmp_path: Path) -> None:
    """429 meanwhile; it asks with each heartbeat that is due, and is back with the token that it gets."""
    async with running_site(tmp_path, "mosquitto") as site:
        clock = ShiftedClock()
        device, _ = await offline_device(site, clock=clock)
        await lose_a_refresh(site, device)
        before = device.counts["online"]
        async with running(device):
            told = await device.wait_for_fact("token_not_refreshed")
            assert "429" in str(told.details["reason"])
            advance_a_minute(site)
            clock.ahead_ms += 60_000  # the device heeds `Retry-After` by its own clock
            await device.wait_for_fact("online", count=before + 1)
        assert device.counts["token_refreshed"] == 1


async def test_a_revoked_device_requests_a_refresh_once(tmp_path: Path) -> None:
    """401 is final: it keeps trying the broker, slowly, and does not ask for a token again."""
    async with running_site(tmp_path, "mosquitto") as site:
        device, device_id = await offline_device(site)
        await site.post(f"{device_id}/unbind")
        async with running(device):
            told = await device.wait_for_fact("token_not_refreshed")
            assert "401" in str(told.details["reason"])
            await device.wait_for_fact("refused")
        assert device.counts["token_not_refreshed"] == 1
