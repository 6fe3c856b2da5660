"""Mosquitto kept in step: what an answer promises holds at the broker when it is given, or it says that it does not."""

import asyncio
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from broker_config import local
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import Program, run, script, started
from tests.e2e.support import Site, running_site
from tests.support import wire
from tests.support.mosquitto import GATEWAY_PASSWORD, Mosquitto
from tests.support.wait import eventually
from tests.support.wire import Wire

Trouble = Callable[[Path], AbstractAsyncContextManager[Path]]
TIMES = 6


async def test_an_answered_token_is_accepted_by_the_broker(tmp_path: Path) -> None:
    """After bind and after refresh, at once: the answer came when Mosquitto had read the password file."""
    async with running_site(tmp_path, "mosquitto") as site:
        for number in range(TIMES):
            device_id = await _registered(site, f"SN{number}")
            bound = await site.post(f"{device_id}/bind", {"end_user_id": "eu_1"})
            assert await site.connect_answer(device_id, bound["device_token"]) == wire.ACCEPTED
            answer = await site.as_device(bound["device_token"], "POST", "token/refresh")
            assert answer.status_code == httpx.codes.OK, answer.text
            assert await site.connect_answer(device_id, answer.json()["device_token"]) == wire.ACCEPTED


async def test_a_revoked_token_is_refused_when_the_outbox_is_empty(tmp_path: Path) -> None:
    """What /ready calls done is done: no token that was revoked before opens the broker."""
    async with running_site(tmp_path, "mosquitto") as site:
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


async def test_a_broker_with_another_password_file_is_reported(tmp_path: Path) -> None:
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


async def test_a_gateway_that_cannot_signal_reports_it(tmp_path: Path) -> None:
    """At the start, in /ready and in the doctor; it works all the same."""
    async with Mosquitto(tmp_path) as broker:
        gateway = _beside(tmp_path, broker, "--mosquitto-password-file", str(broker.password_file))
        async with started(gateway), httpx.AsyncClient(base_url=gateway.url) as http:
            assert "mosquitto_pid_file" in gateway.logged("broker.not_signalled")[0]["message"]

            async def ready() -> bool:
                return bool((await http.get("/ready")).json()["ready"])

            await eventually(ready, "the gateway is ready")
            assert "mosquitto_pid_file" in await _access_error(http)
            headers = {"Authorization": f"Bearer {gateway.new_key()}"}
            device = (await http.post("/v1/devices", json={"serial_number": "SN1"}, headers=headers)).json()["id"]
            answer = await http.post(f"/v1/devices/{device}/bind", json={"end_user_id": "eu_1"}, headers=headers)
            assert answer.headers["x-broker-synced"] == "false", "nobody has told the broker of that token"
            outcome = await run(script("gateway"), "doctor", "--data-dir", str(gateway.data), *gateway.options)
            assert outcome.code, outcome.out
            assert "Set mosquitto_pid_file" in outcome.out


@asynccontextmanager
async def _broker_of_another_user(folder: Path) -> AsyncIterator[Path]:
    """The pid file of a process of another user that is called mosquitto, and takes SIGHUP."""
    pid_file = folder / "other.pid"
    trap = "printf mosquitto > /proc/self/comm; trap : HUP; echo ready; while :; do read -r line || exit; done"
    bash = ("env", "--default-signal=HUP", "bash", "-c", trap)  # no trap for a signal that the test run ignores (nohup)
    process = await asyncio.create_subprocess_exec(*bash, stdin=PIPE, stdout=PIPE, user="nobody")
    assert process.stdout
    await process.stdout.readline()
    pid_file.write_text(f"{process.pid}\n")
    try:
        yield pid_file
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def _no_pid_file(folder: Path) -> AsyncIterator[Path]:
    yield folder / "nowhere" / "mosquitto.pid"


@asynccontextmanager
async def _unreadable(folder: Path) -> AsyncIterator[Path]:
    """Put a directory in its place: no user, not even root, can read that as a file."""
    yield folder


@asynccontextmanager
async def _another_program(folder: Path) -> AsyncIterator[Path]:
    (folder / "mine.pid").write_text(f"{os.getpid()}\n")
    yield folder / "mine.pid"


ANOTHER_USER = [(_broker_of_another_user, "may not be signalled by this user: run the gateway as the broker's user")]
"""Only root can make another user's process; tests/broker/mosquitto/test_password_file.py has it for all."""


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (_no_pid_file, "cannot be read (No such file or directory)"),
        (_unreadable, "cannot be read (Is a directory)"),
        (_another_program, "not mosquitto"),
        *(ANOTHER_USER if os.geteuid() == 0 else ()),
    ],
)
async def test_a_signal_that_cannot_be_sent_is_reported(tmp_path: Path, trouble: Trouble, says: str) -> None:
    """In the log at the start, in /ready, which is 503, and as an error of the doctor; and a bind says so too."""
    async with Mosquitto(tmp_path) as broker, trouble(tmp_path) as pid_file:
        files = ("--mosquitto-password-file", str(broker.password_file), "--mosquitto-pid-file", str(pid_file))
        quick = ("--bind-broker-wait-seconds", "0.1")
        gateway = _beside(tmp_path, broker, *files, *quick)
        async with started(gateway), httpx.AsyncClient(base_url=gateway.url) as http:

            async def told() -> bool:
                return says in await _access_error(http)

            await eventually(told, "/ready says why")
            assert (await http.get("/ready")).status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert says in gateway.logged("broker.access_not_synced")[0]["reason"]
            headers = {"Authorization": f"Bearer {gateway.new_key()}"}
            device = (await http.post("/v1/devices", json={"serial_number": "SN1"}, headers=headers)).json()["id"]
            answer = await http.post(f"/v1/devices/{device}/bind", json={"end_user_id": "eu_1"}, headers=headers)
            assert (answer.status_code, answer.headers["x-broker-synced"]) == (httpx.codes.OK, "false")
            outcome = await run(script("gateway"), "doctor", "--data-dir", str(gateway.data), *gateway.options)
            assert (outcome.code, says in outcome.out) == (7, True), outcome.out


async def test_a_restarted_broker_with_an_old_password_file_is_repaired(tmp_path: Path) -> None:
    """An operator restored a backup: once the gateway is connected, clients that this admitted are cut and stay out."""
    async with running_site(tmp_path, "mosquitto") as site:
        device_id, token = await _bound(site, "SN1")
        backup = site.broker.password_file.read_bytes()
        await site.post(f"{device_id}/unbind")
        await site.synced()
        await site.broker.stop()
        site.broker.password_file.write_bytes(backup)
        await site.broker.start()

        async def refused() -> bool:
            return await site.connect_answer(device_id, token) in (wire.BAD_CREDENTIALS, wire.NOT_AUTHORISED)

        await eventually(refused, "the token is refused")  # by its lock, which comes before the file
        await eventually(lambda: device_id not in site.broker.password_file.read_text(), "the file is repaired")
        await site.synced()


async def test_a_lost_password_file_is_written_again(tmp_path: Path) -> None:
    """Without one Mosquitto does not start and no client connects: the gateway notices by itself."""
    async with running_site(tmp_path, "mosquitto") as site:
        device_id, token = await _bound(site, "SN1")
        await site.broker.stop()
        site.broker.password_file.unlink()
        await eventually(site.broker.password_file.exists, "the file is there again")
        assert site.gateway.logged("broker.password_file_changed")
        await site.broker.start()
        await site.synced()
        assert await site.connect_answer(device_id, token) == wire.ACCEPTED


async def test_an_account_of_mosquitto_passwd_takes_effect_soon(tmp_path: Path) -> None:
    """No operator has to reload the broker for it: the gateway sees the change, keeps it, and reloads the broker."""
    async with running_site(tmp_path, "mosquitto") as site:
        await run(local.binary("mosquitto_passwd"), "-b", str(site.broker.password_file), "ops", "ops-password")

        async def let_in() -> bool:
            return await site.broker.connect_answer("ops", "ops", "ops-password") == wire.ACCEPTED

        await eventually(let_in, "the account is let in")
        await site.synced()
        assert "ops:" in site.broker.password_file.read_text()


async def test_a_reloader_signals_for_the_gateway(tmp_path: Path) -> None:
    """A revoked device is cut as ever; without the reloader the gateway says what to start, and is in step after."""
    async with Mosquitto(tmp_path) as broker:
        place = tmp_path / "reload"
        asked = ("--socket", str(place), "--pid-file", str(broker.pid_file), "--for-user", str(os.geteuid()))
        reloader = Program(tmp_path, "reloader", script("gateway"), "broker", "reloader", *asked)
        options = ("--mosquitto-password-file", str(broker.password_file), "--mosquitto-reload-socket", str(place))
        gateway = _beside(tmp_path, broker, *options)
        async with started(gateway):
            key = gateway.new_key()
            async with httpx.AsyncClient(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}) as http:

                async def waits() -> bool:
                    return "device-gateway-reload" in await _access_error(http)

                await eventually(waits, "the gateway says that nobody reloads the broker")
                async with started(reloader):
                    device = (await http.post("/v1/devices", json={"serial_number": "SN1"})).json()["id"]

                    async def in_step() -> bool:
                        return await _access_error(http) == "None"

                    await eventually(in_step, "the broker goes by the file")
                    bound = (await http.post(f"/v1/devices/{device}/bind", json={"end_user_id": "eu_1"})).json()
                    async with Wire.open(broker.host, broker.port) as session:
                        assert await session.connect(device, device, bound["mqtt"]["password"]) == wire.ACCEPTED
                        await http.post(f"/v1/devices/{device}/unbind")
                        assert await session.closed() == []


async def test_a_second_registry_at_the_broker_stays_away(tmp_path: Path) -> None:
    """It names the first gateway in /ready, and clears none of its commands."""
    async with running_site(tmp_path, "mosquitto") as site:
        assert site.broker is not None
        device_id, _ = await _bound(site, "SN1")
        await site.reset(device_id)
        await site.synced()
        before = await site.retained()
        assert before
        second = _beside(tmp_path / "second", site.broker)
        async with started(second), httpx.AsyncClient(base_url=second.url) as http:
            await eventually(lambda: _stays_away(http), "the second gateway named the first one")
            await site.synced()
            assert await site.retained() == before


async def _stays_away(http: httpx.AsyncClient) -> bool:
    broker = (await http.get("/ready")).json()["broker"]
    return not broker["connected"] and "Another gateway" in str(broker["error"])


async def _access_error(http: httpx.AsyncClient) -> str:
    return str((await http.get("/ready")).json()["access"]["error"])


def _beside(folder: Path, broker: Mosquitto, *options: str) -> GatewayProcess:
    """A gateway that may signal processes of its own user only, as root too."""
    url = f"mqtt://gateway:{GATEWAY_PASSWORD}@{broker.host}:{broker.port}"
    by = () if os.geteuid() else ("setpriv", "--bounding-set=-kill", "--inh-caps=-kill")
    return GatewayProcess(folder / "gateway", "--broker", url, *options, by=by)


def _signalling(broker: Mosquitto) -> tuple[str, str]:
    return "--mosquitto-pid-file", str(broker.pid_file)
