"""The command line beside a running gateway: over HTTP with a key, and on the data directory without one."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.program import Outcome, Program, clean_environment, run, script, started
from tests.e2e.support import BROKERS, Site, running, running_site
from tests.support import wire

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BROKERS)
async def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A gateway with each kind of broker."""
    async with running_site(tmp_path_factory.mktemp("site"), request.param) as running:
        yield running


any_broker = pytest.mark.parametrize("site", BROKERS[:1], indirect=True)
"""The broker plays no part in these, so one kind shows it: each command is a process that costs half a second."""


async def local(site: Site, *command: str, code: int = 0) -> Outcome:
    """A command on the data directory of the gateway that runs."""
    return await _ended(code, *command, "--data-dir", str(site.gateway.data))


async def remote(site: Site, *command: str, code: int = 0, key: str | None = None, **environment: str) -> Outcome:
    """A command that has a key, and nothing else but what is said."""
    return await _ended(code, *command, environment=clean_environment(GATEWAY_API_KEY=key or site.key, **environment))


async def _ended(code: int, *command: str, environment: dict[str, str] | None = None) -> Outcome:
    outcome = await run(script("gateway"), *command, environment=environment)
    assert outcome.code == code, f"{outcome.code}: {outcome.out}{outcome.err}"
    return outcome


def read(outcome: Outcome) -> Any:
    """What it printed for machines."""
    return json.loads(outcome.out)


async def registered(site: Site, serial: str) -> dict[str, Any]:
    """A device that another client registered over HTTP."""
    answer = await site.http.post("/v1/devices", json={"serial_number": serial})
    assert answer.status_code == 201, answer.text
    device: dict[str, Any] = answer.json()
    return device


async def test_a_command_waits_for_a_reset(site: Site) -> None:
    """``--wait`` says each step as the device makes it, and ends with 0 once the device has wiped itself."""
    device = site.device("WAIT-1")
    await device.provision(end_user_id="eu_1")
    async with running(device):
        await device.wait_for_fact("heartbeat")
        said = await local(site, "devices", "reset", "WAIT-1", "--yes", "--wait", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["command"]["status"] == "executed"
    assert said.err.splitlines()[-1] == "executed: the device carried it out"


async def test_a_reset_from_the_shell_is_executed(site: Site) -> None:
    """Another process wrote it: the gateway notices, the device gets it over MQTT and wipes itself, once."""
    device = site.device("SHELL-1")
    device_id = (await device.provision(end_user_id="eu_1")).device_id
    async with running(device):
        await device.wait_for("online")
        said = await local(site, "devices", "reset", device_id, "--yes", "--json")
        assert read(said)["command"]["status"] == "pending"
        await device.wait_for("unprovisioned")
        await site.becomes(device_id, "executed")
    assert device.counts["reset_begun"] == 1
    await site.broker_agrees()
    events = read(await local(site, "events", "tail", "--device", device_id, "--type", "reset.requested", "--json"))
    assert events["data"]["actor"] == "cli"


async def test_a_bind_from_the_shell_takes_effect_at_once(site: Site) -> None:
    """The command waits until the broker knows the token, and tells where that broker is."""
    device_id = (await registered(site, "SHELL-2"))["id"]
    said = await local(site, "devices", "bind", device_id, "eu_1", "--json")
    bound = read(said)
    assert said.err == ""
    assert (bound["mqtt"]["host"], bound["mqtt"]["port"]) == (site.gateway.host, site.gateway.port)
    assert await site.connect_answer(device_id, bound["device_token"]) == wire.ACCEPTED
    await local(site, "devices", "unbind", device_id)
    await site.token_is_dead(device_id, bound["device_token"])


async def test_a_superseding_bind_from_the_shell(site: Site) -> None:
    """The old reset is cleared from the broker by the gateway before the new token is made by the command."""
    device_id = (await registered(site, "SHELL-3"))["id"]
    await site.api.bind(device_id, "eu_1")
    await local(site, "devices", "reset", device_id, "--yes")
    await local(site, "devices", "bind", device_id, "eu_2", code=5)
    bound = read(await local(site, "devices", "bind", device_id, "eu_2", "--supersede-reset", "--json"))
    assert await site.connect_answer(device_id, bound["device_token"]) == wire.ACCEPTED
    await site.broker_agrees()


@any_broker
async def test_commands_work_over_http(site: Site) -> None:
    """With a URL, and with a key alone at the gateway of the directory; the actor is the key."""
    device_id = read(await remote(site, "devices", "register", "HTTP-1", "--json", GATEWAY_URL=site.gateway.url))["id"]
    for where in (["--url", f"{site.gateway.url}/"], ["--data-dir", str(site.gateway.data)]):
        assert read(await remote(site, "devices", "show", device_id, "--json", *where))["id"] == device_id
    events = read(await remote(site, "events", "tail", "--device", device_id, "--json", "--url", site.gateway.url))
    assert events["data"]["actor"].startswith("key_")
    refused = await remote(site, "devices", "list", "--project", "x", "--url", site.gateway.url, code=2)
    assert "--project" in refused.err


@any_broker
async def test_exit_codes_over_http_are_documented_ones(site: Site) -> None:
    """4: not there; 5: forbidden by the state; 6: not for this key, or no key at all."""
    url = site.gateway.url
    bound = (await registered(site, "HTTP-2"))["id"]
    await site.api.bind(bound, "eu_1")
    await remote(site, "devices", "show", "dev_0", code=4, GATEWAY_URL=url)
    await remote(site, "devices", "bind", bound, "eu_1", code=5, GATEWAY_URL=url)
    reader = site.gateway.new_key("devices:read")
    said = await remote(site, "devices", "reset", bound, "--yes", code=6, key=reader, GATEWAY_URL=url)
    assert "devices:write" in said.err
    await remote(site, "devices", "list", code=6, key="sk_live_unknown", GATEWAY_URL=url)


@any_broker
@pytest.mark.parametrize("status", ["200 OK", "502 Bad Gateway"])
async def test_another_server_is_reported_as_not_a_gateway(site: Site, status: str) -> None:
    """A proxy's page, or another server: the message says to check the URL."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        said = await remote(site, "devices", "list", code=1, GATEWAY_URL=f"http://{host}:{port}")
    assert "is no gateway" in said.err


@any_broker
async def test_a_revoked_key_is_refused_at_once(site: Site) -> None:
    """The very next request after the command has ended; a rotated one goes on with both secrets."""
    made = read(await local(site, "keys", "create", "--name", "brief", "--json"))
    both = [made["key"], read(await local(site, "keys", "rotate", made["id"], "--json"))["key"]]
    for key in both:
        assert (await site.http.get("/v1/devices", headers={"Authorization": f"Bearer {key}"})).status_code == 200
    await local(site, "keys", "revoke", made["id"], "--yes")
    for key in both:
        assert (await site.http.get("/v1/devices", headers={"Authorization": f"Bearer {key}"})).status_code == 401


@any_broker
@pytest.mark.parametrize("over_http", [True, False])
async def test_events_tail_follows_new_events(site: Site, tmp_path: Path, *, over_http: bool) -> None:
    """What happens later is printed as it comes, a JSON document a line, each once; Ctrl-C ends it with 130."""
    where = ["--url", site.gateway.url] if over_http else ["--data-dir", str(site.gateway.data)]
    environment = clean_environment(GATEWAY_API_KEY=site.key) if over_http else clean_environment()
    command = (
        script("gateway"),
        "events",
        "tail",
        "--follow",
        "--limit",
        "1",
        "--json",
        "--type",
        "device.registered",
        *where,
    )
    serials = [f"TAIL-{over_http}-{number}" for number in range(3)]
    first = await registered(site, serials[0])
    async with started(Program(tmp_path, "tail", *command, environment=environment)) as tail:
        await tail.said(first["id"])
        for serial in serials[1:]:
            made = await registered(site, serial)
            await tail.said(made["id"])
        assert await tail.stop(signal.SIGINT) == 130
        shown = [json.loads(line)["data"]["serial_number"] for line in tail.out.splitlines()]
        assert shown == serials
        assert "Traceback" not in tail.err


@any_broker
async def test_a_narrow_terminal_does_not_wrap_ids(site: Site) -> None:
    """However narrow the window is said to be; and a reader that goes away early is no trouble."""
    device_id = (await registered(site, "NARROW"))["id"]
    environment = clean_environment(COLUMNS="20")
    command = f"{script('gateway')} devices list --serial-number NARROW --data-dir {site.gateway.data}"
    listed = await run("sh", "-c", command, environment=environment)
    assert [line.split()[0] for line in listed.out.splitlines()] == ["ID", device_id]
    early = await run("sh", "-c", f"{command} | true", environment=environment)
    assert "Traceback" not in early.err


async def test_the_gateway_is_found_by_its_endpoint_file(tmp_path: Path) -> None:
    """The file says it while the gateway runs; after a stop it is gone."""
    async with running_site(tmp_path, "embedded") as site:
        file = site.gateway.data / "gateway.url"
        assert file.read_text().splitlines()[:2] == [
            site.gateway.url,
            f"mqtt://{site.gateway.host}:{site.gateway.port}",
        ]
        assert await site.gateway.stop() == 0
        assert not file.exists()


async def test_a_running_gateway_is_backed_up_and_restored(tmp_path: Path) -> None:
    """A copy is taken while devices talk; restore wants the gateway stopped; then all is as it was, and goes on."""
    async with running_site(tmp_path, "mosquitto") as site:
        device = site.device("BEFORE")
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        copy = tmp_path / "copy.db"
        async with running(device):
            await device.wait_for("online")
            busy = asyncio.create_task(_registers_on(site))
            await local(site, "backup", str(copy))
            later = await registered(site, "AFTER")
            said = await local(site, "restore", str(copy), "--yes", code=3)
            assert "Stop it" in said.err
            busy.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await busy
        assert await site.gateway.stop() == 0
        await local(site, "restore", str(copy), "--yes")
        await site.gateway.restart()
        await site.synced()
        await local(site, "devices", "show", later["id"], code=4)
        async with running(device):
            await device.wait_for_fact("heartbeat", count=device.counts["heartbeat"] + 2)
            await site.reset(device_id)
            await device.wait_for("unprovisioned")
            await site.becomes(device_id, "executed")
        await site.broker_agrees()


async def _registers_on(site: Site) -> None:
    number = 0
    while True:
        number += 1
        await registered(site, f"BUSY-{number}")


@any_broker
async def test_a_shell_completes_ids(site: Site) -> None:
    """Asked as bash asks, the program says ids and nothing else."""
    device_id = (await registered(site, "COMPLETE"))["id"]
    line = f"gateway devices show {device_id[:-2]}"
    asked = {"_GATEWAY_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": "3"}
    environment = clean_environment(**asked, GATEWAY_DATA_DIR=str(site.gateway.data))
    answer = await run(script("gateway"), environment=environment)
    assert answer.out.split() == [f"plain,{device_id}"], answer.err


async def test_events_tail_over_http_resumes_the_stream(tmp_path: Path) -> None:
    """What happens while the gateway is away or just after it came back is told too, each event once and in order."""
    async with running_site(tmp_path, "embedded") as own:
        first = (await registered(own, "TAIL-0"))["id"]
        follower = Program(
            tmp_path,
            "tail",
            *(script("gateway"), "events", "tail", "--follow", "--json", "--limit", "1", "--url", own.gateway.url),
            environment=clean_environment(GATEWAY_API_KEY=own.key),
        )
        async with started(follower):
            await follower.said(first)
            second = (await registered(own, "TAIL-1"))["id"]
            await follower.said(second)
            await own.gateway.kill()
            third = read(await _away(own, "TAIL-2"))["id"]
            await own.gateway.restart()
            await follower.said(third)
            fourth = (await registered(own, "TAIL-3"))["id"]
            await follower.said(fourth)
            told = [json.loads(line)["data"]["device_id"] for line in follower.out.splitlines()]
            assert told == [first, second, third, fourth]
            assert "taken up again" in follower.err
            await follower.stop(signal.SIGINT)


async def _away(own: Site, serial: str) -> Outcome:
    """Registered on the data directory, while no gateway runs."""
    return await local(own, "devices", "register", serial, "--json")
