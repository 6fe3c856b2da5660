"""Mosquitto kept in step: what an answer promises holds at the broker when it is given, or it says that it does not."""

from pathlib import Path

import httpx
from e2e_gateway import GatewayProcess
from e2e_program import run, script, started
from e2e_site import Site, a_site
from support import wire
from support.mosquitto import GATEWAY_PASSWORD, Mosquitto
from support.wait import eventually

TIMES = 6


async def test_a_token_that_was_handed_out_opens_the_broker(tmp_path: Path) -> None:
    """After bind and after refresh, at once: the answer came when Mosquitto had read the password file."""
    async with a_site(tmp_path, "mosquitto") as site:
        for number in range(TIMES):
            device_id = await _registered(site, f"SN{number}")
            bound = await site.post(f"{device_id}/bind", {"end_user_id": "eu_1"})
            assert await site.connect_answer(device_id, bound["device_token"]) == wire.ACCEPTED
            answer = await site.as_device(bound["device_token"], "POST", "token/refresh")
            assert answer.status_code == httpx.codes.OK, answer.text
            assert await site.connect_answer(device_id, answer.json()["device_token"]) == wire.ACCEPTED


async def test_a_revoked_token_is_refused_when_the_outbox_is_empty(tmp_path: Path) -> None:
    """What /ready calls done is done: no token that was revoked before opens the broker."""
    async with a_site(tmp_path, "mosquitto") as site:
        for number in range(TIMES):
            device_id, token = await _bound(site, f"SN{number}")
            await site.post(f"{device_id}/unbind")
            await site.synced()
            assert await site.connect_answer(device_id, token) in (wire.BAD_CREDENTIALS, wire.NOT_AUTHORISED)


async def _registered(site: Site, serial: str) -> str:
    answer = await site.http.post("/v1/devices", json={"serial_number": serial})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return str(answer.json()["id"])


async def _bound(site: Site, serial: str) -> tuple[str, str]:
    device_id = await _registered(site, serial)
    return device_id, (await site.post(f"{device_id}/bind", {"end_user_id": "eu_1"}))["device_token"]


async def test_a_broker_that_goes_by_another_file_is_named(tmp_path: Path) -> None:
    """A signal without effect is no success: /ready says which settings to check."""
    async with Mosquitto(tmp_path) as broker:
        other = tmp_path / "other-passwords"
        other.write_text(broker.password_file.read_text())
        gateway = _beside(tmp_path, broker, "--mosquitto-password-file", str(other), *_signalling(broker))
        async with started(gateway), httpx.AsyncClient(base_url=gateway.url) as http:

            async def told() -> bool:
                return f"does not go by {other}" in await _access_error(http)

            await eventually(told, "the file is named")
            assert not (await http.get("/ready")).json()["ready"]


async def test_a_gateway_that_cannot_signal_says_so(tmp_path: Path) -> None:
    """At the start, in /ready and in the doctor; it works all the same."""
    async with Mosquitto(tmp_path) as broker:
        gateway = _beside(tmp_path, broker, "--mosquitto-password-file", str(broker.password_file))
        async with started(gateway), httpx.AsyncClient(base_url=gateway.url) as http:
            assert "mosquitto_pid_file" in gateway.logged("broker.not_signalled")[0]["message"]

            async def ready() -> bool:
                return bool((await http.get("/ready")).json()["ready"])

            await eventually(ready, "the gateway is ready")
            assert "mosquitto_pid_file" in await _access_error(http)
            outcome = await run(script("gateway"), "doctor", "--data-dir", str(gateway.data), *gateway.options)
            assert outcome.code, outcome.out
            assert "Set mosquitto_pid_file" in outcome.out


async def _access_error(http: httpx.AsyncClient) -> str:
    return str((await http.get("/ready")).json()["access"]["error"])


def _beside(folder: Path, broker: Mosquitto, *options: str) -> GatewayProcess:
    url = f"mqtt://gateway:{GATEWAY_PASSWORD}@{broker.host}:{broker.port}"
    return GatewayProcess(folder / "gateway", "--broker", url, *options)


def _signalling(broker: Mosquitto) -> tuple[str, str]:
    return "--mosquitto-pid-file", str(broker.pid_file)
