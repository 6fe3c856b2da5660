"""Comparison of the gateway's ingest with common alternatives, in turns: ``python -m bench.peers``.

A peer that cannot be installed is left out, and the last lines of the output name it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import click

from bench import ingest, scratch
from bench.broker import GATEWAY_USER, mosquitto
from bench.machine import Usage, this_machine
from bench.process import Program, program
from bench.registry import Registry, prepare
from bench.subject import FILTER, PASSWORD_VARIABLE
from gateway.store import DATABASE_NAME

DEVICES: Final = 1_000
FLOOR: Final = "mosquitto_sub to nothing"
US: Final = "the gateway"
_PER: Final = 100_000


@dataclass(frozen=True)
class Taken:
    """Heartbeats stored a second, and processor seconds for 100,000 of them where they are known."""

    rate: float
    cpu_seconds: float | None = None


@dataclass(frozen=True)
class Peer:
    """A program that stores heartbeats. DATABASE and PORT are appended to its command."""

    command: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)


def _python(*module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *module)


def _faststream() -> Peer:
    return Peer(_python("bench.peer_faststream"), {"PYTHONPATH": str(scratch.faststream())})


def _node_red() -> Peer:
    return Peer(("node", str(scratch.node_red() / "run.mjs")), {"BENCH_BROKER_USER": GATEWAY_USER})


PEERS: Final[dict[str, Callable[[], Peer]]] = {
    "mosquitto_sub into a batcher": lambda: Peer(_python("bench.peer", "mosquitto_sub-batcher")),
    "Node-RED, a tuned flow": _node_red,
    "FastStream": _faststream,
    "the loop of aiomqtt's docs": lambda: Peer(_python("bench.peer", "aiomqtt-loop")),
}


def _installed() -> tuple[dict[str, Peer], list[str]]:
    """Return the available peers, and why the others are not available."""
    peers: dict[str, Peer] = {}
    missing: list[str] = []
    for name, find in PEERS.items():
        try:
            peers[name] = find()
        except scratch.MissingError as error:
            missing.append(f"{name}: {error}")
    return peers, missing


async def _measured(peer: Peer, registry: Registry, folder: Path, each: int) -> Taken:
    """Run one peer in one round."""
    data_dir, total = folder / "data", each * len(registry.devices)
    data_dir.mkdir(parents=True)
    async with mosquitto(folder, registry.broker_entries) as broker:
        command = (*peer.command, str(data_dir / DATABASE_NAME), str(broker.port))
        environ = {**peer.environ, PASSWORD_VARIABLE: broker.password}
        async with (
            program(*command, environ=environ) as subject,
            ingest.loading(registry, broker, each) as load,
        ):
            await subject.line("ready")
            await broker.subscribed(FILTER)
            return await _taken(subject, load, data_dir, total)


async def _taken(subject: Program, load: Program, data_dir: Path, total: int) -> Taken:
    before = subject.cpu_seconds()
    await load.tell("go")
    async with asyncio.TaskGroup() as group:
        held = group.create_task(ingest.stored(data_dir, subject, total))
        sent = group.create_task(ingest.sent_by(load))
    return Taken(total / (held.result() - sent.result().began), (subject.cpu_seconds() - before) / total * _PER)


async def _round(peers: Mapping[str, Peer], registry: Registry, folder: Path, each: int) -> dict[str, Taken]:
    """Run the floor, the gateway and each peer, one after the other."""
    ours = await ingest.measure(registry, folder / "gateway", each)
    cpu = ours.gateway.cpu_seconds / (each * len(registry.devices)) * _PER
    round_ = {FLOOR: Taken(ours.floor.messages_per_second), US: Taken(ours.gateway.messages_per_second, cpu)}
    for number, (name, peer) in enumerate(peers.items()):
        round_[name] = await _measured(peer, registry, folder / str(number), each)
    return round_


async def _run(rounds: int, each: int) -> None:
    peers, missing = await asyncio.to_thread(_installed)
    click.echo(str(await this_machine(Path(tempfile.gettempdir()))))
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        folder, before = Path(name), Usage.now()
        registry = prepare(folder / "fleet", DEVICES)
        taken = [await _round(peers, registry, folder / str(number), each) for number in range(rounds)]
        others = Usage.now().others_since(before)
    for who in taken[0]:
        click.echo(_line(who, [(each[who], each[US]) for each in taken]))
    click.echo(f"Medians of {rounds} rounds. Other programs used {others:.0%} of the cores.")
    for each_missing in missing:
        click.echo(f"Not measured here: {each_missing}")


def _line(who: str, taken: Sequence[tuple[Taken, Taken]]) -> str:
    """Return a line of the table from ``taken``: the peer's figures and the gateway's, round by round."""
    rate = median(one.rate for one, _ in taken)
    ratio = median(one.rate / ours.rate for one, ours in taken)
    cpu = [one.cpu_seconds for one, _ in taken if one.cpu_seconds is not None]
    cost = f"  {median(cpu):6.2f} s of CPU per {_PER:,}" if cpu else ""
    return f"{who:28} {rate:8,.0f}/s  {ratio:5.2f} of the gateway{cost}"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Number of rounds.")
@click.option("--each", type=click.IntRange(1, ingest.MOST_EACH), default=20, show_default=True,
              help="Heartbeats from each of 1,000 devices.")  # fmt: skip
def main(*, rounds: int, each: int) -> None:
    """Measure the gateway's ingest beside its peers."""
    asyncio.run(_run(rounds, each))


if __name__ == "__main__":
    main()
