"""`device-sim conformance` as a person meets it: options, steps, reports, exit codes."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from device_sim.cli import main
from device_sim.conformance.findings import LINES, OUTSIDE, Findings
from device_sim.conformance.report import exit_code
from tests.support.ports import free_port
from tests.support.pty import Terminal, at_terminal

ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error::ResourceWarning"}
GUARD_SECONDS = 60


def arguments(http: int, *more: str) -> list[str]:
    """A kit on free ports, for a device with quick heartbeats."""
    common = ["--mqtt", "127.0.0.1:0", "--http", f"127.0.0.1:{http}", "--interval", "0.2", "--patience", "15"]
    return ["-m", "device_sim", "conformance", *common, *more]


@contextlib.asynccontextmanager
async def process(*words: str, errors: int = asyncio.subprocess.PIPE) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python that is killed if the block leaves it behind."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env=ENVIRONMENT,
    )
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


@contextlib.asynccontextmanager
async def a_device(port: int) -> AsyncIterator[None]:
    """A `device-sim run` whose app binds it at the kit, again after each reset."""
    url = f"http://127.0.0.1:{port}"
    run = ("run", "--url", url, "--key", "sk_test_kit", "--interval", "0.2", "--reprovision")
    async with process("-m", "device_sim", *run):
        yield


async def announced(kit: asyncio.subprocess.Process, text: str = "waits for it") -> str:
    """Everything until the kit waits for the device: it listens by then, so a device can be started."""
    assert kit.stderr is not None
    seen = ""
    while text not in seen:
        line = (await kit.stderr.readline()).decode()
        assert line, f"it ended: {seen}"
        seen += line
    return seen


# --- usage and bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--only", "C99"], "'C99' is no line; --list names them all"),
        (["--only", "C12"], "C12 cannot be seen from the network"),
        (["--mqtt", "broker"], "'broker' should be like 127.0.0.1:1883"),
        (["--http", "127.0.0.1:99999"], "should be like"),
        (["--mqtt", "0.0.0.0:1883"], "--advertise"),
        (["--yes", "--control", "./rig"], "exclude each other"),
        (["--control", "'./rig"], "No closing quotation"),
        (["--cert", __file__], "--cert and --key belong together"),
        (["--key", "/no/such/file"], "does not exist"),
        (["--interval", "0"], "not in the range"),
    ],
)
def test_wrong_usage_is_explained(given: list[str], says: str) -> None:
    """Exit code 2, and what is wrong."""
    result = CliRunner().invoke(main, ["conformance", *given])
    assert (result.exit_code, says in result.output) == (2, True), result.output


def test_a_file_that_is_no_certificate_is_an_error() -> None:
    """Both files are named."""
    result = CliRunner().invoke(main, ["conformance", "--cert", __file__, "--key", __file__])
    assert result.exit_code == 1
    assert "cannot be used for TLS" in result.output
    assert "Both have to be PEM" in result.output


@pytest.fixture
def taken() -> Iterator[int]:
    """A port in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_in_use_is_an_error(taken: int) -> None:
    """And the message names the options."""
    result = CliRunner().invoke(main, ["conformance", "--mqtt", f"127.0.0.1:{taken}"])
    assert result.exit_code == 1
    assert "--mqtt, --second-mqtt, --http" in result.output
    assert "Traceback" not in result.output


def test_a_report_that_cannot_be_written_is_an_error_before_the_run(tmp_path: Path) -> None:
    """A run takes minutes, so the folder is looked at first."""
    result = CliRunner().invoke(main, ["conformance", "--json", str(tmp_path / "missing" / "report.json")])
    assert result.exit_code == 2
    assert "no folder" in result.output


def test_every_line_is_listed() -> None:
    """With those that no kit can see."""
    result = CliRunner().invoke(main, ["conformance", "--list"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == [*LINES, *OUTSIDE]


# --- runs -------------------------------------------------------------------------------------------------------------


async def test_a_run_with_reports(tmp_path: Path) -> None:
    """A device with an app needs no person: exit code 0, and three reports that say the same."""
    port, lines = free_port(), "C2,C20,C34"
    files = ("--json", str(tmp_path / "r.json"), "--junit", str(tmp_path / "r.xml"))
    async with process(*arguments(port, "--yes", "--only", lines, *files, "--serial", "SN\x1b7")) as kit:
        assert '"device_token": "dtok_' in await announced(kit)
        async with a_device(port):
            output, progress = await kit.communicate()
        assert kit.returncode == 0, output.decode() + progress.decode()
    assert "Conformance of SN\\x1b7" in output.decode()
    assert "3 passed, 0 failed, 0 not checked." in output.decode()
    report = json.loads((tmp_path / "r.json").read_text())
    assert [(each["id"], each["verdict"]) for each in report["lines"]] == [
        (each, "passed") for each in lines.split(",")
    ]
    suite = ET.fromstring((tmp_path / "r.xml").read_text())  # noqa: S314  # our own file
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "0", "0")


async def test_what_needs_a_person_is_not_checked_without_one() -> None:
    """Neither a terminal nor a command: exit code 3."""
    port = free_port()
    async with process(*arguments(port, "--only", "C1", "--json", "-")) as kit:
        await announced(kit)
        async with a_device(port):
            output, _ = await kit.communicate()
        assert kit.returncode == 3
    (line,) = json.loads(output)["lines"]
    assert line["verdict"] == "not_checked"
    assert "use a terminal or --control" in line["not_checked"][0]


def test_the_exit_code_follows_the_verdicts() -> None:
    """A failure counts more than what was not checked, which may be allowed."""
    findings = Findings(["C1", "C2"])
    findings.passed("C1", "seen")
    assert exit_code(findings, allow_unchecked=False) == 3
    assert exit_code(findings, allow_unchecked=True) == 0
    findings.passed("C2", "seen")
    assert exit_code(findings, allow_unchecked=False) == 0
    findings.unchecked("C1", "a part was left out")
    assert exit_code(findings, allow_unchecked=False) == 3
    findings.failed("C2", "seen")
    assert exit_code(findings, allow_unchecked=True) == 1


async def test_a_command_makes_the_steps(tmp_path: Path) -> None:
    """It gets each step as arguments; the bind file is readable by its owner only."""
    port, told, bind = free_port(), tmp_path / "told", tmp_path / "bind.json"
    control = f"sh -c 'echo \"$@\" >> {told}' rig"
    async with process(*arguments(port, "--only", "C1", "--control", control, "--bind-file", str(bind))) as kit:
        await announced(kit, "wait for the device")
        async with a_device(port):
            output, progress = await kit.communicate()
        assert kit.returncode == 0, output.decode() + progress.decode()
    assert told.read_text().splitlines() == [f"bind {bind}", "power-cut", "power-cut"]
    assert json.loads(bind.read_text())["serial_number"] == "DUT-1"
    assert bind.stat().st_mode & 0o077 == 0


async def test_a_command_that_fails_leaves_its_line_unchecked() -> None:
    """The run goes on, and the report has the exit code."""
    port = free_port()
    control = "sh -c '[ \"$1\" = bind ]' rig"
    async with process(*arguments(port, "--only", "C1", "--control", control)) as kit:
        await announced(kit, "wait for the device")
        async with a_device(port):
            output, _ = await kit.communicate()
        assert kit.returncode == 3
    assert "the control command ended with exit code 1 at power-cut" in output.decode()


async def test_an_interrupted_run_is_reported(tmp_path: Path) -> None:
    """Ctrl-C: what was seen until then, exit code 130, no traceback."""
    file = tmp_path / "r.json"
    async with process(*arguments(free_port(), "--json", str(file))) as kit:
        await announced(kit)
        kit.send_signal(signal.SIGINT)
        output, errors = await kit.communicate()
        assert kit.returncode == 130
    assert f"0 passed, 0 failed, {len(LINES)} not checked." in output.decode()
    assert "Traceback" not in errors.decode()
    assert json.loads(file.read_text())["interrupted"] is True


async def test_the_person_at_the_terminal_is_asked() -> None:
    """Enter says that the power was cut, `s` skips it."""
    port = free_port()
    words = (sys.executable, *arguments(port, "--only", "C1"))
    async with at_terminal(*words, environment=ENVIRONMENT) as terminal:
        await terminal.shows("into the device")
        async with a_device(port):
            await _cut(terminal, "\r")
            await terminal.shows("power cut after the reset")
            await terminal.shows("press Enter")
            terminal.type("s\r")
            await terminal.shows("the power cut was skipped")
            assert await terminal.ended() == 3


async def _cut(terminal: Terminal, keys: str) -> None:
    await terminal.shows("press Enter")
    terminal.type(keys)
