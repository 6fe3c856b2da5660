"""``gateway doctor``."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli import output
from gateway.cli.options import SettingsCommand, with_settings
from gateway.core.text import count

if TYPE_CHECKING:
    from gateway.doctor.findings import Finding
    from gateway.settings.loading import Loaded

_SIGNS: Final = (("ok", "green"), ("warning", "yellow"), ("ERROR", "red"))
_EXIT_CODES: Final = (0, 1, 7)
"""Exit codes by level. Not 2: that means a wrong command line or setting, and no check ran."""
EPILOG = """\b
Examples:
  gateway doctor
  gateway doctor --json | jq '.findings[] | select(.level != "ok")'
  gateway doctor --fix

\b
Exit codes:
  0  all is well
  1  something works, and will not always
  7  something does not work
"""


@click.command(cls=SettingsCommand, epilog=EPILOG)
@click.option("--fix", is_flag=True, help="Have the running gateway put right what the broker retains otherwise.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings()
def doctor(loaded: Loaded, *, fix: bool, as_json: bool) -> int:
    """Look at everything a field engineer would.

    Settings and their sources, data directory, registry, clock, limits and the running gateway. Then the broker: who
    can connect, what a made-up device reaches, and whether the retained messages are the open commands. It changes
    nothing unless told to with --fix.

    Run it as the gateway's user, with the options that the gateway is started with.
    """
    from gateway.doctor.findings import worst  # noqa: PLC0415 - no other command needs what this imports

    findings = asyncio.run(_all(loaded, fix=fix))
    if as_json:
        output.as_json(
            {"status": _SIGNS[worst(findings)][0].lower(), "findings": [_document(each) for each in findings]}
        )
    else:
        _show(findings)
    return _EXIT_CODES[worst(findings)]


async def _all(loaded: Loaded, *, fix: bool) -> list[Finding]:
    from gateway.doctor.run_checks import examine  # noqa: PLC0415 - no other command needs what this imports

    return [finding async for finding in examine(loaded, fix=fix)]


def _document(finding: Finding) -> dict[str, Any]:
    return asdict(finding) | {"level": _SIGNS[finding.level][0].lower()}


def _show(findings: list[Finding]) -> None:
    for area in dict.fromkeys(each.area for each in findings):
        click.secho(area, bold=True)
        for finding in (each for each in findings if each.area == area):
            sign, colour = _SIGNS[finding.level]
            click.echo(f"  {click.style(sign.ljust(7), fg=colour)}  {finding.name}: {output.cell(finding.says)}")
            for detail in finding.details:
                click.echo(f"             {output.cell(detail)}")
            if finding.remedy:
                click.echo(f"           → {output.cell(finding.remedy)}")
    bad = [sum(each.level == level for each in findings) for level in (1, 2)]
    click.echo(f"\n{count(len(findings), 'check')}, {count(bad[0], 'warning')}, {count(bad[1], 'error')}")
