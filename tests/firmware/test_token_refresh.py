"""A broker that refuses the password: another token over HTTP, although the power fails in between."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from gateway.store import DATABASE_NAME
from tests.e2e.support import Site, running_site
from tests.firmware.device import FirmwareDevice, Json, powered
from tests.firmware.micropython import SCRIPTS, said
from tests.support import wire
from tests.support.former_registry import former_registry
from tests.support.wait import eventually


def change_tokens(site: Site, sql: str, *values: int) -> None:
    """Change the gateway's tokens behind its back."""
    with closing(sqlite3.connect(site.gateway.data / DATABASE_NAME)) as database, database:
        database.execute(sql, values)


def tokens(site: Site) -> int:
    """How many tokens the gateway has ever made."""
    return site.count("SELECT count(*) FROM tokens")


def let_pass(site: Site, seconds: int) -> None:
    """As far as tokens are concerned."""
    change_tokens(site, "UPDATE tokens SET created_at = created_at - ?", seconds * 1000)


def refreshes(site: Site) -> list[int]:
    """The status of each request for a token since the gateway's start, in order."""
    requests = site.gateway.logged("http.request")
    return [each["status"] for each in requests if each["path"].endswith("/token/refresh")]


async def locked_out(site: Site, folder: Path) -> tuple[FirmwareDevice, str]:
    """A device at Mosquitto whose token is no longer the broker's: the answer that brought the new one was lost."""
    device = FirmwareDevice(folder / "device", api_url=site.gateway.url, backoff_longest_ms=100)
    async with powered(device):
        answer = await device.provision(site)
        await device.fact("sent", kind="heartbeat")
        await device.switch_off()
    lost = await site.as_device(answer["device_token"], "POST", "token/refresh")
    assert lost.status_code == httpx.codes.OK, lost.text
    await site.synced()
    return device, answer["id"]


@pytest.mark.checklist("C16")
async def test_a_token_is_requested_after_three_refusals(tmp_path: Path) -> None:
    """It asks after the third, not before, and not again before `Retry-After`; then it is back, and is reset."""
    async with running_site(tmp_path, "mosquitto") as site:
        device, device_id = await locked_out(site, tmp_path)
        let_pass(site, 57)
        async with powered(device):
            told = await device.fact("refused")
            assert (told["refusals"], told["reason"]) == (3, "CONNACK 5")
            await device.fact("token_not_refreshed", reason="the gateway asked to wait", count=2)
            assert refreshes(site)[1:] == [429]
            await device.fact("token_refreshed")
            await device.fact("sent", kind="heartbeat")
            assert refreshes(site)[1:] == [429, 200]
            assert "former_token" not in device.stored("wiped")
            await site.reset(device_id)
            await site.becomes(device_id, "executed")
            await device.fact("powered_on", pairing="unpaired")
            assert device.stored("wiped") == {}


@pytest.mark.checklist("C16")
async def test_a_refresh_of_a_revoked_token_is_requested_once(tmp_path: Path) -> None:
    """401 is final: the device keeps trying the broker, and takes the next binding only after a reset."""
    async with running_site(tmp_path, "mosquitto") as site:
        device, device_id = await locked_out(site, tmp_path)
        await site.post(f"{device_id}/unbind")
        async with powered(device):
            await device.fact("token_not_refreshed", reason="HTTP 401")
            await eventually(lambda: site.broker.log_text().count("not authorised") > 6, "it keeps trying")
            assert refreshes(site)[1:] == [401]
            assert not (await device.ask(do="provision", bind={}, networks=[]))["ok"]
            await device.ask(do="reset")  # as the button does
            await device.fact("powered_on", pairing="unpaired")
            assert device.stored("wiped") == {}
            await device.provision(site)
            await device.fact("online")


@pytest.mark.checklist("C16")
async def test_a_device_goes_to_the_broker_that_a_refresh_names(tmp_path: Path) -> None:
    """Its broker knows it no longer, as after a move: the answer to the refresh says which one does."""
    async with (
        running_site(tmp_path / "new", "mosquitto") as site,
        running_site(tmp_path / "old", "mosquitto") as former,
    ):
        device = FirmwareDevice(tmp_path / "device", api_url=site.gateway.url, backoff_longest_ms=100)
        async with powered(device):
            await device.provision(site)
            await device.fact("sent", kind="heartbeat")
            await device.switch_off()
        pairing = device.stored("wiped")["pairing"]
        new = pairing["mqtt"]
        write_flash(device, "wiped", {"pairing": {**pairing, "mqtt": {**new, "port": former.gateway.port}}})
        let_pass(site, 60)
        async with powered(device):
            assert (await device.fact("refused"))["reason"] == "CONNACK 5"
            await device.fact("token_refreshed")
            await device.fact("sent", kind="heartbeat")
        assert device.stored("wiped")["pairing"]["mqtt"] == new


@pytest.mark.checklist("C17")
async def test_a_power_cut_before_the_new_token_is_written_repeats_the_request(tmp_path: Path) -> None:
    """The key of the request is made of the token: the same answer comes again, at once, and no third token is made."""
    async with running_site(tmp_path, "mosquitto") as site:
        device, _ = await locked_out(site, tmp_path)
        let_pass(site, 60)
        async with powered(device, die_at=3):  # 1: the request, 2: the former token, 3: the token
            await device.power_is_cut()
        made = tokens(site)
        stored = device.stored("wiped")
        assert stored["former_token"] == stored["device_token"]
        async with powered(device):
            await device.fact("token_refreshed")
            await device.fact("sent", kind="heartbeat")
        assert (tokens(site), refreshes(site)[1:]) == (made, [200, 200])
        assert "former_token" not in device.stored("wiped")


@pytest.mark.checklist("C17")
async def test_a_lost_new_token_is_replaced_with_the_old_one(tmp_path: Path) -> None:
    """The gateway lost the new one, as after a restore: the old one, still in flash, brings another."""
    async with running_site(tmp_path, "embedded") as site:
        device = FirmwareDevice(tmp_path / "device", api_url=site.gateway.url, backoff_longest_ms=100)
        async with powered(device):
            old = (await device.provision(site))["device_token"]
            await device.fact("sent", kind="heartbeat")
            await device.switch_off()
        set_version(device, "0.9.0")  # an update makes it ask before it connects
        async with powered(device, die_at=4):  # 1: the request, 2: the former token, 3: the token, 4: the version
            await device.power_is_cut()
        stored = device.stored("wiped")
        assert stored["former_token"] == old
        assert stored["device_token"] != old
        change_tokens(site, "DELETE FROM tokens WHERE id = (SELECT max(id) FROM tokens)")
        async with powered(device):
            await device.fact("token_refreshed")
            await device.fact("sent", kind="heartbeat")
        assert device.stored("wiped")["device_token"] not in (old, stored["device_token"])


@pytest.mark.checklist("C12")
async def test_updated_firmware_refreshes_a_former_token_first(tmp_path: Path) -> None:
    """It asks for another token before its first connect, so the broker never refuses it."""
    former = former_registry(tmp_path / "gateway" / "data")
    async with running_site(tmp_path, "embedded") as site:
        assert await site.password_answer(former.id, former.token) == wire.ACCEPTED
        device = FirmwareDevice(tmp_path / "device", "SN-OLD", api_url=site.gateway.url)
        mqtt = {"host": site.gateway.host, "port": site.gateway.port, "tls": False, "topic_prefix": ""}
        pairing: Json = {"device_id": former.id, "binding_generation": 1, "grant_key": {}, "mqtt": mqtt}
        kept = {"serial_number": "SN-OLD", "firmware_version": "0.9.0"}
        write_flash(device, "kept", kept)
        networks = [{"ssid": "ward", "psk": "a password"}]
        write_flash(device, "wiped", {"wifi_networks": networks, "pairing": pairing, "device_token": former.token})
        async with powered(device):
            await device.fact("sent", kind="heartbeat")
            names = [
                each["fact"] for each in device.lines() if each["fact"] in ("token_refreshed", "online", "refused")
            ]
            assert names == ["token_refreshed", "online"]
            assert await site.password_answer(former.id, former.token) == wire.NOT_AUTHORISED
        async with powered(device):
            await device.fact("sent", kind="heartbeat")
        assert refreshes(site) == [200]


def test_an_old_retry_after_makes_no_heartbeats(tmp_path: Path) -> None:
    """The broker may admit the device before it asks again: the pause that the gateway asked for has passed then."""
    (due,) = said(SCRIPTS / "beats.py", tmp_path / "flash", heap="256k")
    assert int(due) <= 3


def set_version(device: FirmwareDevice, version: str) -> None:
    """Have it look as if another firmware had run before."""
    write_flash(device, "kept", {"firmware_version": version})


def write_flash(device: FirmwareDevice, area: str, values: Json) -> None:
    """Write into the flash of a device that is off."""
    folder = device.flash / area
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
