"""`gateway demo` as a stranger runs it: alone, beside other things, cut short, and kept running."""

import json
import re
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog

from gateway.demo import scenario
from gateway.demo.keep_running import enter_stage
from tests.e2e.program import Program, clean_environment, error_lines, run, script, started
from tests.support.wait import eventually

TOLD = (
    "Three devices are registered, bound and alive",
    "A device that is online is reset",
    "A device that is away is reset: the command waits on the broker",
    "A Bluetooth-only device is reset: a relay shows that it is there and never delivers",
    "A device that was wiped is provisioned again, and stays",
)
PROVEN = {
    "after two relayed heartbeats it still waits": 1,
    "its token opens the way to its own reset and nothing else": 1,
    "nothing is retained any more": 3,
    "the old token is refused over HTTP": 3,
    "its MQTT password is refused by the broker": 3,
    "the device is unpaired": 3,
    "the command is executed": 3,
    "it was not wiped": 1,
}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """An environment whose temporary folder is this one, so that one sees what is left behind."""
    folder.mkdir(exist_ok=True)
    return clean_environment(TMPDIR=str(folder), **more)


def names_in(folder: Path) -> list[str]:
    """What lies in a folder."""
    return [each.name for each in folder.iterdir()]


async def test_the_demo_prints_json(tmp_path: Path) -> None:
    """Exit 0, one JSON document, every observation made and good; nothing left behind, nothing said beside it."""
    outcome = await run(script("gateway"), "demo", "--json", environment=environment(tmp_path))
    assert outcome.code == 0, outcome.out + outcome.err
    assert error_lines(outcome.err) == ""
    document = json.loads(outcome.out)
    assert document["ok"] is True
    assert [check for check in document["checks"] if not check["ok"]] == []
    names = [check["check"] for check in document["checks"]]
    assert {name: names.count(name) for name in PROVEN} == PROVEN
    assert [entry["text"] for entry in document["timeline"] if entry["kind"] == "chapter"] == list(TOLD)
    assert names_in(tmp_path) == []


async def test_the_demo_runs_on_postgresql(tmp_path: Path) -> None:
    """On a server that ends with it. Every observation is as good as on SQLite."""
    words = ("demo", "--json", "--database", "embedded-postgres")
    outcome = await run(script("gateway"), *words, environment=environment(tmp_path))
    assert outcome.code == 0, outcome.out + outcome.err
    checks = json.loads(outcome.out)["checks"]
    assert [check for check in checks if not check["ok"]] == []
    assert len(checks) > sum(PROVEN.values())
    assert names_in(tmp_path) == []


async def test_the_demo_prints_a_timeline(tmp_path: Path) -> None:
    """A timeline in chapters, what was seen beside each tick, a last line with the count; no colours in a pipe."""
    outcome = await run(script("gateway"), "demo", environment=environment(tmp_path))
    assert outcome.code == 0, outcome.out + outcome.err
    assert error_lines(outcome.err) == ""
    assert [line for line in outcome.out.splitlines() if line in TOLD] == list(TOLD)
    assert "\x1b" not in outcome.out
    assert "✗" not in outcome.out
    ticks = outcome.out.count("✓")
    assert re.search(rf"^{ticks} of {ticks} observations as they have to be in \d+\.\d s$", outcome.out, re.MULTILINE)
    assert f"{script('gateway')} demo --keep-running" in outcome.out
    assert names_in(tmp_path) == []


async def test_the_demo_ignores_the_configuration_of_another_gateway(tmp_path: Path) -> None:
    """Usual ports taken, settings of another gateway in the environment and the folder: it plays on its own stage."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "gateway.toml").write_text('broker = "mqtt://gateway:secret@broker.invalid"\n')
    with _usual_ports_taken():
        outcome = await run(
            script("gateway"),
            "demo",
            "--json",
            environment=environment(
                tmp_path / "temporary",
                GATEWAY_DATA_DIR=str(other),
                GATEWAY_CONFIG=str(other / "gateway.toml"),
                GATEWAY_BROKER="mqtt://gateway:secret@broker.invalid",
                GATEWAY_HTTP="nonsense",
                GATEWAY_TOPIC_PREFIX="elsewhere/",
            ),
            folder=other,
        )
    assert outcome.code == 0, outcome.out + outcome.err
    assert names_in(other) == ["gateway.toml"]


class _usual_ports_taken:  # noqa: N801 - used as a verb
    """Listen on 8080 and 1883 unless another program does already."""

    def __enter__(self) -> None:
        self._held = []
        for port in (8080, 1883):
            try:
                self._held.append(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue

    def __exit__(self, *_: object) -> None:
        for held in self._held:
            held.close()


async def test_the_demo_fails_when_it_does_not_see_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Time runs out in the middle of the story: exit 1, and the document says which observation was not made."""
    monkeypatch.setattr(
        scenario, "GIVE_UP_SECONDS", 1.5
    )  # the relayed heartbeats of the third chapter alone take longer
    with structlog.testing.capture_logs():
        assert await scenario.run(as_json=True) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert [check["check"] for check in document["checks"] if not check["ok"]] == ["the story ends in time"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_demo_cleans_up_when_it_is_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM in the middle: no traceback, not 0, and nothing left behind."""
    demo = Program(tmp_path, "demo", script("gateway"), "demo", environment=environment(tmp_path / "temporary"))
    async with started(demo):
        await demo.said("A device that is online is reset")
        assert await demo.stop(number) in (130, 143)
        assert "Traceback" not in error_lines(demo.err)
    assert names_in(tmp_path / "temporary") == []


async def test_the_demo_keeps_running_until_it_is_stopped(tmp_path: Path) -> None:
    """By Ctrl-C, and by SIGTERM. One after the other, since two at once may ask for the same usual port."""
    for number in (signal.SIGINT, signal.SIGTERM):
        (folder := tmp_path / number.name).mkdir()
        await _keeps_running_until(folder, number)


async def _keeps_running_until(tmp_path: Path, number: signal.Signals) -> None:
    """The lines it prints work when pasted, it tells what the device did, and it ends with 0, leaving nothing."""
    live = Program(
        tmp_path, "live", script("gateway"), "demo", "--keep-running", environment=environment(tmp_path / "temporary")
    )
    async with started(live):
        await live.said("Ctrl-C stops it")
        reset, look = (line for line in live.out.splitlines() if line.startswith("printf "))
        asked = await run("bash", "-c", reset)
        assert json.loads(asked.out)["status"] == "unbound", asked
        await live.said("DEMO-WIFI      wiped wifi_networks")

        async def executed() -> bool:
            listed = json.loads((await run("bash", "-c", look)).out)
            return [each["status"] for each in listed["data"]] == ["executed"]

        await eventually(executed, "the second line shows the executed command")
        assert await live.stop(number) == 0
        assert error_lines(live.err) == ""
    assert names_in(tmp_path / "temporary") == []


@pytest.mark.parametrize("usual", [8080, 1883])
async def test_a_port_that_is_taken_after_the_look_is_left_to_the_other(
    usual: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo then listens on others."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        monkeypatch.setattr(
            sys.modules[enter_stage.__module__], "_free", lambda port: f"127.0.0.1:{number if port == usual else 0}"
        )
        async with AsyncExitStack() as stack:
            scene = await enter_stage(stack, None)
            assert str(number) not in scene.gateway.http.url
            assert scene.gateway.broker.advertised.port != number
