"""The gateway's ingest beside what people write for the same purpose, in turns: ``python -m bench.peers``."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Final

import click

from bench import ingest
from bench.broker import Broker, mosquitto
from bench.machine import Usage, this_machine
from bench.peer import PEERS
from bench.process import program
from bench.registry import Registry, prepare
from bench.subject import PASSWORD_VARIABLE
from gateway.store import DATABASE_NAME

DEVICES: Final = 1_000
_PER: Final = 100_000


async def _peer(name: str, registry: Registry, folder: Path, each: int) -> tuple[float, float]:
    """Heartbeats a second, and processor seconds for 100,000, of one peer in one round."""
    total = each * len(registry.devices)
    async with mosquitto(folder, registry.broker_entries) as broker:
        return await _taken(name, registry, broker, folder / "data", each, total)


async def _taken(
    name: str, registry: Registry, broker: Broker, data_dir: Path, each: int, total: int
) -> tuple[float, float]:
    command = (sys.executable, "-m", "bench.peer", name, str(data_dir / DATABASE_NAME), str(broker.port))
    async with (
        program(*command, environ={PASSWORD_VARIABLE: broker.password}) as subject,
        ingest.loading(registry, broker, each) as load,
    ):
        await subject.line("ready")
        await broker.subscribed(ingest.FILTER)
        before = subject.cpu_seconds()
        await load.tell("go")
        async with asyncio.TaskGroup() as group:
            held = group.create_task(ingest.stored(data_dir, subject, total))
            sent = group.create_task(ingest.sent_by(load))
        cpu = subject.cpu_seconds() - before
    return total / (held.result() - sent.result().began), cpu / total * _PER


def _missing() -> list[str]:
    return [
        *(["FastStream (not installed)"] if importlib.util.find_spec("faststream") is None else ["FastStream"]),
        *(["Node-RED (no node on this machine)"] if shutil.which("node") is None else ["Node-RED"]),
    ]


async def _run(rounds: int, each: int) -> None:
    rates: dict[str, list[float]] = {}
    cpus: dict[str, list[float]] = {}
    click.echo(str(await this_machine(Path(tempfile.gettempdir()))))
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        folder, before = Path(name), Usage.now()
        registry = prepare(folder / "fleet", DEVICES)
        for number in range(rounds):
            ours = await ingest.measure(registry, folder / f"{number}-gateway", each)
            rates.setdefault("mosquitto_sub to nothing", []).append(ours.floor.messages_per_second)
            rates.setdefault("gateway", []).append(ours.gateway.messages_per_second)
            cpus.setdefault("gateway", []).append(ours.gateway.cpu_seconds / (each * DEVICES) * _PER)
            for peer in PEERS:
                rate, cpu = await _peer(peer, registry, folder / f"{number}-{peer}", each)
                rates.setdefault(peer, []).append(rate)
                cpus.setdefault(peer, []).append(cpu)
        others = Usage.now().others_since(before)
    for who, measured in rates.items():
        ratios = [rate / ours for rate, ours in zip(measured, rates["gateway"], strict=True)]
        cost = f"{median(cpus[who]):6.2f} s CPU/100,000" if who in cpus else ""
        click.echo(f"{who:26} {median(measured):10,.0f}/s  {median(ratios):5.2f} of the gateway  {cost}")
    click.echo(f"Medians of {rounds} rounds. Other programs used {others:.0%} of the cores.")
    click.echo(f"Not measured here: {', '.join(_missing())}.")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How often.")
@click.option("--each", type=click.IntRange(1, ingest.MOST_EACH), default=20, show_default=True,
              help="Heartbeats from each of 1,000 devices.")  # fmt: skip
def main(*, rounds: int, each: int) -> None:
    """Measure the gateway's ingest beside its peers."""
    asyncio.run(_run(rounds, each))


if __name__ == "__main__":
    main()
