"""Table of all settings for the documentation: ``python -m gateway.cli.docs_settings`` prints it."""

from __future__ import annotations

import itertools

import click

from gateway.settings.loading import FIELDS, bounds, form, group, option_name, plain, variable_name, written

HEADER = "| setting | what it is | value | default |\n|---|---|---|---|"


def settings_reference() -> str:
    """Return a Markdown table per group. What is not in it cannot be set."""
    return "\n\n".join(
        f"### {heading}\n\n{HEADER}\n" + "\n".join(map(_row, names))
        for heading, names in itertools.groupby(FIELDS, key=group)
    )


def _row(name: str) -> str:
    names = f"`{name}`<br>`{option_name(name)}`<br>`{variable_name(name)}`"
    return f"| {names} | {FIELDS[name].description} | {_value(name)} | `{written(FIELDS[name].default)}` |"


def _value(name: str) -> str:
    kind = f"`{form(name)}`".replace("|", "\\|")
    limits = bounds(name)
    return kind if limits is None else f"{kind}, {plain(float(limits[0]))} to {plain(float(limits[1]))}"


if __name__ == "__main__":
    click.echo(settings_reference())
