"""The frame of the command line: help for everything, one line per error, exit codes, completion."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
import pytest

from gateway import __version__
from gateway.cli import cli, main
from gateway.cli.docs_commands import HEADING, manual
from gateway.errors import (
    AlreadyRunningError,
    ConflictError,
    GatewayError,
    InsufficientScopeError,
    NotFoundError,
    StoreError,
    UnauthorizedError,
)
from gateway.settings.loading import SettingsError
from gateway.store.errors import PostgresError
from gateway.store.schema import steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
GATEWAY = Path(sys.executable).with_name("gateway")
DOCS = Path(__file__).parents[2] / "docs" / "settings.md"
MANUAL = DOCS.with_name("cli.md")


def walk(command: click.Command, path: tuple[str, ...] = ("gateway",)) -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from walk(below, (*path, name))


COMMANDS = dict(walk(cli))


@pytest.fixture
def fails() -> Iterator[Callable[[BaseException], list[str]]]:
    """Runs ``gateway fail``, a command that raises what it is given."""
    raised: list[BaseException] = []

    def callback() -> NoReturn:
        raise raised[0]

    cli.add_command(click.Command("fail", callback=callback))

    def arguments(error: BaseException) -> list[str]:
        raised.append(error)
        return ["fail"]

    yield arguments
    del cli.commands["fail"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    """It has a sentence that fits into the list of commands, and an example that starts with its own name."""
    command = COMMANDS[name]
    assert command.help
    assert command is cli or not command.get_short_help_str().endswith("...")
    shown = f"{command.help}\n{command.epilog}"
    assert "Example" in shown
    assert f"  {name} " in shown or f"  {name}\n" in shown or f" {name}\n" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    """No option without help."""
    options = [param for param in COMMANDS[name].params if isinstance(param, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_documentation_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """The same codes in ``gateway --help``, in docs/settings.md and in docs/cli.md."""
    assert main(["--help"]) == 0
    helped = capsys.readouterr().out
    for code in "0123456":
        assert f"\n    {code}  " in helped
        for written in (DOCS, MANUAL):
            assert f"\n| {code} |" in written.read_text(encoding="utf-8")


def test_the_manual_equals_the_help_of_the_commands() -> None:
    """``python -m gateway.cli.docs_commands docs/cli.md`` writes it again."""
    assert MANUAL.read_text(encoding="utf-8").partition(HEADING)[2] == manual()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GatewayError("it broke; mend it"), 1),
        (NotFoundError("no such project"), 4),
        (StoreError("the disk is full; make room"), 1),
        (SettingsError(["http: no", "mqtt: no"]), 2),
        (AlreadyRunningError("another gateway holds ./data; stop it first"), 3),
        (ConflictError("reset_pending", "a reset is open; wait for it"), 5),
        (UnauthorizedError("not known here; use another key"), 6),
        (InsufficientScopeError("lacks a scope; use another key"), 6),
        (ExceptionGroup("tasks", [ExceptionGroup("inner", [AlreadyRunningError("another one")])]), 3),
        (sqlite3.OperationalError("disk I/O error"), 1),
        (PostgresError("permission denied for table devices", "42501"), 1),
        (ExceptionGroup("tasks", [PostgresError("server closed the connection", None)]), 1),
    ],
)
def test_each_expected_error_is_one_line(
    error: Exception, code: int, fails: Callable[[BaseException], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The message of a domain error goes to stderr without a traceback; the exit code says of which kind it was."""
    assert main(fails(error)) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert all(line.startswith("error: ") for line in told.err.splitlines())
    assert len(told.err.splitlines()) == (2 if isinstance(error, SettingsError) else 1)


def test_error_lines_hold_no_secret(
    fails: Callable[[BaseException], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a message quotes."""
    main(fails(GatewayError("sk_live_0123456789abcdef is not a name")))
    assert capsys.readouterr().err == "error: sk_live_… is not a name\n"


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError(),
        ExceptionGroup("mixed", [GatewayError("x"), KeyError()]),
        sqlite3.IntegrityError("NOT NULL constraint failed: devices.id"),
        PostgresError("syntax error", "42601"),
    ],
)
def test_unexpected_errors_are_not_hidden(error: Exception, fails: Callable[[BaseException], list[str]]) -> None:
    """A defect keeps its traceback, also when an expected error came along with it."""
    with pytest.raises(type(error)):
        main(fails(error))


def test_an_interrupt_exits_with_130(
    fails: Callable[[BaseException], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends with the shell's code for it and no traceback."""
    assert main(fails(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["srve"], ["error: No such command 'srve'. Did you mean 'serve'?", "try: gateway --help"]),
        (
            ["serve", "--htpp", "x"],
            ["error: No such option '--htpp'.", "try: gateway serve --help"],
        ),
        (
            ["completion", "csh"],
            ["error: Invalid value for '{bash|zsh|fish}': 'csh' is not one of", "try: gateway completion"],
        ),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Two lines: what is wrong, with what may have been meant, and where the help is."""
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith(start) for line, start in zip(lines, says, strict=True)] == [True, True]


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Alone it says what it can do."""
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways name the installed version, its commit and the schema of its registry."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    commit = head.stdout.strip()[:12] or "unknown"
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gateway {__version__} (commit {commit}, schema {steps()[-1]})\n"
    assert main(["version"]) == 0
    facts = (f"gateway {__version__}", f"commit {commit}", f"schema {steps()[-1]}", "Python 3")
    assert "\n".join(facts) in capsys.readouterr().out


@pytest.mark.parametrize("command", [[str(GATEWAY)], [sys.executable, "-m", "gateway"]], ids=["script", "module"])
def test_the_exit_code_reaches_the_shell(command: list[str]) -> None:
    """The installed script and ``python -m gateway`` end with the code, and with nothing but the lines on stderr."""
    ended = subprocess.run([*command, "config", "--http", "x"], capture_output=True, text=True, check=False, timeout=30)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: http: 'x' (from option --http) should be HOST:PORT")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each shell gets a script that asks the program."""
    assert main(["completion", shell]) == 0
    assert f"_GATEWAY_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_bash_accepts_the_completion_script() -> None:
    """A real bash reads it and knows how to complete ``gateway``."""
    script = f"source <({GATEWAY} completion bash) && complete -p gateway"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert (ended.returncode, "_gateway_completion gateway" in ended.stdout) == (0, True), ended.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gateway se", ["plain,secrets", "plain,serve", "plain,sessions"]),
        ("gateway serve --log-format ", ["plain,auto", "plain,console", "plain,json"]),
        ("gateway serve --broker ", ["plain,embedded", "plain,mosquitto", "plain,auto"]),
        ("gateway serve --data-dir ", ["dir,"]),
        ("gateway serve --broker-ca-file ", ["file,"]),
        ("gateway serve --topic-p", ["plain,--topic-prefix"]),
        ("gateway completion ", ["plain,bash", "plain,zsh", "plain,fish"]),
    ],
)
def test_completion_lists_candidates(line: str, expected: list[str]) -> None:
    """Commands, options and the values of settings are completed."""
    words = line.count(" ")
    asked = {"_GATEWAY_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(words)}
    answer = subprocess.run([GATEWAY], env=os.environ | asked, capture_output=True, text=True, check=True, timeout=30)
    assert [text.strip() for text in answer.stdout.splitlines()] == expected
