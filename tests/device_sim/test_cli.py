"""`device-sim` as a person meets it: help, errors that say what to do, a life that ends cleanly."""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from device_sim.arguments import parse_mix
from device_sim.cli import main
from device_sim.error_hints import BY_CODE, remedy
from device_sim.errors import AnswerError, ApiError, SimulatorError, UnreachableError
from tests.device_sim.support import API_KEY, GUARD_SECONDS
from tests.device_sim.testbed import DeviceTestbed, open_testbed
from tests.support.hostile_gateway import ESCAPED, hostile_gateway


@pytest.fixture
async def testbed(tmp_path: Path) -> AsyncIterator[DeviceTestbed]:
    """A stage of the test's own."""
    async with open_testbed(tmp_path) as testbed, asyncio.timeout(GUARD_SECONDS):
        yield testbed


@dataclass
class Program:
    """A `device-sim` that runs."""

    process: asyncio.subprocess.Process
    seen: list[str]

    async def line(self, part: str) -> str:
        """Read on until a line has this in it."""
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode():
            self.seen.append(line)
            if part in line:
                return line
        raise AssertionError(f"{part!r} never came: {''.join(self.seen)}")

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return await self.finished()

    async def finished(self) -> int:
        """Wait for the end and return the exit code."""
        assert self.process.stdout is not None
        self.seen.append((await self.process.stdout.read()).decode())
        return await self.process.wait()

    @property
    def output(self) -> str:
        """Everything it said that was read."""
        return "".join(self.seen)


@contextlib.asynccontextmanager
async def device_sim(*arguments: str, env: dict[str, str] | None = None) -> AsyncIterator[Program]:
    """Run the program; both of its outputs are one, and it is killed if the block leaves it behind."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "device_sim",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error::ResourceWarning", **(env or {})},
    )
    try:
        yield Program(process, [])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def run_arguments(testbed: DeviceTestbed, *more: str) -> list[str]:
    """`run` against the stage, with quick heartbeats."""
    return ["run", "--url", testbed.gateway.url, "--key", API_KEY, "--serial", "SN1", "--interval", "0.1", *more]


# --- help -------------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command of the program."""
    yield "device-sim", main
    yield from main.commands.items()


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_help_is_printed(name: str, command: click.Command) -> None:
    """Every command explains itself with an example, every option has a text."""
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "Example" in result.output, name
    assert "device-sim " in result.output
    for parameter in command.params:
        assert isinstance(parameter, click.Option)
        assert parameter.help, parameter.name


def test_the_help_has_exit_codes_and_completion() -> None:
    """Exit codes and shell completion stand in the help."""
    output = CliRunner().invoke(main, ["-h"]).output
    assert "0 done, 1 failure" in output
    assert "_DEVICE_SIM_COMPLETE=bash_source" in output


def test_version_is_printed() -> None:
    """It says which version it is."""
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("device-sim, version ")


# --- wrong usage: exit code 2 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "An API key is needed"),
        (["run", "--key", ""], "The API key is empty"),
        (["run", "--key", "k", "--url", "http://127.0.0.1:8080/v1"], "no path: http://127.0.0.1:8080 instead of"),
        (["load", "--key", "k", "--url", "gateway.lan"], "should be like http://127.0.0.1:8080"),
        (["run", "--key", "k", "--radio", "lora"], "'lora' is not one of"),
        (["run", "--key", "k", "--interval", "0"], "0.0 is not in the range"),
        (["fleet", "--key", "k", "--radio-mix", "wifi"], "should be RADIO=WEIGHT"),
        (["fleet", "--key", "k", "--radio-mix", "lora=1"], "should be RADIO=WEIGHT"),
        (["fleet", "--key", "k", "--radio-mix", "wifi=0"], "above 0"),
        (["fleet", "--key", "k", "--count", "0"], "0 is not in the range"),
        (["fly"], "No such command"),
    ],
)
def test_wrong_usage_is_explained(arguments: list[str], says: str) -> None:
    """Wrong usage is exit code 2 and a message about it."""
    result = CliRunner(env={"GATEWAY_API_KEY": ""}).invoke(main, arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert result.output.startswith("error: ")
    assert result.output.splitlines()[-1].startswith("try: ")


def test_without_a_command_the_help_is_printed() -> None:
    """The help, as wrong usage."""
    result = CliRunner().invoke(main, [])
    assert (result.exit_code, "Commands:" in result.output) == (2, True)


def test_a_radio_mix_is_parsed() -> None:
    """Weights are read as written."""
    assert parse_mix("wifi=6, ble=0.5") == {"wifi": 6.0, "ble": 0.5}


# --- failures: exit code 1 --------------------------------------------------------------------------------------------


async def test_an_unreachable_gateway_is_an_error() -> None:
    """No server at the URL: the message says how to start one."""
    async with device_sim("run", "--url", "http://127.0.0.1:9", "--key", "k") as program:
        assert await program.finished() == 1
    assert program.output.startswith("error: No gateway answers at http://127.0.0.1:9")
    assert "gateway serve" in program.output
    assert "Traceback" not in program.output


async def test_the_answer_of_another_server_is_escaped() -> None:
    """Escapes, text that turns around, and lines that look like ours are written out."""
    with hostile_gateway() as url:
        async with device_sim("run", "--url", url, "--key", "k", "--serial", "SN1") as program:
            assert await program.finished() == 1
    assert ESCAPED in program.output
    assert program.output.isascii()
    assert len(program.output.splitlines()) == 1


async def test_a_wrong_key_is_an_error(testbed: DeviceTestbed) -> None:
    """A refused key: the message says how to make one. The environment is as good as the option."""
    env = {"GATEWAY_URL": testbed.gateway.url, "GATEWAY_API_KEY": "sk_test_wrong"}
    async with device_sim("run", env=env) as program:
        assert await program.finished() == 1
    assert "401 unauthorized" in program.output
    assert "gateway keys create" in program.output
    assert "sk_test_wrong" not in program.output


async def test_the_key_can_come_from_a_file(testbed: DeviceTestbed, tmp_path: Path) -> None:
    """So that it is no argument, which others can read; it goes before what is in the environment."""
    file = tmp_path / "key"
    file.write_text(f"{API_KEY}\n")
    run = ("run", "--url", testbed.gateway.url, "--serial", "SN1", "--interval", "0.1", "--api-key-file", str(file))
    async with device_sim(*run, env={"GATEWAY_API_KEY": "sk_test_wrong"}) as program:
        await program.line("heartbeat")
    file.write_text("")
    async with device_sim(*run) as program:
        assert await program.finished() == 2
    assert "The API key is empty" in program.output


@pytest.mark.parametrize(
    ("code", "says"), [("device_already_bound", "--flash that holds it"), ("reset_pending", "--supersede-reset")]
)
async def test_a_bound_serial_number_is_an_error(testbed: DeviceTestbed, code: str, says: str) -> None:
    """A bind that is refused: the message says what the choices are."""
    testbed.gateway.refuse_bind = (409, code)
    async with device_sim(*run_arguments(testbed)) as program:
        assert await program.finished() == 1
    assert f"409 {code}" in program.output
    assert says in program.output


async def test_the_flash_of_another_device_is_refused(testbed: DeviceTestbed, tmp_path: Path) -> None:
    """A flash keeps its serial number; naming another is a mistake, not a new device."""
    flash = str(tmp_path / "flash")
    async with device_sim(*run_arguments(testbed, "--flash", flash)) as program:
        await program.line("online")
        await program.end()
    arguments = [*run_arguments(testbed, "--flash", flash), "--serial", "SN2"]
    async with device_sim(*arguments) as program:
        assert await program.finished() == 2
    assert "the flash belongs to SN1" in program.output


@pytest.mark.parametrize(
    "error",
    [UnreachableError("x"), AnswerError("x"), ApiError(401, "x", "x"), *(ApiError(409, code, "x") for code in BY_CODE)],
)
def test_every_expected_error_has_a_remedy(error: SimulatorError) -> None:
    """The message of each of these errors says what to do."""
    assert remedy(error)


def test_unexpected_answers_have_no_remedy() -> None:
    """Where the gateway's own message says it all, nothing is made up."""
    assert remedy(ApiError(500, "internal_error", "x")) == remedy(SimulatorError("x")) == ""


# --- run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_device_runs_until_it_is_stopped(testbed: DeviceTestbed, number: int) -> None:
    """It provisions, comes online, tells a line per fact, and a signal ends it cleanly with 0."""
    async with device_sim(*run_arguments(testbed)) as program:
        assert "bound to eu_simulated as dev_" in await program.line("bound")
        await program.line("online over wifi (mqtt)")
        await program.line("heartbeat: battery")
        assert await program.end(number) == 0
        await testbed.wait_for_message("/status", b'{"status":"offline"}')
    assert "Traceback" not in program.output
    assert "dtok_" not in program.output


async def test_until_reset_exits_after_the_reset(testbed: DeviceTestbed) -> None:
    """`--until-reset` ends with 0 after the reset; as JSON every fact is an object."""
    async with device_sim(*run_arguments(testbed, "--until-reset", "--json")) as program:
        bound = json.loads(await program.line('"bound"'))
        await reset(testbed, bound)
        assert await program.finished() == 0
    facts: list[dict[str, Any]] = [json.loads(line) for line in program.output.splitlines()]
    assert [fact["what"] for fact in facts if fact["fact"] == "wiped"] == ["device_token", "pairing", "wifi_networks"]
    assert all(fact["serial_number"] == "SN1" for fact in facts)


async def reset(testbed: DeviceTestbed, bound: dict[str, Any]) -> None:
    """Publish a reset for a device that was just bound."""
    device_id, generation = bound["device_id"], bound["generation"]
    payload = testbed.gateway.signer.command(command_id=f"cmd_{generation}", device_id=device_id, generation=generation)
    await testbed.observer.publish(f"devices/{device_id}/commands/factory_reset", payload, qos=1, retain=True)


async def test_a_reset_device_stays_unpaired(testbed: DeviceTestbed, tmp_path: Path) -> None:
    """After a reset it stays unpaired, and prints how to provision it again; the key is not in that line."""
    async with device_sim(*run_arguments(testbed, "--flash", str(tmp_path / "flash"))) as program:
        words = (await program.line("bound to")).split()
        await reset(testbed, {"device_id": words[words.index("as") + 1].rstrip(","), "generation": 1})
        line = await program.line("stays unpaired")
        assert await program.end() == 0
    hint = shlex.split(line.partition("--reprovision): ")[2])
    assert hint[:2] == ["device-sim", "run"]
    assert hint[hint.index("--key") + 1] == "sk_test_…"
    assert hint[hint.index("--interval") + 1] == "0.1"
    assert hint[-2:] == ["--serial", "SN1"]
    assert "--reprovision" in line
    assert str(tmp_path / "flash") in line
    assert API_KEY not in program.output
    assert "wiped device_token" in program.output


async def test_a_device_is_bound_again_after_a_reset(testbed: DeviceTestbed) -> None:
    """`--reprovision` binds again, at the next generation, and the old reset that is still retained wipes nothing."""
    async with device_sim(*run_arguments(testbed, "--reprovision", "--json")) as program:
        bound = json.loads(await program.line('"bound"'))
        await reset(testbed, bound)
        again = json.loads(await program.line('"bound"'))
        await program.line('"already_done"')
        assert await program.end() == 0
    assert (bound["generation"], again["generation"]) == (1, 2)
    assert program.output.count('"reset_begun"') == 1


async def test_a_killed_device_continues_from_its_flash(testbed: DeviceTestbed, tmp_path: Path) -> None:
    """Killed with SIGKILL, the broker says `offline`; started on its flash it needs no key and is not bound again."""
    flash = str(tmp_path / "flash")
    async with device_sim(*run_arguments(testbed, "--flash", flash)) as program:
        await program.line("heartbeat")
        program.process.kill()
        await testbed.wait_for_message("/status", b'{"status":"offline"}')
    async with device_sim("run", "--flash", flash, "--interval", "0.1", env={"GATEWAY_API_KEY": ""}) as program:
        await program.line("online over wifi")
        assert await program.end() == 0
    assert list(testbed.gateway.bound.values()) == [1]
    assert "SN1" in program.output


# --- fleet ------------------------------------------------------------------------------------------------------------


async def test_a_fleet_runs_and_prints_a_summary(testbed: DeviceTestbed) -> None:
    """A fleet lives for its time and is summed up, without a terminal."""
    arguments = [
        "fleet",
        "--url",
        testbed.gateway.url,
        "--key",
        API_KEY,
        "--count",
        "5",
        "--seed",
        "3",
        "--interval",
        "0.1",
    ]
    async with device_sim(*arguments, "--duration", "1") as program:
        assert await program.finished() == 0
    assert "fleet of seed 3" in program.output
    assert "heartbeats" in program.output
    assert "Traceback" not in program.output


async def test_a_fleet_prints_json(testbed: DeviceTestbed) -> None:
    """The same for a machine; a signal ends it and the summary comes all the same."""
    arguments = ["fleet", "--url", testbed.gateway.url, "--key", API_KEY, "--count", "5", "--interval", "0.1", "--json"]
    async with device_sim(*arguments, "--radio-mix", "wifi=1") as program:
        await testbed.wait_for_message("/heartbeat")
        assert await program.end() == 0
    summary = json.loads(program.output)
    assert summary["failures"] == {}
    assert [(row["radio"], row["devices"]) for row in summary["radios"]] == [("wifi", 5)]


async def test_a_fleet_waits_for_the_rate_limit(testbed: DeviceTestbed) -> None:
    """A refusal by the rate limit is no failure: the fleet waits as long as `Retry-After` says, and all are bound."""
    testbed.gateway.limit_binds = 3
    options = ("--count", "5", "--duration", "0.5", "--radio-mix", "wifi=1", "--json")
    async with device_sim("fleet", "--url", testbed.gateway.url, "--key", API_KEY, *options) as program:
        assert await program.finished() == 0
    assert testbed.gateway.limit_binds == 0
    assert len(testbed.gateway.bound) == 5
    assert json.loads(program.output)["failures"] == {}


async def test_a_fleet_that_cannot_be_provisioned_fails(testbed: DeviceTestbed) -> None:
    """If devices can't be provisioned, the exit code is 1 and the first reason is told with its remedy."""
    testbed.gateway.refuse_bind = (409, "device_already_bound")
    async with device_sim("fleet", "--url", testbed.gateway.url, "--key", API_KEY, "--count", "2") as program:
        assert await program.finished() == 1
    assert "error: 2 of 2 devices failed.\nerror: SIM-0-00000 and 1 more: " in program.output
    assert "another --serial or --seed" in program.output
