"""Sizing of an installation, computed from measured costs: ``python -m bench.sizing --devices 50000 --interval 60``.

Without options it prints the tables of ``docs/sizing.md``. ``python -m bench.storage`` measures the costs of storing
again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import click

_DAY_SECONDS: Final = 86_400
_HOURS: Final = 24
_GB: Final = 1_000_000_000
_SHARE: Final = 0.5
"""Of a core that may be busy at rest: a broker that comes back, and resets of a fleet, need the rest."""


@dataclass(frozen=True)
class Costs:
    """What a device and one heartbeat cost at most on an engine; seconds of a processor, and bytes.

    A gateway at rest stores about ten heartbeats in a transaction. The more come, the more are in one, and the less one
    costs: at full speed a tenth. ``gateway`` is all that the gateway does: MQTT, rules, storing. ``server`` is the
    database server, with its workers. ``device`` is all that is stored of a device but its events and its history.
    ``raw`` is a row of the history with its indexes, ``thinned`` one of a device and hour. ``log`` is what the server
    writes to its log. The log also goes to the standby and to the archive of the backup.
    """

    gateway: float
    server: float
    device: float
    raw: float
    thinned: float
    log: float


BROKER: Final = 1.4e-5
"""Seconds of Mosquitto, without TLS: it has one thread, and took 71,297 a second (docs/benchmarks/report.md)."""
SQLITE: Final = Costs(gateway=22.6e-5, server=0, device=1_040, raw=88, thinned=117, log=0)
"""``gateway``: 19,900 devices with a heartbeat a minute took 4.2 % to 7.5 % of a core, by the machine (``bench --only
fleet``). ``device``, ``raw``: :mod:`bench.large` with 200,000 devices. ``thinned``: 2.8 KB a day."""
POSTGRESQL: Final = Costs(gateway=35.5e-5, server=24.4e-5, device=1_850, raw=189, thinned=257, log=757)
"""``gateway``: that of SQLite, and the difference that :mod:`bench.storage` measures with ten heartbeats a transaction
(20.1 s and 7.2 s for 100,000). It measures ``server`` and ``log``, too. ``device`` and ``raw`` are measured as on
SQLite, ``thinned`` with 240,000 rows."""
ROWS: Final = ((1_000, 60), (10_000, 60), (100_000, 300), (100_000, 60), (1_000_000, 300))


class Need(NamedTuple):
    """What a fleet needs: heartbeats a second, busy cores, bytes of its devices, and bytes a day."""

    rate: float
    gateway: float
    broker: float
    server: float
    devices: float
    raw: float
    thinned: float
    log: float


def need(devices: int, interval: float, costs: Costs) -> Need:
    """Return the need of so many devices that send a heartbeat each ``interval`` seconds."""
    rate = devices / interval
    rows = rate * _DAY_SECONDS
    return Need(
        rate,
        rate * costs.gateway,
        rate * BROKER,
        rate * costs.server,
        devices * costs.device,
        rows * costs.raw,
        min(rows, devices * _HOURS) * costs.thinned,
        rows * costs.log,
    )


def cores(busy: float) -> int:
    """Return how many cores to buy for so much work at rest."""
    return max(1, math.ceil(busy / _SHARE))


def table(costs: Costs) -> str:
    """Return the Markdown table of the usual sizes."""
    has_server = costs.server > 0
    head = ["devices", "a heartbeat each", "heartbeats/s", "gateway", "Mosquitto"]
    head += ["PostgreSQL"] if has_server else []
    head += ["devices on disk", "raw history a day", "thinned a day"]
    head += ["log of the server a day"] if has_server else []
    lines = [_line(head), _line(["---"] + ["---:"] * (len(head) - 1))]
    return "\n".join([*lines, *(_row(devices, interval, costs) for devices, interval in ROWS)])


def _row(devices: int, interval: float, costs: Costs) -> str:
    found = need(devices, interval, costs)
    busy = [found.gateway, found.broker, *([found.server] if costs.server else [])]
    disk = [found.devices, found.raw, found.thinned, *([found.log] if costs.log else [])]
    head = [f"{devices:,}", f"{interval:g} s", f"{found.rate:,.0f}"]
    return _line(head + [f"{each:.2f}" for each in busy] + [_bytes(each) for each in disk])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _bytes(count: float) -> str:
    return f"{count / _GB:,.1f} GB" if count >= _GB else f"{count / _GB * 1_000:,.0f} MB"


@click.command()
@click.option("--devices", type=click.IntRange(1), help="How many devices there are.")
@click.option(
    "--interval", type=click.FloatRange(0.05), default=60.0, help="Seconds between heartbeats.  [default: 60]"
)
@click.option("--raw-days", type=click.IntRange(1), default=7, help="heartbeat_raw_days.  [default: 7]")
@click.option("--history-days", type=click.IntRange(1), default=365, help="heartbeat_history_days.  [default: 365]")
def main(devices: int | None, interval: float, raw_days: int, history_days: int) -> None:
    """Print what a fleet needs on each engine, or the tables of the guide."""
    for name, costs in (("SQLite", SQLITE), ("PostgreSQL", POSTGRESQL)):
        click.echo(f"{name}\n\n{table(costs)}\n" if devices is None else _of(name, devices, interval, costs))
        if devices is not None:
            found = need(devices, interval, costs)
            kept = found.raw * raw_days + found.thinned * max(0, history_days - raw_days)
            click.echo(f"  history of {raw_days} days raw and {history_days} days in all: {_bytes(kept)}")


def _of(name: str, devices: int, interval: float, costs: Costs) -> str:
    found = need(devices, interval, costs)
    parts = [("gateway", found.gateway), ("Mosquitto", found.broker)]
    parts += [("PostgreSQL", found.server)] if costs.server else []
    each = ", ".join(f"{part} {busy:.2f} (buy {cores(busy)})" for part, busy in parts)
    log = f", log of the server {_bytes(found.log)} a day" if costs.log else ""
    disk = f"devices on disk {_bytes(found.devices)}, raw history {_bytes(found.raw)} a day"
    return f"{name}: {found.rate:,.0f} heartbeats/s; cores: {each}; {disk}{log}"


if __name__ == "__main__":
    main()
