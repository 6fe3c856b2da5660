"""``gateway top`` and ``gateway watch`` beside a living fleet, at a real terminal and through a pipe."""

import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.program import Program, clean_environment, run, script, started
from tests.e2e.support import Site, running, running_site
from tests.support.pty import at_terminal

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A gateway with its own broker."""
    async with running_site(tmp_path_factory.mktemp("site"), "embedded") as running:
        yield running


def over_http(site: Site, key: str | None = None) -> dict[str, str]:
    """The environment of an operator who works over HTTP."""
    return clean_environment(GATEWAY_API_KEY=key or site.key, GATEWAY_URL=site.gateway.url)


async def test_top_updates_and_reacts_to_keys(site: Site) -> None:
    """A device appears when it comes; keys narrow the list; q ends it with 0 and leaves the terminal as it was."""
    device = site.device("TOP-1")
    await device.provision(end_user_id="eu_1")
    async with at_terminal(script("gateway"), "top", environment=over_http(site)) as terminal:
        before = terminal.settings
        await terminal.shows("TOP-1")
        async with running(device):
            await terminal.shows("device.online")
            await terminal.shows("online")
            terminal.type("o")
            await terminal.shows("offline: none")
            terminal.type("n")
            await terminal.shows("TOP-1")
        later = await site.api.call("POST", "/v1/devices", {"serial_number": "TOP-2"})
        await terminal.shows(later["id"])
        terminal.type("q")
        assert await terminal.ended() == 0
        assert terminal.settings == before
        assert "Traceback" not in terminal.seen


async def test_top_survives_a_gateway_restart(tmp_path: Path) -> None:
    """Killed, it is missed in words; started again, the view goes on; Ctrl-C ends it with 130."""
    async with running_site(tmp_path, "embedded") as own:
        await own.api.call("POST", "/v1/devices", {"serial_number": "TOP-1"})
        async with at_terminal(script("gateway"), "top", environment=over_http(own)) as terminal:
            await terminal.shows("TOP-1")
            await own.gateway.kill()
            await terminal.shows("not live")
            await own.gateway.restart()
            await own.api.call("POST", "/v1/devices", {"serial_number": "TOP-2"})
            await terminal.shows("TOP-2")
            terminal.type("\x03")
            assert await terminal.ended() == 130
            assert "Traceback" not in terminal.seen


async def test_top_reports_a_revoked_key(site: Site) -> None:
    """The terminal is given back, then a line that says why; exit code 6."""
    made = await run(
        script("gateway"), "keys", "create", "--name", "brief", "--json", "--data-dir", str(site.gateway.data)
    )
    key = json.loads(made.out)
    async with at_terminal(script("gateway"), "top", environment=over_http(site, key["key"])) as terminal:
        await terminal.shows("live")
        await run(script("gateway"), "keys", "revoke", key["id"], "--yes", "--data-dir", str(site.gateway.data))
        await site.api.call("POST", "/v1/devices", {"serial_number": "TOP-REVOKED"})
        assert await terminal.ended() == 6
        assert "error: " in terminal.seen
        assert "Traceback" not in terminal.seen


@pytest.mark.parametrize("remote", [True, False])
async def test_watch_prints_events_as_they_happen(site: Site, tmp_path: Path, *, remote: bool) -> None:
    """Heartbeats and the steps of a reset, each once, as lines of JSON; over HTTP and on the data directory."""
    device = site.device(f"WATCH-{remote}")
    device_id = (await device.provision(end_user_id="eu_1")).device_id
    where = [] if remote else ["--data-dir", str(site.gateway.data)]
    environment = over_http(site) if remote else clean_environment()
    command = (script("gateway"), "watch", device_id, "--json", "--limit", "1", *where)
    async with started(Program(tmp_path, "watch", *command, environment=environment)) as watch:
        await watch.said("device.bound")
        async with running(device):
            await watch.said('"heartbeat"')
            await site.reset(device_id)
            await device.wait_for("unprovisioned")
        await watch.said("reset.completed")
        assert await watch.stop(signal.SIGINT) == 130
        told = [json.loads(line) for line in watch.out.splitlines()]
    assert {each["data"]["device_id"] for each in told} == {device_id}
    events = [each["type"] for each in told if each["type"] != "heartbeat"]
    steps = ["device.bound", "device.online", "reset.requested", "reset.delivered", "reset.completed"]
    assert [each for each in events if each in steps] == steps
    beats = [each["data"]["sent_at"] for each in told if each["type"] == "heartbeat"]
    assert beats
    assert beats == sorted(set(beats))
    assert "Traceback" not in watch.err


async def test_watch_prints_lines(site: Site, tmp_path: Path) -> None:
    """First how the device is, then a line for each thing that happens, without heartbeats if so wished."""
    device = site.device("WATCH-PEOPLE")
    device_id = (await device.provision(end_user_id="eu_1")).device_id
    command = (script("gateway"), "watch", device_id, "--limit", "0")
    async with started(Program(tmp_path, "watch", *command, environment=over_http(site))) as watch:
        await watch.said("heard never")
        async with running(device):
            await watch.said("heartbeat  battery ")
        first, *lines = watch.out.splitlines()
        assert first.startswith(f"WATCH-PEOPLE  {device_id}  offline")
        assert "device.online  by itself" in "\n".join(lines)
    unknown = await run(*command[:2], "dev_nowhere", environment=over_http(site))
    assert unknown.code == 4


@pytest.mark.parametrize(("name", "value", "term"), [("NO_COLOR", "1", "xterm"), ("IGNORED", "", "dumb")])
async def test_colours_can_be_switched_off(name: str, value: str, term: str, site: Site, tmp_path: Path) -> None:
    """With NO_COLOR, and on a dumb terminal: the log of `serve` and the tables are plain."""
    settings = clean_environment(GATEWAY_HTTP="127.0.0.1:0", GATEWAY_MQTT="127.0.0.1:0", **{name: value})
    serve = (script("gateway"), "serve", "--data-dir", str(tmp_path / "data"))
    async with at_terminal(*serve, environment=settings, term=term) as terminal:
        await terminal.shows("broker.connected")
        assert "\x1b" not in terminal.seen
    listed = (script("gateway"), "devices", "list")
    async with at_terminal(*listed, environment={**over_http(site), name: value}, term=term) as terminal:
        assert await terminal.ended() == 0
        assert "SERIAL" in terminal.seen
        assert "\x1b" not in terminal.seen


async def test_tables_are_coloured_by_default(site: Site) -> None:
    """The heading is bold: what the test above looks for is there without its conditions."""
    async with at_terminal(script("gateway"), "devices", "list", environment=over_http(site)) as terminal:
        assert await terminal.ended() == 0
        assert "\x1b[1m" in terminal.seen


async def test_a_narrow_terminal_does_not_truncate_ids(site: Site) -> None:
    """A device per block, a line per column; every id stands whole on its line. Wide: a line per device."""
    made = await site.api.call("POST", "/v1/devices", {"serial_number": "NARROW-1"})
    command = (script("gateway"), "devices", "list", "--search", "NARROW-1")
    async with at_terminal(*command, environment={**over_http(site), "NO_COLOR": "1"}, columns=50) as terminal:
        assert await terminal.ended() == 0
        lines = terminal.seen.splitlines()
        assert max(map(len, lines)) <= 50
        assert [line for line in lines if line.startswith("ID") and line.endswith(made["id"])]
    async with at_terminal(*command, environment={**over_http(site), "NO_COLOR": "1"}, columns=200) as terminal:
        assert await terminal.ended() == 0
        heading, row = terminal.seen.splitlines()
        assert heading.startswith("ID")
        assert row.startswith(made["id"])


async def test_instants_are_relative_on_a_terminal_alone(site: Site) -> None:
    """People read how long ago; a pipe gets the instant itself."""
    await site.api.call("POST", "/v1/devices", {"serial_number": "WHEN-1"})
    environment = {**over_http(site), "NO_COLOR": "1"}
    shown = (script("gateway"), "devices", "show", "WHEN-1")
    async with at_terminal(*shown, environment=environment) as terminal:
        assert await terminal.ended() == 0
        assert re.search(r"created_at +\d{4}-\S+Z \(\d+ (s|min) ago\)", terminal.seen), terminal.seen
    piped = await run(*shown, environment=environment)
    assert re.search(r"created_at +\d{4}-\S+Z$", piped.out, re.MULTILINE)
