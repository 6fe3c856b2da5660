"""Token refresh over HTTP: a lost answer never bricks a device (contract, section 2)."""

import re
from pathlib import Path

import pytest

from tests.http.support import Api, body, error, serving
from tests.support.mqtt_password import mqtt_password_of

PATH = "/v1/devices/me/token/refresh"
BEAT = "/v1/devices/me/heartbeat"


async def refreshed(api: Api, token: str) -> str:
    """The token that the device with this one gets, a minute after it got one last."""
    api.clock.ahead_ms += 60_000
    new: str = body(await api.as_(token).post(PATH), 200)["device_token"]
    return new


async def is_accepted(api: Api, token: str) -> bool:
    """Whether the token is good."""
    status = (await api.as_(token).post(BEAT)).status_code
    assert status in (200, 401)
    return status == 200


@pytest.mark.guarantee("G11")
async def test_a_refresh_answers_a_new_token_of_the_same_generation(api: Api) -> None:
    """Shown once, under the device's id as under ``me``; the binding stays as it is."""
    bound = await api.bound()
    answer = await api.as_(bound["device_token"]).post(f"/v1/devices/{bound['id']}/token/refresh")
    new = body(answer, 200)
    assert set(new) == {"device_token", "mqtt", "binding_generation"}
    assert new["mqtt"] == {
        "host": "mqtt.example.com",
        "port": 8883,
        "tls": True,
        "password": mqtt_password_of(new["device_token"]),
    }
    assert re.fullmatch(r"dtok_[0-9A-Za-z]{34}", new["device_token"])
    assert new["device_token"] != bound["device_token"]
    assert new["binding_generation"] == bound["binding_generation"] == 1
    assert answer.headers["cache-control"] == "no-store"
    assert "x-broker-synced" not in answer.headers
    device = body(await api.back_end.get(f"/v1/devices/{bound['id']}"), 200)
    assert (device["status"], device["binding_generation"]) == ("bound", 1)


async def test_the_old_token_is_good_until_the_new_one_is_used(api: Api) -> None:
    """The device may refresh as often as it needs; the first use of the new token ends the old one."""
    old = (await api.bound())["device_token"]
    new = await refreshed(api, old)
    for _ in range(3):
        assert await is_accepted(api, old)
    assert await is_accepted(api, new)
    assert not await is_accepted(api, old)
    assert await is_accepted(api, new)


async def test_a_refresh_can_be_repeated_after_a_lost_answer(api: Api) -> None:
    """With the old token, as often as it takes; a new token whose answer was lost is no longer good."""
    old = (await api.bound())["device_token"]
    lost = await refreshed(api, old)
    new = await refreshed(api, old)
    assert not await is_accepted(api, lost)
    assert await is_accepted(api, old)
    assert await is_accepted(api, new)
    assert not await is_accepted(api, old)


async def test_a_refused_request_is_a_first_use_too(api: Api) -> None:
    """A caller that shows the new token has it."""
    old = (await api.bound())["device_token"]
    new = await refreshed(api, old)
    error(await api.as_(new).post(BEAT, json={"battery_percent": 101}), 400, "invalid_request")
    assert not await is_accepted(api, old)


@pytest.mark.guarantee("G12")
async def test_a_reset_only_token_is_refreshed_to_reset_only(api: Api) -> None:
    """The answer to the first refresh was lost; the reset is fetched with the newest token, and nothing else is."""
    bound = await api.bound()
    old = bound["device_token"]
    lost = await refreshed(api, old)
    await api.reset(bound["id"])
    new = await refreshed(api, old)
    assert not await is_accepted(api, lost)
    assert body(await api.as_(old).post(BEAT), 200)["commands"]
    assert body(await api.as_(new).post(BEAT), 200)["commands"]
    assert not await is_accepted(api, old)
    answer = error(await api.as_(new).get("/v1/devices/me/commands/pending"), 401, "unauthorized")
    assert "to be reset" in answer["message"]
    assert "token/refresh" in answer["message"]


async def test_a_refresh_within_a_minute_is_refused_with_retry_after(api: Api) -> None:
    """429 with ``Retry-After``, at no cost; with the Idempotency-Key of a lost answer that answer comes again."""
    old = (await api.bound())["device_token"]
    once = {"Idempotency-Key": "refresh-1"}
    lost = body(await api.as_(old).post(PATH, headers=once), 200)["device_token"]
    answer = await api.as_(old).post(PATH)
    told = error(answer, 429, "rate_limit_exceeded")
    assert 1 <= int(answer.headers["retry-after"]) == told["details"]["retry_after_seconds"] <= 60
    assert "Idempotency-Key" in told["message"]
    assert body(await api.as_(old).post(PATH, headers=once), 200)["device_token"] == lost
    assert await is_accepted(api, old)
    api.clock.ahead_ms += 60_000
    new = body(await api.as_(old).post(PATH), 200)["device_token"]
    assert new != lost
    assert not await is_accepted(api, lost)
    assert await is_accepted(api, new)


@pytest.mark.guarantee("G13")
async def test_a_revoked_token_is_not_refreshed(api: Api) -> None:
    """Neither is an API key, and a caller without a credential gets nothing."""
    bound = await api.bound()
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/unbind"), 200)
    error(await api.as_(bound["device_token"]).post(PATH), 401, "unauthorized")
    error(await api.as_(None).post(PATH), 401, "unauthorized")
    error(await api.back_end.post(f"/v1/devices/{bound['id']}/token/refresh"), 403, "insufficient_scope")


async def test_no_device_refreshes_anothers_token(api: Api) -> None:
    """404, as for any other thing of another device."""
    one, two = await api.bound("BP-1"), await api.bound("BP-2")
    error(await api.as_(one["device_token"]).post(f"/v1/devices/{two['id']}/token/refresh"), 404, "not_found")
    assert await is_accepted(api, two["device_token"])


async def test_a_refresh_records_its_events(api: Api) -> None:
    """``token.refreshed`` and, at the first use, ``token.revoked``, both by the device; no secret in either."""
    bound = await api.bound()
    new = await refreshed(api, bound["device_token"])
    assert await is_accepted(api, new)
    answer = await api.back_end.get(f"/v1/devices/{bound['id']}/events")
    events = [each for each in body(answer, 200)["data"] if each["type"].startswith("token.")]
    assert [each["type"] for each in events] == ["token.revoked", "token.refreshed"]
    assert {each["data"]["actor"] for each in events} == {bound["id"]}
    assert not [secret for secret in (new, bound["device_token"]) if secret[:13] in answer.text]


async def test_a_refresh_is_answered_although_the_broker_is_down(tmp_path: Path) -> None:
    """After the wait of the settings, and the header says that connects have to wait."""
    async with serving(tmp_path, bind_broker_wait_seconds=0.05) as api:
        bound = await api.bound()
        await api.settled()
        api.broker.switch(up=False)
        answer = await api.as_(bound["device_token"]).post(PATH)
        assert answer.headers["x-broker-synced"] == "false"
        assert await is_accepted(api, body(answer, 200)["device_token"])


async def test_the_mqtt_password_opens_nothing_over_http(api: Api) -> None:
    """Neither that of the bind nor that of a refresh: an operator of the broker cannot act as the device."""
    bound = await api.bound()
    new = body(await api.as_(bound["device_token"]).post(PATH), 200)
    for password in (bound["mqtt"]["password"], new["mqtt"]["password"]):
        for device_id in ("me", bound["id"]):
            error(await api.as_(password).post(f"/v1/devices/{device_id}/heartbeat"), 401, "unauthorized")
            error(await api.as_(password).post(f"/v1/devices/{device_id}/token/refresh"), 401, "unauthorized")
    assert await is_accepted(api, new["device_token"])
