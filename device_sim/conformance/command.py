"""Command `device-sim conformance`: options, progress on the terminal, and the reports."""

import asyncio
import contextlib
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import click

from device_sim.cli_errors import INTERRUPTED, Failure
from device_sim.conformance import report
from device_sim.conformance.findings import LINES, OUTSIDE, Findings, Verdict
from device_sim.conformance.kit import Kit, Settings
from device_sim.conformance.log import Log
from device_sim.conformance.runner import run, serving
from device_sim.conformance.steps import Announced, Asked, BindFile, Controlled, Steps
from device_sim.conformance.tls_side import CertificateError, TlsSide
from device_sim.signals import run_until_signal
from device_sim.terminal_text import escaped

Address: TypeAlias = tuple[str, int]
HIGHEST_PORT = 65535
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # compared with what was asked for
EPILOG = """\b
Exit codes: 0 all lines hold, 1 a line failed, 2 wrong usage, 3 a line was not checked, 130 interrupted.
"""


def _address(_context: click.Context, parameter: click.Parameter, text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > HIGHEST_PORT:
        raise click.BadParameter(f"{text!r} should be like 127.0.0.1:1883", param_hint=parameter.opts[0])
    return host.strip("[]"), int(port)


def _second_address(context: click.Context, parameter: click.Parameter, text: str | None) -> Address | None:
    return None if text is None else _address(context, parameter, text)


def _command_line(_context: click.Context, _parameter: click.Parameter, text: str | None) -> list[str]:
    try:
        return shlex.split(text or "")
    except ValueError as error:
        raise click.BadParameter(f"{error} in {text!r}", param_hint="--control") from error


def _lines(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> list[str]:
    asked = [part.strip().upper() for text in texts for part in text.split(",")]
    for line in asked:
        if line in OUTSIDE:
            raise click.BadParameter(f"{line} cannot be seen from the network: {OUTSIDE[line]}", param_hint="--only")
        if line not in LINES:
            raise click.BadParameter(f"{line!r} is no line; --list names them all", param_hint="--only")
    return [line for line in LINES if line in asked or not asked]


def _list(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001  # click's
    if not wanted:
        return
    for line, title in LINES.items():
        click.echo(f"{line:4} {title}")
    for line, what in OUTSIDE.items():
        click.echo(f"{line:4} (cannot be seen from the network: {what})")
    context.exit()


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path)


@click.command(epilog=EPILOG)
@click.option("--mqtt", default="127.0.0.1:1883", show_default=True, metavar="HOST:PORT", callback=_address,
              help="Address of the kit's broker; port 0 takes a free one.")  # fmt: skip
@click.option("--http", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT", callback=_address,
              help="Address of the kit's HTTP server.")  # fmt: skip
@click.option("--second-mqtt", metavar="HOST:PORT", callback=_second_address,
              help="Address of the kit's second broker, to which a token refresh sends the device. Default: "
              "the host of --mqtt, on a free port.")  # fmt: skip
@click.option("--advertise", metavar="HOST", help="Host of the broker in the bind answer. Default: that of --mqtt.")
@click.option(
    "--cert", type=FILE, help="Certificate (PEM) for MQTT and HTTP over TLS; the device trusts its authority."
)
@click.option("--key", type=FILE, help="The key of --cert (PEM).")
@click.option("--serial", default="DUT-1", show_default=True, help="Serial number, for the bind answer and the report.")
@click.option("--bind-file", type=NEW_FILE, metavar="FILE", help="Write each bind answer to this file.")
@click.option("--interval", type=click.FloatRange(min=0.05), default=60.0, show_default=True, metavar="SECONDS",
              help="Pause between heartbeats that the device is built with.")  # fmt: skip
@click.option("--patience", type=click.FloatRange(min=0.1), default=90.0, show_default=True, metavar="SECONDS",
              help="Longest wait for something that the device has to do.")  # fmt: skip
@click.option(
    "--control",
    metavar="CMD",
    callback=_command_line,
    help="Command that makes the steps: `CMD bind FILE`, `CMD power-cut`.",
)
@click.option("--yes", is_flag=True, help="Do not ask: another program binds the device again. Power is not cut.")
@click.option(
    "--only", multiple=True, metavar="LINE,…", callback=_lines, help="Check these lines only, such as C21,C24."
)
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="List the lines.")
@click.option("--json", "json_file", type=NEW_FILE, metavar="FILE", help="Write the report as JSON; - is stdout.")
@click.option("--junit", "junit_file", type=NEW_FILE, metavar="FILE", help="Write the report as JUnit XML.")
@click.option("--allow-unchecked", is_flag=True, help="Exit with 0 although a line was not checked.")
def conformance(**given: Any) -> None:
    """Check a real device line by line against the firmware checklist.

    The kit plays gateway and hostile broker. Write the bind answer that it prints into the device. Then it runs the
    checklist of docs/firmware.md, and reports what it saw for each line.

    \b
    Examples:
      device-sim conformance --mqtt 0.0.0.0:1883 --advertise 192.168.1.10 --interval 5
      device-sim conformance --only C21,C24 --control ./rig.sh --junit report.xml
    """  # noqa: D301  # \b keeps click from reflowing the paragraph
    if (given["cert"] is None) is not (given["key"] is None):
        raise click.UsageError("--cert and --key belong together.")
    if given["yes"] and given["control"]:
        raise click.UsageError("--yes and --control exclude each other.")
    if given["advertise"] is None and given["mqtt"][0] in EVERY_ADDRESS:
        raise click.UsageError("--mqtt listens on every address, so name the one of this machine with --advertise.")
    _require_folders(given)
    findings = Findings(given["only"], _say_failure)
    run_until_signal(_check(given, findings))
    code = report.exit_code(findings, allow_unchecked=given["allow_unchecked"])
    click.get_current_context().exit(INTERRUPTED if findings.interrupted else code)


def _require_folders(given: dict[str, Any]) -> None:
    """Raise `click.BadParameter` if a file cannot be written: a run takes minutes, and its report must not get lost."""
    for name in ("json_file", "junit_file", "bind_file"):
        file = given[name]
        if file is not None and not file.parent.is_dir():
            option = "--" + name.removesuffix("_file" if name != "bind_file" else "").replace("_", "-")
            raise click.BadParameter(f"there is no folder {file.parent}", param_hint=option)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _say_failure(line: str, verdict: Verdict, seen: str) -> None:
    if verdict == "failed":
        _say(f"        {line} failed: {escaped(seen)}")


def _say_progress(number: int, count: int, name: str) -> None:
    _say(f"[{number:2}/{count}] {name}")


async def _check(given: dict[str, Any], findings: Findings) -> None:
    """Run the kit. A signal ends the run, and what was seen until then is reported."""
    log = Log()
    first, second = given["mqtt"], given["second_mqtt"] or (given["mqtt"][0], 0)
    host = given["advertise"] or first[0]
    second_host = host if second[0] in (first[0], *EVERY_ADDRESS) else second[0]
    settings = Settings(given["serial"], host, second_host, given["interval"], given["patience"])
    with _bind_file(given["bind_file"]) as file:
        kit = Kit(settings, findings, _steps(given, file), log, _tls(given))
        try:
            async with serving(kit, (first, second), given["http"]) as http:
                scheme = "http" if kit.tls is None else "https"
                ports = " and ".join(str(port) for port in kit.broker.ports)
                _say(f"MQTT on the ports {ports}, HTTP at {scheme}://{settings.host}:{http.port}")
                with contextlib.suppress(asyncio.CancelledError):
                    await run(kit, _say_progress)
        except OSError as error:
            raise Failure(
                f"The kit cannot listen: {error.strerror or error}. Name other ports by --mqtt, --second-mqtt, --http."
            ) from error
    _write(given, findings)


@contextlib.contextmanager
def _bind_file(asked: Path | None) -> Iterator[BindFile]:
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        yield BindFile(asked or Path(folder) / "bind.json")


def _steps(given: dict[str, Any], file: BindFile) -> Steps:
    if given["control"]:
        return Controlled(given["control"], file, _say)
    if given["yes"] or not sys.stdin.isatty():
        return Announced(file, _say, yes=given["yes"])
    return Asked(file, _say)


def _tls(given: dict[str, Any]) -> TlsSide | None:
    if given["cert"] is None:
        return None
    try:
        return TlsSide(given["cert"], given["key"])
    except CertificateError as error:
        raise Failure(f"{error}. Both have to be PEM, and belong together.") from error


def _write(given: dict[str, Any], findings: Findings) -> None:
    serial = given["serial"]
    if str(given["json_file"]) == "-":
        click.echo(report.as_json(findings, serial), nl=False)
    else:
        click.echo(report.as_text(findings, serial))
        _save(given["json_file"], report.as_json(findings, serial))
    _save(given["junit_file"], report.as_junit(findings, serial))


def _save(file: Path | None, text: str) -> None:
    if file is None:
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}.") from error
