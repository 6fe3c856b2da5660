"""Delay from a revocation to the closed session, and its effect on other clients: ``python -m bench.revocation``.

10,000 devices are registered, and 1,000 are connected and idle. ``gateway serve`` runs with its defaults, beside
Mosquitto and with the embedded broker. Devices are unbound over HTTP, first one at a time, then a hundred at once.
Meanwhile witness clients send PINGREQ, with a millisecond between an answer and the next ping.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import click

from bench.broker import HOST
from bench.caller import Caller, caller
from bench.figures import percentile
from bench.listener import Listener
from bench.process import HANGS_SECONDS, BenchError
from bench.registry import Registry, prepare
from bench.server import OK, Server, gateway, gateway_stack

WITNESSES: Final = 5
_CALM_SECONDS: Final = 3.0
_APART_SECONDS: Final = 0.25
_STRIDE_SECONDS: Final = 0.001
_MS: Final = 1_000
_PINGREQ: Final = b"\xc0\x00"
_PINGRESP: Final = 13


class Member(Listener):
    """A connected device; ``closed`` is the instant when the broker closed its connection."""

    def __init__(self, name: str, password: str) -> None:
        super().__init__(name, password)
        self.closed: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._answered = asyncio.Event()

    def take(self, kind: int, body: bytes, now: float) -> None:
        """Record the answer to a ping."""
        del body, now
        if kind == _PINGRESP:
            self._answered.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Record the instant."""
        super().connection_lost(exc)
        if not self.closed.done():
            self.closed.set_result(time.perf_counter())

    async def ping(self) -> float:
        """Send a ping, and return the seconds until its answer."""
        began = time.perf_counter()
        self._answered.clear()
        self.transport.write(_PINGREQ)
        async with asyncio.timeout(HANGS_SECONDS):
            await self._answered.wait()
        return time.perf_counter() - began


@dataclass(frozen=True)
class Outcome:
    """Milliseconds: each single revocation, a burst until its last closed session, and stalls of witnesses."""

    single: tuple[float, ...]
    burst: float
    calm: float
    stall_single: float
    stall_burst: float


class Witnesses:
    """Clients that are not revoked, and the longest wait of one of them for an answer, in milliseconds."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._longest = 0.0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Ping during the block."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._watch(member)) for member in self._members]
            yield
            for task in tasks:
                task.cancel()

    def longest(self) -> float:
        """Return the longest wait since the last call."""
        longest, self._longest = self._longest, 0.0
        return longest * _MS

    async def _watch(self, member: Member) -> None:
        while True:
            self._longest = max(self._longest, await member.ping())
            await asyncio.sleep(_STRIDE_SECONDS)


async def measure(registry: Registry, server: Server, port: int, connected: int, singly: int, burst: int) -> Outcome:
    """Connect so many devices, and revoke them.

    Raises:
        BenchError: a step failed.
    """
    async with _members(registry, port, connected) as members, caller(server.port, registry.api_key) as http:
        witnesses = Witnesses(members[-WITNESSES:])
        async with witnesses.watching():
            await asyncio.sleep(_CALM_SECONDS)
            calm = witnesses.longest()
            single = [await _revoke(http, member) for member in members[:singly]]
            stall_single = witnesses.longest()
            took = await _revoke_all(http, members[singly : singly + burst])
            stall_burst = witnesses.longest()
        left = members[singly + burst :]
        if any(member.closed.done() for member in left):
            raise BenchError("a device that was not revoked lost its session")
    return Outcome(tuple(single), took, calm, stall_single, stall_burst)


async def _revoke(http: Caller, member: Member) -> float:
    """Return the milliseconds from the request to the closed session."""
    await asyncio.sleep(_APART_SECONDS)
    began = time.perf_counter()
    await _unbind(http, member)
    return (await _closed(member) - began) * _MS


async def _revoke_all(http: Caller, members: Sequence[Member]) -> float:
    """Return the milliseconds from the answer to the last request to the last closed session."""
    for member in members:
        await _unbind(http, member)
    began = time.perf_counter()
    return max(0.0, max([await _closed(member) for member in members]) - began) * _MS


async def _unbind(http: Caller, member: Member) -> None:
    status = await http.call("POST", f"/v1/devices/{member.name}/unbind")
    if status != OK:
        raise BenchError(f"an unbind was answered with {status}")


async def _closed(member: Member) -> float:
    async with asyncio.timeout(HANGS_SECONDS):
        return await member.closed


@asynccontextmanager
async def _members(registry: Registry, port: int, count: int) -> AsyncIterator[list[Member]]:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        members = []
        for name, password in registry.devices[:count]:
            _, member = await loop.create_connection(partial(Member, name, password), HOST, port)
            stack.callback(member.leave)
            await member.listens
            members.append(member)
        yield members


@asynccontextmanager
async def _beside_mosquitto(registry: Registry, folder: Path) -> AsyncIterator[tuple[Server, int]]:
    async with gateway_stack(registry, folder) as server:
        assert server.broker, "it has one"
        yield server, server.broker.port


@asynccontextmanager
async def _with_its_own(registry: Registry, folder: Path) -> AsyncIterator[tuple[Server, int]]:
    async with gateway(registry.copy(folder / "data").data_dir, None) as server:
        at = (await server.process.line("MQTT")).split()[0]
        yield server, int(at.rpartition(":")[2])


def _line(kind: str, outcome: Outcome) -> str:
    median, longest = percentile(outcome.single, 50), max(outcome.single)
    return (
        f"{kind:10} {median:9.1f} {longest:9.1f} {outcome.burst:9.1f} "
        f"{outcome.calm:9.1f} {outcome.stall_single:9.1f} {outcome.stall_burst:9.1f}"
    )


async def _run(devices: int, connected: int, singly: int, burst: int, directory: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=directory) as name:
        folder = Path(name)
        registry = prepare(folder / "fleet", devices)
        click.echo(f"{devices} registered, {connected} connected; milliseconds; {singly} one by one, {burst} at once")
        click.echo(f"{'':10} {'median':>9} {'longest':>9} {'burst':>9} {'calm':>9} {'stall':>9} {'in burst':>9}")
        for kind, stack in (("mosquitto", _beside_mosquitto), ("embedded", _with_its_own)):
            (folder / kind).mkdir()
            async with stack(registry, folder / kind) as (server, port):
                click.echo(_line(kind, await measure(registry, server, port, connected, singly, burst)))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--devices", type=click.IntRange(min=1), default=10_000, show_default=True, help="Number of registered devices."
)
@click.option(
    "--connected", type=click.IntRange(min=1), default=1_000, show_default=True, help="Number of connected devices."
)
@click.option(
    "--revocations", type=click.IntRange(min=1), default=50, show_default=True, help="Number of single revocations."
)
@click.option(
    "--burst", type=click.IntRange(min=1), default=100, show_default=True, help="Number of concurrent revocations."
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    default=tempfile.gettempdir,
    help="Folder of the databases during the run.  [default: for temporary files]",
)
def main(*, devices: int, connected: int, revocations: int, burst: int, directory: Path) -> None:
    """Measure how long a revoked device stays connected, and how long others wait meanwhile."""
    if revocations + burst + WITNESSES > connected or connected > devices:
        raise click.UsageError("--connected should be at least --revocations, --burst and 5, and at most --devices")
    try:
        asyncio.run(_run(devices, connected, revocations, burst, directory))
    except BenchError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
