"""`device-sim` as a person meets it: help, errors that say what to do, a life that ends cleanly."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from device_sim.arguments import parse_mix
from device_sim.cli import main
from device_sim.error_hints import BY_CODE, remedy
from device_sim.errors import AnswerError, ApiError, SimulatorError, UnreachableError
from tests.device_sim.program import device_sim, run_arguments
from tests.device_sim.support import API_KEY
from tests.device_sim.testbed import DeviceTestbed
from tests.support.hostile_gateway import ESCAPED, hostile_gateway

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
