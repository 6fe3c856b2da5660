"""``gateway cells``: the home brokers of devices, in the registry, whether or not a gateway runs on it."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.bootstrap import rules_of
from gateway.cli import output
from gateway.cli.cluster import state_of
from gateway.cli.options import SettingsCommand, with_settings
from gateway.cli.suggestions import again
from gateway.core.clock import system_clock
from gateway.core.text import count
from gateway.domain import brokers, cells
from gateway.settings import registry
from gateway.store import Context, View, broker_sql, home_sql, open_existing, transact
from gateway.store.event_sql import CLI

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.domain.cells import Moved
    from gateway.settings.loading import Loaded
    from gateway.store.broker_sql import BrokerRecord
    from gateway.store.engine import DatabaseConnection

EPILOG: Final = """\b
Examples:
  gateway cells list
  gateway cells drain cell_1
  gateway cells move --all-from cell_1 --to cell_2
  gateway cells devices cell_1

What a home broker is, and what a moved device notices: 'gateway docs scaling'.
"""
_COLUMNS: Final = ("BROKER", "HOST", "PORT", "TLS", "DEVICES", "OWNER", "STATE", "DRAINING")


@click.group(name="cells", epilog=EPILOG)
def cells_group() -> None:
    """See and move the home brokers of devices.

    They take effect with the setting 'cells' at 'home'. Name the same settings as for the gateways: these commands read
    'cells' and what is published there.
    """


@cells_group.command(cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway cells list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "cells")
def list_cells(loaded: Loaded, *, as_json: bool) -> None:
    """List the brokers with their devices.

    With how many devices each has, the address for devices, the owner, whether it is away, and whether it is drained.
    """
    with closing(open_existing(loaded.settings.registry)) as connection:
        found = [_facts(each) for each in broker_sql.brokers(View(connection), system_clock())]
    if as_json:
        output.as_json({"cells": loaded.settings.cells, "brokers": found})
        return
    output.table(_COLUMNS, (list(facts.values()) for facts in found))
    if loaded.settings.cells != "home":
        output.note("The setting 'cells' is 'any': every broker serves every device.")


def _facts(broker: BrokerRecord) -> dict[str, Any]:
    return {
        "broker_id": broker.id,
        "host": broker.host,
        "port": broker.port,
        "tls": None if broker.tls is None else bool(broker.tls),
        "devices": broker.devices,
        "owner": broker.owner,
        "state": state_of(broker),
        "draining": bool(broker.draining),
    }


@cells_group.command(cls=SettingsCommand, name="devices", epilog="\b\nExample:\n  gateway cells devices cell_1 | wc -l")
@click.argument("broker", metavar="BROKER")
@with_settings(*registry.NAMES)
def list_devices(loaded: Loaded, broker: str) -> None:
    """List the devices of a broker, an id a line.

    These are the devices whose home it is.
    """
    with closing(open_existing(loaded.settings.registry)) as connection:
        for device_id in _ids(View(connection), broker):
            click.echo(device_id)


def _ids(view: View, broker_id: str) -> Iterator[str]:
    broker, after = brokers.require(broker_sql.brokers(view, system_clock()), broker_id), 0
    while found := home_sql.at(view, broker.pk, after, cells.BATCH):
        after = found[-1].pk
        yield from (each.id for each in found)


MOVE_EPILOG: Final = """\b
Examples:
  gateway cells move dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB --to cell_2
  gateway cells move --all-from cell_1 --to cell_2

Open commands and resets go along. A device learns its new address when it is refused at the old one and refreshes its
token over HTTP, or at its next bind. If the command is interrupted, run it again.
"""


@cells_group.command(cls=SettingsCommand, name="move", epilog=MOVE_EPILOG)
@click.argument("devices", metavar="[DEVICE]...", nargs=-1)
@click.option("--to", "to", metavar="BROKER", required=True, help="The new home.")
@click.option("--all-from", "source", metavar="BROKER", help="Move all devices of this broker.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "cells")
def move(loaded: Loaded, devices: tuple[str, ...], to: str, source: str | None, *, as_json: bool) -> None:
    """Move devices to another broker."""
    if bool(devices) == bool(source):
        raise click.UsageError("name devices, or --all-from BROKER")
    moved = unchanged = 0
    wiping: list[str] = []
    with closing(open_existing(loaded.settings.registry)) as connection:
        if source is None:
            length, steps = len(devices), _named(connection, _context(loaded), devices, to)
        else:
            length, steps = _number(connection, source), _all(connection, _context(loaded), source, to)
        with click.progressbar(length=length, label="devices", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            for step in steps:
                moved, unchanged = moved + len(step.moved), unchanged + len(step.unchanged)
                wiping += step.wiping
                bar.update(len(step.moved) + len(step.unchanged) + len(step.wiping))
    if as_json:
        output.as_json({"moved": moved, "unchanged": unchanged, "wiping": wiping})
        return
    output.details({"moved": moved, "unchanged": unchanged, "wiping": len(wiping)})
    if wiping:
        output.note(f"{count(len(wiping), 'device')} wiping for a reset at this moment, and not moved. Run it again.")


def _number(connection: DatabaseConnection, source: str) -> int:
    return brokers.require(broker_sql.brokers(View(connection), system_clock()), source).devices


def _named(connection: DatabaseConnection, context: Context, devices: tuple[str, ...], to: str) -> Iterator[Moved]:
    found = cells.named(View(connection), None, devices)
    for first in range(0, len(found), cells.BATCH):
        some = found[first : first + cells.BATCH]
        yield transact(connection, context, lambda tx: cells.move(tx, some, to, CLI))  # noqa: B023 - called at once


def _all(connection: DatabaseConnection, context: Context, source: str, to: str) -> Iterator[Moved]:
    after: int | None = 0
    while after is not None:
        step, after = transact(connection, context, lambda tx: cells.move_some(tx, source, to, CLI, after=after or 0))  # noqa: B023 - called at once
        yield step


DRAIN_EPILOG: Final = """\b
Examples:
  gateway cells drain cell_1
  gateway cells drain cell_1 --undo

Devices that are there stay. Move them with 'gateway cells move --all-from'.
"""


@cells_group.command(cls=SettingsCommand, name="drain", epilog=DRAIN_EPILOG)
@click.argument("broker", metavar="BROKER")
@click.option("--undo", is_flag=True, help="Let it have new devices again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "cells")
def drain(loaded: Loaded, broker: str, *, undo: bool, as_json: bool) -> None:
    """Give a broker no new devices."""
    with closing(open_existing(loaded.settings.registry)) as connection:
        found = transact(connection, _context(loaded), lambda tx: cells.drain(tx, broker, CLI, draining=not undo))
    facts = {"broker_id": found.id, "draining": bool(found.draining), "devices": found.devices}
    if as_json:
        output.as_json(facts)
        return
    output.details(facts)
    if found.draining and found.devices:
        output.note(f"Its devices: {again('cells', 'devices', broker)}")


def _context(loaded: Loaded) -> Context:
    """Return the rules of the gateways: which homes and which mirrored topics there are."""
    return Context(rules=rules_of(loaded.settings, loaded.settings.gateway_id or ""))
